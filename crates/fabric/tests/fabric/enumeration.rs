//! These tests go from reset to a PF with its BARs placed.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use manifold_fabric::{BarInfo, Clock, ConfigType, Endpoint, Error, PfDriver, RootComplex};
use manifold_pci::{ConfigSpace, RoutingId};

use crate::mock::{BARS, Machine, Mock, function_spec, rid};

const ROOT_PORT: &str = "00:01.0";

#[test]
fn the_pf_is_found_and_described() {
    let machine = Machine::new(256, true);
    let info = machine.driver.info();
    assert_eq!(info.routing_id, rid("01:00.0"));
    assert_eq!(info.identity, function_spec().identity);
    assert_eq!((info.total_vfs, info.vf_device_id), (256, 0x1041));
    assert!(info.ari);
    // VF 255, with offset and stride 1, is at 02:00.0.
    assert_eq!(info.subordinate_bus, 2);
    assert_eq!(machine.config(rid(ROOT_PORT), 0x18), [0, 1, 2]);
    // The device learned its bus number from the requests.
    assert_eq!(machine.mock.state.lock().unwrap().pf_id, rid("01:00.0"));
    assert!(machine.driver.vfs().is_empty());
    // NumVFs is 0, VF Enable and MSE clear, ARI Capable Hierarchy set, System Page Size 4 KiB.
    assert_eq!(machine.sriov_register(0x10), 0);
    assert_eq!(machine.sriov_register(0x08), 0x10);
    assert_eq!(machine.sriov_register(0x20), 1);
    machine.assert_lawful();
}

#[test]
fn buses_follow_from_the_number_of_vfs_and_from_ari() {
    for (total_vfs, ari, subordinate) in
        [(1, true, 1), (255, true, 1), (256, true, 2), (1, false, 2), (256, false, 2)]
    {
        let machine = Machine::new(total_vfs, ari);
        let info = machine.driver.info();
        assert_eq!((info.ari, info.subordinate_bus), (ari, subordinate), "{total_vfs} {ari}");
        let [control2] = machine.config(rid(ROOT_PORT), 0x40 + 0x28);
        assert_eq!(control2 & 0x20 != 0, ari);
    }
}

#[test]
fn bars_are_sized_aligned_apart_and_where_their_kind_belongs() {
    for total_vfs in [1, 7, 256] {
        let machine = Machine::new(total_vfs, true);
        let info = machine.driver.info();
        let ranges = machine.root.memory_ranges();
        let mut taken = Vec::new();
        for (bars, count) in [(info.bars, 1), (info.vf_bars, u64::from(total_vfs))] {
            for (bar, spec) in bars.iter().zip(BARS) {
                assert_eq!(bar.is_some(), spec.is_some());
                let (Some(bar), Some(spec)) = (bar, spec) else { continue };
                assert_eq!((bar.size, bar.width64), (spec.size, spec.width64));
                assert_eq!(bar.prefetchable, spec.prefetchable);
                assert_eq!(bar.address % bar.size, 0);
                let range = bar.address..bar.address + bar.size * count;
                let high = bar.width64 && bar.prefetchable;
                let host = if high { &ranges.above_4g } else { &ranges.below_4g };
                assert!(host.start <= range.start && range.end <= host.end, "{range:x?}");
                taken.push(range);
            }
        }
        taken.sort_by_key(|range| range.start);
        assert_eq!(taken.len(), 6);
        assert!(taken.windows(2).all(|pair| pair[0].end <= pair[1].start), "{taken:x?}");
    }
}

