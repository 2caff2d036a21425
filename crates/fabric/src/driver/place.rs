//! This module places BARs in the host's memory ranges, and opens the bridge's windows for them.

use std::ops::Range;

use manifold_pci::spec::header;

use super::function::Function;
use crate::error::Error;
use crate::root_complex::MemoryRanges;
use crate::spec::bridge;

/// A need for addresses: of a BAR, or of the aperture of a VF BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// Length in bytes.
    pub(super) len: u64,
    /// Alignment in bytes, a power of two.
    pub(super) align: u64,
    /// True if the addresses may be above 4 GiB, as the BAR is 64 bits wide and prefetchable. A
    /// bridge has no 64-bit window for what is not prefetchable (section 7.5.1.3.8).
    pub(super) high: bool,
}

/// Addresses that were given to all needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    /// The addresses, in the order of the needs.
    pub(super) addresses: Vec<u64>,
    /// Addresses that the memory window must cover; empty for none.
    pub(super) low: Range<u64>,
    /// Addresses that the prefetchable window must cover; empty for none.
    pub(super) high: Range<u64>,
}

/// Gives each need an aligned address of its own.
pub(super) fn place(needs: &[Need], ranges: &MemoryRanges) -> Result<Placement, Error> {
    let mut addresses = vec![0; needs.len()];
    let mut fill = |high: bool, range: &Range<u64>, name| {
        let mut here: Vec<_> =
            needs.iter().zip(&mut addresses).filter(|(need, _)| need.high == high).collect();
        // The largest alignment comes first, so that there is hardly a gap.
        here.sort_by_key(|(need, _)| std::cmp::Reverse(need.align));
        let needed = here.iter().fold(0_u64, |sum, (need, _)| sum.saturating_add(need.len));
        let out_of_addresses = || Error::OutOfAddresses {
            range: name,
            needed,
            available: range.end.saturating_sub(range.start),
        };
        let mut next = range.start;
        for (need, address) in here {
            *address = next.checked_next_multiple_of(need.align).ok_or_else(out_of_addresses)?;
            next = address.checked_add(need.len).ok_or_else(out_of_addresses)?;
            if next > range.end {
                return Err(out_of_addresses());
            }
        }
        Ok(range.start..next)
    };
    let low = fill(false, &ranges.below_4g, "32-bit")?;
    let high = fill(true, &ranges.above_4g, "64-bit")?;
    Ok(Placement { addresses, low, high })
}

/// Opens the bridge's windows for a placement, and closes those that are empty. Memory decoding of
/// the bridge must be off.
pub(super) fn open_windows(port: Function<'_>, placement: &Placement) {
    let low = window(&placement.low);
    port.write_u16(bridge::MEMORY_BASE, (low.base >> 16) as u16);
    port.write_u16(bridge::MEMORY_LIMIT, (low.limit >> 16) as u16);
    let high = window(&placement.high);
    port.write_u16(bridge::PREFETCHABLE_BASE, (high.base >> 16) as u16);
    port.write_u16(bridge::PREFETCHABLE_LIMIT, (high.limit >> 16) as u16);
    port.write_u32(bridge::PREFETCHABLE_BASE_UPPER, (high.base >> 32) as u32);
    port.write_u32(bridge::PREFETCHABLE_LIMIT_UPPER, (high.limit >> 32) as u32);
}

/// Returns the window that covers a range, in whole units. The base is above the limit for an empty
/// range, which lets nothing through.
fn window(range: &Range<u64>) -> Window {
    let unit = |address| address & !(bridge::WINDOW_UNIT - 1);
    match range.end.checked_sub(1) {
        Some(last) if last >= range.start => Window { base: unit(range.start), limit: unit(last) },
        _ => Window { base: bridge::WINDOW_UNIT, limit: 0 },
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    base: u64,
    limit: u64,
}

/// Turns memory decoding and forwarding of requests on.
pub(super) fn enable(function: Function<'_>) {
    let command = function.read_u16(header::COMMAND);
    let on = header::COMMAND_MEMORY | header::COMMAND_BUS_MASTER;
    function.write_u16(header::COMMAND, command | on);
}

/// Turns memory decoding and forwarding of requests off.
pub(super) fn disable(function: Function<'_>) {
    let command = function.read_u16(header::COMMAND);
    let on = header::COMMAND_MEMORY | header::COMMAND_BUS_MASTER;
    function.write_u16(header::COMMAND, command & !on);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RANGES: MemoryRanges =
        MemoryRanges { below_4g: 0xc000_0000..0xf000_0000, above_4g: 1 << 39..1 << 40 };

    fn need() -> impl Strategy<Value = Need> {
        (12..24_u32, 1..300_u64, any::<bool>()).prop_map(|(bits, count, high)| Need {
            len: count << bits,
            align: 1 << bits,
            high,
        })
    }

    proptest! {
        #[test]
        fn everything_is_aligned_inside_its_range_and_apart(
            needs in proptest::collection::vec(need(), 0..12)
        ) {
            let Ok(placement) = place(&needs, &RANGES) else {
                // Alignment wastes less than the largest need.
                let low = needs.iter().filter(|need| !need.high).map(|need| need.len);
                let spare = 12 << 24;
                prop_assert!(low.sum::<u64>() + spare > 0x3000_0000);
                return Ok(());
            };
            let mut taken: Vec<Range<u64>> = Vec::new();
            for (need, address) in needs.iter().zip(&placement.addresses) {
                let range = *address..address + need.len;
                let (whole, used) = if need.high {
                    (&RANGES.above_4g, &placement.high)
                } else {
                    (&RANGES.below_4g, &placement.low)
                };
                prop_assert_eq!(address % need.align, 0);
                prop_assert!(whole.start <= range.start && range.end <= whole.end);
                prop_assert!(used.start <= range.start && range.end <= used.end);
                prop_assert!(taken.iter().all(|t| range.end <= t.start || t.end <= range.start));
                taken.push(range);
            }
        }
    }

    #[test]
    fn large_ones_first_leave_no_gaps() {
        let need = |bits: u32| Need { len: 1 << bits, align: 1 << bits, high: false };
        let placement = place(&[12, 24, 13, 20].map(need), &RANGES).unwrap();
        let total = (1 << 12) + (1 << 24) + (1 << 13) + (1 << 20);
        assert_eq!(placement.low, 0xc000_0000..0xc000_0000 + total);
    }

    #[test]
    fn what_does_not_fit_is_an_error_with_the_numbers() {
        let needs = [Need { len: 1 << 30, align: 1 << 22, high: false }];
        assert_eq!(
            place(&needs, &RANGES),
            Err(Error::OutOfAddresses { range: "32-bit", needed: 1 << 30, available: 0x3000_0000 })
        );
        let whole = Need { len: u64::MAX, align: 1 << 63, high: true };
        assert!(place(&[whole, whole], &RANGES).is_err());
    }

    #[test]
    fn an_empty_window_is_closed() {
        let closed = window(&(0..0));
        assert!(closed.base > closed.limit);
        for (range, limit) in
            [(0xc000_0000..0xc000_1000, 0xc000_0000), (0xc000_0000..0xc010_0001, 0xc010_0000)]
        {
            assert_eq!(window(&range), Window { base: 0xc000_0000, limit });
        }
    }
}
