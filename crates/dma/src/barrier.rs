//! This module has asymmetric memory barriers: one side is passed all the time, the other hardly
//! ever.
//!
//! A full barrier makes a worker wait until its stores have reached the other cores, which takes as
//! long as several frames. Linux can be asked to have one executed on all cores that run this
//! process, membarrier(2), whenever somebody needs it: then the worker's side is an order to the
//! compiler and nothing else. Where the kernel does not know the call, both sides are ordinary
//! barriers.

#[cfg(any(loom, miri))]
pub(crate) use ordinary::{heavy, light, prepare};
#[cfg(not(any(loom, miri)))]
pub(crate) use system::{heavy, light, prepare};

#[cfg(not(any(loom, miri)))]
mod system {
    use std::sync::Once;
    use std::sync::atomic::{AtomicBool, Ordering, compiler_fence, fence};
    use std::time::Duration;

    /// Number of MEMBARRIER_CMD_PRIVATE_EXPEDITED, membarrier(2); that of its registration follows.
    const PRIVATE_EXPEDITED: libc::c_long = 1 << 3;
    const REGISTER_PRIVATE_EXPEDITED: libc::c_long = 1 << 4;

    /// True once the kernel has agreed to execute barriers. It is written once, before the first
    /// barrier.
    static AGREED: AtomicBool = AtomicBool::new(false);
    static ASKED: Once = Once::new();

    /// Registers this process with the kernel. It is called before the first barrier of any thread.
    pub(crate) fn prepare() {
        ASKED.call_once(|| {
            AGREED.store(membarrier(REGISTER_PRIVATE_EXPEDITED), Ordering::Relaxed);
        });
    }

    /// Passes the side that is passed often.
    #[inline]
    pub(crate) fn light() {
        if AGREED.load(Ordering::Relaxed) {
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
    }

    /// Passes the side that is passed seldom.
    pub(crate) fn heavy() {
        fence(Ordering::SeqCst);
        // The call fails only for lack of memory once it is registered. Going on without it would
        // be a race.
        while AGREED.load(Ordering::Relaxed) && !membarrier(PRIVATE_EXPEDITED) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn membarrier(command: libc::c_long) -> bool {
        // SAFETY: the call takes three numbers and touches no memory of this process.
        unsafe {
            libc::syscall(libc::SYS_membarrier, command, 0 as libc::c_long, 0 as libc::c_long) == 0
        }
    }
}

#[cfg(any(loom, miri))]
mod ordinary {
    #[cfg(loom)]
    use loom::sync::atomic::{Ordering, fence};
    #[cfg(not(loom))]
    use std::sync::atomic::{Ordering, fence};

    pub(crate) fn prepare() {}

    pub(crate) fn light() {
        fence(Ordering::SeqCst);
    }

    pub(crate) fn heavy() {
        fence(Ordering::SeqCst);
    }
}
