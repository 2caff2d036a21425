use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::spec::header::*;
use crate::spec::{express, msix, power, sriov};
use crate::test_functions::{function_spec, sriov_spec};
use crate::{BarSpec, MsiSink, VendorCapability};

fn pf() -> ConfigSpace {
    ConfigSpace::physical(&function_spec(), Some(&sriov_spec())).unwrap()
}

fn vf() -> ConfigSpace {
    ConfigSpace::virtual_function(&function_spec()).unwrap()
}

fn read16(space: &ConfigSpace, offset: u16) -> u16 {
    let mut data = [0; 2];
    space.read(offset, &mut data);
    u16::from_le_bytes(data)
}

fn write16(space: &mut ConfigSpace, offset: u16, value: u16) -> Vec<Event> {
    space.write(offset, &value.to_le_bytes()).into_iter().collect()
}

fn write32(space: &mut ConfigSpace, offset: u16, value: u32) -> Vec<Event> {
    space.write(offset, &value.to_le_bytes()).into_iter().collect()
}

fn at(space: &ConfigSpace, kind: Kind) -> u16 {
    space.list().offset(kind).unwrap()
}

#[test]
fn a_pf_looks_like_an_endpoint() {
    let mut header = [0; 0x40];
    pf().read(0, &mut header);
    #[rustfmt::skip]
    assert_eq!(header, [
        0xf4, 0x1a, 0x41, 0x10, 0x00, 0x00, 0x10, 0x00,
        0x01, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00,
        0x0c, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x0c, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0xf4, 0x1a, 0x00, 0x11,
        0x00, 0x00, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    ]);
}

#[test]
fn a_vf_is_trimmed() {
    let mut vf = vf();
    let before = vf.to_bytes();
    #[rustfmt::skip]
    assert_eq!(before[..0x40], [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x10, 0x00,
        0x01, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0xf4, 0x1a, 0x00, 0x11,
        0x00, 0x00, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    ]);
    for kind in [Kind::Sriov, Kind::Power, Kind::SerialNumber] {
        assert_eq!(vf.list().offset(kind), None);
    }
    for kind in [Kind::Msix, Kind::Express, Kind::AlternativeRoutingId, Kind::AccessControl] {
        assert!(vf.list().offset(kind).is_some());
    }
    let events = vf.write(0, &[0xff; 0x40]);
    assert_eq!(events.into_iter().collect::<Vec<_>>(), [Event::BusMaster(true)]);
    let mut after = before;
    after[4] = COMMAND_BUS_MASTER as u8;
    assert_eq!(vf.to_bytes()[..0x40], after[..0x40]);
    assert!(vf.bar(0).is_none() && !vf.memory_enable() && vf.sriov().is_none());
}

#[test]
fn only_what_a_pf_implements_can_be_set_in_its_command_register() {
    let mut pf = pf();
    let events = write16(&mut pf, COMMAND, 0xffff);
    assert_eq!(events, [Event::MemoryEnable(true), Event::BusMaster(true)]);
    assert_eq!(read16(&pf, COMMAND), 0x0546);
    assert_eq!(write16(&mut pf, COMMAND, 0xffff), [], "nothing changed");
    let events = write16(&mut pf, COMMAND, 0);
    assert_eq!(events, [Event::BusMaster(false), Event::MemoryEnable(false)]);
}

#[test]
fn an_access_need_not_know_where_registers_begin() {
    let mut pf = pf();
    // The write goes across Command, Status, Revision ID, ... up to the second byte of BAR 1, from
    // an odd offset.
    let mut data = [0xff; 18];
    data[0] = 0;
    let events = pf.write(3, &data);
    let events: Vec<_> = events.into_iter().collect();
    assert_eq!(
        events,
        [Event::MemoryEnable(true), Event::BusMaster(true), Event::BarMoved(0), Event::BarMoved(0)]
    );
    assert_eq!(pf.bar(0), Some(Bar { address: 0xff_ffff_c000, size: 0x4000 }));
    let mut read = [0; 3];
    pf.read(0x13, &mut read);
    assert_eq!(read, [0xff, 0xff, 0x00]);
}

