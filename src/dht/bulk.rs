//! Lookups by the thousand: they wait here and start a few at a time, in the order of their targets, so
//! that each begins where its neighbour has just ended (see `closest_cache`).
//!
//! How many run follows from the budget of new flows: the next one starts when none of those under way
//! has to wait for it.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{Announcement, Event, LookupId, LookupKind};
use super::flows::Priority;
use super::lookup::Lookup;
use super::node::Node;
use crate::base::{Instant, Key};

/// Lookups of priority [`Priority::Bulk`]: those that wait for their start, and those under way.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    waiting: BTreeMap<(Key, LookupId), Planned>,
    targets: BTreeMap<LookupId, Key>,
    running: BTreeSet<LookupId>,
    // Where the round through the key space has come to.
    at: Option<Key>,
    // One ended outside of our own turns.
    has_gap: bool,
}

#[derive(Debug, Clone, Copy)]
struct Planned {
    kind: LookupKind,
    how: Announcement,
}

impl Planned {
    fn lookup(self, now: Instant, target: Key) -> Lookup {
        let mut lookup = Lookup::new(now, self.kind, target, false);
        let Announcement { port, seed, priority, keep: _ } = self.how;
        (lookup.port, lookup.seed, lookup.priority) = (port, seed, priority);
        lookup
    }
}

impl Bulk {
    /// Does it wait for its start?
    pub fn is_waiting(&self, lookup: LookupId) -> bool {
        self.targets.contains_key(&lookup)
    }

    /// It is over, or not wanted any more. True if it had not even started.
    pub fn forget(&mut self, lookup: LookupId) -> bool {
        self.has_gap |= self.running.remove(&lookup);
        let Some(target) = self.targets.remove(&lookup) else { return false };
        self.waiting.remove(&(target, lookup)).is_some()
    }

    /// True if the next one should be started without waiting for anything to happen.
    pub fn is_due(&self) -> bool {
        self.has_gap && !self.waiting.is_empty()
    }

    /// Those that wait, and those under way.
    pub fn len(&self) -> (usize, usize) {
        (self.waiting.len(), self.running.len())
    }

    fn plan(&mut self, target: Key, lookup: LookupId, planned: Planned) -> bool {
        let has_room = self.waiting.len() < WAITING_MAX;
        if has_room {
            self.waiting.insert((target, lookup), planned);
            self.targets.insert(lookup, target);
        }
        has_room
    }

    // The next in the round.
    fn pop(&mut self) -> Option<(Key, LookupId, Planned)> {
        let from = self.at.map(|key| (key, LookupId(0)));
        let ahead = from.and_then(|from| self.waiting.range(from..).next());
        let (&(target, lookup), &planned) = ahead.or_else(|| self.waiting.first_key_value())?;
        self.waiting.remove(&(target, lookup));
        self.targets.remove(&lookup);
        self.running.insert(lookup);
        self.at = Some(target);
        Some((target, lookup, planned))
    }
}

impl Node {
    /// A lookup of a priority: one of many waits for its turn.
    pub(super) fn start_lookup_as(
        &mut self,
        now: Instant,
        kind: LookupKind,
        target: Key,
        how: Announcement,
    ) -> LookupId {
        let id = LookupId(self.name());
        self.start_named(now, id, kind, target, how);
        id
    }

    /// The same, for one that has its name.
    pub(super) fn start_named(
        &mut self,
        now: Instant,
        id: LookupId,
        kind: LookupKind,
        target: Key,
        how: Announcement,
    ) {
        let planned = Planned { kind, how };
        if how.priority != Priority::Bulk {
            self.begin_lookup(now, id, planned.lookup(now, target));
        } else if self.bulk.plan(target, id, planned) {
            self.feed_bulk(now);
        } else {
            let report = planned.lookup(now, target).report(now);
            self.on_announce_over(now, id, kind, 0, report.cost);
            self.emit(Event::LookupDone { lookup: id, report });
        }
    }

    /// Starts as many of those that wait as there is room for.
    pub(super) fn feed_bulk(&mut self, now: Instant) {
        while self.bulk.running.len() < RUNNING_MAX
            && !self.line.is_crowded()
            && let Some((target, id, planned)) = self.bulk.pop()
        {
            self.begin_lookup(now, id, planned.lookup(now, target));
        }
        self.bulk.has_gap = false;
    }
}

/// Lookups that wait: one for each torrent that an engine may have. One more ends at once, empty.
const WAITING_MAX: usize = crate::base::limits::TORRENTS_MAX;
/// Lookups under way where no budget holds them back: with five queries each, two thirds of those that
/// may be under way in all.
const RUNNING_MAX: usize = 128;

const _: () = assert!(RUNNING_MAX * 5 <= super::queries::QUERIES_IN_FLIGHT_MAX * 2 / 3);

#[cfg(test)]
mod tests {
    use super::*;

    fn planned() -> Planned {
        Planned { kind: LookupKind::FindNode, how: Announcement::default() }
    }

    fn key(n: u8) -> Key {
        Key::new([n; 20])
    }

    #[test]
    fn targets_come_in_rounds_through_the_key_space() {
        let mut bulk = Bulk::default();
        for (n, target) in [50, 10, 90, 30].into_iter().enumerate() {
            assert!(bulk.plan(key(target), LookupId(n as u64), planned()));
        }
        let mut next = || bulk.pop().map(|(target, ..)| target.as_bytes()[0]);
        assert_eq!([next(), next()], [Some(10), Some(30)]);
        // What lies behind waits for the next round.
        assert!(bulk.plan(key(20), LookupId(9), planned()));
        let mut next = || bulk.pop().map(|(target, ..)| target.as_bytes()[0]);
        assert_eq!([next(), next(), next(), next()], [Some(50), Some(90), Some(20), None]);
        assert_eq!(bulk.len(), (0, 5));
    }

    #[test]
    fn cancelled_lookup_leaves_a_gap_only_if_it_ran() {
        let mut bulk = Bulk::default();
        assert!((0..3).all(|n| bulk.plan(key(n), LookupId(n.into()), planned())));
        bulk.pop();
        assert!(bulk.is_waiting(LookupId(2)) && bulk.forget(LookupId(2)) && !bulk.is_due());
        assert!(!bulk.forget(LookupId(0)) && bulk.is_due());
        assert!(!bulk.forget(LookupId(77)));
        assert_eq!(bulk.len(), (1, 0));
    }

    #[test]
    fn full_queue_refuses_one_more() {
        let mut bulk = Bulk::default();
        assert!((0..WAITING_MAX as u64).all(|n| bulk.plan(key(1), LookupId(n), planned())));
        assert!(!bulk.plan(key(2), LookupId(u64::MAX), planned()));
        bulk.pop();
        assert!(bulk.plan(key(2), LookupId(u64::MAX), planned()));
    }
}
