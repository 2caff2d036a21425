//! Going to sleep without missing work.
//!
//! ```text
//!   worker                              whoever brings work
//!     asleep = true                       publish work
//!     fence                               fence
//!     work?  yes: asleep = false          asleep?  yes: ring the bell
//!            no:  wait for the bell                no:  nothing, not even a system call
//! ```
//!
//! Either the worker sees the work or the other side sees that it sleeps: that is what the two fences are for.

use crate::sync::{AtomicBool, Ordering, fence};

/// Whether a worker sleeps.
#[derive(Debug)]
pub(crate) struct Sleeper {
    asleep: AtomicBool,
}

impl Sleeper {
    pub(crate) fn new() -> Self {
        Sleeper { asleep: AtomicBool::new(false) }
    }

    /// The worker wants to sleep; it may if this returns true, which depends on `idle`: nothing has been published.
    pub(crate) fn doze(&self, idle: impl FnOnce() -> bool) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let may = idle();
        if !may {
            self.awake();
        }
        may
    }

    /// The worker is up again.
    pub(crate) fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Work has been published; true: the bell must be rung, by this caller and no other.
    #[inline]
    pub(crate) fn must_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel)
    }
}
