//! This module declares registers: what each bit lets software do, and what each reset does to it.

use crate::spec::CONFIG_SIZE;

/// A reset that reaches a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// A function-level reset (PCIe Base 6.0, section 6.6.2) reached the function. Sticky bits
    /// survive it, as do those that belong to the link rather than to the function.
    Flr,
    /// A conventional hot reset (section 6.6.1) came, as from the port above. Sticky bits survive
    /// it.
    Conventional,
}

/// A write to one dword of configuration space.
///
/// A configuration request addresses one dword and names the bytes it means with byte enables
/// (PCIe Base 6.0, section 2.2.5); an access of any size at any alignment is a sequence of these.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    value: u32,
    enables: u32,
}

impl Write {
    /// Returns a write of some bytes of a dword, `first` being the first byte's place (0 to 3).
    pub(crate) fn bytes(first: usize, data: &[u8]) -> Self {
        let (mut value, mut enables) = ([0; 4], [0; 4]);
        for ((value, enable), byte) in value.iter_mut().zip(&mut enables).skip(first).zip(data) {
            *value = *byte;
            *enable = 0xff;
        }
        Self { value: u32::from_le_bytes(value), enables: u32::from_le_bytes(enables) }
    }

    /// Returns a write of all four bytes.
    pub(crate) fn dword(value: u32) -> Self {
        Self { value, enables: u32::MAX }
    }

    /// Returns this write, reaching only the bits in `mask`.
    pub(crate) fn only(self, mask: u32) -> Self {
        Self { value: self.value, enables: self.enables & mask }
    }

    /// Returns `old` with the bits replaced that this write reaches.
    pub(crate) fn over(self, old: u32) -> u32 {
        old & !self.enables | self.value & self.enables
    }

    /// Returns the bits that are written as one.
    pub(crate) fn ones(self) -> u32 {
        self.value & self.enables
    }

    /// Returns whether the write reaches no bit at all.
    pub(crate) fn is_empty(self) -> bool {
        self.enables == 0
    }

    /// Returns the place of the first byte written in the dword, and the number of bytes.
    pub(crate) fn span(self) -> (u16, u8) {
        let enabled = self.enables.to_le_bytes().map(|byte| byte != 0);
        let first = enabled.iter().position(|&on| on).unwrap_or(0);
        let count = enabled.iter().filter(|&&on| on).count();
        (first as u16, count as u8)
    }
}

/// Splits an access of any size and alignment into dwords: (dword's offset, first byte in the
/// dword, range of the access's bytes). Bytes beyond the space are in none.
fn dwords(offset: u16, len: usize) -> impl Iterator<Item = (u16, usize, std::ops::Range<usize>)> {
    let end = usize::from(offset) + len;
    let end = end.min(CONFIG_SIZE);
    let mut at = usize::from(offset);
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let first = at % 4;
        let stop = (at - first + 4).min(end);
        let range = at - usize::from(offset)..stop - usize::from(offset);
        let dword = (at - first) as u16;
        at = stop;
        Some((dword, first, range))
    })
}

/// Fills `data` from dwords. Bytes beyond configuration space are ones.
pub(crate) fn read_dwords(offset: u16, data: &mut [u8], read: impl Fn(u16) -> u32) {
    data.fill(0xff);
    for (dword, first, range) in dwords(offset, data.len()) {
        let bytes = read(dword).to_le_bytes();
        if let Some(place) = data.get_mut(range) {
            for (place, byte) in place.iter_mut().zip(bytes.iter().skip(first)) {
                *place = *byte;
            }
        }
    }
}

/// Returns the dwords that a write of any size and alignment consists of, lowest first, each with
/// its offset. Bytes beyond configuration space are dropped.
pub(crate) fn writes(offset: u16, data: &[u8]) -> impl Iterator<Item = (u16, Write)> {
    dwords(offset, data.len()).filter_map(move |(dword, first, range)| {
        Some((dword, Write::bytes(first, data.get(range)?)))
    })
}

/// A dword of registers. Every bit has one of the types of PCIe Base 6.0, section 7.4: read-only
/// unless `writable` (RW) or `clearable` (RW1C) says otherwise, and sticky (ROS, RWS, RW1CS) where
/// `sticky` does.
#[derive(Clone, Debug)]
pub struct Register {
    value: u32,
    initial: u32,
    writable: u32,
    clearable: u32,
    sticky: u32,
    flr_exempt: u32,
}

