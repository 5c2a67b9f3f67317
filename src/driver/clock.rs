//! The one place that reads the clock of the cores: one that never goes back, is not set by anybody,
//! and counts the time for which the machine slept. A core that wakes up after hours has to know it.

use std::time::Duration;

use crate::base::Instant;

/// Relates virtual time to the system's clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Duration,
}

impl Clock {
    /// A clock that shows [`Instant::ZERO`] now.
    pub fn start() -> Self {
        Self { start: since_boot() }
    }

    /// The time now.
    pub fn now(&self) -> Instant {
        Instant::ZERO + since_boot().saturating_sub(self.start)
    }

    /// When the runtime has to wake us for `at`. Its own clock stands still while the machine sleeps:
    /// what was due then comes as much later as was left of it, and nodes plan seconds ahead.
    #[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
    pub(super) fn deadline(&self, at: Instant) -> tokio::time::Instant {
        // A day from now is as good as never, and within every timer's range.
        let ahead = at.since(self.now()).min(Duration::from_secs(86_400));
        (std::time::Instant::now() + ahead).into()
    }
}

// `std::time::Instant` would do, but on Linux it does not count sleep.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let secs = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(secs, u32::try_from(now.tv_nsec).unwrap_or_default())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
fn since_boot() -> Duration {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_starts_at_zero_and_never_goes_back() {
        let clock = Clock::start();
        let mut last = Instant::ZERO;
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
        assert!(last < Instant::ZERO + Duration::from_secs(60));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a deadline is a time of the runtime")]
    fn deadline_lies_as_far_ahead_as_it_should_and_never_behind() {
        let clock = Clock::start();
        let before: tokio::time::Instant = std::time::Instant::now().into();
        let soon = clock.deadline(clock.now() + Duration::from_secs(5));
        assert!(soon >= before + Duration::from_secs(4) && soon < before + Duration::from_secs(60));
        assert!(clock.deadline(Instant::ZERO) >= before);
        assert!(clock.deadline(Instant::FAR_FUTURE) > before + Duration::from_secs(80_000));
    }
}
