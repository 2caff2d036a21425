//! Guest memory is one shared memfd, handed out piece by piece.
//!
//! The device writes here at any time, so nothing is ever lent out as a Rust reference: every
//! access is a volatile copy or an atomic load or store, which `vm-memory` does without unsafe code
//! on this side.
//!
//! ```text
//!   offset 0                                                     size
//!   ├── rings ──┬── RX buffers ──────┬── TX buffers ──┬── free ──┤   memfd, MAP_SHARED
//!   iova                                                iova + size     what the device sees
//! ```

use crate::{Error, Result};
use rustix::fs::{MemfdFlags, SealFlags};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, FileOffset, VolatileMemory};

/// Bytes in a page, the granule of DMA mappings.
pub const PAGE: usize = 4096;
/// Bytes in a huge page.
const HUGE_PAGE: usize = 2 << 20;

/// A piece of an [`Arena`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Bytes from the start of the arena.
    pub offset: usize,
    /// Bytes in the piece.
    pub len: usize,
}

/// Guest memory, shared with the device.
#[derive(Debug)]
pub struct Arena {
    region: MmapRegion<()>,
    file: FileOffset,
    iova: u64,
    used: AtomicUsize,
}

impl Arena {
    /// Makes `size` bytes of memory (rounded up to whole pages) that the device will see at `iova`,
    /// which must be page aligned. Memory that nobody touches costs nothing.
    pub fn new(size: usize, iova: u64) -> Result<Self> {
        Self::make(size, iova, PAGE)
    }

    /// Makes memory of 2 MiB pages, as [`Self::new`] does of 4 KiB. All pages are reserved at once,
    /// so the machine must have as many free.
    pub fn huge(size: usize, iova: u64) -> Result<Self> {
        Self::make(size, iova, HUGE_PAGE)
    }

    fn make(size: usize, iova: u64, page: usize) -> Result<Self> {
        let size = size
            .max(1)
            .checked_next_multiple_of(page)
            .ok_or_else(|| Error::Memory(format!("a size of {size:#x} bytes is too large")))?;
        if !iova.is_multiple_of(PAGE as u64) || iova.checked_add(size as u64).is_none() {
            return Err(Error::Memory(format!(
                "an IOVA of {iova:#x} is not page aligned, or {size:#x} bytes do not fit behind it"
            )));
        }
        let huge = page == HUGE_PAGE;
        let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        if huge {
            flags |= MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        }
        let memfd = rustix::fs::memfd_create("manifold-guest", flags)
            .map_err(|e| Error::io("creating a memfd", e))?;
        rustix::fs::ftruncate(&memfd, size as u64).map_err(|e| Error::io("sizing a memfd", e))?;
        let file = FileOffset::new(File::from(memfd), 0);
        // Memory that cannot be reserved now would end this process when it is touched.
        let reserve = if huge { 0 } else { libc::MAP_NORESERVE };
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | reserve;
        let region =
            MmapRegion::build(Some(file.clone()), size, protection, flags).map_err(|e| {
                let hint = match huge {
                    true => "; give the machine more huge pages with /proc/sys/vm/nr_hugepages",
                    false => "",
                };
                Error::Memory(format!("mapping {size:#x} bytes: {e}{hint}"))
            })?;
        Ok(Self { region, file, iova, used: AtomicUsize::new(0) })
    }

    /// Forbids that the memory ever shrinks, as a careful VMM does. Without this it can be
    /// truncated under the device.
    pub fn seal(&self) -> Result<()> {
        rustix::fs::fcntl_add_seals(self.file.file(), SealFlags::SHRINK)
            .map_err(|e| Error::io("sealing guest memory", e))
    }

