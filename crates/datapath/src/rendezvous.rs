//! All workers meet, so that queues can change hands with nothing in flight between workers.
//!
//! ```text
//!   arrive   no worker takes frames from a transmit queue any more; each still serves its inboxes
//!   settle   every frame handed over has been delivered, every receipt has been sent
//!   give     receipts are in; queues that move are laid down
//!   take     they are picked up by their new workers
//! ```
//!
//! Each step begins when every worker has finished the one before. A frame is neither lost nor overtaken.

use crate::sync::{AtomicUsize, Ordering, relax};

/// A meeting of a number of workers.
#[derive(Debug)]
pub(crate) struct Rendezvous {
    workers: usize,
    /// Counts every worker at every step.
    passed: AtomicUsize,
}

impl Rendezvous {
    pub(crate) fn new(workers: usize) -> Self {
        Rendezvous { workers, passed: AtomicUsize::new(0) }
    }

    /// Ends step `step`, from 1, and waits until all have; `meanwhile` runs over and over.
    pub(crate) fn step(&self, step: usize, mut meanwhile: impl FnMut()) {
        self.passed.fetch_add(1, Ordering::AcqRel);
        while self.passed.load(Ordering::Acquire) < step * self.workers {
            meanwhile();
            relax();
        }
    }
}
