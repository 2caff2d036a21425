//! These tests check what a client is told of the device, how much of it, and how it sets
//! interrupts up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::os::fd::AsFd;

use manifold_vfio_user::codec::{
    Capabilities, InfoRequest, IoFdEntry, IrqSet, RegionInfoReply, RegionIoFdsRequest, Reply,
    Request, Version,
};
use manifold_vfio_user::{Errno, IrqAction, spec};
use support::Fixture;
use support::dummy::{AREA, BAR0_FILE_OFFSET, BAR0_SIZE, Event, Irqs, Options, VECTORS};
use support::raw::{Raw, Watch};

const INVAL: i32 = Errno::INVAL.raw_os_error();

#[test]
fn capabilities_are_the_server_s_limits_and_what_it_grants() {
    let fixture = Fixture::default();
    let ours = || Capabilities {
        max_msg_fds: Some(16),
        max_data_xfer_size: Some(1 << 20),
        ..Capabilities::default()
    };
    for (proposed, expected) in [
        (Capabilities::default(), ours()),
        (
            Capabilities {
                max_dma_maps: Some(100),
                pgsizes: Some(4096),
                write_multiple: Some(true),
                ..Capabilities::default()
            },
            Capabilities {
                max_dma_maps: Some(100),
                pgsizes: Some(4096),
                write_multiple: Some(true),
                ..ours()
            },
        ),
        (
            Capabilities {
                max_dma_maps: Some(u64::MAX),
                write_multiple: Some(false),
                ..Capabilities::default()
            },
            Capabilities { max_dma_maps: Some(65_535), ..ours() },
        ),
    ] {
        let mut raw = Raw::connect(fixture.path());
        let reply = raw.version(proposed);
        let Reply::Version(version) = reply.reply() else { panic!("{reply:?}") };
        assert_eq!(version, Version { major: 0, minor: 0, capabilities: expected });
    }
    // A client of a later minor version is answered with this server's.
    let mut raw = Raw::connect(fixture.path());
    let version = Version { major: 0, minor: 9, capabilities: Capabilities::default() };
    let reply = raw.call(&Request::Version(version), &[]);
    let expected = Version { major: 0, minor: spec::MINOR, capabilities: ours() };
    assert_eq!(reply.reply(), Reply::Version(expected));
}

#[test]
fn the_device_is_described_to_whoever_has_room_for_it() {
    let fixture = Fixture::default();
    let mut raw = Raw::attach(fixture.path());
    let info = |argsz| InfoRequest { argsz, index: 0 };
    assert_eq!(raw.call(&Request::DeviceGetInfo(info(15)), &[]).errno(), INVAL);
    let expected = Reply::DeviceInfo {
        flags: spec::DEVICE_FLAG_PCI | spec::DEVICE_FLAG_RESET,
        num_regions: spec::PCI_NUM_REGIONS,
        num_irqs: spec::PCI_NUM_IRQS,
    };
    for argsz in [16, 20, u32::MAX] {
        assert_eq!(raw.call(&Request::DeviceGetInfo(info(argsz)), &[]).reply(), expected);
    }

    let msix = |argsz| InfoRequest { argsz, index: spec::PCI_MSIX_IRQ };
    assert_eq!(raw.call(&Request::DeviceGetIrqInfo(msix(15)), &[]).errno(), INVAL);
    let expected = Reply::IrqInfo {
        flags: spec::IRQ_FLAG_EVENTFD | spec::IRQ_FLAG_MASKABLE,
        index: spec::PCI_MSIX_IRQ,
        count: VECTORS,
    };
    assert_eq!(raw.call(&Request::DeviceGetIrqInfo(msix(16)), &[]).reply(), expected);
    let beyond = InfoRequest { argsz: 16, index: spec::PCI_NUM_IRQS };
    assert_eq!(raw.call(&Request::DeviceGetIrqInfo(beyond), &[]).errno(), INVAL);
}

#[test]
fn a_region_s_areas_are_told_to_whoever_has_room_for_them() {
    let fixture = Fixture::new(Options { mappable: true, ..Options::default() });
    let mut raw = Raw::attach(fixture.path());
    let info = |areas| RegionInfoReply {
        argsz: 64,
        flags: spec::REGION_FLAG_READ | spec::REGION_FLAG_WRITE | spec::REGION_FLAG_MMAP,
        index: 0,
        size: BAR0_SIZE,
        offset: BAR0_FILE_OFFSET,
        areas,
    };
    let (complete, cut) = (info(vec![AREA]), info(Vec::new()));
    for (argsz, expected, length) in
        [(32, &cut, 32), (63, &cut, 32), (64, &complete, 64), (u32::MAX, &complete, 64)]
    {
        let request = Request::DeviceGetRegionInfo(InfoRequest { argsz, index: 0 });
        let reply = raw.call(&request, &[]);
        assert_eq!(reply.reply(), Reply::RegionInfo(expected.clone()), "argsz {argsz}");
        assert_eq!((reply.payload.len(), reply.fds.len()), (length, 1), "argsz {argsz}");
    }
    for (argsz, index) in [(31, 0), (0, 0), (64, 9), (64, u32::MAX)] {
        let request = Request::DeviceGetRegionInfo(InfoRequest { argsz, index });
        assert_eq!(raw.call(&request, &[]).errno(), INVAL);
    }
    // A region that is not there has no flags and no file.
    let request = Request::DeviceGetRegionInfo(InfoRequest { argsz: 64, index: 4 });
    let reply = raw.call(&request, &[]);
    let absent =
        RegionInfoReply { argsz: 32, flags: 0, index: 4, size: 0, offset: 0, areas: Vec::new() };
    assert_eq!(reply.reply(), Reply::RegionInfo(absent));
    assert!(reply.fds.is_empty());
}

