//! The atomics that the worker protocols are made of: the standard library's, or loom's where the models run.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

/// One turn of a wait for another worker.
pub(crate) fn relax() {
    #[cfg(loom)]
    loom::thread::yield_now();
    // Whoever is waited for may need this very core.
    #[cfg(not(loom))]
    rustix::thread::sched_yield();
}
