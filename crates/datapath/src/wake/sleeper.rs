//! This module lets a worker go to sleep without missing work.
//!
//! ```text
//!   worker                                a thread that brings work
//!     asleep = true                         publish work
//!     fence                                 fence
//!     work?  yes: asleep = false            asleep?  yes: signal the eventfd
//!            no:  wait for the eventfd               no:  nothing, not even a system call
//! ```
//!
//! The two fences make sure that the worker sees the work, or the other thread sees that the worker
//! sleeps.

use crate::sync::{AtomicBool, Ordering, fence};

/// Says whether a worker sleeps.
#[derive(Debug)]
pub(crate) struct Sleeper {
    asleep: AtomicBool,
}

impl Sleeper {
    pub(crate) fn new() -> Self {
        Sleeper { asleep: AtomicBool::new(false) }
    }

    /// Announces that the worker is about to sleep. It may if this returns true, which it does if
    /// `idle` finds that no work has been published.
    pub(crate) fn try_sleep(&self, idle: impl FnOnce() -> bool) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let may = idle();
        if !may {
            self.woke();
        }
        may
    }

    /// Says that the worker is awake again.
    pub(crate) fn woke(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Returns true if the worker sleeps and this caller, and no other, has to signal its eventfd.
    /// Call it after work has been published.
    #[inline]
    pub(crate) fn needs_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel)
    }
}
