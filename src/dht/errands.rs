//! The lookups of a node that are after more than nodes and peers: items to find and to store (BEP 44),
//! samples of what others store (BEP 51), and how many have a torrent (BEP 33).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::event::{Event, LookupId, LookupKind};
use super::lookup::{Census, Errand, ItemPut, ItemSearch, Lookup};
use super::node::Node;
use crate::base::addr::is_believable;
use crate::base::{InfoHash, Instant, Key};
use crate::wire::bloom::Filter;
use crate::wire::item::{Item, ItemError, ItemKey};
use crate::wire::krpc::{ItemReply, Method, Reply};

impl Node {
    /// Finds an item; [`Event::ItemFound`] tells it, and again if a newer version turns up. An
    /// immutable one ends the lookup.
    pub fn get_item(&mut self, now: Instant, key: ItemKey) -> LookupId {
        let target = key.target();
        self.start_errand(now, LookupKind::GetItem, target, Errand::Get(ItemSearch::new(key)))
    }

    /// Stores an item at the nodes closest to its key: all of them if `cas` is none, else those that
    /// have the version `cas` or none at all. Nobody is asked to if a newer version is found, or if the
    /// item proves nothing.
    pub fn put_item(&mut self, now: Instant, item: Item, cas: Option<i64>) -> LookupId {
        let target = item.target();
        if let Err(error) = item.check() {
            return self.refuse_item(now, item, error);
        }
        let cas = cas.filter(|_| item.seq().is_some());
        self.start_errand(now, LookupKind::PutItem, target, Errand::Put(ItemPut::new(item, cas)))
    }

    /// Asks the nodes on the way to `target` which torrents they have peers of; [`Event::Samples`] tells
    /// what each says.
    pub fn sample(&mut self, now: Instant, target: Key) -> LookupId {
        self.start_errand(now, LookupKind::Sample, target, Errand::Sample)
    }

    /// Counts who has a torrent; the report tells. Peers are told as they are found.
    pub fn scrape(&mut self, now: Instant, info_hash: InfoHash) -> LookupId {
        let errand = Errand::Scrape(Census::default());
        self.start_errand(now, LookupKind::Scrape(info_hash), info_hash.key(), errand)
    }

    fn refuse_item(&mut self, now: Instant, item: Item, error: ItemError) -> LookupId {
        let id = LookupId(self.name());
        let mut lookup = Lookup::new(now, LookupKind::PutItem, item.target(), false);
        lookup.errand = Errand::Put(ItemPut::refused(item, error.code()));
        self.emit(Event::LookupDone { lookup: id, report: lookup.report(now) });
        id
    }

    fn start_errand(
        &mut self,
        now: Instant,
        kind: LookupKind,
        target: Key,
        errand: Errand,
    ) -> LookupId {
        let id = LookupId(self.name());
        let mut lookup = Lookup::new(now, kind, target, false);
        lookup.errand = errand;
        self.look_at_home(now, id, &mut lookup);
        self.begin_lookup(now, id, lookup);
        id
    }

    // What we store ourselves is the first answer: in a network of two, the only one.
    fn look_at_home(&mut self, now: Instant, id: LookupId, lookup: &mut Lookup) {
        match &mut lookup.errand {
            Errand::Get(_) => {
                let Some(item) = self.server.items.get(now, lookup.target) else { return };
                if let Some(item) = lookup.on_item(HOME, &as_told(item)) {
                    self.emit(Event::ItemFound { lookup: id, item });
                }
            }
            // Without room, or with a newer one there, it is only not told here.
            Errand::Put(put) => self.store_at_home(now, &put.item),
            Errand::Scrape(census) => {
                let info_hash = InfoHash::new(*lookup.target.as_bytes());
                let distance = lookup.target.distance(self.id.key());
                if let Some(filters) = self.server.peers.filters(now, info_hash, |_| true) {
                    census.count(distance, Some(filters), std::iter::empty());
                }
            }
            Errand::Nodes | Errand::Sample => {}
        }
    }

    /// We store an item elsewhere, so whoever asks us gets it as well.
    pub(super) fn store_at_home(&mut self, now: Instant, item: &Item) {
        let _ = self.server.items.put(now, &item.to_put(b"", None), HOME.ip());
    }

    /// What an answer says about what a lookup is after.
    pub(super) fn on_errand_reply(
        &mut self,
        now: Instant,
        id: LookupId,
        lookup: &mut Lookup,
        from: SocketAddr,
        reply: &Reply<'_>,
    ) {
        match &mut lookup.errand {
            Errand::Nodes => {}
            Errand::Get(_) | Errand::Put(_) => {
                let Some(item) = lookup.on_item(from, &reply.item) else { return };
                if lookup.own_account {
                    self.store_at_home(now, &item);
                } else {
                    self.emit(Event::ItemFound { lookup: id, item });
                }
            }
            Errand::Sample => {
                let Some(samples) = reply.samples else { return };
                self.emit(Event::Samples {
                    lookup: id,
                    from,
                    info_hashes: samples.info_hashes().collect(),
                    total: samples.total(),
                    interval: Duration::from_secs(u64::from(samples.interval())),
                });
            }
            Errand::Scrape(census) => {
                let distance = lookup.target.distance(reply.id.key());
                let filters = reply
                    .filters
                    .map(|(seeds, others)| (Filter::from_bytes(seeds), Filter::from_bytes(others)));
                let named = reply.peers().filter(|peer| is_believable(peer, from.ip()));
                census.count(distance, filters, named.map(|peer| peer.ip()));
            }
        }
    }

    /// The query that stores what a lookup is to store, at one node.
    pub(super) fn store_method<'a>(
        &self,
        lookup: &'a Lookup,
        to: &SocketAddr,
        token: &'a [u8],
    ) -> Option<Method<'a>> {
        match (lookup.kind, &lookup.errand) {
            (LookupKind::Announce(info_hash), _) => Some(Method::AnnouncePeer {
                info_hash,
                port: lookup.port.unwrap_or_else(|| self.own_port()),
                implied_port: lookup.port.is_none(),
                seed: lookup.seed,
                token,
            }),
            (LookupKind::PutItem, Errand::Put(put)) => {
                Some(Method::Put(put.item.to_put(token, put.cas_for(to))))
            }
            _ => None,
        }
    }
}

fn as_told(item: &Item) -> ItemReply<'_> {
    match item {
        Item::Immutable { value } => ItemReply { value: Some(value), ..ItemReply::default() },
        Item::Mutable { public_key, seq, value, signature, .. } => ItemReply {
            value: Some(value),
            public_key: Some(public_key),
            seq: Some(*seq),
            signature: Some(signature),
        },
    }
}

// Where our own store is, among the nodes that have an item.
const HOME: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
