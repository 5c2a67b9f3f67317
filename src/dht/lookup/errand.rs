//! What a lookup is after besides nodes: an item to find or to store (BEP 44), samples of what nodes
//! store (BEP 51), or how many share a torrent (BEP 33).
//!
//! Nothing is believed that does not prove itself: an immutable item by its hash, a mutable one by
//! its signature. What nodes say they hold without showing it only decides whether we store it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::Lookup;
use crate::base::Distance;
use crate::dht::bucket::K;
use crate::dht::event::Scrape;
use crate::wire::bloom::Filter;
use crate::wire::item::{Item, ItemKey};
use crate::wire::krpc::{ErrorCode, ItemReply, SignedPut};

/// What a lookup is after.
#[derive(Debug, Default)]
pub(in crate::dht) enum Errand {
    /// Nodes, and peers if they name any.
    #[default]
    Nodes,
    /// The newest version of an item.
    Get(ItemSearch),
    /// To store an item.
    Put(ItemPut),
    /// Torrents that nodes have peers of.
    Sample,
    /// How many have a torrent.
    Scrape(Census),
}

/// An item that is looked for.
#[derive(Debug)]
pub(in crate::dht) struct ItemSearch {
    key: ItemKey,
    best: Option<Item>,
    // Who says it has the item, and which version: as many as answered.
    holders: BTreeMap<SocketAddr, Option<i64>>,
}

impl ItemSearch {
    pub fn new(key: ItemKey) -> Self {
        Self { key, best: None, holders: BTreeMap::new() }
    }

    /// Only what is newer than `item` is of interest.
    fn beyond(item: &Item) -> Self {
        Self { best: Some(item.clone()), ..Self::new(item.key()) }
    }

    /// `from` says this. A proven version newer than any before is given back.
    fn hear(&mut self, from: SocketAddr, said: &ItemReply<'_>) -> Option<&Item> {
        match &self.key {
            ItemKey::Immutable(target) => {
                let item = Item::immutable(said.value?.to_vec()).ok()?;
                if item.target() != *target {
                    return None;
                }
                self.holders.insert(from, None);
                if self.best.is_some() {
                    return None;
                }
                self.best = Some(item);
            }
            ItemKey::Mutable { public_key, salt } => {
                let seq = said.seq?;
                let known = self.best.as_ref().and_then(Item::seq);
                let newer = known.is_none_or(|known| seq > known);
                if newer {
                    let signature = said.signature?;
                    let signed = SignedPut { public_key, salt, seq, signature, cas: None };
                    self.best = Some(Item::from_signed(&signed, said.value?).ok()?);
                }
                self.holders.insert(from, Some(seq));
                if !newer {
                    return None;
                }
            }
        }
        self.best.as_ref()
    }

    /// How many have the newest version, or say so.
    fn copies(&self) -> usize {
        let newest = self.best.as_ref().map(Item::seq);
        self.holders.values().filter(|seq| newest == Some(**seq)).count()
    }

    fn has_newest(&self, node: &SocketAddr) -> bool {
        let newest = self.best.as_ref().map(Item::seq);
        newest.is_some() && self.holders.get(node).copied() == newest
    }
}

/// An item that is to be stored.
#[derive(Debug)]
pub(in crate::dht) struct ItemPut {
    pub item: Item,
    cas: Option<i64>,
    /// Only if it is not well kept as it is; and a newer version instead of this one.
    keep: bool,
    search: ItemSearch,
    refused: Vec<i64>,
}

impl ItemPut {
    pub fn new(item: Item, cas: Option<i64>) -> Self {
        // Whoever names the version to be replaced wants to know the one that is there, proven.
        let search = match cas {
            None => ItemSearch::beyond(&item),
            Some(_) => ItemSearch::new(item.key()),
        };
        Self { item, cas, keep: false, search, refused: Vec::new() }
    }

