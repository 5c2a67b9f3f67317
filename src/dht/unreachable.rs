//! Endpoints that keep leaving queries unanswered: lookups pass them over for a while, so that
//! dead nodes are not asked again and again and nobody can aim us at a third party.
//!
//! One failure is no reason (datagrams get lost); two are, for two minutes, and longer each time.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::Instant;
use crate::base::bounded::LimitedMap;

/// Remembers who did not answer.
#[derive(Debug)]
pub(super) struct Unreachable(LimitedMap<SocketAddr, Failures>);

#[derive(Debug, Clone, Copy)]
struct Failures {
    times: u32,
    last: Instant,
    retried: Option<Instant>,
}

impl Unreachable {
    pub fn new() -> Self {
        Self(LimitedMap::new(ENDPOINTS_MAX))
    }

    /// A query to `addr` has not been answered in time. If it is in the end, `on_alive` follows.
    pub fn on_silent(&mut self, now: Instant, addr: SocketAddr) {
        let failures =
            self.0.get_or_insert_with(addr, || Failures { times: 0, last: now, retried: None });
        failures.times = failures.times.saturating_add(1);
        failures.last = now;
        // Two go for each that comes, so the long forgotten do not add up.
        for _ in 0..2 {
            let oldest = self.0.oldest();
            if oldest.is_none_or(|(_, failures)| now.since(failures.last) < MEMORY) {
                return;
            }
            self.0.pop_oldest();
        }
    }

    /// `addr` spoke.
    pub fn on_alive(&mut self, addr: &SocketAddr) {
        self.0.remove(addr);
    }

    /// May a lost query to `addr` be sent once more? Yes once in ten minutes, whichever lookup asks:
    /// many lookups at once must not multiply what a silent third party gets.
    pub fn may_retry(&mut self, now: Instant, addr: &SocketAddr) -> bool {
        let Some(failures) = self.0.get_mut(addr) else { return true };
        let spent = failures.retried.is_some_and(|at| now.since(at) < RETRY_PAUSE);
        if !spent {
            failures.retried = Some(now);
        }
        !spent
    }

    /// Should `addr` be left alone for now?
    pub fn has(&self, now: Instant, addr: &SocketAddr) -> bool {
        self.0.peek(addr).is_some_and(|failures| {
            let doublings = failures.times.saturating_sub(2).min(4);
            failures.times >= 2 && now.since(failures.last) < PAUSE * (1 << doublings)
        })
    }

    /// Has `addr` been silent lately, be it once? For what can do without it.
    pub fn has_been_silent(&self, now: Instant, addr: &SocketAddr) -> bool {
        self.0.peek(addr).is_some_and(|failures| now.since(failures.last) < SILENCE)
    }

    /// The network was away: none of it counts.
    pub fn clear(&mut self) {
        *self = Self::new();
    }
}

/// Endpoints remembered, at some 100 bytes; the longest silent is forgotten first. Around each of 10,000
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
        assert_eq!(dead.0.len(), ENDPOINTS_MAX);
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