impl Register {
    /// Returns a register whose bits are all read-only and have this value.
    pub const fn new(initial: u32) -> Self {
        Self { value: initial, initial, writable: 0, clearable: 0, sticky: 0, flr_exempt: 0 }
    }

    /// Returns two 16-bit registers that share the dword.
    pub const fn pair(low: u16, high: u16) -> Self {
        Self::new(halves(low, high))
    }

    /// Names the bits that software writes (RW).
    pub const fn writable(mut self, mask: u32) -> Self {
        self.writable = mask;
        self
    }

    /// Names the bits that software clears by writing one (RW1C).
    pub const fn clearable(mut self, mask: u32) -> Self {
        self.clearable = mask;
        self
    }

    /// Names the bits that neither FLR nor hot reset changes.
    pub(crate) const fn sticky(mut self, mask: u32) -> Self {
        self.sticky = mask;
        self
    }

    /// Names the bits that FLR leaves alone because they belong to the link (section 6.6.2).
    pub(crate) const fn flr_exempt(mut self, mask: u32) -> Self {
        self.flr_exempt = mask;
        self
    }

    /// Returns the register's value.
    pub(crate) fn get(&self) -> u32 {
        self.value
    }

    /// Sets the bits in `mask`, whatever software may do.
    fn set(&mut self, mask: u32, value: u32) {
        self.value = self.value & !mask | value & mask;
    }

    /// Carries out software's write, as each bit allows.
    pub(crate) fn write(&mut self, write: Write) {
        self.value = write.only(self.writable).over(self.value);
        self.value &= !(write.ones() & self.clearable);
    }

    /// Resets the register.
    pub(crate) fn reset(&mut self, kind: Reset) {
        let kept = match kind {
            Reset::Flr => self.sticky | self.flr_exempt,
            Reset::Conventional => self.sticky,
        };
        self.value = self.value & kept | self.initial & !kept;
    }
}

/// Returns two 16-bit registers as the dword they share.
pub const fn halves(low: u16, high: u16) -> u32 {
    let ([a, b], [c, d]) = (low.to_le_bytes(), high.to_le_bytes());
    u32::from_le_bytes([a, b, c, d])
}

/// Returns the lower 16-bit register of a dword.
pub const fn low(dword: u32) -> u16 {
    let [a, b, ..] = dword.to_le_bytes();
    u16::from_le_bytes([a, b])
}

/// Returns the upper 16-bit register of a dword.
pub const fn high(dword: u32) -> u16 {
    let [.., c, d] = dword.to_le_bytes();
    u16::from_le_bytes([c, d])
}

/// Returns a mask for the upper 16-bit register of a dword.
pub const fn in_high(mask: u16) -> u32 {
    halves(0, mask)
}

/// Returns a mask for the lower 16-bit register of a dword.
pub const fn in_low(mask: u16) -> u32 {
    halves(mask, 0)
}

/// The registers of one structure, by byte offset. Dwords without a register are reserved: they
/// read zero and drop writes.
#[derive(Clone, Debug)]
pub struct Bank(Box<[Register]>);

impl Bank {
    /// Returns `size` bytes (rounded up to dwords) of reserved registers.
    pub fn new(size: u16) -> Self {
        Self(vec![Register::new(0); usize::from(size).div_ceil(4)].into())
    }

    /// Adds a register at `offset`, the first byte of a dword or its lower half.
    pub fn with(mut self, offset: u16, register: Register) -> Self {
        if let Some(place) = self.0.get_mut(usize::from(offset / 4)) {
            *place = register;
        }
        self
    }

    /// Returns the length in bytes, whole dwords.
    pub(crate) fn size(&self) -> u16 {
        (self.0.len() * 4) as u16
    }

    /// Returns the value of the dword around `offset`.
    pub fn get(&self, offset: u16) -> u32 {
        self.0.get(usize::from(offset / 4)).map_or(0, Register::get)
    }

