//! This module lets a worker pin the mappings that a VMM is about to change.
//!
//! This is read-copy-update. The worker never waits: it marks its slot, reads the current
//! snapshot's address, and clears the mark when its burst is over. Whoever changes mappings puts a
//! new snapshot in the slot and waits until the burst that may still use the old one has ended. A
//! guest that maps and unmaps without pause thus delays itself and no one else on the same worker.

#[cfg(loom)]
use loom::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::Arc;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
#[cfg(not(loom))]
use std::time::Duration;

use crate::barrier;
use crate::snapshot::Snapshot;

/// Number of looks at a busy slot before going to sleep, which take about as long as a long burst.
#[cfg(not(loom))]
const SPINS: u32 = 1024;
/// Length of one sleep while a reader holds its pin for longer, or has lost the processor.
#[cfg(not(loom))]
const SLEEP: Duration = Duration::from_micros(20);

/// The snapshot that one reader translates with, shared by reader and domain. It has cache lines of
/// its own, since a worker writes to it twice per burst.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Slot {
    /// Number of pins and releases; odd while pinned.
    sequence: AtomicU64,
    /// The current snapshot, from [`Arc::into_raw`]: the slot owns one reference.
    current: AtomicPtr<Snapshot>,
}

impl Slot {
    pub(crate) fn new(snapshot: Arc<Snapshot>) -> Self {
        barrier::prepare();
        Slot {
            sequence: AtomicU64::new(0),
            current: AtomicPtr::new(Arc::into_raw(snapshot).cast_mut()),
        }
    }

    /// Marks the slot and returns the current snapshot, which stays valid until [`Slot::release`].
    ///
    /// # Safety
    /// One thread at a time, and not again before the release.
    #[inline]
    pub(crate) unsafe fn pin(&self) -> *const Snapshot {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Release);
        // The slot is marked, then a barrier is passed, then the address is read. `replace` writes
        // the address, passes its barrier and looks for the mark. One of the two sees what the
        // other wrote: either this is the new snapshot, or `replace` waits.
        barrier::light();
        self.current.load(Ordering::Acquire)
    }

    /// Ends the pin.
    ///
    /// # Safety
    /// By the thread that pinned; the snapshot must not be used any more.
    #[inline]
    pub(crate) unsafe fn release(&self) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Release);
    }

    /// Puts in a new snapshot and returns the old one. Dropping that waits until no pin can refer
    /// to it.
    pub(crate) fn replace(&self, snapshot: Arc<Snapshot>) -> Retired<'_> {
        let new = Arc::into_raw(snapshot).cast_mut();
        let old = self.current.swap(new, Ordering::AcqRel);
        barrier::heavy();
        Retired { slot: self, old, seen: self.sequence.load(Ordering::Acquire) }
    }
}

/// A snapshot that a burst may still be using.
#[derive(Debug)]
pub(crate) struct Retired<'s> {
    slot: &'s Slot,
    old: *const Snapshot,
    seen: u64,
}

impl Drop for Retired<'_> {
    fn drop(&mut self) {
        let mut looks = 0;
        // A later pin read the new address if the slot was not pinned. If it was, any other value
        // will do, for the same reason.
        while !self.seen.is_multiple_of(2)
            && self.slot.sequence.load(Ordering::Acquire) == self.seen
        {
            wait(&mut looks);
        }
        // SAFETY: `old` came from `Arc::into_raw`, the slot owned that reference, and `replace`
        // took it out.
        drop(unsafe { Arc::from_raw(self.old) });
    }
}

/// Waits for one turn.
#[cfg(not(loom))]
fn wait(looks: &mut u32) {
    if *looks < SPINS {
        *looks += 1;
        std::hint::spin_loop();
    } else {
        std::thread::sleep(SLEEP);
    }
}

#[cfg(loom)]
fn wait(looks: &mut u32) {
    *looks = looks.saturating_add(1);
    loom::thread::yield_now();
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: the slot owns this reference; it is no longer shared, so nobody has it pinned.
        drop(unsafe { Arc::from_raw(self.current.load(Ordering::Acquire)) });
    }
}

