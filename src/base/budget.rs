//! What a rate limit leaves to spend: bytes that may flow now. A budget fills at its rate, and may be
//! overdrawn by what cannot be cut in parts; over time no more flows than the rate says.

use std::num::NonZeroU64;

use crate::base::Instant;
use crate::base::bounded::TokenBucket;
use crate::base::limits::BLOCK_LEN;

/// Bytes that may flow in one direction.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    rate: Option<u32>,
    bucket: TokenBucket,
    /// When the bucket was last looked into.
    seen: Instant,
}

/// The budgets of both directions.
#[derive(Debug, Clone, Copy)]
pub struct Budgets {
    /// What comes.
    pub down: Budget,
    /// What goes.
    pub up: Budget,
}

/// Limits of a rate, in bytes of payload a second; `None` for no limit. What is above 4 GiB a second
/// counts as 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimits {
    /// What comes.
    pub down: Option<NonZeroU64>,
    /// What goes.
    pub up: Option<NonZeroU64>,
}

/// Which way bytes flow, as we see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To us.
    Down,
    /// From us.
    Up,
}

impl Budgets {
    /// Full budgets.
    pub fn new(limits: RateLimits, now: Instant) -> Self {
        Self { down: Budget::new(limits.down, now), up: Budget::new(limits.up, now) }
    }

    /// Other limits from now on.
    pub fn set(&mut self, now: Instant, limits: RateLimits) {
        self.down.set_rate(now, limits.down);
        self.up.set_rate(now, limits.up);
    }

    /// The budget of one direction.
    pub fn of(&mut self, direction: Direction) -> &mut Budget {
        match direction {
            Direction::Down => &mut self.down,
            Direction::Up => &mut self.up,
        }
    }
}

impl Budget {
    /// A full budget; `None` for no limit.
    pub fn new(rate: Option<NonZeroU64>, now: Instant) -> Self {
        let rate = rate.map(clamped);
        let bucket = TokenBucket::full(rate.map_or(0, burst), now);
        Self { rate, bucket, seen: now }
    }

    /// Another rate from now on. What was overdrawn stays overdrawn.
    pub fn set_rate(&mut self, now: Instant, rate: Option<NonZeroU64>) {
        self.left(now);
        let was_free = self.rate.is_none();
        self.rate = rate.map(clamped);
        if let Some(rate) = self.rate.filter(|_| was_free) {
            self.bucket = TokenBucket::full(burst(rate), now);
        }
        self.seen = now;
    }

    /// Is there a limit?
    pub fn is_limited(&self) -> bool {
        self.rate.is_some()
    }

    /// Bytes that may flow now; zero if it is overdrawn.
    pub fn left(&mut self, now: Instant) -> usize {
        let Some(rate) = self.rate else { return usize::MAX };
        self.seen = now;
        let tokens = self.bucket.fill(now, rate, burst(rate)) * f64::from(burst(rate));
        tokens.max(0.0) as usize
    }

    /// So much flows, whether there was so much or not.
    pub fn spend(&mut self, bytes: usize) {
        if self.is_limited() {
            self.bucket.spend(bytes as f64);
        }
    }

    /// So much did not flow after all.
    pub fn refund(&mut self, bytes: usize) {
        if self.is_limited() {
            self.bucket.spend(-(bytes as f64));
        }
    }

    /// When there will be something worth waking for.
    pub fn ready_at(&self) -> Instant {
        self.rate.map_or(self.seen, |rate| {
            self.seen + self.bucket.wait_for(f64::from(portion(rate)), rate)
        })
    }
}

fn clamped(rate: NonZeroU64) -> u32 {
    u32::try_from(rate.get()).unwrap_or(u32::MAX)
}

// A quarter of a second, and two blocks at least: a portion always fits.
fn burst(rate: u32) -> u32 {
    (rate / 4).max(2 * BLOCK_LEN)
}

// Fifty portions a second at most, each at least a block.
fn portion(rate: u32) -> u32 {
    (rate / 50).max(BLOCK_LEN)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rate(bytes: u64) -> Option<NonZeroU64> {
        NonZeroU64::new(bytes)
    }

    // Spends what there is, at the times that it asks for, in steps of a block.
    fn flow(budget: &mut Budget, mut now: Instant, time: Duration) -> (f64, u32) {
        let (end, mut bytes, mut wakes) = (now + time, 0, 0);
        while now < end {
            while budget.left(now) > 0 {
                budget.spend(BLOCK_LEN as usize);
                bytes += u64::from(BLOCK_LEN);
            }
            now = budget.ready_at();
            wakes += 1;
        }
        (bytes as f64 / time.as_secs_f64(), wakes)
    }

    #[test]
    fn flow_over_a_minute_is_the_rate_at_a_few_wakes_a_second() {
        for wanted in [5_000u64, 100_000, 3_000_000, 1_000_000_000, 4_000_000_000] {
            let mut budget = Budget::new(rate(wanted), Instant::ZERO);
            let (got, wakes) = flow(&mut budget, Instant::ZERO, Duration::from_secs(60));
            let off = got / wanted as f64 - 1.0;
            assert!((-0.01..0.12).contains(&off), "{wanted}: {got}");
            assert!(wanted < 100_000 || off < 0.03, "{wanted}: {got}");
            assert!(wakes <= 60 * 51, "{wanted}: {wakes}");
        }
    }

    #[test]
    fn no_limit_is_never_spent_and_a_new_limit_holds_from_then_on() {
        let mut budget = Budget::new(None, Instant::ZERO);
        budget.spend(usize::MAX);
        assert_eq!(budget.left(Instant::ZERO), usize::MAX);
        assert_eq!(budget.ready_at(), Instant::ZERO);
        let now = Instant::ZERO + Duration::from_secs(9);
        budget.set_rate(now, rate(100_000));
        let (got, _) = flow(&mut budget, now, Duration::from_secs(30));
        assert!((100_000.0..103_000.0).contains(&got), "{got}");
    }

    #[test]
    fn what_did_not_flow_can_be_spent_again() {
        let mut budget = Budget::new(rate(1_000_000), Instant::ZERO);
        let full = budget.left(Instant::ZERO);
        budget.spend(full);
        assert_eq!(budget.left(Instant::ZERO), 0);
        budget.refund(full);
        assert_eq!(budget.left(Instant::ZERO), full);
    }

    #[test]
    fn rate_beyond_all_lines_does_not_overflow() {
        let mut budget = Budget::new(rate(u64::MAX), Instant::ZERO);
        assert!(budget.left(Instant::ZERO) > 0);
        budget.spend(u32::MAX as usize);
        assert!(budget.ready_at() > Instant::ZERO);
    }
}