#[test]
fn a_client_that_takes_no_descriptors_gets_none() {
    let fixture = Fixture::new(Options { mappable: true, ..Options::default() });
    let mut raw = Raw::connect(fixture.path());
    raw.version(Capabilities { max_msg_fds: Some(0), ..Capabilities::default() });
    let request = Request::DeviceGetRegionInfo(InfoRequest { argsz: 64, index: 0 });
    let reply = raw.call(&request, &[]);
    let Reply::RegionInfo(info) = reply.reply() else { panic!("{reply:?}") };
    assert_eq!(info.flags & spec::REGION_FLAG_MMAP, 0);
    assert!(reply.fds.is_empty() && info.areas.is_empty());
    let io_fds = RegionIoFdsRequest { argsz: 1000, flags: 0, index: 0, count: 0 };
    let reply = raw.call(&Request::DeviceGetRegionIoFds(io_fds), &[]);
    let Reply::RegionIoFds(list) = reply.reply() else { panic!("{reply:?}") };
    assert_eq!((list.count, list.argsz, reply.fds.len()), (0, 16, 0));
}

#[test]
fn doorbells_come_as_descriptors() {
    let fixture = Fixture::default();
    let mut raw = Raw::attach(fixture.path());
    let good = RegionIoFdsRequest { argsz: 16 + 3 * 40, flags: 0, index: 0, count: 0 };
    for bad in [
        RegionIoFdsRequest { argsz: 15, ..good },
        RegionIoFdsRequest { flags: 1, ..good },
        RegionIoFdsRequest { count: 1, ..good },
        RegionIoFdsRequest { index: 1, ..good },
        RegionIoFdsRequest { index: 9, ..good },
    ] {
        assert_eq!(raw.call(&Request::DeviceGetRegionIoFds(bad), &[]).errno(), INVAL, "{bad:?}");
    }

    let reply = raw.call(&Request::DeviceGetRegionIoFds(good), &[]);
    let Reply::RegionIoFds(list) = reply.reply() else { panic!("{reply:?}") };
    assert_eq!((list.argsz, list.count), (good.argsz, 3));
    // The first and the third share a descriptor.
    let entry = |offset, fd_index, flags, datamatch| IoFdEntry {
        offset,
        size: 2,
        fd_index,
        kind: spec::IO_FD_TYPE_IOEVENTFD,
        flags,
        datamatch,
    };
    assert_eq!(
        list.entries,
        [
            entry(0x1000, 0, 0, 0),
            entry(0x1004, 1, spec::IO_FD_FLAG_DATAMATCH, 7),
            entry(0x1008, 0, 0, 0)
        ]
    );
    assert_eq!(reply.fds.len(), 2);

    // A client with too little room learns how much is needed, and nothing else.
    let small = RegionIoFdsRequest { argsz: good.argsz - 1, ..good };
    let reply = raw.call(&Request::DeviceGetRegionIoFds(small), &[]);
    let Reply::RegionIoFds(list) = reply.reply() else { panic!("{reply:?}") };
    assert_eq!((list.argsz, list.count, list.entries.len()), (good.argsz, 3, 0));
    assert!(reply.fds.is_empty());

    // A client that takes one descriptor gets what comes before the second.
    drop(raw);
    let mut raw = Raw::connect(fixture.path());
    assert_eq!(raw.version(Capabilities::default()).errno(), 0);
    let reply = raw.call(&Request::DeviceGetRegionIoFds(good), &[]);
    let Reply::RegionIoFds(list) = reply.reply() else { panic!("{reply:?}") };
    assert_eq!((list.argsz, list.count, list.entries.len()), (16 + 40, 1, 1));
    assert_eq!(reply.fds.len(), 1);
}

const TRIGGER: u32 = spec::IRQ_SET_ACTION_TRIGGER;
const NONE: u32 = spec::IRQ_SET_DATA_NONE;
const BOOL: u32 = spec::IRQ_SET_DATA_BOOL;
const EVENTFD: u32 = spec::IRQ_SET_DATA_EVENTFD;

fn set(flags: u32, start: u32, count: u32, data: &[u8]) -> IrqSet<'_> {
    let argsz = 20 + data.len() as u32;
    IrqSet { argsz, flags, index: spec::PCI_MSIX_IRQ, start, count, data }
}