#[test]
fn the_pf_answers_at_its_bars_and_nowhere_else() {
    let machine = Machine::new(4, true);
    let bars: Vec<BarInfo> = machine.driver.info().bars.into_iter().flatten().collect();
    for (bar, mark) in bars.iter().zip(1_u8..) {
        machine.root.mem_write(bar.address, &[mark; 4]);
        machine.root.mem_write(bar.address + bar.size - 1, &[mark]);
    }
    for (bar, mark) in bars.iter().zip(1_u8..) {
        assert_eq!(machine.memory(bar.address), [mark, mark, mark, mark, 0, 0, 0, 0]);
        assert_eq!(machine.memory(bar.address + bar.size - 1), [mark]);
    }
    // VF BARs do not decode, since there are no VFs.
    for bar in machine.driver.info().vf_bars.into_iter().flatten() {
        assert_eq!(machine.memory(bar.address), [0xff; 4]);
    }
    // Nothing answers without Memory Space Enable in the PF, or in the bridge.
    for function in [rid("01:00.0"), rid(ROOT_PORT)] {
        let command: [u8; 1] = machine.config(function, 4);
        machine.root.config_write(function, 4, &[command[0] & !2]);
        assert_eq!(machine.memory(bars[0].address), [0xff; 4], "{function}");
        machine.root.config_write(function, 4, &command);
        assert_eq!(machine.memory(bars[0].address), [1; 4], "{function}");
    }
}

#[test]
fn addresses_outside_the_hosts_ranges_never_reach_the_bus() {
    let machine = Machine::new(4, true);
    // BAR 4 of the PF and the memory window are moved to where the host has memory of its own.
    let outside = 0x1000_0000_u32;
    machine.root.config_write(rid("01:00.0"), 0x20, &outside.to_le_bytes());
    machine.root.config_write(rid(ROOT_PORT), 0x20, &[0x00, 0x10, 0xf0, 0xff]);
    assert_eq!(machine.memory(outside.into()), [0xff; 4]);
    // The BAR answers inside both.
    let inside = 0xd000_0000_u32;
    machine.root.config_write(rid("01:00.0"), 0x20, &inside.to_le_bytes());
    assert_eq!(machine.memory(inside.into()), [0; 4]);
}

#[test]
fn vfs_left_enabled_are_disabled_first_with_a_second_to_go() {
    let machine = Machine::new(16, true);
    let control = machine.mock.sriov() + 8;
    // Other software enabled the VFs, and went away.
    machine.root.config_write(rid("01:00.0"), machine.mock.sriov() + 0x10, &[5, 0]);
    machine.root.config_write(rid("01:00.0"), control, &[0x19]);
    assert_eq!(machine.mock.state.lock().unwrap().vfs.len(), 5);

    let (clock, root) = (machine.mock.clock(), Arc::clone(&machine.root));
    let start = clock.now();
    let mut driver = PfDriver::probe(root, Box::new(clock.clone())).unwrap();
    assert!(driver.vfs().is_empty());
    assert_eq!(machine.mock.state.lock().unwrap().vfs.len(), 0);
    assert!((clock.now() - start).as_secs() >= 1);
    assert_eq!(driver.enable(16).unwrap().len(), 16);
    machine.assert_lawful();
}

#[test]
fn an_endpoint_without_sriov_is_no_pf() {
    let spec = function_spec();
    let space = ConfigSpace::physical(&spec, None).unwrap();
    let error = probe(Raw::new(&space.to_bytes()[..])).unwrap_err();
    assert_eq!(error, Error::NoCapability { routing_id: rid("01:00.0"), name: "SR-IOV" });
}

#[test]
fn an_empty_link() {
    assert_eq!(probe(Raw::new(&[0xff; 4096])).unwrap_err(), Error::NoDevice(rid("01:00.0")));
}

#[test]
fn capability_lists_that_loop_end_in_an_error() {
    let mock = Mock::new(4);
    let good = *mock.state.lock().unwrap().pf.to_bytes();

    // This is a capability of no known kind that is its own successor.
    let mut bytes = good;
    bytes[0x34] = 0x40;
    bytes[0x40..0x42].copy_from_slice(&[0xee, 0x40]);
    assert_eq!(probe(Raw::new(&bytes)).unwrap_err(), Error::CapabilityLoop(rid("01:00.0")));

    let mut bytes = good;
    bytes[0x100..0x104].copy_from_slice(&0x1001_00ee_u32.to_le_bytes());
    assert_eq!(probe(Raw::new(&bytes)).unwrap_err(), Error::CapabilityLoop(rid("01:00.0")));

    // These lists end where no capability can be.
    for (at, bytes_there) in [(0x34, &[0x04][..]), (0x100, &[0xee, 0, 0x31, 0])] {
        let mut bytes = good;
        bytes[at..at + bytes_there.len()].copy_from_slice(bytes_there);
        let error = probe(Raw::new(&bytes)).unwrap_err();
        assert!(matches!(error, Error::NoCapability { .. }), "{error}");
    }
}

