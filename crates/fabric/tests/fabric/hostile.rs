//! These tests make accesses of every size and alignment, to everything and to nothing.

use std::sync::LazyLock;

use manifold_pci::RoutingId;
use proptest::prelude::*;

use crate::mock::{Machine, rid};

fn machine() -> Machine {
    let mut machine = Machine::new(256, true);
    machine.driver.enable(256).unwrap();
    machine
}

/// A machine for all cases that leave its registers alone.
static MACHINE: LazyLock<Machine> = LazyLock::new(machine);

/// Returns functions that exist, and neighbours that do not.
fn target() -> impl Strategy<Value = RoutingId> {
    prop_oneof![
        Just(rid("00:00.0")),
        Just(rid("00:01.0")),
        Just(rid("00:01.1")),
        (0x0100..0x0203_u16).prop_map(RoutingId::from_raw),
        any::<u16>().prop_map(RoutingId::from_raw),
    ]
}

/// Returns offsets near what matters: ends of the space, of dwords, of the header.
fn offset() -> impl Strategy<Value = u16> {
    prop_oneof![0..0x120_u16, 0xfe0..0x1010_u16, any::<u16>(), 65_500..=u16::MAX]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn a_configuration_read_is_the_sum_of_its_bytes(
        target in target(), offset in offset(), len in 0..40_usize
    ) {
        let machine = &*MACHINE;
        let mut data = vec![0x5a; len];
        machine.root.config_read(target, offset, &mut data);
        for (at, byte) in (u32::from(offset)..).zip(data) {
            let expected = match u16::try_from(at) {
                Ok(at) => machine.config(target, at),
                Err(_) => [0xff],
            };
            prop_assert_eq!([byte], expected, "{} {:#x}", target, at);
            if at >= 4096 {
                prop_assert_eq!(byte, 0xff);
            }
        }
    }

    #[test]
    fn memory_accesses_touch_what_they_name_and_nothing_else(
        near in 0..8_usize,
        distance in -40..40_i64,
        data in proptest::collection::vec(1..=254_u8, 0..40),
    ) {
        let machine = &*MACHINE;
        let info = machine.driver.info().clone();
        let (own, vf) = (info.bars[0].unwrap(), info.vf_bars[0].unwrap());
        let aperture = vf.address + 256 * vf.size;
        // These are the edges of BARs, of VFs' shares, of apertures, of windows, of the address
        // space.
        let edge = [
            own.address,
            own.address + own.size,
            vf.address,
            vf.address + vf.size,
            aperture,
            aperture.next_multiple_of(1 << 20),
            0,
            1 << 32,
        ][near];
        let address = edge.wrapping_add_signed(distance);
        let mut before = vec![0; 200];
        let around = address.wrapping_sub(80);
        machine.root.mem_read(around, &mut before);
        machine.root.mem_write(address, &data);
        let mut after = vec![0; 200];
        machine.root.mem_read(around, &mut after);
        for (at, (before, after)) in before.iter().zip(&after).enumerate() {
            let place = around.wrapping_add(at as u64);
            let written = at.checked_sub(80).and_then(|at| data.get(at));
            // An access does not wrap around the end of the address space.
            let written = written.filter(|_| place >= address);
            let bar = |base: u64, end: u64| (base..end).contains(&place);
            let answered = (bar(own.address, own.address + own.size) || bar(vf.address, aperture))
                && place >= around;
            match written {
                Some(byte) if answered => prop_assert_eq!(after, byte),
                _ => prop_assert_eq!(after, before),
            }
            let other_bars = info.bars.iter().chain(&info.vf_bars).flatten();
            let mut apertures = other_bars.map(|b| b.address..b.address + 256 * b.size);
            if !apertures.any(|aperture| aperture.contains(&place)) {
                prop_assert_eq!(*after, 0xff, "{:#x}", place);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn configuration_writes_anywhere_leave_the_machine_standing(
        writes in proptest::collection::vec(
            (target(), offset(), proptest::collection::vec(any::<u8>(), 0..12)), 1..30
        )
    ) {
        let mut machine = machine();
        for (target, offset, data) in &writes {
            machine.root.config_write(*target, *offset, data);
        }
        machine.driver.disable();
        // Enumeration puts the registers in order, whatever became of them. The endpoint may have
        // been told to sleep, which software undoes first.
        machine.root.config_write(rid("00:01.0"), 0x84, &[0]);
        machine.root.config_write(rid("00:01.0"), 0x3e, &[0x40]);
        machine.root.config_write(rid("00:01.0"), 0x3e, &[0]);
        let clock = machine.mock.clock();
        clock.pass(std::time::Duration::from_secs(2));
        let root = std::sync::Arc::clone(&machine.root);
        let mut driver =
            manifold_fabric::PfDriver::probe(root, Box::new(clock)).unwrap();
        prop_assert_eq!(driver.enable(256).unwrap().len(), 256);
    }
}

#[test]
fn an_access_that_straddles_two_vfs_reaches_each_for_its_part() {
    let machine = machine();
    let vfs = machine.driver.vfs();
    let (first, second) = (vfs[0].bars[0].unwrap(), vfs[1].bars[0].unwrap());
    machine.root.mem_write(second.address - 4, &[1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(machine.memory(first.address + first.size - 4), [1, 2, 3, 4]);
    assert_eq!(machine.memory(second.address), [5, 6, 7, 8]);
}

#[test]
fn an_access_that_leaves_a_window_reads_ones_from_there_on() {
    let machine = machine();
    // The prefetchable window shrinks to its first MiB, in the middle of the VFs' aperture.
    let base = machine.driver.info().vf_bars[0].unwrap().address;
    let end = (base + 1).next_multiple_of(1 << 20);
    machine.root.config_write(rid("00:01.0"), 0x26, &(((end - 1) >> 16) as u16).to_le_bytes());
    machine.root.mem_write(end - 3, &[1, 2, 3, 4, 5]);
    assert_eq!(machine.memory(end - 3), [1, 2, 3, 0xff, 0xff]);
    let [_, status] = machine.config(rid("00:01.0"), 0x1e);
    assert_eq!(status & 0x20, 0, "it never went downstream");
}

#[test]
fn unclaimed_requests_downstream_are_noted_as_master_aborts() {
    let machine = machine();
    let port = rid("00:01.0");
    let aborted = || machine.config::<2>(port, 0x1e)[1] & 0x20 != 0;
    let clear = || machine.root.config_write(port, 0x1e, &[0, 0x20]);
    clear();
    machine.root.config_write(rid("00:1f.0"), 0, &[0; 4]);
    assert!(!aborted(), "bus 0 is not downstream");
    let _: [u8; 4] = machine.config(rid("02:00.1"), 0);
    assert!(aborted());
    clear();
    // The place is inside the prefetchable window, beyond the last aperture.
    let vf = machine.driver.info().vf_bars[0].unwrap();
    let nobody = (vf.address + 256 * vf.size).next_multiple_of(1 << 20) - 4;
    machine.root.mem_write(nobody, &[0; 4]);
    assert!(!aborted(), "a posted request has no completion");
    assert_eq!(machine.memory(nobody), [0xff; 4]);
    assert!(aborted());
}