    /// Hands out `len` bytes aligned to `align` (a power of two). They cannot be given back one by
    /// one, but see [`Self::rewind`].
    pub fn alloc(&self, len: usize, align: usize) -> Result<Span> {
        let used = self.used.load(Ordering::Relaxed);
        let out = || Error::OutOfMemory { want: len, left: self.size().saturating_sub(used) };
        let offset = used.checked_next_multiple_of(align).ok_or_else(out)?;
        let end = offset.checked_add(len).filter(|end| *end <= self.size()).ok_or_else(out)?;
        self.used.store(end, Ordering::Relaxed);
        Ok(Span { offset, len })
    }

    /// Takes everything back that was handed out. Whoever still holds a span can disturb its next
    /// owner's data, and nothing else.
    pub fn rewind(&self) {
        self.used.store(0, Ordering::Relaxed);
    }

    /// Returns the bytes in the arena.
    pub fn size(&self) -> usize {
        self.region.size()
    }

    /// Returns the bytes not handed out.
    pub fn left(&self) -> usize {
        self.size().saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// Returns the IOVA of the first byte.
    pub fn iova(&self) -> u64 {
        self.iova
    }

    /// Returns the IOVA of the byte at `offset`. Offsets outside the arena give addresses outside
    /// of it.
    pub fn iova_of(&self, offset: usize) -> u64 {
        self.iova.wrapping_add(offset as u64)
    }

    /// Returns the memfd.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.file().as_fd()
    }

    /// Returns the little-endian 16-bit word at an even `offset`, for whoever uses it often.
    pub fn cell(&self, offset: usize) -> Result<&AtomicU16> {
        self.region.get_atomic_ref(offset).map_err(|_| out(offset, 2))
    }

    /// Returns the little-endian 32-bit word at an `offset` that is a multiple of 4.
    pub fn cell32(&self, offset: usize) -> Result<&AtomicU32> {
        self.region.get_atomic_ref(offset).map_err(|_| out(offset, 4))
    }

    /// Returns the little-endian 64-bit word at an `offset` that is a multiple of 8.
    pub fn cell64(&self, offset: usize) -> Result<&AtomicU64> {
        self.region.get_atomic_ref(offset).map_err(|_| out(offset, 8))
    }

    /// Copies `data` to `offset`.
    #[inline]
    pub fn write(&self, offset: usize, data: &[u8]) -> Result<()> {
        self.region
            .as_volatile_slice()
            .write_slice(data, offset)
            .map_err(|_| out(offset, data.len()))
    }

    /// Copies `data.len()` bytes from `offset`.
    #[inline]
    pub fn read(&self, offset: usize, data: &mut [u8]) -> Result<()> {
        let len = data.len();
        self.region.as_volatile_slice().read_slice(data, offset).map_err(|_| out(offset, len))
    }

    /// Sets `len` bytes at `offset` to zero.
    pub fn clear(&self, span: Span) -> Result<()> {
        let zeros = [0; 512];
        let mut done = 0;
        while done < span.len {
            let part = zeros.len().min(span.len - done);
            self.write(span.offset + done, &zeros[..part])?;
            done += part;
        }
        Ok(())
    }

    /// Stores a little-endian 16-bit word at an even `offset`; `Release` orders all earlier writes
    /// before it.
    #[inline]
    pub fn store_u16(&self, offset: usize, value: u16, order: Ordering) -> Result<()> {
        let cell: &AtomicU16 = self.region.get_atomic_ref(offset).map_err(|_| out(offset, 2))?;
        cell.store(value.to_le(), order);
        Ok(())
    }

    /// Loads a little-endian 16-bit word from an even `offset`; `Acquire` orders all later reads
    /// after it.
    #[inline]
    pub fn load_u16(&self, offset: usize, order: Ordering) -> Result<u16> {
        let cell: &AtomicU16 = self.region.get_atomic_ref(offset).map_err(|_| out(offset, 2))?;
        Ok(u16::from_le(cell.load(order)))
    }

    /// Stores a little-endian 64-bit word at a multiple of 8, in one access.
    #[inline]
    pub fn store_u64(&self, offset: usize, value: u64) -> Result<()> {
        self.region
            .as_volatile_slice()
            .store(value.to_le(), offset, Ordering::Relaxed)
            .map_err(|_| out(offset, 8))
    }

