//! The window is the time for which a worker polls before it sleeps.
//!
//! A sleep that is over after a few microseconds was not worth its system calls, nor the
//! interrupt-like kick that ended it: the next time the worker polls for longer. A long sleep shows
//! that polling was wasted: it polls for less. So a stream of bursts, or a conversation, is polled
//! through, and a worker that hears something now and then is soon asleep.

use crate::clock::Clock;

/// Bounds of the window in microseconds.
const LEAST: u64 = 4;
const MOST: u64 = 64;

/// An adaptive span of time, in ticks.
#[derive(Debug)]
pub(crate) struct Window {
    now: u64,
    least: u64,
    most: u64,
}

impl Window {
    pub(crate) fn new(clock: &Clock) -> Self {
        let (least, most) = (clock.ticks(LEAST), clock.ticks(MOST));
        Window { now: least, least, most }
    }

    /// Returns the span in ticks.
    #[inline]
    pub(crate) fn ticks(&self) -> u64 {
        self.now
    }

    /// Adapts the span to a sleep that took `ticks` ticks.
    pub(crate) fn slept(&mut self, ticks: u64) {
        if ticks <= self.most {
            self.now = (self.now * 2).min(self.most);
        } else if ticks > self.most * 4 {
            self.now = (self.now / 2).max(self.least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_sleeps_lengthen_it_and_long_ones_shorten_it() {
        let clock = Clock::new();
        let us = |n| clock.ticks(n);
        let mut window = Window::new(&clock);
        assert_eq!(window.ticks(), us(LEAST));
        for _ in 0..10 {
            window.slept(us(10));
        }
        assert_eq!(window.ticks(), us(MOST));
        window.slept(us(2 * MOST));
        assert_eq!(window.ticks(), us(MOST), "neither");
        for _ in 0..10 {
            window.slept(us(1000));
        }
        assert_eq!(window.ticks(), us(LEAST));
    }
}
