//! Translation for those who move data: pin a snapshot, translate, let go.

use std::cell::Cell;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::domain::{Domain, Snapshot, Target};
use crate::fault::{Access, Fault, FaultReason};
use crate::slice::Slice;

/// How many translations a reader remembers. Guest RAM is two or three ranges; a virtual IOMMU makes many, and then the
/// tree is searched.
const REMEMBERED: usize = 4;

/// A remembered translation: IOVAs `first..=last` are at `host`.
#[derive(Clone, Copy, Debug)]
struct Recent {
    first: u64,
    last: u64,
    host: *mut u8,
    writable: bool,
    readable: bool,
}

const NOTHING: Recent =
    Recent { first: 1, last: 0, host: std::ptr::null_mut(), writable: false, readable: false };

/// What one reader translates with. Its lock is the pin: the reader holds it for a burst, the domain takes it to put a
/// new snapshot in, and so an unmap ends only after the burst that might use the old mapping.
#[derive(Debug)]
pub(crate) struct View {
    snapshot: Snapshot,
    recent: [Cell<Recent>; REMEMBERED],
    next: Cell<usize>,
}

// SAFETY: the raw pointers in `recent` point into mappings that the snapshot in the same View keeps alive.
unsafe impl Send for View {}

impl View {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        View { snapshot, recent: std::array::from_fn(|_| Cell::new(NOTHING)), next: Cell::new(0) }
    }

    pub(crate) fn replace(&mut self, snapshot: Snapshot) {
        *self = View::new(snapshot);
    }
}

/// One translator of a domain, owned by one worker (or one control thread).
///
/// Cheap to pin: the lock is contended only while mappings change.
#[derive(Debug)]
pub struct Reader {
    domain: Arc<Domain>,
    view: Arc<Mutex<View>>,
}

impl Reader {
    pub(crate) fn new(domain: Arc<Domain>, view: Arc<Mutex<View>>) -> Self {
        Reader { domain, view }
    }

    /// The domain this reader translates for.
    pub fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }

    /// Pins the current mappings until the result is dropped. Hold it for a burst, never across a sleep: map and unmap
    /// wait for it.
    #[inline]
    pub fn pin(&self) -> Pinned<'_> {
        Pinned { view: self.view.lock(), domain: &self.domain }
    }
}

/// Mappings that stay as they are while this exists.
#[derive(Debug)]
pub struct Pinned<'r> {
    view: MutexGuard<'r, View>,
    domain: &'r Domain,
}

impl Pinned<'_> {
    /// Changes whenever any mapping or Bus Master Enable changes; whoever keeps derived addresses compares it.
    #[inline]
    pub fn version(&self) -> u64 {
        self.view.snapshot.version
    }

    /// Host memory of `len` bytes at `iova`, if all of it is mapped, permits `access` and is contiguous on the host.
    ///
    /// Zero bytes are always at hand. Memory that is mapped but not contiguous yields `Ok(None)`: use
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
        let mut only = None;
        let mut pieces = 0;
        self.walk(iova, len, access, &mut |slice| {
            only = Some(slice);
            pieces += 1;
        })?;
        Ok(match pieces {
            // SAFETY: an empty slice covers no memory.
            0 => Some(unsafe { Slice::from_raw(std::ptr::NonNull::dangling().as_ptr(), 0) }),
            1 => only,
            _ => None,
        })
    }

    /// Calls `each` with the host memory of `len` bytes at `iova`, in order, in as few contiguous pieces as possible.
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
        self.walk(iova, len, access, &mut each)
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

    /// Records a fault that the caller found (a misaligned ring, say) and returns it.
    pub fn fault(&self, iova: u64, len: usize, access: Access, reason: FaultReason) -> Fault {
        let fault = Fault { iova, len: len as u64, access, reason };
        self.domain.record(fault);
        fault
    }

    #[inline]
    fn recall(&self, iova: u64, len: usize, access: Access) -> Option<Slice<'_>> {
        let last = iova.checked_add((len as u64).checked_sub(1)?)?;
        for cell in &self.view.recent {
            let recent = cell.get();
            let permitted = match access {
                Access::Read => recent.readable,
                Access::Write => recent.writable,
            };
            if iova >= recent.first && last <= recent.last && permitted {
                // SAFETY: the range lies inside a mapping of the pinned snapshot, which outlives the result.
                return Some(unsafe {
                    Slice::from_raw(recent.host.add((iova - recent.first) as usize), len)
                });
            }
        }
        None
    }

    fn walk<'s>(
        &'s self,
        iova: u64,
        len: usize,
        access: Access,
        each: &mut dyn FnMut(Slice<'s>),
    ) -> Result<(), Fault> {
        let snapshot = &self.view.snapshot;
        if !snapshot.bus_master {
            return Err(self.fault(iova, len, access, FaultReason::BusMasterDisabled));
        }
        let Some(rest) = (len as u64).checked_sub(1) else { return Ok(()) };
        let Some(last) = iova.checked_add(rest) else {
            return Err(self.fault(iova, len, access, FaultReason::AddressOverflow));
        };
        // Twice over the range: first every check, then the pieces, so that a fault half way has no effect.
        let mut at = iova;
        loop {
            let reason = match snapshot.find(at) {
                None => FaultReason::NotMapped,
                Some((_, mapping)) if !mapping.permissions.allow(access) => {
                    FaultReason::NotPermitted
                }
                Some((_, mapping)) if matches!(mapping.target, Target::Remote(_)) => {
                    FaultReason::NotShared
                }
                Some((_, mapping)) if mapping.last >= last => break,
                Some((_, mapping)) => {
                    at = mapping.last + 1;
                    continue;
                }
            };
            return Err(self.fault(iova, len, access, reason));
        }
        let mut at = iova;
        let mut run: Option<(*mut u8, usize)> = None;
        while let Some((first, mapping)) = snapshot.find(at) {
            let Target::Host { address, .. } = &mapping.target else { break };
            let piece = (mapping.last.min(last) - at + 1) as usize;
            // SAFETY: `at` is in first..=last of the mapping, whose host memory is as long as the mapping.
            let host = unsafe { address.as_ptr().add((at - first) as usize) };
            run = match run {
                Some((start, length)) if start.wrapping_add(length) == host => {
                    Some((start, length + piece))
                }
                Some((start, length)) => {
                    // SAFETY: the run is made of mapped memory of the pinned snapshot.
                    each(unsafe { Slice::from_raw(start, length) });
                    Some((host, piece))
                }
                None => {
                    self.remember(first, mapping.last, address.as_ptr(), mapping.permissions);
                    Some((host, piece))
                }
            };
            if mapping.last >= last {
                break;
            }
            at = mapping.last + 1;
        }
        if let Some((start, length)) = run {
            // SAFETY: as above.
            each(unsafe { Slice::from_raw(start, length) });
        }
        Ok(())
    }

    fn remember(&self, first: u64, last: u64, host: *mut u8, permissions: crate::Permissions) {
        let next = self.view.next.get();
        if let Some(cell) = self.view.recent.get(next % REMEMBERED) {
            let (readable, writable) = (permissions.read, permissions.write);
            cell.set(Recent { first, last, host, writable, readable });
        }
        self.view.next.set(next.wrapping_add(1));
    }
}
