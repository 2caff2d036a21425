//! Workers measure time by the processor's time-stamp counter, where it is usable.

use quanta::Clock as Counter;

/// A clock that counts ticks.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    counter: Counter,
    per_us: u64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let counter = Counter::new();
        // The span is long enough that rounding does not matter.
        const SPAN: u64 = 1 << 32;
        let nanos = counter.delta_as_nanos(0, SPAN).max(1);
        let per_us = (u128::from(SPAN) * 1000 / u128::from(nanos)).max(1) as u64;
        Clock { counter, per_us }
    }

    /// Returns the ticks since some time in the past.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.counter.raw()
    }

    /// Returns the ticks in `us` microseconds.
    pub(crate) fn ticks(&self, us: u64) -> u64 {
        us.saturating_mul(self.per_us)
    }

    /// Returns the ticks per second.
    pub(crate) fn frequency(&self) -> u64 {
        self.per_us.saturating_mul(1_000_000)
    }

    /// Returns the nanoseconds in `ticks` ticks.
    pub(crate) fn nanos(&self, ticks: u64) -> u64 {
        (u128::from(ticks) * 1000 / u128::from(self.per_us)) as u64
    }
}
