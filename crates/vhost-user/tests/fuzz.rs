//! These tests check what the fuzz target checks, with messages from proptest.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../../fuzz/src/vhost_user.rs"]
mod vhost_user;

use proptest::prelude::*;

/// Returns payloads of small numbers, which are in range more often than not.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![4 => 0..17_u32, 1 => Just(0x20_0000), 1 => any::<u32>()];
    prop::collection::vec(word, 0..11)
        .prop_map(|words| words.into_iter().flat_map(u32::to_ne_bytes).collect())
}

proptest! {
    #[test]
    fn any_messages_are_handled(
        first in any::<u8>(),
        messages in prop::collection::vec(
            (0_u32..42, prop_oneof![9 => Just(9_u32), 1 => 0_u32..16], payload()), 0..12),
    ) {
        let mut data = vec![first | 0x80];
        for (code, flags, payload) in messages {
            data.extend([code, flags, payload.len() as u32].map(u32::to_ne_bytes).concat());
            data.extend(payload);
        }
        vhost_user::session(&data);
    }

    #[test]
    fn any_bytes_are_handled(data in prop::collection::vec(any::<u8>(), 0..200)) {
        vhost_user::session(&data);
    }
}
