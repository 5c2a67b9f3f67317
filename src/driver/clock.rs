//! The one place that reads the monotonic clock.

use std::time::Duration;

use crate::base::Instant;

/// Relates virtual time to the system's monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// A clock that shows [`Instant::ZERO`] now.
    #[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
    pub fn start() -> Self {
        Self { start: std::time::Instant::now() }
    }

    /// The time now.
    pub fn now(&self) -> Instant {
        Instant::ZERO + self.start.elapsed()
    }

    /// When the runtime has to wake us for `at`.
    pub(super) fn deadline(&self, at: Instant) -> tokio::time::Instant {
        // A day from now is as good as never, and within every timer's range.
        let ahead = at.since(self.now()).min(Duration::from_secs(86_400));
        (self.start + self.start.elapsed() + ahead).into()
    }
}