    /// Keeps it alive.
    pub fn keeping(item: Item) -> Self {
        Self { keep: true, ..Self::new(item, None) }
    }

    /// One that proves nothing.
    pub fn refused(item: Item, code: ErrorCode) -> Self {
        Self { refused: vec![code.number()], ..Self::new(item, None) }
    }

    /// The sequence number beyond which the others shall tell their version.
    fn newer_than(&self) -> Option<i64> {
        if self.cas.is_some() { None } else { self.item.seq() }
    }

    /// What to expect at `node`. BEP 44: not of one that has nothing.
    pub fn cas_for(&self, node: &SocketAddr) -> Option<i64> {
        self.cas.filter(|_| self.search.holders.contains_key(node))
    }

    // Why it would be wrong to store it anywhere, as the nodes that know better would say.
    fn obstacle(&self) -> Option<ErrorCode> {
        let found = self.search.best.as_ref().filter(|best| **best != self.item)?;
        let (found, own) = (found.seq()?, self.item.seq()?);
        if self.cas.is_some_and(|cas| cas != found) {
            return Some(ErrorCode::CasMismatch);
        }
        // Proven, not the same item, and not older: newer, or another value of the same version.
        (found >= own).then_some(ErrorCode::OldSequence)
    }

    // BEP 44: more than eight copies, and among them those of the eight closest nodes.
    fn is_well_kept(&self, closest: &[SocketAddr]) -> bool {
        self.search.copies() > K
            && closest.len() == K
            && closest.iter().all(|node| self.search.has_newest(node))
    }
}

/// The peers of a torrent, counted by the nodes closest to it.
#[derive(Debug, Default)]
pub(in crate::dht) struct Census(BTreeMap<Distance, Count>);

#[derive(Debug)]
enum Count {
    Filters(Box<(Filter, Filter)>),
    // From a node that does not know BEP 33.
    Peers(Vec<IpAddr>),
}

impl Census {
    /// A node at `distance` counts these seeds and others. `named` are the peers that it names: if
    /// they are not even in its own filters, it lies.
    pub fn count(
        &mut self,
        distance: Distance,
        filters: Option<(Filter, Filter)>,
        named: impl Iterator<Item = IpAddr>,
    ) {
        let mut named = named.take(NAMED_MAX);
        let count = match filters {
            None => Count::Peers(named.collect()),
            Some((seeds, others)) => {
                let holds = |ip| seeds.contains(ip) || others.contains(ip);
                if seeds.is_overfull() || others.is_overfull() || !named.all(holds) {
                    return;
                }
                Count::Filters(Box::new((seeds, others)))
            }
        };
        self.0.insert(distance, count);
        if self.0.len() > CENSUS_NODES_MAX {
            self.0.pop_last();
        }
    }

    fn sum(&self) -> Scrape {
        let (mut seeds, mut others) = (Filter::new(), Filter::new());
        let mut named: BTreeSet<IpAddr> = BTreeSet::new();
        let mut nodes = 0;
        for count in self.0.values() {
            match count {
                Count::Filters(filters) => {
                    seeds.union(&filters.0);
                    others.union(&filters.1);
                    nodes += 1;
                }
                Count::Peers(peers) => {
                    nodes += usize::from(!peers.is_empty());
                    named.extend(peers);
                }
            }
        }
        // BEP 33: of whom nothing is known but the address counts as a peer, unless as a seed elsewhere.
        named.into_iter().filter(|ip| !seeds.contains(*ip)).for_each(|ip| others.insert(ip));
        Scrape { seeds: rounded(seeds.estimate()), peers: rounded(others.estimate()), nodes }
    }
}

// Estimates are between zero and eight thousand.
fn rounded(estimate: f64) -> u32 {
    (0..=8_000).rev().find(|n| f64::from(*n) <= estimate + 0.5).unwrap_or_default()
}

