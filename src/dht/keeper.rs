//! Keeps items alive (BEP 44): looks every hour whether they are well kept, and stores anew those that
//! are not.
//!
//! This is for items that our host wants kept, its own or others': it needs no secret key. Well kept is
//! an item of which more than eight copies are found, those of the eight closest nodes among them; then
//! nothing is stored. A node does not republish what strangers put into its store: to want an item is
//! what makes somebody keep it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::event::{Event, LookupId, LookupKind};
use super::lookup::{Errand, ItemPut, Lookup};
use super::node::Node;
use crate::base::{Instant, Key};
use crate::wire::item::Item;

/// The items that are kept.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    items: BTreeMap<Key, Kept>,
    // When to look after which; not those that a lookup looks after now.
    due: BTreeSet<(Instant, Key)>,
    running: BTreeMap<LookupId, Key>,
}

#[derive(Debug)]
struct Kept {
    item: Item,
    // Its place in `due`.
    next: Option<Instant>,
}

impl Keeper {
    /// When to look after an item.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let (at, _) = self.due.first().filter(|_| self.running.len() < KEEPING_MAX)?;
        Some(*at)
    }

    fn plan(&mut self, target: Key, next: Option<Instant>) {
        let Some(kept) = self.items.get_mut(&target) else { return };
        if let Some(at) = std::mem::replace(&mut kept.next, next) {
            self.due.remove(&(at, target));
        }
        if let Some(at) = next {
            self.due.insert((at, target));
        }
    }

    // The next item to look after; it is planned no more.
    fn pop_due(&mut self, now: Instant) -> Option<(Key, Item)> {
        let target = self.poll_timeout().filter(|at| *at <= now).and(self.due.first())?.1;
        self.plan(target, None);
        Some((target, self.items.get(&target)?.item.clone()))
    }
}

impl Node {
    /// Stores an item now, and looks every hour whether it has to be stored again, until
    /// [`Node::drop_item`]; [`Event::ItemKept`] tells each time. A newer version that is found takes its
    /// place. False if it proves nothing, is older than what is kept, or too many are.
    pub fn keep_item(&mut self, now: Instant, item: Item) -> bool {
        let target = item.target();
        let known = self.keeper.items.get(&target);
        let is_older = known.is_some_and(|known| known.item.seq() > item.seq());
        let is_full = known.is_none() && self.keeper.items.len() >= ITEMS_KEPT_MAX;
        if is_older || is_full || item.check().is_err() {
            return false;
        }
        self.keeper.plan(target, None);
        self.keeper.items.insert(target, Kept { item, next: None });
        self.keeper.plan(target, Some(now));
        self.keep_items(now);
        true
    }

    /// Keeps an item no longer. False if it was not kept.
    pub fn drop_item(&mut self, target: Key) -> bool {
        self.keeper.plan(target, None);
        self.keeper.items.remove(&target).is_some()
    }

    /// The items that are kept, in their newest version.
    pub fn kept_items(&self) -> impl Iterator<Item = &Item> {
        self.keeper.items.values().map(|kept| &kept.item)
    }

    /// Looks after what is due.
    pub(super) fn keep_items(&mut self, now: Instant) {
        while let Some((target, item)) = self.keeper.pop_due(now) {
            self.store_at_home(now, &item);
            let id = LookupId(self.name());
            let mut lookup = Lookup::new(now, LookupKind::PutItem, target, true);
            lookup.errand = Errand::Put(ItemPut::keeping(item));
            self.keeper.running.insert(id, target);
            self.begin_lookup(now, id, lookup);
        }
    }

    /// A lookup on our own account is over: if it looked after an item, the next look is planned.
    pub(super) fn on_kept(&mut self, now: Instant, id: LookupId, lookup: &Lookup) {
        let Some(target) = self.keeper.running.remove(&id) else { return };
        let Errand::Put(put) = &lookup.errand else { return };
        let report = lookup.report(now);
        let (copies, stored) = (report.copies, report.announced);
        let pause = if copies + stored == 0 {
            // Nobody answered: we are not in the network yet.
            RETRY
        } else {
            KEEP_EVERY - EARLIER_MAX.mul_f64(self.rng.unit())
        };
        // Meanwhile the host may have given a newer version, which has its own turn, or want it no more.
        let known = self.keeper.items.get_mut(&target).filter(|kept| kept.next.is_none());
        if let Some(kept) = known {
            kept.item = put.item.clone();
            self.keeper.plan(target, Some(now + pause));
        }
        self.emit(Event::ItemKept { item: put.item.clone(), copies, stored });
        self.keep_items(now);
    }
}

/// Items that are kept at once: with 45 queries each and hour, twelve queries a second.
pub(super) const ITEMS_KEPT_MAX: usize = 1_000;
// Lookups for items at once.
const KEEPING_MAX: usize = 4;
/// An item lives two hours: one time may be lost.
const KEEP_EVERY: Duration = Duration::from_secs(3_600);
// Each a little earlier than in an hour, so that they do not stay a herd.
const EARLIER_MAX: Duration = Duration::from_secs(300);
const RETRY: Duration = Duration::from_secs(120);
