//! Endpoints that keep leaving queries unanswered: lookups pass them over for a while, so that
//! dead nodes are not asked again and again and nobody can aim us at a third party.
//!
//! One failure is no reason (datagrams get lost); two are, for two minutes, and longer each time.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::Instant;
use crate::base::addr::PackedAddr;
use crate::base::recent::{Dated, RecentMap};

/// Remembers who did not answer.
#[derive(Debug)]
pub(super) struct Unreachable(RecentMap<PackedAddr, Failures>);

#[derive(Debug, Clone, Copy)]
struct Failures {
    last: Instant,
    // From when on a lost query may be sent once more.
    retry_from: Instant,
    times: u32,
}

impl Dated for Failures {
    fn when(&self) -> Instant {
        self.last
    }
}

impl Unreachable {
    pub fn new() -> Self {
        Self(RecentMap::new(ENDPOINTS_MAX, MEMORY))
    }

    /// A query to `addr` has not been answered in time. If it is in the end, `on_alive` follows.
    pub fn on_silent(&mut self, now: Instant, addr: SocketAddr) {
        let addr = PackedAddr::from(addr);
        match self.0.get_mut(&addr) {
            Some(failures) => {
                failures.times = failures.times.saturating_add(1);
                failures.last = now;
            }
            None => {
                let failures = Failures { last: now, retry_from: Instant::ZERO, times: 1 };
                self.0.insert(now, addr, failures);
            }
        }
    }

    /// `addr` spoke.
    pub fn on_alive(&mut self, addr: &SocketAddr) {
        if !self.0.is_empty() {
            self.0.remove(&(*addr).into());
        }
    }

    /// May a lost query to `addr` be sent once more? Yes once in ten minutes, whichever lookup asks:
    /// many lookups at once must not multiply what a silent third party gets.
    pub fn may_retry(&mut self, now: Instant, addr: &SocketAddr) -> bool {
        let Some(failures) = self.0.get_mut(&(*addr).into()) else { return true };
        let may = now >= failures.retry_from;
        if may {
            failures.retry_from = now + RETRY_PAUSE;
        }
        may
    }

    /// Should `addr` be left alone for now?
    pub fn has(&self, now: Instant, addr: &SocketAddr) -> bool {
        self.0.get(&(*addr).into()).is_some_and(|failures| {
            let doublings = failures.times.saturating_sub(2).min(4);
            failures.times >= 2 && now.since(failures.last) < PAUSE * (1 << doublings)
        })
    }

    /// Has `addr` been silent lately, be it once? For what can do without it.
    pub fn has_been_silent(&self, now: Instant, addr: &SocketAddr) -> bool {
        let failures = self.0.get(&(*addr).into());
        failures.is_some_and(|failures| now.since(failures.last) < SILENCE)
    }

    /// The network was away: none of it counts.
    pub fn clear(&mut self) {
        *self = Self::new();
    }
}

/// Endpoints remembered, at some 70 bytes; the longest silent are forgotten first. Around each of 10,000
/// torrents that are kept announced three of the eleven closest nodes are gone.
const ENDPOINTS_MAX: usize = 32_768;
/// As long as the longest interval between two announces of a torrent, and a little more.
const SILENCE: Duration = Duration::from_secs(30 * 60);
const PAUSE: Duration = Duration::from_secs(120);
/// Twice the longest pause: after that a failure says little.
const MEMORY: Duration = Duration::from_secs(64 * 60);
const RETRY_PAUSE: Duration = Duration::from_secs(10 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    #[test]
    fn second_failure_pauses_and_a_word_ends_the_pause() {
        let (mut dead, addr) = (Unreachable::new(), "1.2.3.4:5".parse().unwrap());
        dead.on_silent(at(0), addr);
        assert!(!dead.has(at(1), &addr));
        dead.on_silent(at(10), addr);
        assert!(dead.has(at(129), &addr) && !dead.has(at(130), &addr));
        dead.on_silent(at(140), addr);
        assert!(dead.has(at(370), &addr));
        dead.on_alive(&addr);
        assert!(!dead.has(at(370), &addr));
    }

    #[test]
    fn one_retry_in_ten_minutes_serves_all_lookups() {
        let (mut dead, addr) = (Unreachable::new(), "1.2.3.4:5".parse().unwrap());
        dead.on_silent(at(0), addr);
        assert!(dead.may_retry(at(0), &addr) && !dead.may_retry(at(599), &addr));
        assert!(dead.may_retry(at(600), &addr));
        dead.on_alive(&addr);
        assert!(dead.may_retry(at(601), &addr));
    }

    #[test]
    fn memory_is_bounded() {
        let mut dead = Unreachable::new();
        for n in 0..40_000u16 {
            dead.on_silent(at(0), SocketAddr::from(([1, 2, 3, 4], n)));
        }
        assert!((ENDPOINTS_MAX * 7 / 8..=ENDPOINTS_MAX).contains(&dead.0.len()));
    }

    #[test]
    fn old_failures_are_forgotten_as_new_ones_come() {
        let mut dead = Unreachable::new();
        let addr = |n: u16| SocketAddr::from(([1, 2, 3, 4], n));
        (1..=100).for_each(|n| dead.on_silent(at(0), addr(n)));
        (101..=150).for_each(|n| dead.on_silent(at(64 * 60 - 1), addr(n)));
        assert_eq!(dead.0.len(), 150, "an hour is not long");
        (151..=200).for_each(|n| dead.on_silent(at(64 * 60), addr(n)));
        assert_eq!(dead.0.len(), 100);
    }
}
