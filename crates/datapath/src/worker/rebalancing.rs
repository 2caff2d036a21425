//! This module is a worker's part in a rebalancing.

use super::queues::{MovingQueue, Queues};
use crate::config::Direction;
use crate::handover::placement::Pair;
use crate::handover::rebalance::Rebalance;
use crate::switch::egress::RxOwner;

impl Queues {
    /// Takes part in a rebalancing of all workers. [`Rebalance`] says what the phases are for.
    pub(crate) fn rebalance(&mut self, rebalance: &Rebalance<MovingQueue>) {
        let barrier = &rebalance.barrier;
        barrier.pass(1, || {
            self.exchange();
        });
        // The frames handed over before the stop leave this worker.
        while !self.flush() {
            self.exchange();
        }
        barrier.pass(2, || {
            self.exchange();
        });
        // The other workers deliver them, and the completions leave.
        while self.exchange() || !self.flush() {}
        barrier.pass(3, || {
            self.exchange();
        });
        while self.exchange() {}
        for (pair, to) in &rebalance.moves {
            self.leave(*pair, *to, rebalance);
        }
        barrier.pass(4, || {});
        for queue in rebalance.adopt(self.worker) {
            self.adopt(queue);
        }
    }

    /// Leaves the queues of a pair for worker `to`.
    fn leave(&mut self, pair: Pair, to: usize, rebalance: &Rebalance<MovingQueue>) {
        let (id, number) = pair;
        if to == self.worker || self.switch.function(id.index()).is_none() {
            return;
        }
        let owner = self.egress.owner_mut(id, number);
        match std::mem::replace(owner, RxOwner::Remote(to)) {
            RxOwner::Local(queue) => rebalance.leave(to, MovingQueue::Receive(pair, queue)),
            RxOwner::None => *owner = RxOwner::None,
            RxOwner::Remote(_) => {}
        }
        for slot in 0..self.transmit.len() {
            let taken = self.take_transmit(slot, |place| {
                (place.queue.function, place.queue.pair) == pair && place.stopping.is_none()
            });
            if let Some(place) = taken {
                rebalance.leave(to, MovingQueue::Transmit(Box::new(place)));
            }
        }
    }

    /// Takes on a queue that another worker left.
    fn adopt(&mut self, queue: MovingQueue) {
        match queue {
            MovingQueue::Receive((id, pair), queue) => {
                if queue.moderation.is_set() {
                    self.moderate((id, pair, Direction::Receive));
                }
                *self.egress.owner_mut(id, pair) = RxOwner::Local(queue);
            }
            MovingQueue::Transmit(place) => {
                if place.queue.moderation.is_set() {
                    self.moderate((place.queue.function, place.queue.pair, Direction::Transmit));
                }
                if let Err(error) = self.add_transmit(*place) {
                    tracing::error!(%error, "a queue cannot be served any more");
                }
            }
        }
    }
}
