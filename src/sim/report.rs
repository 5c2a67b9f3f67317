//! Figures of a run, for eyes and for assertions.

use std::fmt;
use std::time::Duration;

/// Durations, to be summed up by their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Durations(Vec<Duration>);

impl Durations {
    /// Adds one.
    pub fn push(&mut self, duration: Duration) {
        let at = self.0.partition_point(|d| *d <= duration);
        self.0.insert(at, duration);
    }

    /// Adds all of `others`.
    pub fn extend(&mut self, others: &Durations) {
        self.0.extend_from_slice(&others.0);
        self.0.sort_unstable();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest that is not exceeded by `percent` of them; zero if there is none.
    pub fn percentile(&self, percent: usize) -> Duration {
        let at = (self.0.len() * percent.min(100)).div_ceil(100).saturating_sub(1);
        self.0.get(at).copied().unwrap_or_default()
    }

    /// The largest; zero if there is none.
    pub fn max(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }
}

impl fmt::Display for Durations {
    /// Median, 90 %, 99 % and maximum in seconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p90, p99] = [50, 90, 99].map(|p| self.percentile(p).as_secs_f64());
        let max = self.max().as_secs_f64();
        write!(f, "p50 {p50:.3} s, p90 {p90:.3} s, p99 {p99:.3} s, max {max:.3} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_members() {
        let mut all = Durations::default();
        assert_eq!((all.percentile(50), all.max()), (Duration::ZERO, Duration::ZERO));
        for n in [5, 1, 4, 2, 3] {
            all.push(Duration::from_secs(n));
        }
        assert_eq!(all.percentile(50), Duration::from_secs(3));
        assert_eq!(all.percentile(100), Duration::from_secs(5));
        assert_eq!(all.percentile(0), Duration::from_secs(1));
        assert_eq!(all.to_string(), "p50 3.000 s, p90 5.000 s, p99 5.000 s, max 5.000 s");
    }
}
