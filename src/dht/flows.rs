//! The budget of new flows, and the pace towards one address.
//!
//! A home router keeps an entry for each endpoint that we write to, for a minute or so, and cheap ones
//! drop everybody's connections when entries come too fast. So a query to an endpoint that we have not
//! written to lately is a *new flow*, and of those only so many a second leave. What a person waits
//! for may take a burst that the rest cannot touch; the rest waits for what is left.
//!
//! Answers are not counted: they use the entry that the asking side has made. Private addresses are
//! exempt: no router stands before them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

use crate::base::Instant;
use crate::base::addr::{PackedAddr, is_private};
use crate::base::recent::RecentMap;

/// How urgent a query is. The earlier one goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Somebody waits for it.
    #[default]
    Interactive,
    /// Keeps our contacts: a few pings a second at most.
    Upkeep,
    /// One of many of its kind: looked up a few at a time, in the order of their keys.
    Bulk,
    /// Keeps an announce alive, or a part of the table fresh: nobody waits for it.
    Background,
}

/// May a query leave now?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// Yes. `is_new` if it opens a flow.
    Granted { is_new: bool },
    /// Not before the budget has grown.
    NoBudget,
    /// Its address hears from us often enough: not before then.
    TooSoon(Instant),
}

/// What the budget of new flows has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct FlowStats {
    /// Queries that opened a flow.
    pub granted: u64,
    /// Times that a query had to wait for the budget.
    pub deferred: u64,
    /// Times that a query had to wait because its address had heard from us just before.
    pub paced: u64,
}

/// How much of the budget is left, as the moment at which all of it will be there again. All nodes
/// behind one router share one: see [`super::Node::set_flow_budget`]. The greater has the less left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct FlowBudget {
    full_at: Instant,
}

/// The flows of one node.
#[derive(Debug)]
pub(super) struct Flows {
    limits: Option<Limits>,
    pub budget: FlowBudget,
    // When we last wrote to an endpoint.
    open: RecentMap<PackedAddr, Instant>,
    // When an address's pace allows as much again as it ever does.
    paced: RecentMap<IpAddr, Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    // Between two flows at the full rate, in microseconds.
    slot: u64,
    burst: u64,
}

impl Limits {
    fn new(per_second: u32) -> Self {
        let rate = u64::from(per_second.max(1));
        // Rounded up: never more than was asked for.
        Self { slot: 1_000_000u64.div_ceil(rate), burst: (rate * BURST_SECS).max(BURST_MIN) }
    }

    // What has to be left for those who come first.
    fn reserve(self, priority: Priority) -> u64 {
        match priority {
            Priority::Interactive => 0,
            Priority::Upkeep => self.burst / 3,
            Priority::Bulk | Priority::Background => self.burst * 2 / 3,
        }
    }

    // When one more may go.
    fn ready_at(self, budget: FlowBudget, priority: Priority) -> Instant {
        let spent = budget.full_at.as_micros() + self.slot * (1 + self.reserve(priority));
        Instant::from_micros(spent.saturating_sub(self.slot * self.burst))
    }
}

impl Flows {
    /// At most so many new flows a second; `None` for any number.
    pub fn new(per_second: Option<u32>) -> Self {
        Self {
            limits: per_second.map(Limits::new),
            budget: FlowBudget::default(),
            open: RecentMap::new(FLOWS_OPEN_MAX, FLOW_LIFE),
            paced: RecentMap::new(ADDRESSES_PACED_MAX, 4 * PACE),
        }
    }

    /// A query is to go to `to`. If it may, it counts as gone.
    pub fn admit(&mut self, now: Instant, to: &SocketAddr, priority: Priority) -> Passage {
        let Some(limits) = self.limits else { return Passage::Granted { is_new: false } };
        if is_private(to.ip()) {
            return Passage::Granted { is_new: false };
        }
        let pace = self.paced.get(&to.ip()).copied().unwrap_or_default();
        let ready = Instant::from_micros(pace.as_micros().saturating_sub(PACE_ROOM));
        if priority >= Priority::Bulk && ready > now {
            return Passage::TooSoon(ready);
        }
        let is_new = !self.is_open(now, to);
        if is_new && limits.ready_at(self.budget, priority) > now {
            return Passage::NoBudget;
        }
        if is_new {
            self.budget.full_at = self.budget.full_at.max(now) + Duration::from_micros(limits.slot);
        }
        self.note(now, *to);
        // The urgent may overtake the pace, yet not lock the rest out for longer than a second.
        self.paced.insert(now, to.ip(), (pace.max(now) + PACE).min(now + 4 * PACE));
        Passage::Granted { is_new }
    }

    /// Is one new flow of this priority within the budget?
    pub fn has_room(&self, now: Instant, priority: Priority) -> bool {
        self.limits.is_none_or(|limits| limits.ready_at(self.budget, priority) <= now)
    }

