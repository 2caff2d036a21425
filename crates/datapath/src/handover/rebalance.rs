//! Queue pairs change workers while all workers wait for each other.
//!
//! ```text
//!   1 stop     no worker takes frames from its transmit queues; each still serves its inboxes
//!   2 deliver  every frame handed over has been delivered, and its completion has been sent
//!   3 leave    the completions have arrived; queues that move are left for their new workers
//!   4 adopt    the new workers take them on
//! ```
//!
//! A phase begins when every worker has finished the one before. So a queue moves when no frame of
//! it is in flight, and no frame is lost or overtaken.

use parking_lot::Mutex;

use super::barrier::PhaseBarrier;
use super::placement::Pair;

/// One rebalancing, in which all workers take part. `Q` is a queue that moves.
pub(crate) struct Rebalance<Q> {
    pub(crate) barrier: PhaseBarrier,
    /// The pairs that move, each with the number of its new worker.
    pub(crate) moves: Vec<(Pair, usize)>,
    /// The queues that have left their old workers, each with the number of its new one.
    moving: Mutex<Vec<(usize, Q)>>,
}

impl<Q> Rebalance<Q> {
    pub(crate) fn new(workers: usize, moves: Vec<(Pair, usize)>) -> Self {
        Rebalance { barrier: PhaseBarrier::new(workers), moves, moving: Mutex::default() }
    }

    /// Leaves a queue for worker `to`.
    pub(crate) fn leave(&self, to: usize, queue: Q) {
        self.moving.lock().push((to, queue));
    }

    /// Returns the queues that were left for `worker`.
    pub(crate) fn adopt(&self, worker: usize) -> Vec<Q> {
        let mut moving = self.moving.lock();
        moving.extract_if(.., |(to, _)| *to == worker).map(|(_, queue)| queue).collect()
    }
}
