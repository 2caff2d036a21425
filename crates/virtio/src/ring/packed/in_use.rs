//! This module tells whether a packed ring has been in use although its VMM says that it begins.
//!
//! A VMM that connects again after the adapter has gone may not know how far the device was: QEMU
//! (11.1 at least) does not, and says that the ring begins. Served from there it would move old
//! frames and none of the new ones. The ring's memory tells, as every round leaves its mark: the
//! driver sets AVAIL to its wrap counter and USED to the opposite, the device both to the wrap
//! counter (virtio 1.3, 2.8.1), which is 1 in odd rounds, and the driver begins with zeros.

use std::sync::Arc;

use manifold_dma::Domain;

use crate::ring::chain::{AVAIL, DESCRIPTOR, USED};

/// Returns whether the packed ring of `size` descriptors at `address` is certainly not at a
/// beginning, that is before the first descriptor of an odd round. Some rings in use cannot be
/// told. A ring that cannot be read counts as not in use: whoever serves it refuses it.
pub fn is_in_use(domain: &Arc<Domain>, address: u64, size: u16) -> bool {
    let mut ring = vec![0; DESCRIPTOR * usize::from(size)];
    domain.reader().pin().read(address, &mut ring).is_ok() && shows_use(&ring)
}

/// Returns whether the flags show use. At a beginning there are descriptors of the coming round
/// (AVAIL alone) and then those of the last one: used ones (neither) and what else their chains
/// consist of (USED alone). Of the odd round before it nothing is left.
fn shows_use(ring: &[u8]) -> bool {
    let (descriptors, _) = ring.as_chunks::<DESCRIPTOR>();
    let flags = || {
        descriptors.iter().map(|[.., low, high]| {
            let flags = u16::from_le_bytes([*low, *high]);
            (flags & AVAIL != 0, flags & USED != 0)
        })
    };
    let any = |wanted| flags().any(|flags| flags == wanted);
    any((true, true)) || (any((false, true)) && !any((false, false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEITHER: [u8; 2] = [0, 0];
    const BOTH: [u8; 2] = [0x80, 0x80];
    const AVAIL_ALONE: [u8; 2] = [0x80, 0];
    const USED_ALONE: [u8; 2] = [0, 0x80];

    fn ring(flags: &[[u8; 2]]) -> Vec<u8> {
        flags.iter().flat_map(|flags| [[0x55; 14].as_slice(), flags].concat()).collect()
    }

    #[test]
    fn a_ring_at_a_beginning_is_left_alone() {
        for flags in [
            [NEITHER; 4],
            [AVAIL_ALONE; 4],
            [AVAIL_ALONE, AVAIL_ALONE, NEITHER, NEITHER],
            // This is two rounds later: chains of two, the next one available; a chain that began
            // at the end.
            [AVAIL_ALONE, AVAIL_ALONE, NEITHER, USED_ALONE],
            [USED_ALONE, NEITHER, USED_ALONE, NEITHER],
        ] {
            assert!(!shows_use(&ring(&flags)), "{flags:x?}");
        }
    }

    #[test]
    fn a_ring_under_way_is_told() {
        for flags in [
            // This is in the first round, some used and some available; then in the second.
            [BOTH, BOTH, AVAIL_ALONE, NEITHER],
            [NEITHER, USED_ALONE, BOTH, BOTH],
            // All buffers are available, of the second round and the third.
            [AVAIL_ALONE, USED_ALONE, USED_ALONE, USED_ALONE],
            [USED_ALONE; 4],
        ] {
            assert!(shows_use(&ring(&flags)), "{flags:x?}");
        }
    }
}
