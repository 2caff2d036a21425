//! These tests enable and disable VFs.

use std::collections::BTreeSet;
use std::time::Duration;

use manifold_fabric::{Clock, Error, PfDriver, SystemClock, VfInfo};
use manifold_pci::RoutingId;
use proptest::prelude::*;

use crate::mock::{Machine, rid};

const SECOND: Duration = Duration::from_secs(1);

/// Enables `count` VFs, and holds the answer against all that can be seen of them.
fn enable(machine: &mut Machine, count: u16) -> Vec<VfInfo> {
    let vfs = machine.driver.enable(count).unwrap().to_vec();
    assert_eq!(vfs.len(), usize::from(count));
    assert_eq!(machine.driver.vfs(), vfs);
    assert_eq!(machine.sriov_register(0x10), count);
    assert_eq!(machine.sriov_register(0x08) & 0x09, 0x09, "VF Enable and VF MSE");
    let ids: BTreeSet<_> = vfs.iter().map(|vf| vf.routing_id).collect();
    assert_eq!(ids.len(), vfs.len());
    for (vf, index) in vfs.iter().zip(0..) {
        assert_eq!(vf.index, index);
        // A VF has no IDs of its own, but exists all the same.
        assert_eq!(machine.config(vf.routing_id, 0), [0xff; 4]);
        assert_eq!(machine.config(vf.routing_id, 0x0e), [0]);
    }
    machine.assert_lawful();
    vfs
}

fn id_of(vf: &VfInfo) -> String {
    vf.routing_id.to_string()
}

#[test]
fn vfs_across_buses_with_ari() {
    let mut machine = Machine::new(256, true);
    let vfs = enable(&mut machine, 256);
    assert_eq!(id_of(&vfs[0]), "01:00.1");
    assert_eq!(id_of(&vfs[6]), "01:00.7");
    assert_eq!(id_of(&vfs[7]), "01:01.0");
    assert_eq!(id_of(&vfs[254]), "01:1f.7");
    assert_eq!(id_of(&vfs[255]), "02:00.0");
    // Nobody answers one function further.
    assert_eq!(machine.config(rid("02:00.1"), 0x0c), [0xff; 4]);
}

#[test]
fn vfs_on_the_next_bus_without_ari() {
    let mut machine = Machine::new(256, false);
    let vfs = enable(&mut machine, 256);
    assert_eq!(id_of(&vfs[0]), "02:00.0");
    assert_eq!(id_of(&vfs[255]), "02:1f.7");
    for nobody in ["01:00.1", "01:01.0", "03:00.0"] {
        assert_eq!(machine.config(rid(nobody), 0x0c), [0xff; 4], "{nobody}");
    }
}

#[test]
fn each_vf_has_its_share_of_each_aperture() {
    let mut machine = Machine::new(256, true);
    let vfs = enable(&mut machine, 200);
    let mark = |vf: &VfInfo, bar: usize| [vf.index as u8, bar as u8, 0xa5, vf.index as u8];
    for vf in &vfs {
        for (index, bar) in vf.bars.iter().enumerate() {
            let Some(bar) = bar else { continue };
            machine.root.mem_write(bar.address, &mark(vf, index));
            machine.root.mem_write(bar.address + bar.size - 4, &mark(vf, index));
        }
    }
    for vf in &vfs {
        for (index, bar) in vf.bars.iter().enumerate() {
            let Some(bar) = bar else { continue };
            let aperture = machine.driver.info().vf_bars[index].unwrap();
            assert_eq!(bar.address, aperture.address + u64::from(vf.index) * aperture.size);
            assert_eq!(machine.memory(bar.address), mark(vf, index));
            assert_eq!(machine.memory(bar.address + bar.size - 4), mark(vf, index));
        }
    }
    // The rest of the aperture belongs to VFs that are not enabled.
    let aperture = machine.driver.info().vf_bars[0].unwrap();
    assert_eq!(machine.memory(aperture.address + 200 * aperture.size), [0xff; 4]);
    assert_eq!(machine.memory(aperture.address + 256 * aperture.size - 4), [0xff; 4]);
}

#[test]
fn numbers_that_make_no_sense_are_refused_in_words() {
    let mut machine = Machine::new(16, true);
    let error = machine.driver.enable(0).unwrap_err();
    assert_eq!(error, Error::ZeroVfs { total_vfs: 16 });
    assert!(error.to_string().contains("1 to 16"), "{error}");
    for asked in [17, 256, 257, u16::MAX] {
        let error = machine.driver.enable(asked).unwrap_err();
        assert_eq!(error, Error::TooManyVfs { asked, total_vfs: 16 });
        assert!(error.to_string().contains("1 to 16"), "{error}");
    }
    assert_eq!(machine.sriov_register(0x10), 0, "NumVFs was never touched");
    enable(&mut machine, 3);
    for asked in [3, 4, 0, 17] {
        let error = machine.driver.enable(asked).unwrap_err();
        assert_eq!(error, Error::AlreadyEnabled { enabled: 3 });
        assert!(error.to_string().contains("manifold vf disable"), "{error}");
    }
    assert_eq!(machine.driver.vfs().len(), 3);
    machine.assert_lawful();
}

