//! This module has shared memory whose bounds and permissions were checked.

use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{Ordering, compiler_fence};

/// Host memory behind a range of IOVAs, valid for as long as the [`crate::Pinned`] it came from.
///
/// The memory is shared with a guest that may change it at any time, so no Rust reference to it
/// ever exists: all access is by copies through raw pointers, and a value read twice may differ.
/// Whatever is judged must be read once.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'p> {
    ptr: *mut u8,
    len: usize,
    _pin: PhantomData<&'p ()>,
}

impl<'p> Slice<'p> {
    /// Returns a slice over `len` bytes at `ptr`.
    ///
    /// # Safety
    /// `ptr..ptr + len` must be mapped, readable and, if the slice is written to, writable memory
    /// for all of `'p`, and must never be covered by a Rust reference while the slice is used.
    pub unsafe fn from_raw(ptr: *mut u8, len: usize) -> Self {
        Slice { ptr, len, _pin: PhantomData }
    }

    /// Returns a slice over private bytes: frames that do not come from guest memory (from a TAP,
    /// or segmented in software) take the same path as those that do. `&mut` makes sure that no
    /// reference looks at the bytes meanwhile.
    pub fn from_mut(bytes: &'p mut [u8]) -> Self {
        Slice { ptr: bytes.as_mut_ptr(), len: bytes.len(), _pin: PhantomData }
    }

    /// Returns the length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the length is zero.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the first byte's address. Reading or writing through it is subject to what the
    /// type's description says.
    #[inline]
    pub fn as_ptr(&self) -> *mut u8 {
        self.ptr
    }

    /// Returns the part from `offset` on, which is empty if `offset` is at or past the end.
    #[inline]
    pub fn skip(&self, offset: usize) -> Slice<'p> {
        let offset = offset.min(self.len);
        // SAFETY: offset is at most len, so the result stays inside (or one past the end of) the
        // same memory.
        unsafe { Slice::from_raw(self.ptr.add(offset), self.len - offset) }
    }

    /// Returns at most the first `len` bytes.
    #[inline]
    pub fn take(&self, len: usize) -> Slice<'p> {
        Slice { len: len.min(self.len), ..*self }
    }

    /// Copies from the start of the slice into `out`; returns how many bytes (the shorter length).
    ///
    /// The shared memory is read exactly once: what is later found in `out` is what was copied.
    #[inline]
    pub fn read(&self, out: &mut [u8]) -> usize {
        let n = self.len.min(out.len());
        // SAFETY: both ranges hold at least n bytes; `out` is exclusive private memory, so they
        // cannot overlap.
        unsafe { ptr::copy_nonoverlapping(self.ptr, out.as_mut_ptr(), n) };
        read_once();
        n
    }

    /// Returns the first `N` bytes of the slice, if it has that many. This is quicker than
    /// [`Slice::read`], because the length is known when the program is built.
    #[inline]
    pub fn read_array<const N: usize>(&self) -> Option<[u8; N]> {
        if self.len < N {
            return None;
        }
        // SAFETY: the range holds N bytes, and an array of bytes may be unaligned and have any
        // value.
        let array = unsafe { ptr::read_unaligned(self.ptr.cast::<[u8; N]>()) };
        read_once();
        Some(array)
    }

    /// Copies `data` to the start of the slice, if all of it fits. This is quicker than
    /// [`Slice::write`], because the length is known.
    #[inline]
    pub fn write_array<const N: usize>(&self, data: &[u8; N]) -> bool {
        let fits = self.len >= N;
        if fits {
            // SAFETY: both ranges hold N bytes; `data` is private memory that no Slice covers for
            // writing.
            unsafe { ptr::copy_nonoverlapping(data.as_ptr(), self.ptr, N) };
        }
        fits
    }

    /// Copies `data` to the start of the slice; returns how many bytes (the shorter length).
    #[inline]
    pub fn write(&self, data: &[u8]) -> usize {
        let n = self.len.min(data.len());
        // SAFETY: both ranges hold at least n bytes; `data` is private memory that no Slice covers
        // for writing.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), self.ptr, n) };
        n
    }

    /// Copies from `source` to the start of this slice; returns how many bytes (the shorter
    /// length).
    ///
    /// The ranges may overlap: two functions of one VM can name the same memory.
    #[inline]
    pub fn copy_from(&self, source: &Slice<'_>) -> usize {
        let n = self.len.min(source.len);
        // A call of the C library would take longer than copying what a small frame has beyond its
        // head.
        // SAFETY: both ranges hold at least n bytes; the first arm is taken for lengths that two
        // overlapping blocks cover, and `ptr::copy` allows overlap.
        unsafe {
            match n {
                HALF..BLOCK => two_blocks::<HALF>(source.ptr, self.ptr, n),
                BLOCK..=TWO_BLOCKS => two_blocks::<BLOCK>(source.ptr, self.ptr, n),
                _ => ptr::copy(source.ptr, self.ptr, n),
            }
        }
        read_once();
        n
    }

    /// Asks the processor to bring the first bytes into its cache.
    #[inline]
    pub fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch is a hint; it never faults and reads nothing into the program's state.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(self.ptr.cast());
        }
    }
}

