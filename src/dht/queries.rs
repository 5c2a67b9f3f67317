//! Our queries under way. An answer counts if it carries the four random bytes that went out and
//! comes from exactly the endpoint they went to.
//!
//! A query without an answer passes three marks: *stalled* (its place may be given to another),
//! *overdue* (nobody waits for it any more), *dead* (a late answer no longer counts).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::event::{LookupId, PingId};
use super::rtt::RttHistogram;
use super::second_tries::SecondTries;
use crate::base::{Instant, NodeId, Rng};

/// `t` of our queries: four bytes, because one deployed node answers no other length, and random,
/// because whoever guesses it can answer for another.
pub(super) type Tid = [u8; 4];

/// What a query is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A step of a lookup.
    Lookup(LookupId),
    /// The announce at a lookup's end.
    Announce(LookupId),
    /// A ping that the host asked for.
    Ping(PingId),
    /// Is that node there? For the table.
    Check,
}

impl Purpose {
    /// The lookup that it belongs to.
    pub fn lookup(self) -> Option<LookupId> {
        match self {
            Self::Lookup(lookup) | Self::Announce(lookup) => Some(lookup),
            Self::Ping(_) | Self::Check => None,
        }
    }
}

/// A query under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pending {
    pub to: SocketAddr,
    /// The id by which we know the endpoint.
    pub expect: Option<NodeId>,
    pub purpose: Purpose,
    pub sent: Instant,
    stall: Duration,
    stage: Stage,
    // It repeats one that was not answered.
    repeats: bool,
}

impl Pending {
    /// Another may have taken its place, but an answer still counts.
    pub fn is_late(&self) -> bool {
        self.stage != Stage::Fresh
    }

    /// Nobody waits for it any more, but an answer still counts.
    pub fn is_overdue(&self) -> bool {
        self.stage == Stage::Overdue
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Fresh,
    Stalled,
    Overdue,
}

/// A mark that a query has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Stalled(Pending),
    Overdue(Pending),
    /// It is gone.
    Dead(Pending),
}

/// The queries under way of one node.
#[derive(Debug)]
pub(super) struct Queries {
    pending: BTreeMap<Tid, Pending>,
    timers: BTreeSet<(Instant, Tid)>,
    by_endpoint: BTreeMap<SocketAddr, usize>,
    /// Round trips of lookup steps.
    pub rtts: RttHistogram,
    /// What it brings to send a query once more.
    pub second_tries: SecondTries,
}

impl Queries {
    pub fn new() -> Self {
        Self {
            pending: BTreeMap::new(),
            timers: BTreeSet::new(),
            by_endpoint: BTreeMap::new(),
            rtts: RttHistogram::new(),
            second_tries: SecondTries::new(),
        }
    }

    /// All of them, by their random transaction ids.
    pub fn iter(&self) -> impl Iterator<Item = &Pending> {
        self.pending.values()
    }

    /// Is a query to `addr` under way?
    pub fn is_asking(&self, addr: &SocketAddr) -> bool {
        self.by_endpoint.contains_key(addr)
    }

    /// How many queries to `addr` are under way?
    pub fn asking(&self, addr: &SocketAddr) -> usize {
        self.by_endpoint.get(addr).copied().unwrap_or_default()
    }

    /// May one more go to `addr`?
    pub fn has_room(&self, addr: &SocketAddr) -> bool {
        self.pending.len() < QUERIES_IN_FLIGHT_MAX
            && self.by_endpoint.get(addr).is_none_or(|n| *n < QUERIES_PER_ENDPOINT_MAX)
    }

