//! This module computes the Internet checksum (RFC 1071).
//!
//! Sums are of words as the machine loads them: whichever way round, it comes to the same but for a
//! swap at the end (section 2 (B)). Summing 32-bit words into 64-bit lanes needs no carries, and
//! compilers vectorise it.

use crate::spec::udp;

/// Number of bytes per step of the wide loops: as many lanes as stay in vector registers, which the
/// compiler is quick to give up.
const STEP: usize = 32;
/// Number of 32-bit words per step.
const LANES: usize = STEP / 4;

/// A sum over bytes that come in pieces of any length, as if they came in one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// The sum of 16-bit words in the machine's byte order; a long way from overflow.
    total: u64,
    /// True after an odd number of bytes: the next one is the second of its word.
    odd: bool,
}

impl Sum {
    /// Returns the sum of no bytes.
    pub const fn new() -> Sum {
        Sum { total: 0, odd: false }
    }

    /// Adds the next bytes.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        self.piece(sum(bytes), bytes.len());
    }

    /// Adds the next bytes and copies them, for as long as `to` has room, in one pass over memory.
    /// Returns how many bytes.
    #[inline]
    pub fn add_copy(&mut self, from: &[u8], to: &mut [u8]) -> usize {
        let len = from.len().min(to.len());
        let (from, to) =
            (from.get(..len).unwrap_or_default(), to.get_mut(..len).unwrap_or_default());
        self.piece(sum_copy(from, to), len);
        len
    }

    /// Adds a 16-bit field, as if its two bytes stood on an even offset.
    #[inline]
    pub fn add_u16(&mut self, field: u16) {
        self.total += u64::from(field.to_be());
    }

    /// Adds a 32-bit field, as if its bytes stood on an even offset.
    #[inline]
    pub fn add_u32(&mut self, field: u32) {
        self.total += u64::from(field.to_be());
    }

    /// Removes a 16-bit field that was added.
    #[inline]
    pub fn remove_u16(&mut self, field: u16) {
        self.add_u16(!field);
    }

    /// Removes a 32-bit field that was added.
    #[inline]
    pub fn remove_u32(&mut self, field: u32) {
        self.add_u32(!field);
    }

    /// Adds another sum, as if its bytes stood on an even offset.
    #[inline]
    pub fn add_sum(&mut self, other: &Sum) {
        self.total += u64::from(fold32(other.total));
    }

    /// Returns the one's complement sum, which is zero only if all bytes were.
    #[inline]
    pub fn fold(&self) -> u16 {
        u16::from_be(fold16(fold32(self.total)))
    }

    /// Returns the checksum: the complement of the sum.
    #[inline]
    pub fn checksum(&self) -> u16 {
        !self.fold()
    }

    /// Returns the checksum as it is written to a field at `csum_offset` of a transport header: in
    /// UDP's place, zero would say that there is none, and FFFFh is written.
    #[inline]
    pub fn field(&self, csum_offset: u16) -> [u8; 2] {
        match self.checksum() {
            0 if usize::from(csum_offset) == udp::CHECKSUM => [0xff, 0xff],
            checksum => checksum.to_be_bytes(),
        }
    }

    #[inline]
    fn piece(&mut self, sum: u64, len: usize) {
        let sum = fold16(fold32(sum));
        // Every byte after an odd number of bytes is in the other half of its word.
        self.total += u64::from(if self.odd { sum.swap_bytes() } else { sum });
        self.odd ^= !len.is_multiple_of(2);
    }
}

/// Finishes the checksum of a frame (VIRTIO_NET_HDR_F_NEEDS_CSUM): sums from `csum_start` to the
/// end, the pseudo-header's sum that the sender left in the field included, and writes the field at
/// `csum_start + csum_offset`.
///
/// `false`, and nothing is written, if the field is not in the frame.
#[inline]
pub fn finish(frame: &mut [u8], csum_start: u16, csum_offset: u16) -> bool {
    let Some(covered) = frame.get_mut(usize::from(csum_start)..) else { return false };
    let mut sum = Sum::new();
    sum.add(covered);
    match covered.get_mut(usize::from(csum_offset)..).and_then(|rest| rest.first_chunk_mut()) {
        Some(field) => {
            *field = sum.field(csum_offset);
            true
        }
        None => false,
    }
}

/// Folds to a value that is zero only if `sum` is, and the same one's complement number.
#[inline]
fn fold32(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    ((sum & 0xffff_ffff) + (sum >> 32)) as u32
}

#[inline]
fn fold16(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Returns the sum of `bytes` as 32-bit words in the machine's byte order, the last one filled up
/// with zeros.
#[inline]
fn sum(bytes: &[u8]) -> u64 {
    let (steps, rest) = bytes.as_chunks();
    sum_steps(steps) + sum_rest(rest)
}

/// Sums whole steps. It is not inlined: among other code the lanes get registers of their own, not
/// vectors, which takes three times as long.
#[inline(never)]
fn sum_steps(steps: &[[u8; STEP]]) -> u64 {
    let mut lanes = [0; LANES];
    for step in steps {
        add_step(&mut lanes, step);
    }
    lanes.iter().sum()
}

/// Sums `from` as [`sum`] does and copies it to `to`; both have the same length.
#[inline]
fn sum_copy(from: &[u8], to: &mut [u8]) -> u64 {
    let (steps, rest) = from.as_chunks();
    let (to_steps, to_rest) = to.as_chunks_mut();
    for (byte, to) in rest.iter().zip(to_rest) {
        *to = *byte;
    }
    sum_copy_steps(steps, to_steps) + sum_rest(rest)
}

#[inline(never)]
fn sum_copy_steps(from: &[[u8; STEP]], to: &mut [[u8; STEP]]) -> u64 {
    let mut lanes = [0; LANES];
    for (step, to) in from.iter().zip(to) {
        add_step(&mut lanes, step);
        *to = *step;
    }
    lanes.iter().sum()
}

#[inline]
fn add_step(lanes: &mut [u64; LANES], step: &[u8; STEP]) {
    let (words, _) = step.as_chunks::<4>();
    for (lane, word) in lanes.iter_mut().zip(words) {
        *lane += u64::from(u32::from_ne_bytes(*word));
    }
}

/// Sums less than a step.
#[inline]
fn sum_rest(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let last = match *rest {
        [a] => [a, 0, 0, 0],
        [a, b] => [a, b, 0, 0],
        [a, b, c] => [a, b, c, 0],
        _ => [0; 4],
    };
    sum + u64::from(u32::from_ne_bytes(last))
}
