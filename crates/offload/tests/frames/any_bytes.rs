//! This test runs the fuzz target's body over a few thousand random inputs, valid frames with
//! changes among them.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::packets::packet;

#[path = "../../../../fuzz/src/offload.rs"]
mod fuzzing;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn anything(bytes in vec(any::<u8>(), 0..200)) {
        fuzzing::frame(&bytes);
    }

    #[test]
    fn a_frame_with_changes(
        packet in packet(300),
        gso in any::<bool>(),
        size in 1..400u16,
        seen in 30..=255u8,
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let (header, frame) =
            if gso { packet.unsegmented(size, false) } else { packet.unfinished() };
        let mut data = [&[seen][..], &header.to_bytes(), &frame].concat();
        let end = (packet.payload_at() + 11).min(data.len());
        for (at, value) in changes {
            data[at.index(end)] = value;
        }
        fuzzing::frame(&data);
    }
}
