//! This module maps accesses of any size and alignment to registers of fixed size and place.
//!
//! Drivers access each register as a whole (4.1.3.1); a hostile one does not. A read returns the
//! bytes as if the registers were memory. A write reaches every register it touches, in ascending
//! order; where it covers a register in part, the rest keeps its present value.

/// A register: byte offset in its structure and size in bytes, 1, 2 or 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Register {
    pub(super) offset: u8,
    pub(super) size: u8,
}

impl Register {
    /// Returns, for each byte of the register that `len` bytes at `start` touch, its index in the
    /// register and in the access.
    fn overlap(self, start: u64, len: usize) -> impl Iterator<Item = (usize, usize)> {
        (0..self.size).filter_map(move |byte| {
            let at = u64::from(self.offset) + u64::from(byte);
            let within = usize::try_from(at.checked_sub(start)?).ok()?;
            (within < len).then_some((usize::from(byte), within))
        })
    }

    /// Returns whether `len` bytes at `start` touch the register.
    pub(super) fn touches(self, start: u64, len: usize) -> bool {
        self.overlap(start, len).next().is_some()
    }

    /// Copies the part of the register's `value` that a read of `data` from `start` covers.
    pub(super) fn read(self, value: u32, start: u64, data: &mut [u8]) {
        let bytes = value.to_le_bytes();
        for (byte, within) in self.overlap(start, data.len()) {
            if let (Some(out), Some(byte)) = (data.get_mut(within), bytes.get(byte)) {
                *out = *byte;
            }
        }
    }

    /// Returns the value that a write of `data` at `start` gives the register, `present` being what
    /// it has.
    pub(super) fn merge(self, present: u32, start: u64, data: &[u8]) -> u32 {
        let mut bytes = present.to_le_bytes();
        for (byte, within) in self.overlap(start, data.len()) {
            if let (Some(out), Some(byte)) = (bytes.get_mut(byte), data.get(within)) {
                *out = *byte;
            }
        }
        u32::from_le_bytes(bytes)
    }
}

/// Returns the part of an access (`len` bytes at `offset`) that falls into `size` bytes at `base`:
/// its offset from `base`, and its range in the access.
pub(super) fn part(
    offset: u64,
    len: usize,
    base: u64,
    size: u64,
) -> Option<(u64, std::ops::Range<usize>)> {
    let end = offset.saturating_add(len as u64);
    let first = offset.max(base);
    let last = end.min(base + size);
    if first >= last {
        return None;
    }
    let start = (first - offset) as usize;
    Some((first - base, start..start + (last - first) as usize))
}