#[test]
fn registers_that_do_not_take_a_value_are_named() {
    // Everything is read-only: the SR-IOV capability takes no ARI Capable Hierarchy.
    let mock = Mock::new(4);
    let bytes = *mock.state.lock().unwrap().pf.to_bytes();
    let error = probe(Raw::new(&bytes)).unwrap_err();
    let expected = Error::NotTaken {
        routing_id: rid("01:00.0"),
        register: "SR-IOV Control",
        written: 0x10,
        read: 0,
    };
    assert_eq!(error, expected);
}

#[test]
fn a_bridge_behind_the_port_is_no_pf() {
    let mock = Mock::new(4);
    let mut bytes = *mock.state.lock().unwrap().pf.to_bytes();
    bytes[0x0e] = 1;
    let error = probe(Raw::new(&bytes)).unwrap_err();
    assert!(matches!(error, Error::NotAnEndpoint { header_type: 1, .. }), "{error}");
}

/// Returns an SR-IOV device of bytes: PF and VFs have their first BAR only, which decodes 64 KiB.
fn sriov_device() -> (Raw, usize) {
    let mock = Mock::new(4);
    let sriov = usize::from(mock.sriov());
    let bytes = *mock.state.lock().unwrap().pf.to_bytes();
    let mut device = Raw::new(&bytes)
        .with(0x04, &[0; 2], &[0x06, 0])
        .with(sriov + 0x08, &[0], &[0x19])
        .with(sriov + 0x10, &[0; 2], &[0xff; 2])
        .with(sriov + 0x14, &[1, 0, 1, 0], &[0; 4])
        .with(sriov + 0x20, &[1], &[0xff]);
    for bars in [0x10, sriov + 0x24] {
        device = device.with(bars, &[0; 24], &[0; 24]).bar(bars, 0, 0xffff_0000);
    }
    (device, sriov)
}

#[test]
fn bars_of_every_kind() {
    let (device, sriov) = sriov_device();
    // The PF has 4 KiB below 4 GiB, 8 GiB prefetchable and an I/O BAR that has a value; the VFs
    // have 1 MiB each.
    let device = device
        .bar(0x10, 0x0, 0xffff_f000)
        .bar(0x14, 0xc, 0)
        .bar(0x18, 0x0, 0xffff_fffe)
        .bar(0x1c, 0xe001, 0xffff_ffe0)
        .bar(sriov + 0x24, 0x4, 0xfff0_0000)
        .bar(sriov + 0x28, 0x0, 0xffff_ffff);
    let (driver, root) = probe_keeping(device);
    let info = driver.unwrap().info().clone();
    let bar = |bar: Option<BarInfo>| {
        let bar = bar.unwrap();
        (bar.size, bar.width64, bar.prefetchable)
    };
    assert_eq!(bar(info.bars[0]), (0x1000, false, false));
    assert_eq!(bar(info.bars[1]), (0x2_0000_0000, true, true));
    assert_eq!(info.bars[2..], [None; 4]);
    assert_eq!(bar(info.vf_bars[0]), (0x10_0000, true, false));
    assert_eq!(info.bars[1].unwrap().address % 0x2_0000_0000, 0);
    // The BAR is not prefetchable: it is below 4 GiB, although it is 64 bits wide.
    assert!(info.vf_bars[0].unwrap().address < 1 << 32);
    let mut io = [0; 4];
    root.config_read(rid("01:00.0"), 0x1c, &mut io);
    assert_eq!(u32::from_le_bytes(io), 0xe001, "left as it was found");
}

#[test]
fn a_bar_of_no_size() {
    let (device, _) = sriov_device();
    let error = probe(device.bar(0x14, 0, 0xffff_0f00)).unwrap_err();
    let mask = 0xffff_ffff_ffff_0f00;
    assert_eq!(error, Error::InvalidBar { routing_id: rid("01:00.0"), offset: 0x14, mask });
    let (device, _) = sriov_device();
    let error = probe(device.bar(0x14, 0xc, 0)).unwrap_err();
    assert_eq!(error, Error::InvalidBar { routing_id: rid("01:00.0"), offset: 0x14, mask: 0 });
}

