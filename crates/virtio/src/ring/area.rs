//! This module holds the host addresses of one part of a virtqueue: the Descriptor Area, the Driver
//! Area or the Device Area (virtio 1.3, 2.6).

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

use manifold_dma::{Access, Fault, FaultReason, PAGE_SIZE, Pinned, Slice};

/// A part of a ring, resolved to host memory. It is valid only under the pin (by version) it was
/// resolved with; queues resolve their areas again when the version has changed.
#[derive(Debug, Default)]
pub(super) struct Area {
    /// Host address of the first byte if the whole area is contiguous, otherwise 0.
    base: usize,
    len: usize,
    /// Host address of each page that an area touches which is not contiguous, and the first byte's
    /// offset in the first page.
    pages: Vec<usize>,
    first_offset: usize,
}

impl Area {
    /// Resolves `len` bytes at `iova`, a multiple of `align`.
    pub(super) fn resolve(
        &mut self,
        pin: &Pinned<'_>,
        iova: u64,
        len: usize,
        align: u64,
        access: Access,
    ) -> Result<(), Fault> {
        self.pages.clear();
        self.base = 0;
        self.len = 0;
        if !iova.is_multiple_of(align) {
            return Err(pin.fault(iova, len, access, FaultReason::Misaligned));
        }
        if let Some(slice) = pin.contiguous(iova, len, access)? {
            self.base = slice.as_ptr() as usize;
        } else {
            let first_offset = iova % PAGE_SIZE;
            self.first_offset = first_offset as usize;
            let mut first = true;
            let pages = &mut self.pages;
            pin.slices(iova, len, access, |slice| {
                // Mappings begin and end on page boundaries, so every piece but the first begins a
                // page.
                let mut at = slice.as_ptr() as usize;
                let end = at + slice.len();
                if std::mem::take(&mut first) {
                    at -= first_offset as usize;
                }
                while at < end {
                    pages.push(at);
                    at += PAGE_SIZE as usize;
                }
            })?;
        }
        self.len = len;
        Ok(())
    }

    /// Returns the address of the `size` bytes at `offset`, which lie in one page because both are
    /// multiples of `size`.
    #[inline]
    fn at(&self, offset: usize, size: usize) -> *mut u8 {
        debug_assert!(offset + size <= self.len, "ring offset in bounds by construction");
        if self.base != 0 { (self.base + offset) as *mut u8 } else { self.scattered(offset) }
    }

    #[cold]
    fn scattered(&self, offset: usize) -> *mut u8 {
        let offset = offset + self.first_offset;
        (self.pages[offset / PAGE_SIZE as usize] + offset % PAGE_SIZE as usize) as *mut u8
    }

    /// Returns the 16-bit word at `offset`, shared with the driver.
    ///
    /// # Safety
    /// The pin the area was resolved with must be in force for `'p`; the area must be 2-aligned and
    /// `offset` even.
    #[inline]
    pub(super) unsafe fn u16<'p>(&self, offset: usize) -> &'p AtomicU16 {
        let ptr = self.at(offset, 2);
        // SAFETY: `at` checked the bounds, the caller promises alignment and that the memory is
        // mapped while the pin holds; an atomic may be shared with another process.
        unsafe { AtomicU16::from_ptr(ptr.cast()) }
    }

    /// Returns the 32-bit word at `offset`, shared with the driver.
    ///
    /// # Safety
    /// The conditions are those of [`Area::u16`], with 4 for 2.
    #[inline]
    pub(super) unsafe fn u32<'p>(&self, offset: usize) -> &'p AtomicU32 {
        let ptr = self.at(offset, 4);
        // SAFETY: as in `u16`.
        unsafe { AtomicU32::from_ptr(ptr.cast()) }
    }

    /// Returns the 64-bit word at `offset`, shared with the driver.
    ///
    /// # Safety
    /// The conditions are those of [`Area::u16`], with 8 for 2.
    #[inline]
    pub(super) unsafe fn u64<'p>(&self, offset: usize) -> &'p AtomicU64 {
        let ptr = self.at(offset, 8);
        // SAFETY: as in `u16`.
        unsafe { AtomicU64::from_ptr(ptr.cast()) }
    }

    /// Reads a 16-byte descriptor, each half exactly once.
    ///
    /// # Safety
    /// The conditions of [`Area::u16`] hold, with 16 for 2.
    #[inline]
    pub(super) unsafe fn descriptor(&self, offset: usize) -> [u64; 2] {
        let ptr: *const u64 = self.at(offset, 16).cast();
        // SAFETY: bounds checked by `at`, alignment and mapping promised by the caller.
        unsafe { [ptr.read_volatile(), ptr.add(1).read_volatile()] }
    }

    /// Writes two 32-bit words at `offset` and `offset + 4` (a used element may straddle two
    /// pages).
    ///
    /// # Safety
    /// The conditions of [`Area::u16`] hold, with 4 for 2, and the area is writable.
    #[inline]
    pub(super) unsafe fn write_pair(&self, offset: usize, low: u32, high: u32) {
        let pair = u64::from(low) | u64::from(high) << 32;
        let first = self.at(offset, 4);
        if self.base != 0 {
            // SAFETY: all of the area is contiguous and the caller's offset inside it, as in `u16`.
            unsafe { first.cast::<u64>().write_unaligned(pair.to_le()) };
            return;
        }
        let second = self.at(offset + 4, 4);
        // SAFETY: as in `u16`.
        unsafe {
            first.cast::<u32>().write_volatile(low.to_le());
            second.cast::<u32>().write_volatile(high.to_le());
        }
    }

    /// Asks the processor for the cache line at `offset`, to write to it. Does nothing if the area
    /// is not contiguous.
    #[inline]
    pub(super) fn prefetch_write(&self, offset: usize) {
        if self.base != 0 {
            self.hint(offset).prefetch_write();
        }
    }

    /// Asks the processor for the cache line at `offset`. Does nothing if the area is not
    /// contiguous.
    #[inline]
    pub(super) fn prefetch(&self, offset: usize) {
        if self.base != 0 {
            self.hint(offset).prefetch();
        }
    }

    /// Returns the byte at `offset` for a prefetch only: it must not be touched, since it may be
    /// unmapped.
    #[inline]
    fn hint(&self, offset: usize) -> Slice<'static> {
        // SAFETY: an empty slice covers no memory.
        unsafe { Slice::from_raw((self.base + offset) as *mut u8, 0) }
    }
}