#[test]
fn interrupts_are_set_in_every_form() {
    let fixture = Fixture::default();
    let mut raw = Raw::attach(fixture.path());
    let watches: Vec<Watch> = (0..3).map(|_| Watch::new()).collect();
    let fds: Vec<_> = watches.iter().map(Watch::fd).collect();
    for (request, fds, action, data) in [
        (
            set(EVENTFD | TRIGGER, 1, 3, &[]),
            &fds[..],
            IrqAction::Trigger,
            Irqs::EventFds(vec![true; 3]),
        ),
        (
            set(EVENTFD | spec::IRQ_SET_ACTION_MASK, 0, 1, &[]),
            &fds[..1],
            IrqAction::Mask,
            Irqs::EventFds(vec![true]),
        ),
        (set(NONE | TRIGGER, 0, VECTORS, &[]), &[], IrqAction::Trigger, Irqs::None),
        (set(NONE | spec::IRQ_SET_ACTION_MASK, 31, 1, &[]), &[], IrqAction::Mask, Irqs::None),
        (set(NONE | spec::IRQ_SET_ACTION_UNMASK, 3, 2, &[]), &[], IrqAction::Unmask, Irqs::None),
        (
            set(BOOL | TRIGGER, 4, 3, &[1, 0, 255]),
            &[],
            IrqAction::Trigger,
            Irqs::Bools(vec![true, false, true]),
        ),
        (
            set(BOOL | spec::IRQ_SET_ACTION_UNMASK, 4, 1, &[1]),
            &[],
            IrqAction::Unmask,
            Irqs::Bools(vec![true]),
        ),
        // Eventfds that are not there take the present ones away.
        (
            set(EVENTFD | TRIGGER, 1, 2, &[]),
            &[],
            IrqAction::Trigger,
            Irqs::EventFds(vec![false; 2]),
        ),
        (set(NONE | TRIGGER, 0, 0, &[]), &[], IrqAction::Trigger, Irqs::None),
    ] {
        let IrqSet { index, start, count, .. } = request;
        assert_eq!(raw.call(&Request::DeviceSetIrqs(request), fds).errno(), 0, "{request:?}");
        let event = fixture.dummy.state().events.last().cloned();
        assert_eq!(event, Some(Event::Irqs { index, start, count, action, data }));
    }
    drop(fds);
    for watch in watches {
        watch.expect_closed();
    }
    // A type that has no interrupts can be disabled too.
    let none = IrqSet { index: spec::PCI_INTX_IRQ, ..set(NONE | TRIGGER, 0, 0, &[]) };
    assert_eq!(raw.call(&Request::DeviceSetIrqs(none), &[]).errno(), 0);
}

#[test]
fn interrupt_requests_that_make_no_sense_are_refused() {
    let fixture = Fixture::default();
    let mut raw = Raw::attach(fixture.path());
    let good = set(NONE | TRIGGER, 0, 1, &[]);
    for bad in [
        IrqSet { argsz: 19, ..good },
        IrqSet { index: 5, ..good },
        IrqSet { index: u32::MAX, ..good },
        IrqSet { index: spec::PCI_INTX_IRQ, ..good },
        set(NONE, 0, 1, &[]),
        set(TRIGGER, 0, 1, &[]),
        set(0, 0, 1, &[]),
        set(NONE | TRIGGER | spec::IRQ_SET_ACTION_MASK, 0, 1, &[]),
        set(NONE | BOOL | TRIGGER, 0, 1, &[1]),
        set(NONE | TRIGGER | 1 << 6, 0, 1, &[]),
        set(NONE | TRIGGER, VECTORS, 1, &[]),
        set(NONE | TRIGGER, 1, VECTORS, &[]),
        set(NONE | TRIGGER, u32::MAX, 1, &[]),
        set(NONE | TRIGGER, 1, u32::MAX, &[]),
        set(NONE | TRIGGER, 1, 0, &[]),
        set(NONE | spec::IRQ_SET_ACTION_MASK, 0, 0, &[]),
        set(BOOL | TRIGGER, 0, 0, &[]),
        set(EVENTFD | TRIGGER, 0, 0, &[]),
        set(BOOL | TRIGGER, 0, 2, &[1]),
        set(BOOL | TRIGGER, 0, 2, &[1, 1, 1]),
        set(EVENTFD | TRIGGER, 0, u32::MAX, &[]),
    ] {
        assert_eq!(raw.call(&Request::DeviceSetIrqs(bad), &[]).errno(), INVAL, "{bad:?}");
    }
    // These requests have descriptors where none belong, or not as many as interrupts.
    for bad in [
        set(NONE | TRIGGER, 0, 1, &[]),
        set(NONE | TRIGGER, 0, 0, &[]),
        set(BOOL | TRIGGER, 0, 1, &[1]),
        set(EVENTFD | TRIGGER, 0, 2, &[]),
    ] {
        let watch = Watch::new();
        let reply = raw.call(&Request::DeviceSetIrqs(bad), &[watch.fd().as_fd()]);
        assert_eq!(reply.errno(), INVAL, "{bad:?}");
        watch.expect_closed();
    }
    assert_eq!(fixture.dummy.state().events.len(), 1, "only attached");
}
