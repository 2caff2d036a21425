//! All workers meet at a barrier that has phases.

use crate::sync::{AtomicUsize, Ordering, relax};

/// A barrier that all workers pass in numbered phases.
#[derive(Debug)]
pub(crate) struct PhaseBarrier {
    workers: usize,
    /// Number of arrivals of all workers, over all phases.
    arrivals: AtomicUsize,
}

impl PhaseBarrier {
    pub(crate) fn new(workers: usize) -> Self {
        PhaseBarrier { workers, arrivals: AtomicUsize::new(0) }
    }

    /// Arrives at phase `phase`, counted from 1, and waits until every worker has. While it waits,
    /// it calls `meanwhile` over and over.
    pub(crate) fn pass(&self, phase: usize, mut meanwhile: impl FnMut()) {
        self.arrivals.fetch_add(1, Ordering::AcqRel);
        while self.arrivals.load(Ordering::Acquire) < phase * self.workers {
            meanwhile();
            relax();
        }
    }
}
