//! Survives a client that truncates a file the adapter has mapped.
//!
//! Touching a page past a file's end raises SIGBUS, which would end the process, and with it every other function's
//! traffic. The handler puts a private zero page in place of the lost one, so the access goes on with zeros and only
//! the client that cut its own memory sees the consequence.

use std::io;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// How many file mappings can be protected at once: 257 functions with room for a few files each.
const SLOTS: usize = 4096;

struct Slot {
    /// 0: free. Written last when taken and first when released, so that the handler never sees half an entry.
    start: AtomicUsize,
    end: AtomicUsize,
    page: AtomicUsize,
    hit: AtomicBool,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        page: AtomicUsize::new(0),
        hit: AtomicBool::new(false),
    }
}; SLOTS];
static WRITERS: Mutex<()> = Mutex::new(());
static INSTALL: Once = Once::new();

/// Keeps a range protected.
#[derive(Debug)]
pub(crate) struct Guard {
    slot: usize,
}

impl Guard {
    pub(crate) fn hit(&self) -> bool {
        TABLE[self.slot].hit.load(Ordering::Relaxed)
    }

    /// Ends the protection; called before the range is unmapped.
    pub(crate) fn release(&self) {
        TABLE[self.slot].start.store(0, Ordering::Release);
    }
}

/// Protects `len` bytes at `start`; `page` is the mapping's page size (2 MiB for huge pages).
pub(crate) fn protect(start: usize, len: usize, page: usize) -> io::Result<Guard> {
    INSTALL.call_once(install);
    let _writers = WRITERS.lock();
    let free = TABLE.iter().position(|slot| slot.start.load(Ordering::Relaxed) == 0);
    let Some(index) = free else {
        return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many mapped files"));
    };
    let slot = &TABLE[index];
    slot.end.store(start + len, Ordering::Relaxed);
    slot.page.store(page, Ordering::Relaxed);
    slot.hit.store(false, Ordering::Relaxed);
    slot.start.store(start, Ordering::Release);
    Ok(Guard { slot: index })
}

fn install() {
    // SAFETY: an all-zero sigaction is a valid value of that C structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK;
    // SAFETY: `action` is initialised and `handle` has the signature SA_SIGINFO asks for; the handler calls only
    // async-signal-safe functions.
    unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) };
}

extern "C" fn handle(
    _signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid siginfo_t for a handler installed with SA_SIGINFO.
    let address = unsafe { (*info).si_addr() } as usize;
    for slot in &TABLE {
        let start = slot.start.load(Ordering::Acquire);
        if start == 0 || address < start || address >= slot.end.load(Ordering::Relaxed) {
            continue;
        }
        let page = slot.page.load(Ordering::Relaxed);
        let aligned = address - address % page;
        // SAFETY: the page lies inside a mapping that this module protects, whose content is lost; replacing it keeps
        // the range mapped, and only raw copies ever touch it.
        let replaced = unsafe {
            libc::mmap(
                aligned as *mut libc::c_void,
                page,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if replaced != libc::MAP_FAILED {
            slot.hit.store(true, Ordering::Relaxed);
            return;
        }
    }
    // Not ours: let the default action (end the process, dump core) take place when the access is repeated.
    // SAFETY: resetting a signal to its default is async-signal-safe.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
}
