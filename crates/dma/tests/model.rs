//! These are property tests of a domain: the fuzz target's model, on operations that mean
//! something.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "../../../fuzz/src/dma_domain.rs"]
mod fuzz;

use fuzz::{FILE, From, Op, PAGE, PAGES, dma_domain, run};
use manifold_dma::{Access, PAGE_SIZE};
use proptest::collection::vec;
use proptest::prelude::*;

fn op() -> impl Strategy<Value = Op> {
    let from = prop_oneof![
        8 => Just(From::ReadWrite),
        2 => Just(From::ReadOnly),
        1 => Just(From::NotShared),
    ];
    let map = (
        0..PAGES,
        0..5u64,
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.8),
        0..FILE + 2,
        from,
    )
        .prop_map(|(page, pages, read, write, offset, from)| Op::Map {
            page,
            pages,
            read,
            write,
            offset,
            from,
        });
    let access = prop_oneof![Just(Access::Read), Just(Access::Write)];
    let len = prop_oneof![0..64usize, 0..4 * PAGE];
    prop_oneof![
        6 => map,
        3 => (0..PAGES, 0..6u64).prop_map(|(page, pages)| Op::Unmap { page, pages }),
        1 => prop::bool::weighted(0.2)
            .prop_map(|all| if all { Op::UnmapAll } else { Op::BusMaster(true) }),
        1 => prop::bool::weighted(0.7).prop_map(Op::BusMaster),
        4 => (0..PAGES * PAGE_SIZE, len.clone()).prop_map(|(at, len)| Op::Read { at, len }),
        4 => (0..PAGES * PAGE_SIZE, vec(any::<u8>(), 0..9000))
            .prop_map(|(at, data)| Op::Write { at, data }),
        4 => (0..PAGES * PAGE_SIZE, len, access)
            .prop_map(|(at, len, access)| Op::Contiguous { at, len, access }),
    ]
}

proptest! {
    #[test]
    fn a_domain_is_its_pages(at_the_top in any::<bool>(), ops in vec(op(), 1..60)) {
        run(at_the_top, ops);
    }

    #[test]
    fn any_bytes(data in vec(any::<u8>(), 0..400)) {
        dma_domain(&data);
    }
}