    /// When `has_room` will be true.
    pub fn ready_at(&self, priority: Priority) -> Instant {
        self.limits.map_or(Instant::ZERO, |limits| limits.ready_at(self.budget, priority))
    }

    /// New flows that may be opened now by those who wait for nothing; `None` for any number.
    pub fn left(&self, now: Instant) -> Option<u64> {
        let limits = self.limits?;
        let spent = self.budget.full_at.as_micros().saturating_sub(now.as_micros());
        Some(limits.burst.saturating_sub(spent.div_ceil(limits.slot)))
    }

    /// There is a flow between `addr` and us, whoever has opened it.
    pub fn note(&mut self, now: Instant, addr: SocketAddr) {
        if self.limits.is_none() || is_private(addr.ip()) {
            return;
        }
        self.open.insert(now, addr.into(), now);
    }

    fn is_open(&self, now: Instant, addr: &SocketAddr) -> bool {
        self.open.get(&(*addr).into()).is_some_and(|last| now.since(*last) < FLOW_LIFE)
    }

    /// Endpoints that we wrote to within a flow's life.
    pub fn open_count(&self, now: Instant) -> usize {
        self.open.entries().values().filter(|last| now.since(**last) < FLOW_LIFE).count()
    }
}

/// New flows a second unless told otherwise: with entries that live for a minute that is 3,000 of
/// them, a third of what a router with room for 8,192 holds; beyond a third some degrade.
pub const FLOWS_PER_SECOND: u32 = 50;
/// The shortest life that common routers give to an entry without an answer (Linux: 30 s).
const FLOW_LIFE: Duration = Duration::from_secs(30);
/// The whole budget lets that much through at once: two lookups of 45 queries find it in the third
/// that nobody else may touch, and cold ones in the other two.
const BURST_SECS: u64 = 3;
/// With a small rate, still one lookup.
const BURST_MIN: u64 = 60;
/// Endpoints remembered; the longest unused are forgotten first and count as new again.
const FLOWS_OPEN_MAX: usize = 8_192;
/// Four datagrams a second to one address, and as many at once: for what nobody waits for.
const PACE: Duration = Duration::from_millis(250);
const PACE_ROOM: u64 = 3 * 250_000;
/// Addresses whose pace is remembered; they are forgotten after a second anyway.
const ADDRESSES_PACED_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    const ALL: [Priority; 4] =
        [Priority::Interactive, Priority::Upkeep, Priority::Bulk, Priority::Background];

    fn at(millis: u64) -> Instant {
        Instant::from_micros(1_000_000 + millis * 1_000)
    }

    fn endpoint(n: usize) -> SocketAddr {
        let [_, a, b, c] = u32::try_from(n).unwrap().to_be_bytes();
        SocketAddr::from(([20 + a, b, c, 1], 6881))
    }

    fn is_granted(flows: &mut Flows, now: Instant, n: usize, priority: Priority) -> bool {
        matches!(flows.admit(now, &endpoint(n), priority), Passage::Granted { .. })
    }

    #[test]
    fn budget_is_never_exceeded_in_any_window() {
        for seed in 0..8u8 {
            let mut rng = Rng::from_seed([seed; 32]);
            let rate = [1, 7, 50, 333][usize::from(seed) % 4];
            let limits = Limits::new(rate);
            let mut flows = Flows::new(Some(rate));
            let (mut now, mut grants) = (at(0), Vec::new());
            for n in 0..3_000 {
                // Bursts, pauses, and endpoints that come again.
                now += Duration::from_micros(rng.below(2 * 1_000_000 / rate as usize) as u64);
                now += Duration::from_secs(u64::from(rng.chance(0.005)) * 20);
                let to = if rng.chance(0.2) { endpoint(rng.below(n + 1)) } else { endpoint(n) };
                let priority = ALL[rng.below(4)];
                if flows.admit(now, &to, priority) == (Passage::Granted { is_new: true }) {
                    grants.push(now);
                }
            }
            assert!(grants.len() > 500, "seed {seed}: {}", grants.len());
            // From the i-th grant to the j-th: no more than the burst and the rate allow.
            for (i, first) in grants.iter().enumerate() {
                for (count, last) in (1..).zip(&grants[i..]) {
                    let allowed = limits.burst + (*last - *first).as_micros() as u64 / limits.slot;
                    assert!(count <= allowed, "seed {seed}, rate {rate}: {count} from the {i}th");
                }
            }
        }
    }

    #[test]
    fn as_many_flows_may_be_opened_as_are_said_to_be_left() {
        let mut flows = Flows::new(Some(50));
        assert_eq!(flows.left(at(0)), Some(150));
        for n in 0..60 {
            assert!(is_granted(&mut flows, at(0), n, Priority::Interactive));
        }
        assert_eq!((flows.left(at(0)), flows.left(at(100))), (Some(90), Some(95)));
        let left = (60..).take_while(|n| is_granted(&mut flows, at(0), *n, Priority::Interactive));
        assert_eq!(left.count(), 90);
        assert_eq!(flows.left(at(0)), Some(0));
        assert_eq!(Flows::new(None).left(at(0)), None);
    }

    #[test]
    fn those_who_wait_leave_a_burst_to_those_who_cannot() {
        for (late, kept) in
            [(Priority::Bulk, 100), (Priority::Background, 100), (Priority::Upkeep, 50)]
        {
            let mut flows = Flows::new(Some(50));
            let taken = (0..1000).take_while(|n| is_granted(&mut flows, at(0), *n, late)).count();
            assert_eq!(taken, 150 - kept);
            assert!(!flows.has_room(at(0), late));
            assert!(flows.has_room(at(0), Priority::Interactive));
            let more = (1000..2000)
                .take_while(|n| is_granted(&mut flows, at(0), *n, Priority::Interactive))
                .count();
            assert_eq!(more, kept);
            // The burst comes back before anything else does.
            let ready = flows.ready_at(late);
            assert_eq!(ready - at(0), Duration::from_millis(20 * (kept as u64 + 1)));
            assert_eq!(flows.ready_at(Priority::Interactive) - at(0), Duration::from_millis(20));
            assert!(flows.has_room(ready, late) && is_granted(&mut flows, ready, 3000, late));
            assert!(!flows.has_room(ready, late));
        }
    }

    #[test]
    fn open_flow_and_private_address_cost_nothing() {
        let mut flows = Flows::new(Some(1));
        let first = flows.admit(at(0), &endpoint(1), Priority::Interactive);
        assert_eq!(first, Passage::Granted { is_new: true });
        let left = flows.budget;
        for n in 1..30 {
            let again = flows.admit(at(n * 1_000), &endpoint(1), Priority::Bulk);
            assert_eq!(again, Passage::Granted { is_new: false });
        }
        flows.note(at(29_000), endpoint(2));
        let theirs = flows.admit(at(29_000), &endpoint(2), Priority::Bulk);
        assert_eq!(theirs, Passage::Granted { is_new: false });
        for n in 0..1000u16 {
            let to = SocketAddr::from(([192, 168, 1, 1], 1 + n));
            let free = Passage::Granted { is_new: false };
            assert_eq!(flows.admit(at(29_000), &to, Priority::Background), free);
        }
        assert_eq!((flows.budget, flows.open_count(at(29_000))), (left, 2));
        // Silence closes it.
        let later = flows.admit(at(59_000), &endpoint(1), Priority::Interactive);
        assert_eq!(later, Passage::Granted { is_new: true });
    }

    #[test]
    fn one_address_hears_four_times_a_second_from_what_can_wait() {
        let mut flows = Flows::new(Some(50));
        let to = |port| SocketAddr::from(([20, 1, 1, 1], port));
        let mut times = Vec::new();
        let mut now = at(0);
        while now < at(10_000) {
            match flows.admit(now, &to(1 + (times.len() % 5) as u16), Priority::Bulk) {
                Passage::Granted { .. } => times.push(now),
                Passage::TooSoon(when) => {
                    assert!(when > now);
                    // Who is waited for is not held up.
                    now = when;
                }
                Passage::NoBudget => panic!("five flows are within the budget"),
            }
        }
        assert!((40..=44).contains(&times.len()), "{}", times.len());
        for pair in times.windows(6) {
            assert!(pair[5] - pair[0] >= Duration::from_millis(500));
        }
        assert!(is_granted(&mut flows, now, 77, Priority::Bulk), "others are not held up");
        let urgent = flows.admit(now, &to(1), Priority::Interactive);
        assert_eq!(urgent, Passage::Granted { is_new: false });
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let mut flows = Flows::new(None);
        assert!((0..20_000).all(|n| is_granted(&mut flows, at(0), n, Priority::Background)));
        assert_eq!((flows.open.len(), flows.paced.len()), (0, 0));
        assert_eq!(flows.ready_at(Priority::Background), Instant::ZERO);
    }

    #[test]
    fn memory_is_bounded_and_the_forgotten_counts_as_new() {
        let mut flows = Flows::new(Some(1_000_000));
        for n in 0..20_000 {
            assert!(is_granted(&mut flows, at(0), n, Priority::Bulk));
        }
        assert!((FLOWS_OPEN_MAX * 7 / 8..=FLOWS_OPEN_MAX).contains(&flows.open.len()));
        assert!(flows.paced.len() <= ADDRESSES_PACED_MAX);
        let again = flows.admit(at(1), &endpoint(0), Priority::Interactive);
        assert_eq!(again, Passage::Granted { is_new: true });
        let known = flows.admit(at(1), &endpoint(19_999), Priority::Interactive);
        assert_eq!(known, Passage::Granted { is_new: false });
        // What is over is let go without being asked for.
        assert!(is_granted(&mut flows, at(31_000), 5, Priority::Bulk));
        assert_eq!((flows.open.len(), flows.paced.len()), (1, 1));
    }
}
