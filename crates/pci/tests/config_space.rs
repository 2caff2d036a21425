//! These are property tests of configuration space: the fuzz target's checks on accesses that mean
//! something.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../../../fuzz/src/config_space.rs"]
mod fuzz;

use fuzz::function::{capability, extended_capability, function_spec, sriov_spec};
use fuzz::{Input, Pair, config_space};
use manifold_pci::ConfigSpace;
use manifold_pci::spec::{aer, express, header, msix, power, sriov};
use proptest::prelude::*;

/// Returns writes that random bytes alone would hardly ever hit: the registers with side effects,
/// and values that have them.
fn significant_write() -> impl Strategy<Value = Vec<u8>> {
    let space = ConfigSpace::physical(&function_spec(), Some(&sriov_spec())).unwrap();
    let at = |id, register| capability(&space, id).unwrap() + register;
    let sriov_at = extended_capability(&space, sriov::ID).unwrap();
    let registers = vec![
        header::COMMAND,
        header::BAR0,
        at(power::ID, power::PMCSR),
        at(msix::ID, msix::CONTROL),
        at(express::ID, express::DEVICE_CONTROL + 1),
        space.vendor_capability_offset(4).unwrap() + 16,
        extended_capability(&space, aer::ID).unwrap() + aer::UNCORRECTABLE_STATUS,
        sriov_at + sriov::CONTROL,
        sriov_at + sriov::NUM_VFS,
        sriov_at + sriov::SYSTEM_PAGE_SIZE,
        sriov_at + sriov::VF_BAR0,
        // The register is listed again, since these must come together to have an effect.
        sriov_at + sriov::CONTROL,
        sriov_at + sriov::NUM_VFS,
    ];
    let value = prop_oneof![
        Just(0_u32),
        Just(1),
        Just(3),
        Just(9),
        Just(0x10),
        Just(0x19),
        Just(0x100),
        Just(0x8000),
        Just(u32::MAX),
        any::<u32>()
    ];
    let view = prop_oneof![3 => Just(0_u8), 1 => Just(0x80)];
    (prop::sample::select(registers), value, 0_u8..3, view).prop_map(
        |(offset, value, size, view)| {
            let mut bytes = vec![8 | size << 4 | view];
            bytes.extend(offset.to_le_bytes());
            bytes.extend(&value.to_le_bytes()[..1 << size]);
            bytes
        },
    )
}

proptest! {
    #[test]
    fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..400)) {
        config_space(&data);
    }

    #[test]
    fn any_accesses(
        kind in prop_oneof![2 => Just(0_u8), 1 => 1..3_u8],
        writes in prop::collection::vec(
            prop_oneof![
                8 => significant_write(),
                1 => prop::collection::vec(any::<u8>(), 1..20),
            ],
            0..60,
        ),
    ) {
        config_space(&[vec![kind], writes.concat()].concat());
    }
}

/// The strategy above would be worthless if it never brought VFs up.
#[test]
fn vfs_come_and_go_under_the_operations() {
    let mut pair = Pair::new(0);
    let at = extended_capability(&pair.space, sriov::ID).unwrap();
    let [low, high] = (at + sriov::NUM_VFS).to_le_bytes();
    let mut input = vec![0x18, low, high, 4, 0];
    let [low, high] = (at + sriov::CONTROL).to_le_bytes();
    input.extend([0x18, low, high, 9, 0]);
    let mut input = Input(&input);
    while let Some(operation) = input.operation() {
        pair.apply(&operation, false);
        pair.check();
    }
    assert_eq!((pair.follower.vfs, pair.follower.vf_memory), (Some(4), true));
}
