//! These tests compare the forwarding table with the reference model, on random switches and
//! frames.

#[path = "../../../fuzz/src/frame_header/mod.rs"]
mod frame_header;

use std::collections::BTreeSet;

use manifold_eswitch::DropReason;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]
    #[test]
    fn table_agrees_with_the_reference_model(
        data in proptest::collection::vec(any::<u8>(), 0..400)
    ) {
        frame_header::classify(&data);
    }
}

/// The generator must reach every outcome, or agreement means little.
#[test]
fn every_outcome_is_reached() {
    let mut state = 1_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    let mut reached = BTreeSet::new();
    for _ in 0..2048 {
        let data: Vec<u8> = (0..300).map(|_| random()).collect();
        let outcomes = frame_header::outcomes(&data).into_iter();
        reached.extend(outcomes.map(|(why, functions, uplink)| (why, functions.min(2), uplink)));
    }
    for reason in DropReason::ALL {
        assert!(reached.contains(&(Some(reason), 0, false)), "{reason}");
    }
    for delivered in [(1, false), (2, false), (0, true), (1, true), (2, true)] {
        assert!(reached.contains(&(None, delivered.0, delivered.1)), "{delivered:?}");
    }
}
