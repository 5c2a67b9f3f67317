//! Who could not send yet: lookups that wait for the budget, for the pace of one address or for room
//! among the queries under way, and pings of the host. Says whose turn it is; sends nothing.
//!
//! A lookup stands at most once in each of them, so the line is as bounded as the lookups are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use super::event::{LookupId, PingId};
use super::flows::Priority;
use crate::base::Instant;

/// Those who wait.
#[derive(Debug, Default)]
pub(super) struct Line {
    // For the budget: the most urgent first, and of those the oldest.
    waiting: BTreeSet<(Priority, LookupId)>,
    // For the pace of an address.
    delayed: BTreeSet<(Instant, LookupId)>,
    delayed_until: BTreeMap<LookupId, Instant>,
    // For room among the queries under way.
    hungry: BTreeSet<LookupId>,
    pings: VecDeque<(PingId, SocketAddr)>,
    // Bulk and background are alike to each other: they take turns.
    background_next: bool,
}

impl Line {
    /// Waits for the budget. False if it does already.
    pub fn wait(&mut self, priority: Priority, lookup: LookupId) -> bool {
        self.waiting.insert((priority, lookup))
    }

    /// Waits until then. False if it waits for an earlier moment already.
    pub fn delay(&mut self, until: Instant, lookup: LookupId) -> bool {
        match self.delayed_until.get(&lookup) {
            Some(known) if *known <= until => return false,
            Some(known) => self.delayed.remove(&(*known, lookup)),
            None => false,
        };
        self.delayed_until.insert(lookup, until);
        self.delayed.insert((until, lookup))
    }

    /// Waits for a query under way to end.
    pub fn starve(&mut self, lookup: LookupId) {
        self.hungry.insert(lookup);
    }

    /// A ping of the host waits. False if too many do.
    pub fn wait_to_ping(&mut self, ping: PingId, to: SocketAddr) -> bool {
        let has_room = self.pings.len() < PINGS_WAITING_MAX;
        if has_room {
            self.pings.push_back((ping, to));
        }
        has_room
    }

    /// The ping that waits longest.
    pub fn next_ping(&self) -> Option<(PingId, SocketAddr)> {
        self.pings.front().copied()
    }

    /// That ping waits no more.
    pub fn pop_ping(&mut self) {
        self.pings.pop_front();
    }

    /// Whose turn it is when the budget allows one more.
    pub fn next(&self) -> Option<(Priority, LookupId)> {
        let first = *self.waiting.first()?;
        if first.0 != Priority::Bulk || !self.background_next {
            return Some(first);
        }
        let later = self.waiting.range((Priority::Background, LookupId(0))..).next();
        Some(later.copied().unwrap_or(first))
    }

    /// It had its turn.
    pub fn pop(&mut self, next: (Priority, LookupId)) {
        self.waiting.remove(&next);
        self.background_next = next.0 == Priority::Bulk;
    }

    /// The next one whose delay is over.
    pub fn pop_delayed(&mut self, now: Instant) -> Option<LookupId> {
        let first = *self.delayed.first().filter(|(until, _)| *until <= now)?;
        self.delayed.remove(&first);
        self.delayed_until.remove(&first.1);
        Some(first.1)
    }

    /// Queries have ended: all who waited for that.
    pub fn take_hungry(&mut self) -> BTreeSet<LookupId> {
        std::mem::take(&mut self.hungry)
    }

    /// When the first delay is over.
    pub fn delayed_until(&self) -> Option<Instant> {
        self.delayed.first().map(|(until, _)| *until)
    }

    /// Does one of many have to wait? Then no further one should start.
    pub fn is_crowded(&self) -> bool {
        self.is_held_up(Priority::Bulk)
    }

    /// Does one of this priority wait for the budget, or anybody for a query to end?
    pub fn is_held_up(&self, priority: Priority) -> bool {
        let first = self.waiting.range((priority, LookupId(0))..).next();
        !self.hungry.is_empty()
            || self.delayed.len() >= CROWD
            || first.is_some_and(|(p, _)| *p == priority)
    }

    /// It is over.
    pub fn forget(&mut self, priority: Priority, lookup: LookupId) {
        self.waiting.remove(&(priority, lookup));
        if let Some(until) = self.delayed_until.remove(&lookup) {
            self.delayed.remove(&(until, lookup));
        }
        self.hungry.remove(&lookup);
    }
}

/// Lookups that wait for the pace of an address: in a small network all of them want the same nodes.
const CROWD: usize = 16;
/// Pings of the host that wait; one more is told at once that no answer came.
const PINGS_WAITING_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(n: u64) -> LookupId {
        LookupId(n)
    }

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1_000)
    }

    #[test]
    fn urgent_goes_first_and_the_rest_takes_turns() {
        let mut line = Line::default();
        for n in 0..3 {
            assert!(line.wait(Priority::Background, id(n)));
            assert!(line.wait(Priority::Bulk, id(10 + n)));
        }
        assert!(!line.wait(Priority::Bulk, id(12)));
        assert!(line.wait(Priority::Interactive, id(20)));
        assert!(line.is_crowded());
        let order: Vec<u64> = std::iter::from_fn(|| {
            let next = line.next()?;
            line.pop(next);
            Some(next.1.0)
        })
        .collect();
        assert_eq!(order, [20, 10, 0, 11, 1, 12, 2]);
        line.wait(Priority::Background, id(1));
        assert!(!line.is_crowded());
        line.starve(id(1));
        assert!(line.is_crowded());
    }

    #[test]
    fn delay_counts_once_and_the_earlier_one() {
        let mut line = Line::default();
        assert!(line.delay(at(20), id(1)) && !line.delay(at(30), id(1)));
        assert!(line.delay(at(10), id(1)) && line.delay(at(15), id(2)));
        assert_eq!((line.delayed_until(), line.pop_delayed(at(9))), (Some(at(10)), None));
        assert_eq!(line.pop_delayed(at(20)), Some(id(1)));
        assert_eq!(line.pop_delayed(at(20)), Some(id(2)));
        assert_eq!((line.pop_delayed(at(99)), line.delayed_until()), (None, None));
    }

    #[test]
    fn who_is_over_stands_nowhere() {
        let mut line = Line::default();
        line.wait(Priority::Bulk, id(1));
        line.delay(at(1), id(1));
        line.starve(id(1));
        line.forget(Priority::Bulk, id(1));
        assert_eq!(
            (line.next(), line.pop_delayed(at(9)), line.take_hungry().len()),
            (None, None, 0)
        );
    }

    #[test]
    fn full_line_of_pings_refuses_one_more() {
        let mut line = Line::default();
        let to = SocketAddr::from(([1, 2, 3, 4], 5));
        assert!((0..PINGS_WAITING_MAX as u64).all(|n| line.wait_to_ping(PingId(n), to)));
        assert!(!line.wait_to_ping(PingId(9_999), to));
        assert_eq!(line.next_ping(), Some((PingId(0), to)));
        line.pop_ping();
        assert!(line.wait_to_ping(PingId(9_999), to));
    }
}