/// These models run an unmap against a burst in flight, in every order in which their steps can be
/// seen.
#[cfg(loom)]
#[cfg(test)]
mod models {
    use loom::sync::atomic::AtomicBool;
    use loom::thread;

    use super::*;

    #[test]
    fn unmap_returns_when_no_burst_uses_the_old_mappings() {
        loom::model(|| {
            let old = Snapshot::new(imbl::OrdMap::new(), true);
            let first = old.version;
            let slot = loom::sync::Arc::new(Slot::new(old));
            let unmapped = loom::sync::Arc::new(AtomicBool::new(false));
            let worker = {
                let (slot, unmapped) = (slot.clone(), unmapped.clone());
                thread::spawn(move || {
                    for _ in 0..2 {
                        // SAFETY: this thread alone pins, and releases before it pins again.
                        let snapshot = unsafe { slot.pin() };
                        // SAFETY: the slot is pinned.
                        let version = unsafe { (*snapshot).version };
                        if version == first {
                            assert!(
                                !unmapped.load(Ordering::Relaxed),
                                "the old mappings are used after unmap returned"
                            );
                        }
                        // SAFETY: `snapshot` is used no more.
                        unsafe { slot.release() };
                    }
                })
            };
            drop(slot.replace(Snapshot::new(imbl::OrdMap::new(), true)));
            unmapped.store(true, Ordering::Relaxed);
            worker.join().unwrap();
        });
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    const CHANGES: u64 = if cfg!(miri) { 50 } else { 20_000 };

    fn snapshot() -> Arc<Snapshot> {
        Snapshot::new(imbl::OrdMap::new(), true)
    }

    /// This test under Miri finds a snapshot that is freed too early, and an ordering that is too
    /// weak.
    #[test]
    fn a_pinned_snapshot_is_not_freed() {
        let slot = Slot::new(snapshot());
        let (begin, done) = (Barrier::new(2), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut last = 0;
                begin.wait();
                while !done.load(Ordering::Relaxed) {
                    // SAFETY: this thread alone pins, and releases before it pins again.
                    let snapshot = unsafe { slot.pin() };
                    // SAFETY: the slot is pinned.
                    let (version, bus_master) =
                        unsafe { ((*snapshot).version, (*snapshot).bus_master) };
                    assert!(bus_master && version >= last);
                    last = version;
                    // SAFETY: `snapshot` is used no more.
                    unsafe { slot.release() };
                }
            });
            begin.wait();
            for _ in 0..CHANGES {
                let watch = snapshot();
                let retired = slot.replace(Arc::clone(&watch));
                drop(retired);
                let next = snapshot();
                drop(slot.replace(next));
                assert_eq!(Arc::strong_count(&watch), 1, "dropped once it is out of use");
            }
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn replacing_waits_for_the_pin_there_is_and_not_for_the_next() {
        let slot = Slot::new(snapshot());
        let replaced = AtomicBool::new(false);
        thread::scope(|scope| {
            // SAFETY: this thread alone pins, and releases before it pins again.
            let old = unsafe { slot.pin() };
            let changing = scope.spawn(|| {
                drop(slot.replace(snapshot()));
                replaced.store(true, Ordering::SeqCst);
            });
            thread::sleep(Duration::from_millis(20));
            assert!(!replaced.load(Ordering::SeqCst));
            // SAFETY: the slot is pinned.
            let version = unsafe { (*old).version };
            // SAFETY: `old` is used no more.
            unsafe { slot.release() };
            // SAFETY: the slot was released just now.
            let new = unsafe { slot.pin() };
            assert!(changing.join().is_ok());
            // SAFETY: the slot is pinned.
            assert!(unsafe { (*new).version } > version);
            // SAFETY: `new` is used no more.
            unsafe { slot.release() };
        });
    }
}