    /// A query goes out: here is its transaction id. `known_rtt` is what the endpoint took before.
    pub fn begin(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        to: SocketAddr,
        expect: Option<NodeId>,
        purpose: Purpose,
        known_rtt: Option<Duration>,
    ) -> Tid {
        let mut tid: Tid = rng.array();
        while self.pending.contains_key(&tid) {
            tid = rng.array();
        }
        let typical = self.rtts.stall();
        // Who is known to be quick is not waited for as long as a stranger.
        let stall =
            known_rtt.map_or(typical, |rtt| typical.min((rtt * 2).max(super::rtt::STALL_MIN)));
        let repeats = self.siblings(&to, purpose).next().is_some();
        if repeats {
            self.second_tries.on_sent();
        }
        let stage = Stage::Fresh;
        let pending = Pending { to, expect, purpose, sent: now, stall, stage, repeats };
        self.pending.insert(tid, pending);
        self.timers.insert((now + stall, tid));
        *self.by_endpoint.entry(to).or_default() += 1;
        tid
    }

    /// The query that an answer from `from` with this transaction id belongs to; it is over.
    pub fn take(&mut self, tid: &[u8], from: &SocketAddr) -> Option<Pending> {
        let tid = Tid::try_from(tid).ok()?;
        let pending = self.pending.get(&tid).filter(|p| p.to == *from).copied()?;
        self.timers.remove(&(pending.timer(), tid));
        self.forget(tid, &pending);
        if pending.repeats {
            self.second_tries.on_answered();
        } else if let Some(late) = self.siblings(from, pending.purpose).next() {
            // The first was not lost but slow: the second brought nothing.
            late.repeats = false;
        }
        Some(pending)
    }

    // Other queries for the same to the same endpoint.
    fn siblings(
        &mut self,
        addr: &SocketAddr,
        purpose: Purpose,
    ) -> impl Iterator<Item = &mut Pending> {
        let any = self.by_endpoint.contains_key(addr);
        let pending = any.then(|| self.pending.values_mut()).into_iter().flatten();
        pending.filter(move |p| p.to == *addr && p.purpose == purpose)
    }

    /// The next query that has passed a mark by now.
    pub fn next_due(&mut self, now: Instant) -> Option<Due> {
        let (when, tid) = *self.timers.first()?;
        if when > now {
            return None;
        }
        self.timers.pop_first();
        let pending = self.pending.get_mut(&tid).expect("each timer belongs to a query");
        let stage = pending.stage;
        let due = match stage {
            Stage::Fresh => {
                pending.stage = Stage::Stalled;
                Due::Stalled(*pending)
            }
            Stage::Stalled => {
                pending.stage = Stage::Overdue;
                Due::Overdue(*pending)
            }
            Stage::Overdue => {
                let pending = *pending;
                self.forget(tid, &pending);
                return Some(Due::Dead(pending));
            }
        };
        self.timers.insert((pending.timer(), tid));
        Some(due)
    }

    /// When `next_due` will have something.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(when, _)| *when)
    }

    /// Drops all of them: the machine slept, and no answer can be told from a late one.
    pub fn clear(&mut self) -> Vec<Pending> {
        self.timers.clear();
        self.by_endpoint.clear();
        std::mem::take(&mut self.pending).into_values().collect()
    }

    fn forget(&mut self, tid: Tid, pending: &Pending) {
        self.pending.remove(&tid);
        if let Some(count) = self.by_endpoint.get_mut(&pending.to) {
            *count -= 1;
            if *count == 0 {
                self.by_endpoint.remove(&pending.to);
            }
        }
    }
}

impl Pending {
    fn timer(&self) -> Instant {
        match self.stage {
            Stage::Fresh => self.sent + self.stall,
            Stage::Stalled => self.sent + self.stall + (self.stall / 2).max(OVERDUE_EXTRA_MIN),
            Stage::Overdue => self.sent + HARD_TIMEOUT,
        }
    }
}

