//! This module sizes and programs BARs. The registers of VF BARs are like those of a function's
//! own.

use manifold_pci::spec::header::{BAR_FLAGS, BAR_IO, BAR_PREFETCHABLE, BAR_TYPE, BAR_WIDTH64};

use super::function::Function;
use crate::error::Error;

/// Number of base address registers that a function has, and of VF BARs that a PF has.
pub(super) const COUNT: usize = 6;

/// A memory BAR as sizing found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bar {
    /// Number of bytes decoded: a power of two.
    pub(super) size: u64,
    pub(super) width64: bool,
    pub(super) prefetchable: bool,
}

/// Sizes the six BARs whose registers begin at `first`: it writes all ones, reads back which bits
/// stay zero, and restores the registers (section 7.5.1.2.1). Memory decoding must be off.
pub(super) fn size(function: Function<'_>, first: u16) -> Result<[Option<Bar>; COUNT], Error> {
    let mut bars = [None; COUNT];
    let mut places = bars.iter_mut().zip((first..).step_by(4));
    while let Some((place, offset)) = places.next() {
        let lower = probe(function, offset);
        if lower & BAR_IO != 0 || lower == 0 {
            // An I/O BAR stays unplaced: nothing here decodes I/O addresses.
            continue;
        }
        let width64 = lower & BAR_TYPE == BAR_WIDTH64;
        let address_bits = u64::from(lower & !BAR_FLAGS);
        let mask = if width64 {
            let upper = places.next().map_or(0, |(_, offset)| probe(function, offset));
            u64::from(upper) << 32 | address_bits
        } else {
            // Bits 63:32 of a 32-bit BAR's address are fixed, as if they could be written.
            u64::from(u32::MAX) << 32 | address_bits
        };
        let size = (!mask).checked_add(1).filter(|size| size.is_power_of_two());
        let size = size.ok_or(Error::InvalidBar { routing_id: function.id, offset, mask })?;
        let prefetchable = lower & BAR_PREFETCHABLE != 0;
        *place = Some(Bar { size, width64, prefetchable });
    }
    Ok(bars)
}

fn probe(function: Function<'_>, offset: u16) -> u32 {
    let before = function.read_u32(offset);
    function.write_u32(offset, u32::MAX);
    let mask = function.read_u32(offset);
    function.write_u32(offset, before);
    mask
}

/// Writes `address` into the BAR at `index` of those whose registers begin at `first`.
pub(super) fn program(function: Function<'_>, first: u16, index: usize, bar: Bar, address: u64) {
    let offset = first + 4 * index as u16;
    function.write_u32(offset, address as u32);
    if bar.width64 {
        function.write_u32(offset + 4, (address >> 32) as u32);
    }
}
