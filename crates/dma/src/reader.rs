//! This module translates IOVAs for those who move data: they pin a snapshot, translate and let go.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use crate::fault::{Access, Fault, FaultLog, FaultReason};
use crate::pin::Slot;
use crate::sigbus;
use crate::slice::Slice;
use crate::snapshot::{Mapping, Snapshot, Target};

/// Number of translations that a reader caches. Guest RAM is two or three ranges; a virtual IOMMU
/// makes many, and then the tree is searched.
const CACHED: usize = 4;

/// Largest number of mappings that are joined into one piece. It bounds the work for one piece,
/// whatever lengths a hostile driver writes into descriptors.
const JOINED: usize = 64;

/// A cached translation: IOVAs `first..=last` are at `host`.
#[derive(Clone, Copy)]
struct Translation {
    first: u64,
    last: u64,
    host: *mut u8,
    writable: bool,
    readable: bool,
}

impl Translation {
    #[inline]
    fn permits(&self, access: Access) -> bool {
        match access {
            Access::Read => self.readable,
            Access::Write => self.writable,
        }
    }
}

const NO_TRANSLATION: Translation =
    Translation { first: 1, last: 0, host: ptr::null_mut(), writable: false, readable: false };

/// The latest translations of one snapshot, which are likely to be asked for again.
struct TranslationCache {
    /// Version of the snapshot they are from, and the number of files that had been lost by then.
    valid: Cell<(u64, usize)>,
    recent: [Cell<Translation>; CACHED],
    next: Cell<usize>,
}

impl TranslationCache {
    /// Empties the cache if it is from another snapshot or a file was lost since.
    #[inline]
    fn check(&self, version: u64) {
        let now = (version, sigbus::lost_mappings());
        if self.valid.get() != now {
            self.recent.iter().for_each(|recent| recent.set(NO_TRANSLATION));
            self.valid.set(now);
        }
    }
}

/// One translator of a domain, owned by one worker (or one control thread).
pub struct Reader {
    /// Log of the domain's faults.
    faults: Arc<FaultLog>,
    slot: Arc<Slot>,
    /// Number of [`Pinned`] that exist and share one snapshot.
    pins: Cell<usize>,
    pinned: Cell<*const Snapshot>,
    cache: TranslationCache,
}

// SAFETY: the pointers are used only while `pins` is not zero. A `Pinned` borrows the reader, so
// the reader is moved to another thread only when there is none left, or when one was leaked: then
// the slot stays marked and they stay valid.
unsafe impl Send for Reader {}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("pins", &self.pins).finish_non_exhaustive()
    }
}

impl Reader {
    pub(crate) fn new(faults: Arc<FaultLog>, slot: Arc<Slot>) -> Self {
        Reader {
            faults,
            slot,
            pins: Cell::new(0),
            pinned: Cell::new(ptr::null()),
            cache: TranslationCache {
                valid: Cell::new((u64::MAX, 0)),
                recent: std::array::from_fn(|_| Cell::new(NO_TRANSLATION)),
                next: Cell::new(0),
            },
        }
    }

    /// Pins the current mappings until the result is dropped, and never waits for it.
    ///
    /// Hold it for a burst, never across a sleep: map and unmap wait for it. For the same reason
    /// whoever holds it must not call the [domain](crate::Domain)'s methods that change mappings or
    /// count them. A second pin at the same time sees the mappings of the first.
    #[inline]
    pub fn pin(&self) -> Pinned<'_> {
        let pins = self.pins.get();
        if pins == 0 {
            // SAFETY: a reader is not `Sync`, so this thread alone pins, and nothing is pinned now.
            let snapshot = unsafe { self.slot.pin() };
            self.pinned.set(snapshot);
            // SAFETY: the snapshot was just pinned.
            self.cache.check(unsafe { (*snapshot).version });
        }
        self.pins.set(pins + 1);
        Pinned { reader: self, _one_thread: PhantomData }
    }
}

/// A pin: mappings stay as they are while this exists.
pub struct Pinned<'r> {
    reader: &'r Reader,
    _one_thread: PhantomData<*const ()>,
}

