use super::*;
use crate::spec::sriov;
use crate::test_functions::{function_spec, sriov_spec};

/// Returns a PF whose host has placed it and enabled three VFs.
fn pf() -> (ConfigSpace, Passthrough) {
    let spec = function_spec();
    let mut space = ConfigSpace::physical(&spec, Some(&sriov_spec())).unwrap();
    real_write(&mut space, header::BAR0, &0xf000_0000_u32.to_le_bytes());
    real_write(&mut space, header::COMMAND, &[0x06, 0x00]);
    let at = space.list().offset(Kind::Sriov).unwrap();
    real_write(&mut space, at + sriov::NUM_VFS, &[3, 0]);
    real_write(&mut space, at + sriov::CONTROL, &[0x09, 0]);
    let view = Passthrough::new(&space, &spec);
    (space, view)
}

fn vf() -> (ConfigSpace, Passthrough) {
    let spec = function_spec();
    let space = ConfigSpace::virtual_function(&spec).unwrap();
    let view = Passthrough::new(&space, &spec);
    (space, view)
}

fn real_write(space: &mut ConfigSpace, offset: u16, data: &[u8]) {
    let _ = space.write(offset, data);
}

fn read32(space: &ConfigSpace, view: &Passthrough, offset: u16) -> u32 {
    let mut data = [0; 4];
    view.read(space, offset, &mut data);
    u32::from_le_bytes(data)
}

fn read16(space: &ConfigSpace, view: &Passthrough, offset: u16) -> u16 {
    let mut data = [0; 2];
    view.read(space, offset, &mut data);
    u16::from_le_bytes(data)
}

fn write(space: &mut ConfigSpace, view: &mut Passthrough, offset: u16, data: &[u8]) -> Vec<Event> {
    view.write(space, offset, data).into_iter().collect()
}

fn at(space: &ConfigSpace, kind: Kind, register: u16) -> u16 {
    space.list().offset(kind).unwrap() + register
}

#[test]
fn a_vf_has_the_ids_and_bars_of_a_function() {
    let (mut space, mut view) = vf();
    assert_eq!(read32(&space, &view, 0), 0x1041_1af4);
    assert_eq!(read32(&space, &view, header::BAR0), 0xc);
    let events = write(&mut space, &mut view, header::BAR0, &[0xff; 24]);
    assert_eq!(events, [], "the bus sees none of it");
    let bars: Vec<u32> = (0..6).map(|bar| read32(&space, &view, 0x10 + bar * 4)).collect();
    assert_eq!(bars, [0xffff_c00c, u32::MAX, 0xffff_c00c, u32::MAX, 0, 0]);
    write(&mut space, &mut view, header::BAR0, &[0, 0x40, 0, 0xfe, 1, 0, 0, 0]);
    assert_eq!(view.bars.address(0, 1), Some(0x1_fe00_4000));
    let mut real = [0xaa; 24];
    space.read(header::BAR0, &mut real);
    assert_eq!(real, [0; 24]);
}

#[test]
fn a_vfs_memory_enable_is_virtual_and_its_bus_master_enable_is_not() {
    let (mut space, mut view) = vf();
    assert_eq!(read16(&space, &view, header::COMMAND), 0x0002, "as Linux leaves a VF");
    let events = write(&mut space, &mut view, header::COMMAND, &[0xff, 0xff]);
    assert_eq!(events, [Event::BusMaster(true)]);
    assert_eq!(read16(&space, &view, header::COMMAND), 0x0406);
    let events = write(&mut space, &mut view, header::COMMAND, &[0x00, 0x00]);
    assert_eq!(events, [Event::BusMaster(false)]);
    assert_eq!(read16(&space, &view, header::COMMAND), 0);
}

#[test]
fn a_pfs_memory_enable_is_its_own() {
    let (mut space, mut view) = pf();
    assert_eq!(read16(&space, &view, header::COMMAND), 0x0006);
    let events = write(&mut space, &mut view, header::COMMAND, &[0x04, 0x04]);
    assert_eq!(events, [Event::MemoryEnable(false)]);
    assert_eq!(read16(&space, &view, header::COMMAND), 0x0404);
    let mut command = [0; 2];
    space.read(header::COMMAND, &mut command);
    assert_eq!(command, [0x04, 0x00], "Interrupt Disable is virtual");
}

#[test]
fn a_pfs_bars_belong_to_the_host() {
    let (mut space, mut view) = pf();
    assert_eq!(read32(&space, &view, header::BAR0), 0xc, "unplaced, as after power-on");
    let events = write(&mut space, &mut view, header::BAR0, &[0xff; 8]);
    assert_eq!(events, []);
    assert_eq!(space.bar(0).map(|bar| bar.address), Some(0xf000_0000));
}

