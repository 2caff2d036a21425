//! This module has the atomics that the protocols between workers are made of. They are the
//! standard library's, or loom's where the models run.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

/// Waits a moment for another worker.
pub(crate) fn relax() {
    #[cfg(loom)]
    loom::thread::yield_now();
    // The other worker may need this very core.
    #[cfg(not(loom))]
    rustix::thread::sched_yield();
}