impl Lookup {
    /// The version beyond which an item is wanted.
    pub(super) fn newer_than(&self) -> Option<i64> {
        match &self.errand {
            Errand::Put(put) => put.newer_than(),
            Errand::Nodes | Errand::Get(_) | Errand::Sample | Errand::Scrape(_) => None,
        }
    }

    /// `from` says this about the item that is looked for. A proven version newer than any before is
    /// given back.
    pub fn on_item(&mut self, from: SocketAddr, said: &ItemReply<'_>) -> Option<Item> {
        let found = match &mut self.errand {
            Errand::Get(search) => search.hear(from, said).cloned(),
            Errand::Put(put) => put.search.hear(from, said).cloned(),
            Errand::Nodes | Errand::Sample | Errand::Scrape(_) => None,
        };
        // There is but one value with that hash: whoever looks for it has it.
        if matches!(found, Some(Item::Immutable { .. })) && matches!(self.errand, Errand::Get(_)) {
            self.hurried = true;
        }
        found
    }

    /// Does the errand end with something that is stored at the closest nodes?
    pub(super) fn stores(&self) -> bool {
        match self.errand {
            Errand::Put(_) => true,
            Errand::Nodes | Errand::Get(_) | Errand::Sample | Errand::Scrape(_) => {
                matches!(self.kind, super::LookupKind::Announce(_))
            }
        }
    }

    /// Do only nodes count that gave a token? They are the ones that store items; others answer `get`
    /// like `find_node`, or not at all.
    pub(super) fn demands_tokens(&self) -> bool {
        matches!(self.errand, Errand::Get(_) | Errand::Put(_))
    }

    /// How many of the closest have to answer.
    pub(super) fn answers_wanted(&self) -> usize {
        match &self.errand {
            // It is to be known whether others beyond the closest have the item as well.
            Errand::Put(put) if put.keep => K + COPIES_SPARE,
            Errand::Put(_)
            | Errand::Nodes
            | Errand::Get(_)
            | Errand::Sample
            | Errand::Scrape(_) => K,
        }
    }

    /// The search is over: is the item still to be stored at `closest`?
    pub(super) fn is_to_be_stored(&mut self, closest: &[SocketAddr]) -> bool {
        let Errand::Put(put) = &mut self.errand else { return true };
        let newest = put.search.best.as_ref().filter(|best| best.seq() > put.item.seq());
        if put.keep
            && let Some(newest) = newest
        {
            put.item = newest.clone();
        }
        if let Some(code) = put.obstacle() {
            put.refused = vec![code.number(); put.search.copies().max(1)];
            return false;
        }
        !(put.keep && put.is_well_kept(closest))
    }

    /// A node refused to store, and said why.
    pub(super) fn on_store_refused(&mut self, code: i64) {
        if let Errand::Put(put) = &mut self.errand {
            put.refused.push(code);
        }
    }

    /// May a query to store be sent twice? One that names the version to be replaced may not: if only
    /// the answer was lost, the second would be refused.
    pub(super) fn may_store_twice(&self) -> bool {
        !matches!(&self.errand, Errand::Put(put) if put.cas.is_some())
    }

    /// Copies, refusals and count, for the report.
    pub(super) fn errand_report(&self) -> (usize, Vec<i64>, Option<Scrape>) {
        match &self.errand {
            Errand::Nodes | Errand::Sample => (0, Vec::new(), None),
            Errand::Get(search) => (search.copies(), Vec::new(), None),
            Errand::Put(put) => (put.search.copies(), put.refused.clone(), None),
            Errand::Scrape(census) => (0, Vec::new(), Some(census.sum())),
        }
    }
}

/// Nodes whose count is used: announces are scattered over a dozen or more around a torrent (BEP 33).
const CENSUS_NODES_MAX: usize = 16;
/// Nodes beyond the eight closest that are asked whether they have an item, too, that is to be kept.
const COPIES_SPARE: usize = 4;
/// Peers of one answer that are looked at.
const NAMED_MAX: usize = 200;
