//! This module survives a client that truncates a file the adapter has mapped.
//!
//! Touching a page past a file's end raises SIGBUS, which would end the process, and with it every
//! other function's traffic. The handler puts private zero memory in place of the whole mapping of
//! that file, so the access goes on with zeros; from the next pin on, translation refuses the
//! mapping ([`crate::FaultReason::Lost`]). Only the client that cut its own memory sees the
//! consequence.
//!
//! All of the mapping, not just the page: each page replaced alone would split the kernel's list of
//! mappings, of which a process has 65,530, and a hostile client could use them all up.

use std::io;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use parking_lot::Mutex;

use crate::limits::{MAX_FILES, PAGE_SIZE};

/// Number of file mappings that can be protected at once: twice what one PF and 256 VFs may have.
const SLOTS: usize = 2 * 257 * MAX_FILES;

/// One protected range, written under [`WRITERS`] and read by the handler at any moment. That is
/// why there is a sequence number: odd while the slot is being written, different after every
/// change.
struct Slot {
    sequence: AtomicUsize,
    /// First address, or 0 for a free slot.
    start: AtomicUsize,
    len: AtomicUsize,
    lost: AtomicBool,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        sequence: AtomicUsize::new(0),
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
    }
}; SLOTS];
/// Protection of the memory that replaces the lost one.
const PROTECTION: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;
const FLAGS: libc::c_int =
    libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
const PAGE: usize = PAGE_SIZE as usize;

static WRITERS: Mutex<()> = Mutex::new(());
static INSTALL: Once = Once::new();
static LOST_MAPPINGS: AtomicUsize = AtomicUsize::new(0);

/// Returns how many mappings have been lost in this process. Whoever keeps translations looks here
/// first.
#[inline]
pub(crate) fn lost_mappings() -> usize {
    LOST_MAPPINGS.load(Ordering::Relaxed)
}

impl Slot {
    /// Changes the range. The caller holds [`WRITERS`].
    fn set(&self, start: usize, len: usize) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.start.store(start, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// Returns the range, if it holds `address`. A slot that is changing cannot hold it: the range
    /// that is being accessed stays protected until after the access.
    fn range_with(&self, address: usize) -> Option<(usize, usize)> {
        let before = self.sequence.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Relaxed);
        let len = self.len.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let stable = before.is_multiple_of(2) && before == self.sequence.load(Ordering::Relaxed);
        let inside = start != 0 && address.checked_sub(start).is_some_and(|offset| offset < len);
        (stable && inside).then_some((start, len))
    }
}

/// A guard keeps a range protected until it is dropped, which must be before the range is unmapped.
#[derive(Debug)]
pub(crate) struct Guard {
    slot: usize,
}

impl Guard {
    /// Returns whether the range's content was lost.
    #[inline]
    pub(crate) fn lost(&self) -> bool {
        TABLE[self.slot].lost.load(Ordering::Relaxed)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _writers = WRITERS.lock();
        TABLE[self.slot].set(0, 0);
    }
}

/// Protects `len` bytes at `start`.
///
/// # Safety
/// The range must be one whole file mapping that only raw copies touch: when the file turns out to
/// be shorter, the memory is replaced.
pub(crate) unsafe fn protect(start: usize, len: usize) -> io::Result<Guard> {
    INSTALL.call_once(install);
    let _writers = WRITERS.lock();
    let free = TABLE.iter().position(|slot| slot.start.load(Ordering::Relaxed) == 0);
    let Some(index) = free else {
        return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many mapped files"));
    };
    TABLE[index].lost.store(false, Ordering::Relaxed);
    TABLE[index].set(start, len);
    Ok(Guard { slot: index })
}

fn install() {
    // SAFETY: an all-zero sigaction is a valid value of that C structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK;
    // SAFETY: `action` is initialised and `handle` has the signature SA_SIGINFO asks for; the
    // handler calls only async-signal-safe functions.
    unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) };
}

extern "C" fn handle(
    _signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid siginfo_t for a handler installed with SA_SIGINFO.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // A positive code is the kernel's, about an access; others were sent by somebody and have no
    // address.
    if code > 0 {
        for slot in &TABLE {
            let Some((start, len)) = slot.range_with(address) else { continue };
            // The mark comes before the zeros, so whoever reads a zero of the replacement can know
            // what it is.
            if !slot.lost.swap(true, Ordering::Relaxed) {
                LOST_MAPPINGS.fetch_add(1, Ordering::Relaxed);
            }
            // The whole range is replaced, or at least the page if the system cannot promise that
            // much memory.
            for (start, len) in [(start, len), (address & !(PAGE - 1), PAGE)] {
                // SAFETY: `protect`'s caller said that the range is a mapping of its own, touched
                // by raw copies only; it is still mapped, because the access that brought us here
                // goes through it. Putting other memory there keeps every pointer into it valid.
                let replaced =
                    unsafe { libc::mmap(start as *mut _, len, PROTECTION, FLAGS, -1, 0) };
                if replaced != libc::MAP_FAILED {
                    return;
                }
            }
            break;
        }
    }
    // The signal is not about a protected range, or nothing helps. The default action (end the
    // process, dump core) takes place when the access is repeated, or at once where there was none.
    // SAFETY: both calls are async-signal-safe.
    unsafe {
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
        if code <= 0 {
            libc::raise(libc::SIGBUS);
        }
    }
}
