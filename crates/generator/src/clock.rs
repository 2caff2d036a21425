//! This module tells time by the processor's time stamp counter, in a few nanoseconds and without a
//! system call.

/// Reads the time stamp counter and knows how fast it goes.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    clock: quanta::Clock,
    hz: f64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let clock = quanta::Clock::new();
        // quanta converts cycles to nanoseconds; the frequency follows from that.
        let cycles = 1 << 40;
        let ns = clock.delta_as_nanos(0, cycles).max(1);
        Self { clock, hz: cycles as f64 * 1e9 / ns as f64 }
    }

    /// Returns the time in cycles.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.clock.raw()
    }

    /// Returns the cycles per second.
    pub(crate) fn hz(&self) -> f64 {
        self.hz
    }

    /// Converts milliseconds to cycles.
    pub(crate) fn cycles(&self, ms: u64) -> u64 {
        (ms as f64 * 1e-3 * self.hz) as u64
    }

    /// Converts cycles to nanoseconds.
    pub(crate) fn ns(&self, cycles: u64) -> f64 {
        cycles as f64 * 1e9 / self.hz
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn it_keeps_time() {
        let clock = Clock::new();
        let (begin, from) = (Instant::now(), clock.now());
        while begin.elapsed() < Duration::from_millis(20) {}
        let (real, counted) = (begin.elapsed().as_nanos() as f64, clock.ns(clock.now() - from));
        assert!((0.95..1.05).contains(&(counted / real)), "{counted} ns of {real}");
        assert_eq!(clock.cycles(1000) as f64, clock.hz().floor());
    }
}
