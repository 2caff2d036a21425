//! Time as the driver sees it.

use std::time::{Duration, Instant};

/// Time as the driver sees it; tests bring their own.
pub trait Clock: Send + Sync {
    /// The present.
    fn now(&self) -> Instant;
    /// Returns once so much time has passed.
    fn sleep(&self, duration: Duration);
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}