#[test]
fn disabled_vfs_are_gone_at_once() {
    let mut machine = Machine::new(8, true);
    let vfs = enable(&mut machine, 8);
    let start = machine.mock.clock().now();
    machine.driver.disable();
    assert_eq!(machine.mock.clock().now(), start, "no wait");
    assert!(machine.driver.vfs().is_empty());
    assert_eq!(machine.sriov_register(0x08) & 0x09, 0);
    for vf in &vfs {
        assert_eq!(machine.config(vf.routing_id, 0x0c), [0xff; 4]);
        for bar in vf.bars.iter().flatten() {
            assert_eq!(machine.memory(bar.address), [0xff; 4]);
        }
    }
    // A second call has nothing to do.
    machine.driver.disable();
    machine.assert_lawful();
}

#[test]
fn the_second_after_disabling_is_waited_for_only_as_far_as_it_has_not_passed() {
    let mut machine = Machine::new(8, true);
    let clock = machine.mock.clock();
    enable(&mut machine, 8);
    for (idle, wait) in [(0, 1100), (400, 700), (1000, 100), (5000, 100)] {
        machine.driver.disable();
        clock.pass(Duration::from_millis(idle));
        let start = clock.now();
        enable(&mut machine, 4);
        assert_eq!(clock.now() - start, Duration::from_millis(wait), "after {idle} ms");
    }
}

#[test]
fn vfs_may_take_a_second_to_answer() {
    let mut machine = Machine::new(8, true);
    machine.mock.state.lock().unwrap().vf_delay = Duration::from_millis(990);
    enable(&mut machine, 8);
}

#[test]
fn a_vf_that_never_answers_is_named_and_none_stays_enabled() {
    let mut machine = Machine::new(8, true);
    machine.mock.state.lock().unwrap().broken_vf = Some(5);
    let clock = machine.mock.clock();
    let start = clock.now();
    let error = machine.driver.enable(8).unwrap_err();
    assert_eq!(error, Error::VfAbsent { index: 5, routing_id: rid("01:00.6") });
    assert_eq!(clock.now() - start, SECOND);
    assert!(machine.driver.vfs().is_empty());
    assert_eq!(machine.sriov_register(0x08) & 0x09, 0);
    assert!(machine.mock.state.lock().unwrap().vfs.is_empty());
    // The other VFs can be enabled, in time.
    enable(&mut machine, 5);
}

#[test]
fn hot_reset_takes_the_vfs_and_the_pfs_registers() {
    let mut machine = Machine::new(8, true);
    let vfs = enable(&mut machine, 8);
    let port = rid("00:01.0");
    machine.root.config_write(port, 0x3e, &[0x40]);
    assert_eq!(machine.mock.state.lock().unwrap().hot_resets, 1);
    assert_eq!(machine.config(rid("01:00.0"), 0), [0xff; 4], "the link is down");
    machine.root.config_write(port, 0x3e, &[0]);
    assert_eq!(machine.config(rid("01:00.0"), 0), [0xf4, 0x1a, 0x41, 0x10]);
    assert_eq!(machine.config(vfs[0].routing_id, 0x0c), [0xff; 4]);
    let bar = machine.driver.info().bars[0].unwrap();
    assert_eq!(machine.memory(bar.address), [0xff; 4], "BARs are lost");
}

#[test]
fn the_machines_own_clock_counts_too() {
    let Machine { root, .. } = Machine::new(2, true);
    let mut driver = PfDriver::probe(root, Box::new(SystemClock)).unwrap();
    let start = std::time::Instant::now();
    // No time passes by the device's clock, so its VFs answer at once; by ours 100 ms must.
    assert_eq!(driver.enable(2).unwrap().len(), 2);
    assert!(start.elapsed() >= Duration::from_millis(100));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// The test enables any number of any number of VFs, again and again, with time passing or not.
    #[test]
    fn any_number(
        total_vfs in 1..=256_u16,
        ari: bool,
        steps in proptest::collection::vec((any::<u16>(), 0..2000_u64), 1..4),
    ) {
        let mut machine = Machine::new(total_vfs, ari);
        for (count, idle) in steps {
            let vfs = enable(&mut machine, count % total_vfs + 1);
            let last = vfs.last().unwrap().routing_id;
            prop_assert!(last.bus() <= machine.driver.info().subordinate_bus);
            let next = last.checked_add(1).map(RoutingId::raw).map(RoutingId::from_raw).unwrap();
            prop_assert_eq!(machine.config(next, 0x0c), [0xff; 4]);
            machine.driver.disable();
            machine.mock.clock().pass(Duration::from_millis(idle));
        }
        machine.assert_lawful();
    }
}