#[test]
fn there_is_nothing_beyond_the_end() {
    let mut pf = pf();
    let before = pf.to_bytes();
    let mut data = [0; 8];
    pf.read(0xffc, &mut data);
    assert_eq!(data, [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    pf.read(0xffff, &mut data);
    assert_eq!(data, [0xff; 8]);
    assert!(pf.write(0xffc, &[0xff; 8]).is_empty());
    assert!(pf.write(0xffff, &[0xff; 8]).is_empty());
    assert!(pf.write(0, &[]).is_empty());
    assert_eq!(pf.to_bytes(), before);
}

/// The capabilities the adapter's virtio functions have fill the space behind the header almost to
/// the end, so a change of size shows here first.
#[test]
fn capabilities_are_where_they_have_room() {
    let pf = pf();
    let offsets = [
        (Kind::Power, 0x40),
        (Kind::Msix, 0x48),
        (Kind::Express, 0x54),
        (Kind::Vendor(0), 0x90),
        (Kind::Vendor(4), 0xd4),
        (Kind::AdvancedErrorReporting, 0x100),
        (Kind::SerialNumber, 0x150),
        (Kind::AlternativeRoutingId, 0x160),
        (Kind::AccessControl, 0x170),
        (Kind::Sriov, 0x180),
    ];
    for (kind, offset) in offsets {
        assert_eq!(at(&pf, kind), offset, "{kind:?}");
    }
    assert_eq!(pf.vendor_capability_offset(4), Some(0xd4));
    assert_eq!(pf.vendor_capability_offset(5), None);
    assert_eq!(pf.vendor_capability_at(0x8f), None);
    assert_eq!(pf.vendor_capability_at(0x90), Some((0, 0)));
    assert_eq!(pf.vendor_capability_at(0xe7), Some((4, 19)));
    assert_eq!(pf.vendor_capability_at(0xe8), None);
}

#[test]
fn vendor_writes_are_stored_where_they_may_be_and_always_told() {
    let mut pf = pf();
    let start = pf.vendor_capability_offset(4).unwrap();
    // The write goes from the last byte of capability 3, which is read-only, to the middle of
    // capability 4.
    let events: Vec<_> = pf.write(start - 1, &[0xaa; 11]).into_iter().collect();
    assert_eq!(
        events,
        [
            Event::VendorWrite { capability: 3, offset: 15, len: 1 },
            Event::VendorWrite { capability: 4, offset: 0, len: 10 },
        ]
    );
    let mut stored = [0; 12];
    pf.read(start - 1, &mut stored);
    let [last, id, _next, body @ ..] = stored;
    assert_eq!((last, id), (0, 0x09));
    assert_eq!(body, [20, 5, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0]);
}

#[test]
fn flr_is_told_after_everything_it_changed() {
    let mut pf = pf();
    write32(&mut pf, BAR0, 0x8000_0000);
    write16(&mut pf, COMMAND, COMMAND_MEMORY | COMMAND_BUS_MASTER);
    let msix_at = at(&pf, Kind::Msix);
    write16(&mut pf, msix_at + msix::CONTROL, msix::CONTROL_ENABLE);
    let sriov_at = at(&pf, Kind::Sriov);
    write16(&mut pf, sriov_at + sriov::NUM_VFS, 3);
    write16(&mut pf, sriov_at + sriov::CONTROL, sriov::CONTROL_VF_ENABLE | sriov::CONTROL_VF_MSE);
    let express_at = at(&pf, Kind::Express);
    let events =
        write16(&mut pf, express_at + express::DEVICE_CONTROL, express::DEVICE_CONTROL_FLR);
    assert_eq!(
        events,
        [
            Event::BusMaster(false),
            Event::MemoryEnable(false),
            Event::VfMemoryEnable(false),
            Event::VfEnable { enabled: false, num_vfs: 0 },
            Event::BarMoved(0),
            Event::MsixControl { enabled: false, masked: false },
            Event::Flr,
        ]
    );
    assert_eq!(pf.to_bytes(), super::tests::pf().to_bytes(), "as after power-on");
}

#[test]
fn d3hot_silences_the_function_and_its_vfs() {
    let mut pf = pf();
    write16(&mut pf, COMMAND, COMMAND_MEMORY | COMMAND_BUS_MASTER);
    let sriov_at = at(&pf, Kind::Sriov);
    write16(&mut pf, sriov_at + sriov::NUM_VFS, 1);
    write16(&mut pf, sriov_at + sriov::CONTROL, sriov::CONTROL_VF_ENABLE | sriov::CONTROL_VF_MSE);
    let pmcsr = at(&pf, Kind::Power) + power::PMCSR;
    assert_eq!(
        write16(&mut pf, pmcsr, power::PMCSR_D3HOT),
        [
            Event::BusMaster(false),
            Event::MemoryEnable(false),
            Event::VfMemoryEnable(false),
            Event::Power(PowerState::D3Hot),
        ]
    );
    assert_eq!(read16(&pf, COMMAND), COMMAND_MEMORY | COMMAND_BUS_MASTER);
    assert_eq!(
        write16(&mut pf, pmcsr, 0),
        [
            Event::VfMemoryEnable(true),
            Event::Power(PowerState::D0),
            Event::MemoryEnable(true),
            Event::BusMaster(true),
        ],
        "No_Soft_Reset: all is as it was"
    );
}

#[test]
fn vf_bars_and_their_sizes_are_told() {
    let mut pf = pf();
    let sriov_at = at(&pf, Kind::Sriov);
    let events = write32(&mut pf, sriov_at + sriov::VF_BAR0 + 8, 0x8000_0000);
    assert_eq!(events, [Event::VfBarMoved(2)]);
    let events = write32(&mut pf, sriov_at + sriov::SYSTEM_PAGE_SIZE, 0x10);
    assert_eq!(events, [Event::VfBarMoved(0), Event::VfBarMoved(2)]);
}

#[derive(Default)]
struct Count(AtomicU32);

impl MsiSink for Count {
    fn deliver(&self, _address: u64, _data: u32) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn the_registers_gate_the_vectors() {
    for mut space in [pf(), vf()] {
        let count = Arc::new(Count::default());
        let vector = space.msix().vector(0).unwrap();
        vector.set_sink(Some(count.clone()));
        space.msix().table_write(12, &[0]);
        let sent = || count.0.swap(0, Ordering::Relaxed);

        let control = at(&space, Kind::Msix) + msix::CONTROL;
        write16(&mut space, control, msix::CONTROL_ENABLE);
        assert!(space.msix_enabled() && !space.msix_masked());
        vector.raise();
        assert_eq!((sent(), vector.pending()), (0, true), "Bus Master Enable is clear");
        write16(&mut space, COMMAND, COMMAND_BUS_MASTER);
        assert_eq!(sent(), 1);
        write16(&mut space, control, msix::CONTROL_ENABLE | msix::CONTROL_MASK);
        vector.raise();
        assert_eq!(sent(), 0);
        write16(&mut space, control, msix::CONTROL_ENABLE);
        assert_eq!(sent(), 1);
        vector.raise();
        assert_eq!(sent(), 1);

        let events: Vec<_> = space.reset(Reset::Conventional).into_iter().collect();
        assert_eq!(
            events,
            [Event::BusMaster(false), Event::MsixControl { enabled: false, masked: false }]
        );
        vector.raise();
        assert_eq!((sent(), vector.pending()), (0, false));
        let mut mask = [0];
        space.msix().table_read(12, &mut mask);
        assert_eq!(mask, [1], "the table was reset");
    }
}

#[test]
fn impossible_functions_are_refused() {
    let refused = |change: fn(&mut FunctionSpec)| {
        let mut spec = function_spec();
        change(&mut spec);
        let error = ConfigSpace::physical(&spec, None).unwrap_err();
        assert_eq!(ConfigSpace::virtual_function(&spec).unwrap_err(), error);
        error
    };
    assert_eq!(refused(|spec| spec.identity.class_code = 1 << 24), Error::ClassCode(1 << 24));
    assert_eq!(
        refused(|spec| spec.bars[0] =
            Some(BarSpec { size: 0x1001, width64: false, prefetchable: false })),
        Error::BarSize { index: 0, size: 0x1001 }
    );
    assert_eq!(refused(|spec| spec.msix.vectors = 0), Error::MsixVectors(0));
    let table = |bar, offset| Error::MsixPlacement { structure: "table", bar, offset };
    let pba = |bar, offset| Error::MsixPlacement { structure: "pending bit array", bar, offset };
    assert_eq!(refused(|spec| spec.msix.table_bar = 1), table(1, 0));
    assert_eq!(refused(|spec| spec.msix.table_bar = 6), table(6, 0));
    assert_eq!(refused(|spec| spec.msix.table_offset = 4), table(2, 4));
    assert_eq!(refused(|spec| spec.msix.table_offset = 0x3ff8), table(2, 0x3ff8));
    assert_eq!(refused(|spec| spec.msix.vectors = 2048), table(2, 0));
    assert_eq!(refused(|spec| spec.msix.pba_offset = u32::MAX - 7), pba(2, u32::MAX - 7));
    assert_eq!(refused(|spec| spec.msix.pba_offset = 0x48), pba(2, 0x48));
    assert_eq!(refused(|spec| spec.vendor[1].body[0] += 1), Error::VendorCapability(1));
    assert_eq!(refused(|spec| spec.vendor[2].body.clear()), Error::VendorCapability(2));
    assert_eq!(refused(|spec| spec.vendor[3].writable.truncate(3)), Error::VendorCapability(3));

    let mut spec = function_spec();
    spec.vendor.push(VendorCapability { body: vec![28; 26], writable: vec![0; 26] });
    assert_eq!(ConfigSpace::physical(&spec, None).unwrap_err(), Error::CapabilitySpace(196));
    assert!(ConfigSpace::virtual_function(&spec).is_ok(), "a VF has no power management");
    spec.vendor = vec![VendorCapability { body: vec![0; 254], writable: vec![0; 254] }];
    assert_eq!(ConfigSpace::physical(&spec, None).unwrap_err(), Error::VendorCapability(0));
}
