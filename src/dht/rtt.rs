//! How long do answers take here? A histogram of round trips decides when a query counts as
//! stalled and another may be sent in its place; a stalled query can still be answered.
//!
//! The idea is mldht's: a fixed timeout is either slow or wasteful, because networks differ.

use std::time::Duration;

/// A decaying histogram of round trips.
#[derive(Debug, Clone)]
pub struct RttHistogram {
    bins: [f32; BINS],
    since_decay: u32,
}

impl RttHistogram {
    /// A guess at the public network, light enough to be forgotten within a lookup.
    pub fn new() -> Self {
        let mut bins = [0.0; BINS];
        for (millis, weight) in [(75, 0.5), (150, 0.5), (300, 0.5), (500, 0.5)] {
            bins[millis / BIN_MILLIS] = weight;
        }
        Self { bins, since_decay: 0 }
    }

    /// One answer took this long.
    pub fn record(&mut self, rtt: Duration) {
        let bin = usize::try_from(rtt.as_millis()).unwrap_or(usize::MAX) / BIN_MILLIS;
        self.bins[bin.min(BINS - 1)] += 1.0;
        self.since_decay += 1;
        if self.since_decay == DECAY_EVERY {
            self.since_decay = 0;
            self.bins.iter_mut().for_each(|bin| *bin *= DECAY);
        }
    }

    /// After this long without an answer a query counts as stalled.
    pub fn stall(&self) -> Duration {
        let quick = self.percentile(0.1) + Duration::from_millis(100);
        quick.max(self.percentile(0.9)).clamp(STALL_MIN, STALL_MAX)
    }

    /// The round trip that `share` of the answers stayed below.
    pub fn percentile(&self, share: f32) -> Duration {
        let total: f32 = self.bins.iter().sum();
        let mut sum = 0.0;
        for (bin, weight) in self.bins.iter().enumerate() {
            sum += weight;
            if sum >= total * share {
                // The upper end of the bin.
                return Duration::from_millis(((bin + 1) * BIN_MILLIS) as u64);
            }
        }
        Duration::from_millis((BINS * BIN_MILLIS) as u64)
    }
}

impl Default for RttHistogram {
    fn default() -> Self {
        Self::new()
    }
}

/// No query stalls earlier: below it scheduling on a busy machine decides, not the network.
pub const STALL_MIN: Duration = Duration::from_millis(150);
/// Every query without an answer stalls by then.
pub const STALL_MAX: Duration = Duration::from_millis(1_500);
const BIN_MILLIS: usize = 25;
// 64 bins of 25 ms reach just beyond the longest stall.
const BINS: usize = 64;
const DECAY_EVERY: u32 = 16;
const DECAY: f32 = 0.95;

const _: () = assert!(BINS * BIN_MILLIS >= 1_500, "the bins reach STALL_MAX");

#[cfg(test)]
mod tests {
    use super::*;

    fn after(rtts: &[u64]) -> Duration {
        let mut histogram = RttHistogram::new();
        for _ in 0..200 {
            rtts.iter().for_each(|ms| histogram.record(Duration::from_millis(*ms)));
        }
        histogram.stall()
    }

    #[test]
    fn stall_follows_the_network() {
        assert_eq!(after(&[1]), STALL_MIN);
        assert_eq!(after(&[90]), Duration::from_millis(200));
        assert_eq!(
            after(&[50, 60, 90, 90, 90, 90, 100, 120, 150, 180, 180, 400]),
            Duration::from_millis(200)
        );
        assert_eq!(after(&[50, 100, 200, 400, 700]), Duration::from_millis(725));
        assert_eq!(after(&[5_000]), STALL_MAX);
    }

    #[test]
    fn first_guess_is_forgotten_within_a_lookup() {
        let mut histogram = RttHistogram::new();
        assert!(histogram.stall() > Duration::from_millis(400));
        (0..80).for_each(|_| histogram.record(Duration::from_millis(40)));
        assert!(histogram.stall() < Duration::from_millis(200));
    }
}
