//! These tests run the fuzz target on random input with every build; `cargo xtask fuzz` goes
//! further.

#[path = "../../../fuzz/src/virtqueue.rs"]
mod body;

use body::virtqueue;
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(data in vec(any::<u8>(), 0..600)) {
        virtqueue(&data);
    }

    /// The rings are where a driver would put them, so that more goes well before something does
    /// not.
    #[test]
    fn well_placed_rings_are_survived(
        options in prop_oneof![0..16u8, 0x40..0x50u8, 0xc0..0xd0u8, Just(0x80)],
        shift in prop_oneof![0..8u8, 0x40..0x4bu8],
        begin in any::<u16>(),
        data in vec(any::<u8>(), 0..900),
    ) {
        let mut whole = vec![options, shift, 1, 0, 0, 3, 0, 0, 5, 0, 0, 0, 0];
        whole.extend(begin.to_le_bytes());
        whole.extend(data);
        virtqueue(&whole);
    }
}
