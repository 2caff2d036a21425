//! This module raises interrupts that wait, for the queues with notification coalescing.

use manifold_virtio::net::Coalescing;

use super::queues::{QueueId, Queues};
use crate::config::Direction;
use crate::moderation::Moderation;

impl Queues {
    /// Raises the interrupts that have waited long enough.
    pub(crate) fn raise_due(&mut self, now: u64) {
        for index in 0..self.moderated.len() {
            let Some(id) = self.moderated.get(index).copied() else { break };
            if self.moderation(id).is_some_and(|moderation| moderation.due(now)) {
                self.raise(id);
            }
        }
    }

    /// Returns the time at which the next interrupt is due.
    pub(crate) fn next_due(&mut self) -> Option<u64> {
        let mut next = None;
        for index in 0..self.moderated.len() {
            let id = self.moderated.get(index).copied()?;
            let due = self.moderation(id).and_then(|moderation| moderation.deadline());
            next = [next, due].into_iter().flatten().min();
        }
        next
    }

    /// Sets new parameters for a queue's interrupts.
    pub(crate) fn set_coalescing(&mut self, id: QueueId, coalescing: Coalescing) {
        let clock = self.clock.clone();
        if let Some(moderation) = self.moderation(id) {
            moderation.set(coalescing, &clock);
            self.moderate(id);
        }
    }

    /// Looks after a queue's interrupts from now on.
    pub(crate) fn moderate(&mut self, id: QueueId) {
        if !self.moderated.contains(&id) {
            self.moderated.push(id);
        }
    }

    fn moderation(&mut self, (function, pair, direction): QueueId) -> Option<&mut Moderation> {
        match direction {
            Direction::Receive => {
                self.egress.local(function.index(), pair).map(|queue| &mut queue.moderation)
            }
            Direction::Transmit => {
                self.transmit_slot(function, pair).map(|(_, place)| &mut place.queue.moderation)
            }
        }
    }

    fn raise(&mut self, (function, pair, direction): QueueId) {
        let Queues { switch, egress, transmit, .. } = self;
        let Some((_, counters)) = switch.queue(function.index(), pair) else { return };
        match direction {
            Direction::Receive => {
                if let Some(queue) = egress.local(function.index(), pair) {
                    queue.raise(counters);
                }
            }
            Direction::Transmit => {
                let mut slots = transmit.iter().flatten();
                if let Some(slot) = slots.find(|slot| slot.is(function, pair)) {
                    slot.queue.raise(counters);
                }
            }
        }
    }
}