/// Queries under way at once: a hundred lookups, or one that meets nothing but dead nodes.
pub(super) const QUERIES_IN_FLIGHT_MAX: usize = 1_024;
/// Queries to one endpoint at once: many lookups may start at one bootstrap node, but nobody can
/// aim us at a third party.
pub(super) const QUERIES_PER_ENDPOINT_MAX: usize = 16;
/// After this long an answer no longer counts.
pub(super) const HARD_TIMEOUT: Duration = Duration::from_secs(8);
const OVERDUE_EXTRA_MIN: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::super::rtt::STALL_MAX;
    use super::*;

    const _: () = assert!(STALL_MAX.as_millis() * 3 / 2 < HARD_TIMEOUT.as_millis());

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([1, 2, 3, 4], port))
    }

    fn begin(queries: &mut Queries, rng: &mut Rng, port: u16) -> Tid {
        queries.begin(Instant::ZERO, rng, at(port), None, Purpose::Check, None)
    }

    #[test]
    fn only_the_asked_endpoint_may_answer_and_only_once() {
        let (mut queries, mut rng) = (Queries::new(), Rng::from_seed([1; 32]));
        let tid = begin(&mut queries, &mut rng, 1);
        assert_eq!(queries.take(&tid, &at(2)), None);
        assert_eq!(queries.take(&tid, &SocketAddr::from(([1, 2, 3, 5], 1))), None);
        assert_eq!(queries.take(&tid[..3], &at(1)), None);
        assert_eq!(queries.take(&[0; 4], &at(1)), None);
        assert!(queries.is_asking(&at(1)));
        assert!(queries.take(&tid, &at(1)).is_some());
        assert_eq!(queries.take(&tid, &at(1)), None);
        assert!(!queries.is_asking(&at(1)) && queries.poll_timeout().is_none());
    }

    #[test]
    fn query_stalls_then_is_overdue_then_dies() {
        let (mut queries, mut rng) = (Queries::new(), Rng::from_seed([1; 32]));
        begin(&mut queries, &mut rng, 1);
        let mut marks = Vec::new();
        while let Some(now) = queries.poll_timeout() {
            marks.push((now, queries.next_due(now).unwrap()));
            assert_eq!(queries.next_due(now), None);
        }
        assert!(matches!(
            marks[..],
            [(_, Due::Stalled(_)), (_, Due::Overdue(_)), (_, Due::Dead(_))]
        ));
        assert_eq!(marks[2].0, Instant::ZERO + HARD_TIMEOUT);
        assert!(!queries.is_asking(&at(1)));
    }

    #[test]
    fn late_answer_still_counts_until_the_hard_timeout() {
        let (mut queries, mut rng) = (Queries::new(), Rng::from_seed([1; 32]));
        let tid = begin(&mut queries, &mut rng, 1);
        let late = Instant::ZERO + (HARD_TIMEOUT - Duration::from_micros(1));
        while queries.next_due(late).is_some() {}
        assert!(queries.take(&tid, &at(1)).unwrap().is_late());
    }

    #[test]
    fn million_guesses_of_any_length_meet_no_query_of_ours() {
        let (mut queries, mut rng) = (Queries::new(), Rng::from_seed([1; 32]));
        for _ in 0..QUERIES_PER_ENDPOINT_MAX {
            begin(&mut queries, &mut rng, 1);
        }
        // From the right endpoint: sixteen of 2^32 would be taken.
        let mut chance = Rng::from_seed([2; 32]);
        for n in 0..1_000_000u32 {
            let guess = if n % 2 == 0 { n.to_be_bytes() } else { chance.array() };
            let len = 2 + usize::try_from(n % 3).unwrap();
            assert_eq!(queries.take(&guess[..len], &at(1)), None);
        }
        assert!(!queries.has_room(&at(1)));
    }

    #[test]
    fn queries_in_flight_are_bounded_in_all_and_for_each_endpoint() {
        let (mut queries, mut rng) = (Queries::new(), Rng::from_seed([1; 32]));
        for _ in 0..QUERIES_PER_ENDPOINT_MAX {
            assert!(queries.has_room(&at(1)));
            begin(&mut queries, &mut rng, 1);
        }
        assert!(!queries.has_room(&at(1)) && queries.has_room(&at(2)));
        for port in 2..=1_024u16 - 15 {
            begin(&mut queries, &mut rng, port);
        }
        assert!(!queries.has_room(&at(5000)));
        assert_eq!(queries.clear().len(), QUERIES_IN_FLIGHT_MAX);
        assert!(queries.has_room(&at(1)));
    }
}