    /// Loads a little-endian 32-bit word from a multiple of 4, in one access.
    #[inline]
    pub fn load_u32(&self, offset: usize) -> Result<u32> {
        self.region
            .as_volatile_slice()
            .load(offset, Ordering::Relaxed)
            .map(u32::from_le)
            .map_err(|_| out(offset, 4))
    }

    /// Cuts the memfd to `size` bytes while the device uses it. Touching what was cut off would
    /// kill this process with SIGBUS until [`Self::restore`] is called, so do not.
    pub fn truncate(&self, size: u64) -> Result<()> {
        rustix::fs::ftruncate(self.file.file(), size)
            .map_err(|e| Error::io("truncating guest memory", e))
    }

    /// Undoes [`Self::truncate`]; what was cut off reads as zeros.
    pub fn restore(&self) -> Result<()> {
        self.truncate(self.size() as u64)
    }
}

fn out(offset: usize, len: usize) -> Error {
    Error::Memory(format!("{len} bytes at offset {offset:#x} are outside the arena or unaligned"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_and_addresses_are_checked() {
        assert!(Arena::new(usize::MAX, 0).is_err());
        assert!(Arena::new(PAGE, 1).is_err());
        assert!(Arena::new(2 * PAGE, u64::MAX - PAGE as u64 + 1).is_err());
        assert_eq!(Arena::new(1, 0).unwrap().size(), PAGE);
    }

    #[test]
    fn the_arena_ends_where_it_says() {
        let arena = Arena::new(PAGE, 0).unwrap();
        assert!(arena.alloc(PAGE - 8, 1).is_ok());
        assert!(matches!(arena.alloc(9, 1), Err(Error::OutOfMemory { want: 9, left: 8 })));
        assert!(arena.write(PAGE - 1, &[1, 2]).is_err());
        assert!(arena.write(usize::MAX, &[1]).is_err());
        assert!(arena.read(PAGE, &mut [0]).is_err());
        assert!(arena.load_u16(PAGE - 1, Ordering::Relaxed).is_err());
        assert!(arena.store_u64(PAGE - 4, 1).is_err());
    }

    #[test]
    fn words_are_little_endian_and_shared_through_the_file() {
        let arena = Arena::new(PAGE, 0).unwrap();
        arena.store_u16(2, 0x1234, Ordering::Release).unwrap();
        arena.store_u64(8, 0x0102_0304_0506_0708).unwrap();
        let mut bytes = [0; 16];
        rustix::io::pread(arena.fd(), &mut bytes, 0).unwrap();
        assert_eq!(bytes[2..4], [0x34, 0x12]);
        assert_eq!(bytes[8..16], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(arena.load_u32(8).unwrap(), 0x0506_0708);
    }

    #[test]
    fn a_sealed_arena_cannot_be_truncated() {
        let arena = Arena::new(PAGE, 0).unwrap();
        arena.truncate(0).unwrap();
        arena.restore().unwrap();
        arena.seal().unwrap();
        assert!(arena.truncate(0).is_err());
    }

    proptest! {
        #[test]
        fn spans_never_overlap(pieces in prop::collection::vec((1usize..3000, 0u32..8), 1..40)) {
            let arena = Arena::new(16 * PAGE, 0).unwrap();
            let mut end = 0;
            for (len, shift) in pieces {
                match arena.alloc(len, 1 << shift) {
                    Ok(span) => {
                        prop_assert!(span.offset >= end && span.offset % (1 << shift) == 0);
                        end = span.offset + span.len;
                        prop_assert!(end <= arena.size());
                    }
                    Err(Error::OutOfMemory { left, .. }) => {
                        prop_assert_eq!(left, arena.size() - end);
                    }
                    Err(e) => return Err(TestCaseError::fail(e.to_string())),
                }
            }
        }
    }
}