impl fmt::Debug for Pinned<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pinned").field(self.snapshot()).finish()
    }
}

impl Drop for Pinned<'_> {
    #[inline]
    fn drop(&mut self) {
        let pins = self.reader.pins.get() - 1;
        self.reader.pins.set(pins);
        if pins == 0 {
            // SAFETY: this was the last pin of this thread's reader, and no slice outlives it.
            unsafe { self.reader.slot.release() };
        }
    }
}

impl Pinned<'_> {
    #[inline]
    fn snapshot(&self) -> &Snapshot {
        // SAFETY: the slot is marked for as long as `self` exists, so the snapshot it gave is
        // valid.
        unsafe { &*self.reader.pinned.get() }
    }

    /// Returns a number that changes with every mapping and Bus Master Enable and differs between
    /// domains. Whoever keeps derived addresses compares it.
    #[inline]
    pub fn version(&self) -> u64 {
        self.snapshot().version
    }

    /// Returns host memory of `len` bytes at `iova`, if all of it is mapped, permits `access` and
    /// is contiguous on the host.
    ///
    /// Zero bytes always translate. Memory that is mapped but not contiguous yields `Ok(None)`: use
    /// [`Pinned::slices`].
    ///
    /// # Errors
    /// A [`Fault`], also recorded in the domain.
    #[inline]
    pub fn contiguous(
        &self,
        iova: u64,
        len: usize,
        access: Access,
    ) -> Result<Option<Slice<'_>>, Fault> {
        if let Some(slice) = self.recall(iova, len, access) {
            return Ok(Some(slice));
        }
        self.whole(iova, len, access)
    }

    /// Calls `each` with the host memory of `len` bytes at `iova`, in order, in a few contiguous
    /// pieces.
    ///
    /// # Errors
    /// A [`Fault`], also recorded in the domain; `each` is not called then.
    #[inline]
    pub fn slices<'s>(
        &'s self,
        iova: u64,
        len: usize,
        access: Access,
        mut each: impl FnMut(Slice<'s>),
    ) -> Result<(), Fault> {
        if let Some(slice) = self.recall(iova, len, access) {
            each(slice);
            return Ok(());
        }
        // All checks come before the first piece, so that a fault half way has no effect.
        match self.whole(iova, len, access)? {
            Some(slice) if slice.is_empty() => {}
            Some(slice) => each(slice),
            None => {
                self.walk(iova, len, access, &mut |slice| {
                    each(slice);
                    true
                })?;
            }
        }
        Ok(())
    }

    /// Calls `each` like [`Pinned::slices`] until it returns false. Returns whether it never did.
    ///
    /// The work is bounded by the number of calls, however large `len` is. A fault is found when
    /// its turn comes: `each` may have been called before.
    ///
    /// # Errors
    /// A [`Fault`], also recorded in the domain.
    #[inline]
    pub fn slices_while<'s>(
        &'s self,
        iova: u64,
        len: usize,
        access: Access,
        mut each: impl FnMut(Slice<'s>) -> bool,
    ) -> Result<bool, Fault> {
        match self.recall(iova, len, access) {
            Some(slice) => Ok(each(slice)),
            None => self.walk(iova, len, access, &mut each),
        }
    }

    /// Copies from memory at `iova` into `out`.
    ///
    /// # Errors
    /// A [`Fault`], also recorded in the domain; nothing is copied then.
    pub fn read(&self, iova: u64, out: &mut [u8]) -> Result<(), Fault> {
        let mut done = 0;
        self.slices(iova, out.len(), Access::Read, |slice| {
            done += slice.read(out.get_mut(done..).unwrap_or_default());
        })
    }

    /// Copies `data` to memory at `iova`.
    ///
    /// # Errors
    /// A [`Fault`], also recorded in the domain; nothing is copied then.
    pub fn write(&self, iova: u64, data: &[u8]) -> Result<(), Fault> {
        let mut done = 0;
        self.slices(iova, data.len(), Access::Write, |slice| {
            done += slice.write(data.get(done..).unwrap_or_default());
        })
    }

    /// Returns the IOVA of memory that was translated a moment ago, if that is cached. This is the
    /// way back, for whoever hands a buffer on to a device that translates by itself.
    pub fn iova_of(&self, slice: &Slice<'_>) -> Option<u64> {
        let start = slice.as_ptr() as u64;
        let last = start.checked_add((slice.len() as u64).checked_sub(1)?)?;
        self.reader.cache.recent.iter().find_map(|cell| {
            let recent = cell.get();
            let offset = start.checked_sub(recent.host as u64)?;
            let size = recent.last.checked_sub(recent.first)?;
            (offset <= size && last - recent.host as u64 <= size && recent.readable)
                .then(|| recent.first + offset)
        })
    }

    /// Records a fault that the caller found (a misaligned ring, say) and returns it.
    #[cold]
    pub fn fault(&self, iova: u64, len: usize, access: Access, reason: FaultReason) -> Fault {
        let fault = Fault { iova, len: len as u64, access, reason };
        self.reader.faults.record(fault);
        fault
    }

    /// Returns a window on memory that was translated a moment ago.
    #[inline]
    pub fn window(&self, access: Access) -> Window<'_> {
        let [recent, ..] = &self.reader.cache.recent;
        let mut window = Window { pin: self, access, first: 0, size: 0, host: ptr::null_mut() };
        window.set(&recent.get());
        window
    }

    /// Returns what [`Pinned::contiguous`] tries first: the host memory, if the translation is
    /// cached. `None` says only that it is not cached, and is always returned for zero bytes.
    #[inline]
    pub fn recall(&self, iova: u64, len: usize, access: Access) -> Option<Slice<'_>> {
        let recent = self.cached(iova, len, access)?;
        // SAFETY: the range lies inside a mapping of the pinned snapshot, which outlives the
        // result.
        Some(unsafe { Slice::from_raw(recent.host.add((iova - recent.first) as usize), len) })
    }

    /// Returns the cached translation that holds all of the range.
    #[inline]
    fn cached(&self, iova: u64, len: usize, access: Access) -> Option<Translation> {
        let last = iova.checked_add((len as u64).checked_sub(1)?)?;
        self.reader
            .cache
            .recent
            .iter()
            .map(Cell::get)
            .find(|recent| iova >= recent.first && last <= recent.last && recent.permits(access))
    }

    /// Translates all of the range; returns the result if it is one piece (empty, if the range is).
    fn whole(&self, iova: u64, len: usize, access: Access) -> Result<Option<Slice<'_>>, Fault> {
        // SAFETY: an empty slice covers no memory.
        let mut only = Some(unsafe { Slice::from_raw(NonNull::dangling().as_ptr(), 0) });
        let mut pieces = 0;
        self.walk(iova, len, access, &mut |slice| {
            pieces += 1;
            only = (pieces == 1).then_some(slice);
            true
        })?;
        Ok(only)
    }

    /// Translates piece by piece until `each` returns false (which is the result then) or a fault
    /// is found.
    fn walk<'s>(
        &'s self,
        iova: u64,
        len: usize,
        access: Access,
        each: &mut dyn FnMut(Slice<'s>) -> bool,
    ) -> Result<bool, Fault> {
        if !self.snapshot().bus_master {
            return Err(self.fault(iova, len, access, FaultReason::BusMasterDisabled));
        }
        let Some(rest) = (len as u64).checked_sub(1) else { return Ok(true) };
        let Some(last) = iova.checked_add(rest) else {
            return Err(self.fault(iova, len, access, FaultReason::AddressOverflow));
        };
        let mut run = Run::default();
        let mut at = iova;
        loop {
            let (first, mapping, base) =
                self.find(at, access).map_err(|reason| self.fault(iova, len, access, reason))?;
            // SAFETY: `at` is in first..=last of the mapping, whose host memory is as long as the
            // mapping.
            let host = unsafe { base.add((at - first) as usize) };
            let piece = (mapping.last.min(last) - at + 1) as usize;
            if let Some((start, length)) = run.add(host, piece) {
                // SAFETY: a run is made of mapped memory of the pinned snapshot, which outlives
                // `'s`.
                if !each(unsafe { Slice::from_raw(start, length) }) {
                    return Ok(false);
                }
            }
            if mapping.last >= last {
                if at == iova {
                    self.cache_mapping(first, mapping, base);
                }
                // SAFETY: a run is made of mapped memory of the pinned snapshot, which outlives
                // `'s`.
                return Ok(each(unsafe { Slice::from_raw(run.start, run.length) }));
            }
            at = mapping.last + 1;
        }
    }

    /// Returns the mapping at `iova` with its first IOVA and host address, if it may be accessed.
    fn find(&self, iova: u64, access: Access) -> Result<(u64, &Mapping, *mut u8), FaultReason> {
        let (first, mapping) = self.snapshot().find(iova).ok_or(FaultReason::NotMapped)?;
        if !mapping.permissions.allow(access) {
            return Err(FaultReason::NotPermitted);
        }
        match &mapping.target {
            Target::NotShared => Err(FaultReason::NotShared),
            Target::Host { file, .. } if sigbus::lost_mappings() != 0 && file.truncated() => {
                Err(FaultReason::Lost)
            }
            Target::Host { address, .. } => Ok((first, mapping, address.as_ptr())),
        }
    }

    fn cache_mapping(&self, first: u64, mapping: &Mapping, host: *mut u8) {
        let cache = &self.reader.cache;
        let next = cache.next.get();
        if let Some(cell) = cache.recent.get(next % CACHED) {
            let (readable, writable) = (mapping.permissions.read, mapping.permissions.write);
            cell.set(Translation { first, last: mapping.last, host, writable, readable });
        }
        cache.next.set(next.wrapping_add(1));
    }
}