impl Slice<'_> {
    /// Asks the processor for the first bytes, to be written. Another core that has them gives them
    /// up at once, and not when the first store comes.
    #[inline]
    pub fn prefetch_write(&self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch is a hint; it never faults and reads nothing into the program's state.
        // PREFETCHW does nothing on processors that do not know it. It is not among what the
        // compiler may use by itself for every x86-64.
        unsafe {
            std::arch::asm!(
                "prefetchw [{}]",
                in(reg) self.ptr,
                options(nostack, preserves_flags, readonly)
            );
        }
    }
}

/// Lengths in bytes that are copied without a call: one vector register of 16 bytes, two, or four.
const HALF: usize = 16;
const BLOCK: usize = 32;
const TWO_BLOCKS: usize = 64;

/// Copies `len` bytes, `N` to `2 * N`, as one block from the start and one to the end, both read
/// before either is written: the ranges may overlap.
///
/// # Safety
/// `len` is `N` to `2 * N`, and both ranges hold that much.
#[inline(always)]
unsafe fn two_blocks<const N: usize>(source: *const u8, target: *mut u8, len: usize) {
    // SAFETY: the caller promises the ranges; arrays of bytes may be unaligned.
    unsafe {
        let first = ptr::read_unaligned(source.cast::<[u8; N]>());
        let last = ptr::read_unaligned(source.add(len - N).cast::<[u8; N]>());
        ptr::write_unaligned(target.cast(), first);
        ptr::write_unaligned(target.add(len - N).cast(), last);
    }
}

/// Keeps the compiler from reading shared memory again in place of the private copy just made: as
/// far as it knows, any memory may have changed here. No instruction is emitted.
#[inline(always)]
fn read_once() {
    compiler_fence(Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_stop_at_the_shorter_end() {
        let mut bytes = *b"0123456789";
        let slice = Slice::from_mut(&mut bytes);
        assert_eq!((slice.len(), slice.is_empty()), (10, false));
        let mut out = [0; 4];
        assert_eq!(slice.read(&mut out), 4);
        assert_eq!(&out, b"0123");
        assert_eq!(slice.skip(8).read(&mut out), 2);
        assert_eq!(&out, b"8923");
        assert_eq!(slice.take(3).write(b"abcdef"), 3);
        assert_eq!(slice.skip(9).write(b"xyz"), 1);
        assert_eq!(slice.skip(10).write(b"z"), 0);
        assert!(slice.skip(11).is_empty() && slice.take(0).is_empty());
        assert_eq!(slice.take(11).len(), 10);
        slice.prefetch();
        assert_eq!(&bytes, b"abc345678x");
        let slice = Slice::from_mut(&mut bytes);
        assert_eq!(slice.read_array(), Some(*b"abc3"));
        assert!(slice.skip(6).write_array(b"wxyz"));
        assert_eq!(slice.skip(7).read_array::<4>(), None);
        assert!(!slice.skip(7).write_array(b"wxyz"));
        assert_eq!(&bytes, b"abc345wxyz");
    }

    #[test]
    fn slices_that_overlap_are_copied_as_if_they_did_not() {
        let mut bytes = *b"0123456789";
        let slice = Slice::from_mut(&mut bytes);
        assert_eq!(slice.skip(2).copy_from(&slice), 8);
        assert_eq!(slice.take(3).copy_from(&slice.skip(5)), 3);
        assert_eq!(&bytes, b"3451234567");
    }
    #[test]
    fn any_length_is_copied_whichever_way_the_ranges_overlap() {
        let original: Vec<u8> = (0..=255).collect();
        for len in 0..130 {
            for (from, to) in [(0, 126), (3, 0), (0, 3), (40, 0), (0, 40), (7, 7)] {
                let mut bytes = original.clone();
                let slice = Slice::from_mut(&mut bytes);
                let (source, target) = (slice.skip(from).take(len), slice.skip(to));
                assert_eq!(target.copy_from(&source), len);
                let mut expected = original.clone();
                expected.copy_within(from..from + len, to);
                assert_eq!(bytes, expected, "{len} bytes from {from} to {to}");
            }
        }
    }
}
