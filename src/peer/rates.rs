//! How fast payload flows. Bytes are counted as they come; the rate is worked out once a tick, so
//! that a block costs two additions.

use std::time::Duration;

use crate::base::Instant;

/// Counts bytes in one direction.
#[derive(Debug, Clone)]
pub struct Meter {
    total: u64,
    since_roll: u64,
    rolled_at: Instant,
    per_second: f64,
}

impl Meter {
    /// Nothing counted yet.
    pub fn new(now: Instant) -> Self {
        Self { total: 0, since_roll: 0, rolled_at: now, per_second: 0.0 }
    }

    /// Counts `bytes`.
    pub fn add(&mut self, bytes: usize) {
        self.total += bytes as u64;
        self.since_roll += bytes as u64;
    }

    /// Works the rate out; called once a tick.
    pub fn roll(&mut self, now: Instant) {
        let elapsed = now.since(self.rolled_at);
        if elapsed < ROLL_MIN {
            return;
        }
        let current = self.since_roll as f64 / elapsed.as_secs_f64();
        // Up at once, down by half a roll: a pipeline is sized by this, and one that shrinks on
        // every hiccup never fills the line.
        self.per_second = if current > self.per_second {
            current
        } else {
            let faded = (self.per_second + current) / 2.0;
            if faded < 1.0 { 0.0 } else { faded }
        };
        self.since_roll = 0;
        self.rolled_at = now;
    }

    /// Bytes a second, lately.
    pub fn per_second(&self) -> u64 {
        self.per_second as u64
    }

    /// Bytes in all.
    pub fn total(&self) -> u64 {
        self.total
    }
}

const ROLL_MIN: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_follows_up_at_once_and_fades_when_nothing_comes() {
        let mut now = Instant::ZERO;
        let mut meter = Meter::new(now);
        meter.add(1000);
        now += Duration::from_millis(500);
        meter.roll(now);
        assert_eq!(meter.per_second(), 2000);
        for _ in 0..12 {
            now += Duration::from_millis(500);
            meter.roll(now);
        }
        assert_eq!((meter.per_second(), meter.total()), (0, 1000));
    }
}
