//! These tests check what the fuzz target checks, with bytes and messages from proptest.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../../fuzz/src/vfio_user.rs"]
mod vfio_user;

use manifold_vfio_user::codec::Header;
use manifold_vfio_user::spec;
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_bytes_are_handled(data in prop::collection::vec(any::<u8>(), 0..200)) {
        vfio_user::codec(&data);
    }

    /// Random bytes rarely have a sensible header; here the state machine gets sensible ones.
    #[test]
    fn any_messages_are_handled(
        first in any::<u8>(),
        messages in prop::collection::vec(
            (any::<u16>(), 0_u16..20, prop_oneof![9 => Just(0_u32), 1 => any::<u32>()], payload()),
            0..12,
        ),
    ) {
        let mut data = vec![first | 0x80];
        for (id, command, flags, payload) in messages {
            let size = (payload.len() + spec::HEADER_SIZE) as u32;
            data.extend(Header { id, command, size, flags, error: 0 }.encode());
            data.extend(payload);
        }
        vfio_user::session(&data);
    }
}

/// Returns payloads of small numbers, which are in range more often than not.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![3 => 0..64_u32, 1 => any::<u32>()];
    prop::collection::vec(word, 0..20)
        .prop_map(|words| words.into_iter().flat_map(u32::to_ne_bytes).collect())
}