/// A window is a quicker [`Pinned::recall`] for many ranges in a row that mostly lie in one
/// mapping. It keeps the last one at hand.
#[derive(Debug)]
pub struct Window<'p> {
    pin: &'p Pinned<'p>,
    access: Access,
    /// First of the `size` IOVAs that are at `host`.
    first: u64,
    size: u64,
    host: *mut u8,
}

impl<'p> Window<'p> {
    /// Returns the host memory, if the translation is cached.
    #[inline]
    pub fn recall(&mut self, iova: u64, len: usize) -> Option<Slice<'p>> {
        let offset = iova.wrapping_sub(self.first);
        // The length minus one wraps for zero bytes, and is not less then.
        if offset < self.size && (len as u64).wrapping_sub(1) < self.size - offset {
            // SAFETY: the range lies inside a mapping of the pinned snapshot, which outlives the
            // result.
            return Some(unsafe { Slice::from_raw(self.host.add(offset as usize), len) });
        }
        self.turn(iova, len)
    }

    #[inline(never)]
    fn turn(&mut self, iova: u64, len: usize) -> Option<Slice<'p>> {
        self.set(&self.pin.cached(iova, len, self.access)?);
        // A window on the whole address space is one byte short, and that byte is found here.
        self.pin.recall(iova, len, self.access)
    }

    #[inline]
    fn set(&mut self, recent: &Translation) {
        if recent.permits(self.access) {
            (self.first, self.host) = (recent.first, recent.host);
            self.size = (recent.last - recent.first).saturating_add(1);
        }
    }
}

/// Host memory that was found contiguous so far.
struct Run {
    start: *mut u8,
    length: usize,
    joined: usize,
}

impl Default for Run {
    fn default() -> Self {
        Run { start: ptr::null_mut(), length: 0, joined: 0 }
    }
}

impl Run {
    /// Makes the run longer if `host` is where it ends; otherwise begins a new one and returns the
    /// finished one.
    fn add(&mut self, host: *mut u8, length: usize) -> Option<(*mut u8, usize)> {
        if self.start.wrapping_add(self.length) == host && (1..JOINED).contains(&self.joined) {
            self.length += length;
            self.joined += 1;
            return None;
        }
        let finished = std::mem::replace(self, Run { start: host, length, joined: 1 });
        (finished.joined > 0).then_some((finished.start, finished.length))
    }
}
