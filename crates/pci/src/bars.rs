//! This module has the base address registers (PCIe Base 6.0, section 7.5.1.2.1): six in the
//! header, six VF BARs in the SR-IOV capability, six virtual ones in front of a VMM.

use crate::error::Error;
use crate::function::BarSpec;
use crate::registers::Write;
use crate::spec::{PAGE_SIZE, header};

/// Size of the smallest memory BAR in bytes. The standard allows 128 bytes; below a page functions
/// could not be told apart by an MMU.
const MIN_SIZE: u64 = PAGE_SIZE;
/// Size of the largest 32-bit BAR in bytes, of which the top bit alone is writable.
const MAX_SIZE_32: u64 = 1 << 31;

/// A BAR as software programmed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Address in the register; 0 until software places it.
    pub address: u64,
    /// Number of bytes decoded.
    pub size: u64,
}

/// The base address registers of one function, or of its VFs.
///
/// A BAR decodes `size` bytes at a multiple of `size`; its low address bits are hardwired to zero,
/// which is how software that writes all ones learns the size. Of VF BARs that size is at least
/// System Page Size, so the methods take that as `granule` (1 where there is none).
#[derive(Clone, Debug)]
pub(crate) struct Bars {
    specs: [Option<BarSpec>; 6],
    /// Values as software wrote them. Hardwired bits are taken off when they are read.
    written: [u32; 6],
}

/// The part of a BAR that one of the six registers holds.
enum Half {
    Low(BarSpec),
    High(BarSpec),
}

impl Bars {
    /// Returns the registers of these specs, whose sizes and places for upper halves it checks.
    pub(crate) fn new(specs: &[Option<BarSpec>; 6]) -> Result<Self, Error> {
        for (index, spec) in specs.iter().enumerate() {
            let Some(BarSpec { size, width64, .. }) = *spec else { continue };
            if !size.is_power_of_two() || size < MIN_SIZE || !width64 && size > MAX_SIZE_32 {
                return Err(Error::BarSize { index, size });
            }
            if width64 && !matches!(specs.get(index + 1), Some(None)) {
                return Err(Error::BarWidth { index });
            }
        }
        Ok(Self { specs: *specs, written: [0; 6] })
    }

    /// Returns the bytes decoded by the BAR of this index, if there is one.
    pub(crate) fn size(&self, index: usize, granule: u64) -> Option<u64> {
        Some(self.spec(index)?.size.max(granule))
    }

    /// Returns the address in the BAR of this index, if there is one.
    pub(crate) fn address(&self, index: usize, granule: u64) -> Option<u64> {
        let spec = self.spec(index)?;
        let high = if spec.width64 { self.read(index + 1, granule) } else { 0 };
        let low = self.read(index, granule) & !header::BAR_FLAGS;
        Some(u64::from(high) << 32 | u64::from(low))
    }

    /// Reads one of the six registers; 0 if there is no BAR.
    pub(crate) fn read(&self, index: usize, granule: u64) -> u32 {
        let Some(written) = self.written.get(index) else { return 0 };
        let writable = |spec: BarSpec| !(spec.size.max(granule) - 1);
        match self.half(index) {
            Some(Half::Low(spec)) => {
                let mut flags = 0;
                if spec.width64 {
                    flags |= header::BAR_WIDTH64;
                }
                if spec.prefetchable {
                    flags |= header::BAR_PREFETCHABLE;
                }
                written & writable(spec) as u32 | flags
            }
            Some(Half::High(spec)) => written & (writable(spec) >> 32) as u32,
            None => 0,
        }
    }

    /// Carries out software's write to one of the six registers.
    pub(crate) fn write(&mut self, index: usize, write: Write) {
        if let Some(written) = self.written.get_mut(index) {
            *written = write.over(*written);
        }
    }

    /// Resets the registers: no BAR has an address.
    pub(crate) fn reset(&mut self) {
        self.written = [0; 6];
    }

    fn spec(&self, index: usize) -> Option<BarSpec> {
        self.specs.get(index).copied().flatten()
    }

    fn half(&self, index: usize) -> Option<Half> {
        if let Some(spec) = self.spec(index) {
            return Some(Half::Low(spec));
        }
        let below = self.spec(index.checked_sub(1)?)?;
        below.width64.then_some(Half::High(below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn bar(size: u64, width64: bool) -> Option<BarSpec> {
        Some(BarSpec { size, width64, prefetchable: width64 })
    }

    fn write(bars: &mut Bars, index: usize, value: u32) {
        bars.write(index, Write::bytes(0, &value.to_le_bytes()));
    }

    #[test]
    fn sizing_shows_the_hardwired_bits() {
        let specs = [bar(0x4000, true), None, bar(0x1000, false), None, bar(1 << 36, true), None];
        let mut bars = Bars::new(&specs).unwrap();
        for index in 0..6 {
            write(&mut bars, index, u32::MAX);
        }
        let read: Vec<u32> = (0..6).map(|index| bars.read(index, 1)).collect();
        assert_eq!(read, [0xffff_c00c, u32::MAX, 0xffff_f000, 0, 0x0000_000c, 0xffff_fff0]);
        write(&mut bars, 1, 0x12);
        write(&mut bars, 0, 0x3456_7fff);
        assert_eq!(bars.address(0, 1), Some(0x12_3456_4000));
        assert_eq!(bars.address(1, 1), None, "the upper half is no BAR of its own");
        bars.reset();
        assert_eq!(bars.address(0, 1), Some(0));
    }

    #[test]
    fn the_granule_is_a_lower_bound_of_the_size() {
        let mut bars = Bars::new(&[bar(0x4000, true), None, None, None, None, None]).unwrap();
        write(&mut bars, 0, u32::MAX);
        assert_eq!((bars.size(0, 0x1000), bars.read(0, 0x1000)), (Some(0x4000), 0xffff_c00c));
        assert_eq!((bars.size(0, 0x10000), bars.read(0, 0x10000)), (Some(0x10000), 0xffff_000c));
        assert_eq!((bars.size(1, 0x10000), bars.read(1, 0x10000)), (None, 0));
    }

    #[test]
    fn impossible_bars_are_refused() {
        for size in [0, 1, 0x800, 0x3000, u64::MAX] {
            let specs = [None, bar(size, true), None, None, None, None];
            assert_eq!(Bars::new(&specs).unwrap_err(), Error::BarSize { index: 1, size });
        }
        let specs = [bar(1 << 32, false), None, None, None, None, None];
        assert_eq!(Bars::new(&specs).unwrap_err(), Error::BarSize { index: 0, size: 1 << 32 });
        let specs = [bar(0x1000, true), bar(0x1000, false), None, None, None, None];
        assert_eq!(Bars::new(&specs).unwrap_err(), Error::BarWidth { index: 0 });
        let specs = [None, None, None, None, None, bar(0x1000, true)];
        assert_eq!(Bars::new(&specs).unwrap_err(), Error::BarWidth { index: 5 });
    }
}