#[test]
fn bars_too_large_for_the_host() {
    let (device, sriov) = sriov_device();
    let error = probe(device.bar(sriov + 0x24, 0, 0xf000_0000)).unwrap_err();
    let needed = 4 * 0x1000_0000 + 0x1_0000;
    assert_eq!(error, Error::OutOfAddresses { range: "32-bit", needed, available: 0x3000_0000 });
}

#[test]
fn layouts_that_name_no_functions() {
    let pf = rid("01:00.0");
    for (offset, stride, expected) in [
        (0, 1, Error::InvalidLayout { pf, count: 1, offset: 0, stride: 1 }),
        (1, 0, Error::InvalidLayout { pf, count: 2, offset: 1, stride: 0 }),
        (0xff00, 1, Error::OutOfBuses { pf, count: 1, offset: 0xff00, stride: 1 }),
        (1, 0x8000, Error::OutOfBuses { pf, count: 3, offset: 1, stride: 0x8000 }),
    ] {
        let (device, sriov) = sriov_device();
        let [low, high] = u16::to_le_bytes(offset);
        let [stride_low, stride_high] = u16::to_le_bytes(stride);
        let device = device.with(sriov + 0x14, &[low, high, stride_low, stride_high], &[0; 4]);
        assert_eq!(probe(device).unwrap_err(), expected);
    }
}

#[test]
fn a_device_without_4_kib_pages() {
    let (device, sriov) = sriov_device();
    let error = probe(device.with(sriov + 0x1c, &[0x52, 5], &[0; 2])).unwrap_err();
    assert_eq!(error, Error::PageSize { routing_id: rid("01:00.0"), supported: 0x552 });
}

fn probe(endpoint: Raw) -> Result<PfDriver, Error> {
    probe_keeping(endpoint).0
}

fn probe_keeping(endpoint: Raw) -> (Result<PfDriver, Error>, Arc<RootComplex>) {
    let clock = Mock::new(1).clock();
    let root = Arc::new(RootComplex::new(Arc::new(endpoint), true));
    (PfDriver::probe(Arc::clone(&root), Box::new(clock)), root)
}

/// A function 0 of bytes, read-only unless something else is said.
struct Raw {
    bytes: Mutex<Vec<u8>>,
    writable: Vec<u8>,
    made: Instant,
}

impl Raw {
    fn new(bytes: &[u8]) -> Self {
        let writable = vec![0; bytes.len()];
        Self { bytes: Mutex::new(bytes.to_vec()), writable, made: Instant::now() }
    }

    /// Defines a register: what it holds, and which of its bits can be written.
    fn with(mut self, at: usize, value: &[u8], writable: &[u8]) -> Self {
        self.bytes.get_mut().unwrap()[at..at + value.len()].copy_from_slice(value);
        self.writable[at..at + writable.len()].copy_from_slice(writable);
        self
    }

    fn bar(self, at: usize, value: u32, writable: u32) -> Self {
        self.with(at, &value.to_le_bytes(), &writable.to_le_bytes())
    }
}

impl Endpoint for Raw {
    fn config_read(&self, _: ConfigType, target: RoutingId, offset: u16, data: &mut [u8]) -> bool {
        assert!(self.made.elapsed().as_secs() < 10, "software goes round in circles");
        let offset = usize::from(offset);
        data.copy_from_slice(&self.bytes.lock().unwrap()[offset..offset + data.len()]);
        target.ari_function() == 0
    }

    fn config_write(&self, _: ConfigType, target: RoutingId, offset: u16, data: &[u8]) -> bool {
        let mut bytes = self.bytes.lock().unwrap();
        for (at, new) in (usize::from(offset)..).zip(data) {
            bytes[at] = bytes[at] & !self.writable[at] | new & self.writable[at];
        }
        target.ari_function() == 0
    }

    fn mem_read(&self, _: u64, _: &mut [u8]) -> bool {
        false
    }

    fn mem_write(&self, _: u64, _: &[u8]) -> bool {
        false
    }

    fn hot_reset(&self) {}
}
