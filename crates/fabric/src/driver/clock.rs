//! This module is time as the driver sees it.

use std::time::{Duration, Instant};

/// A source of time. Tests bring their own.
pub trait Clock: Send + Sync {
    /// Returns the present time.
    fn now(&self) -> Instant;
    /// Waits until `duration` has passed.
    fn sleep(&self, duration: Duration);
}

/// The clock of the machine.
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
