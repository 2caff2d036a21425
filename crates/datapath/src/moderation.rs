//! This module lets interrupts wait for more frames: notification coalescing (virtio 1.3,
//! 5.1.6.5.9).

use manifold_virtio::net::Coalescing;

use crate::clock::Clock;

/// Decides when the driver of one queue is interrupted.
#[derive(Debug, Default)]
pub(crate) struct Moderation {
    packets: u32,
    /// Longest wait, in ticks.
    delay: u64,
    /// Number of frames since the driver first wanted the interrupt that is due.
    waiting: u32,
    /// Time at which the interrupt that is due is raised at the latest; `None` if none is due.
    deadline: Option<u64>,
}

impl Moderation {
    /// Sets new parameters. An interrupt that waits is raised at the next look.
    pub(crate) fn set(&mut self, to: Coalescing, clock: &Clock) {
        self.packets = to.max_packets;
        self.delay = clock.ticks(u64::from(to.max_usecs));
        if self.deadline.is_some() {
            self.deadline = Some(0);
        }
    }

    /// Counts `frames` that have gone through the queue; `wanted` says whether the driver wants an
    /// interrupt for them. Returns true if one is to be raised now.
    #[inline]
    pub(crate) fn passed(
        &mut self,
        frames: usize,
        wanted: bool,
        now: impl FnOnce() -> u64,
    ) -> bool {
        if self.delay == 0 || self.packets <= 1 {
            // Without either bound an interrupt could be held back for ever.
            return wanted;
        }
        if self.deadline.is_none() {
            if !wanted {
                return false;
            }
            self.deadline = Some(now().saturating_add(self.delay));
            self.waiting = 0;
        }
        self.waiting = self.waiting.saturating_add(frames as u32);
        let full = self.waiting >= self.packets;
        if full {
            self.deadline = None;
        }
        full
    }

    /// Returns true if interrupts may wait at all.
    pub(crate) fn is_set(&self) -> bool {
        self.delay > 0
    }

    /// Returns the time at which the next interrupt is due, if one is.
    pub(crate) fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// Returns true if an interrupt is due by now, which then counts as raised.
    pub(crate) fn due(&mut self, now: u64) -> bool {
        let due = self.deadline.is_some_and(|deadline| now >= deadline);
        if due {
            self.deadline = None;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moderation(max_packets: u32, max_usecs: u32) -> (Moderation, u64) {
        let clock = Clock::new();
        let mut moderation = Moderation::default();
        moderation.set(Coalescing { max_packets, max_usecs }, &clock);
        (moderation, clock.ticks(u64::from(max_usecs)))
    }

    #[test]
    fn without_parameters_nothing_waits() {
        for (packets, usecs) in [(0, 0), (0, 100), (1, 100), (32, 0)] {
            let (mut moderation, _) = moderation(packets, usecs);
            assert!(moderation.passed(1, true, || 0));
            assert!(!moderation.passed(1, false, || 0));
            assert_eq!(moderation.deadline(), None);
        }
    }

    #[test]
    fn frames_or_time_whichever_is_first() {
        let (mut moderation, delay) = moderation(10, 50);
        assert!(!moderation.passed(4, false, || 0), "not wanted");
        assert_eq!(moderation.deadline(), None);
        assert!(!moderation.passed(4, true, || 1000));
        assert_eq!(moderation.deadline(), Some(1000 + delay));
        // The driver says only once that it wants an interrupt.
        assert!(!moderation.passed(5, false, || 2000));
        assert!(moderation.passed(1, false, || 3000));
        assert_eq!(moderation.deadline(), None);

        assert!(!moderation.passed(1, true, || 5000));
        assert!(!moderation.due(5000 + delay - 1));
        assert!(moderation.due(5000 + delay));
        assert!(!moderation.due(u64::MAX), "once");
    }

    #[test]
    fn new_parameters_release_what_waits() {
        let (mut moderation, _) = moderation(10, 50);
        assert!(!moderation.passed(1, true, || 1000));
        moderation.set(Coalescing::default(), &Clock::new());
        assert!(moderation.due(1));
    }
}