#[test]
fn vfs_are_none_of_the_vmms_business() {
    let (mut space, mut view) = pf();
    let before = space.to_bytes();
    for kind in [Kind::Sriov, Kind::AlternativeRoutingId] {
        let start = at(&space, kind, 0);
        let size = space.read_dword(start) >> 20;
        for offset in (start..start + 0x10).step_by(4) {
            assert_eq!(read32(&space, &view, offset), 0, "{kind:?} {size:#x}");
        }
        assert_eq!(write(&mut space, &mut view, start, &[0xff; 0x10]), []);
    }
    assert_eq!(space.to_bytes(), before);

    // The Device Serial Number leads past ARI to ACS, where the list ends.
    let (serial, acs) = (at(&space, Kind::SerialNumber, 0), at(&space, Kind::AccessControl, 0));
    assert_eq!(read32(&space, &view, serial), u32::from(acs) << 20 | 0x1_0003);
    assert_eq!(read32(&space, &view, acs), 0x1_000d);
}

#[test]
fn a_reset_leaves_vfs_and_restores_what_linux_restores() {
    for through_device_control in [false, true] {
        let (mut space, mut view) = pf();
        write(&mut space, &mut view, header::BAR0, &[0, 0, 0, 0xe0]);
        let control = at(&space, Kind::Msix, msix::CONTROL);
        write(&mut space, &mut view, control, &[0x00, 0x80]);
        space.msix().table_write(0, &[0xff; 16]);

        let device_control = at(&space, Kind::Express, express::DEVICE_CONTROL);
        let before = read16(&space, &view, device_control);
        let events = if through_device_control {
            let written = before | express::DEVICE_CONTROL_FLR;
            write(&mut space, &mut view, device_control, &written.to_le_bytes())
        } else {
            view.reset(&mut space).into_iter().collect()
        };
        assert_eq!(
            events,
            [
                Event::BusMaster(false),
                Event::MemoryEnable(false),
                Event::BarMoved(0),
                Event::MsixControl { enabled: false, masked: false },
                Event::Flr,
                Event::BarMoved(0),
                Event::MemoryEnable(true),
                Event::BusMaster(true),
                Event::MsixControl { enabled: true, masked: false },
            ]
        );
        assert_eq!(read16(&space, &view, device_control), before);
        let mut entry = [0; 16];
        space.msix().table_read(0, &mut entry);
        assert_eq!(entry, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(view.bars.address(0, 1), Some(0xe000_0000));
        assert_eq!(space.bar(0).map(|bar| bar.address), Some(0xf000_0000));
        let sriov = space.sriov().unwrap();
        assert!(sriov.vf_enable && sriov.num_vfs == 3);
    }
}

#[test]
fn closing_gives_the_function_back_as_it_was() {
    for (mut space, mut view) in [pf(), vf()] {
        let before = space.to_bytes();
        let all_ones = [0xff; 0x100];
        write(&mut space, &mut view, 0x04, &all_ones[..2]);
        for kind in [Kind::Msix, Kind::Power, Kind::Vendor(4), Kind::AdvancedErrorReporting] {
            if let Some(start) = space.list().offset(kind) {
                write(&mut space, &mut view, start, &all_ones[..20]);
            }
        }
        assert_ne!(space.to_bytes(), before);
        let events = view.close(&mut space);
        assert!(events.iter().any(|event| *event == Event::Flr));
        assert_eq!(space.to_bytes(), before);
    }
}

#[test]
fn writes_reach_only_what_linux_lets_through() {
    let (mut space, mut view) = pf();
    let express_at = at(&space, Kind::Express, 0);
    let real = |space: &ConfigSpace, offset| space.read_dword(offset);

    let link = express_at + express::LINK_CONTROL;
    let before = real(&space, link);
    write(&mut space, &mut view, link, &[0xff, 0xff]);
    assert_eq!(real(&space, link), before, "the link is the host's");

    let device = express_at + express::DEVICE_CONTROL;
    let before = real(&space, device);
    write(&mut space, &mut view, device, &[0xff, 0x7f]);
    assert_eq!(read16(&space, &view, device), 0x79ff);
    let virtual_bits = u32::from(DEVICE_CONTROL_VIRTUAL);
    assert_eq!(real(&space, device) & virtual_bits, before & virtual_bits);
    assert_eq!(real(&space, device) & 0x000f, 0x000f);

    write(&mut space, &mut view, header::INTERRUPT_LINE, &[0x0b, 0x01]);
    assert_eq!(read16(&space, &view, header::INTERRUPT_LINE), 0x000b, "there is no INTx pin");
    assert_eq!(real(&space, header::INTERRUPT_LINE), 0);

    let pmcsr = at(&space, Kind::Power, power::PMCSR);
    let events = write(&mut space, &mut view, pmcsr, &[0x03]);
    assert!(events.contains(&Event::Power(crate::PowerState::D3Hot)));

    let window = at(&space, Kind::Vendor(4), 16);
    let events = write(&mut space, &mut view, window, &[1, 2, 3, 4]);
    assert_eq!(events, [Event::VendorWrite { capability: 4, offset: 16, len: 4 }]);
    assert_eq!(read32(&space, &view, window), 0x0403_0201);
}