    /// Reads at any offset and length. Bytes beyond configuration space read as ones.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        read_dwords(offset, data, |dword| self.get(dword));
    }

    /// Carries out software's write at any offset and length, as each bit allows.
    pub fn write_bytes(&mut self, offset: u16, data: &[u8]) {
        for (dword, write) in writes(offset, data) {
            self.write(dword, write);
        }
    }

    /// Sets the bits in `mask` of the dword around `offset`, whatever software may do.
    pub fn set(&mut self, offset: u16, mask: u32, value: u32) {
        if let Some(register) = self.0.get_mut(usize::from(offset / 4)) {
            register.set(mask, value);
        }
    }

    /// Carries out software's write to the dword around `offset`.
    pub(crate) fn write(&mut self, offset: u16, write: Write) {
        if let Some(register) = self.0.get_mut(usize::from(offset / 4)) {
            register.write(write);
        }
    }

    /// Resets all registers.
    pub(crate) fn reset(&mut self, kind: Reset) {
        for register in &mut self.0 {
            register.reset(kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one_of_each() -> Register {
        Register::new(0x1111_1111)
            .writable(0x0000_00ff)
            .clearable(0x0000_ff00)
            .sticky(0x000f_0f0f)
            .flr_exempt(0x0000_00f0)
    }

    #[test]
    fn bits_follow_their_types() {
        let mut register = one_of_each();
        register.write(Write::bytes(0, &[0xab, 0x10, 0xff, 0xff]));
        assert_eq!(register.get(), 0x1111_01ab, "RW written, RW1C cleared, RO unmoved");
        register.write(Write::bytes(1, &[0x00]));
        assert_eq!(register.get(), 0x1111_01ab, "writing zero clears nothing");
    }

    #[test]
    fn resets_keep_what_they_must() {
        let mut register = Register { value: 0, ..one_of_each() };
        let mut after_flr = register.clone();
        after_flr.reset(Reset::Flr);
        assert_eq!(after_flr.get(), 0x1110_1000, "sticky and link bits survive FLR");
        register.reset(Reset::Conventional);
        assert_eq!(register.get(), 0x1110_1010, "sticky bits alone survive a hot reset");
    }

    #[test]
    fn a_bank_ends_where_it_ends() {
        let mut bank = Bank::new(6).with(4, Register::new(7).writable(u32::MAX));
        assert_eq!((bank.size(), bank.get(4), bank.get(8)), (8, 7, 0));
        bank.write(8, Write::bytes(0, &[1; 4]));
        bank.write(0, Write::bytes(0, &[1; 4]));
        assert_eq!((bank.get(0), bank.get(4)), (0, 7));
    }

    #[test]
    fn halves_are_little_endian() {
        let dword = halves(0x1234, 0x5678);
        assert_eq!(dword, 0x5678_1234);
        assert_eq!((low(dword), high(dword)), (0x1234, 0x5678));
    }

    proptest! {
        /// Every byte within the space is in exactly one piece, however an access is cut up.
        #[test]
        fn dwords_cover_the_access(offset: u16, len in 0_usize..5000) {
            let mut at = usize::from(offset);
            for (dword, first, range) in dwords(offset, len) {
                prop_assert_eq!(usize::from(dword) + first, at);
                prop_assert_eq!(usize::from(offset) + range.start, at);
                prop_assert!(dword % 4 == 0 && first + range.len() <= 4 && !range.is_empty());
                at += range.len();
            }
            let end = (usize::from(offset) + len).min(CONFIG_SIZE);
            prop_assert_eq!(at, end.max(usize::from(offset)));
        }

        #[test]
        fn byte_enables_confine_a_write(
            first in 0_usize..4,
            data in prop::collection::vec(any::<u8>(), 0..5),
        ) {
            let write = Write::bytes(first, &data);
            let mut bytes = [0x5a; 4];
            for (place, byte) in bytes.iter_mut().skip(first).zip(&data) {
                *place = *byte;
            }
            prop_assert_eq!(write.over(0x5a5a_5a5a), u32::from_le_bytes(bytes));
            prop_assert_eq!(write.is_empty(), data.is_empty());
            if !data.is_empty() {
                prop_assert_eq!(write.span(), (first as u16, data.len().min(4 - first) as u8));
            }
        }
    }
}
