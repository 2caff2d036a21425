//! This test shows that no descriptor outlives the client that brought it. It is alone in its
//! process, since it counts them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::os::fd::AsFd;

use manifold_vfio_user::Config;
use manifold_vfio_user::codec::{
    Capabilities, Command, DmaMapRequest, InfoRequest, IrqSet, RegionIoFdsRequest, Request,
};
use manifold_vfio_user::{Server, VfioUser, spec};
use support::Fixture;
use support::dummy::{Dummy, Event, Options, VECTORS};
use support::raw::Raw;

fn count() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Does everything that passes descriptors, right and wrong, and ends in every way.
fn use_and_abuse(fixture: &Fixture, round: usize) {
    let mut raw = Raw::attach(fixture.path());
    let file = tempfile::tempfile().unwrap();
    let fds = vec![file.as_fd(); VECTORS as usize];
    let address = round as u64 * 0x1000;
    let map = DmaMapRequest { argsz: 32, flags: 3, offset: 0, address, size: 0x1000 };
    assert_eq!(raw.call(&Request::DmaMap(map), &fds[..1]).errno(), 0);
    assert_ne!(raw.call(&Request::DmaMap(map), &fds[..1]).errno(), 0, "mapped already");
    assert_ne!(raw.call(&Request::DmaMap(map), &fds[..2]).errno(), 0, "two descriptors");
    let flags = spec::IRQ_SET_DATA_EVENTFD | spec::IRQ_SET_ACTION_TRIGGER;
    let (index, start, count) = (spec::PCI_MSIX_IRQ, 0, VECTORS);
    let set = IrqSet { argsz: 20, flags, index, start, count, data: &[] };
    for _ in 0..2 {
        assert_eq!(raw.call(&Request::DeviceSetIrqs(set), &fds).errno(), 0);
        assert_ne!(raw.call(&Request::DeviceSetIrqs(set), &fds[1..]).errno(), 0);
    }
    let info = InfoRequest { argsz: 1000, index: 0 };
    assert_eq!(raw.call(&Request::DeviceGetRegionInfo(info), &[]).fds.len(), 1);
    let io_fds = RegionIoFdsRequest { argsz: 1000, flags: 0, index: 0, count: 0 };
    assert_eq!(raw.call(&Request::DeviceGetRegionIoFds(io_fds), &[]).fds.len(), 2);
    assert_ne!(raw.call_raw(999, &[0; 100], &fds).errno(), 0);

    let mut second = Raw::connect(fixture.path());
    assert_ne!(second.version(Capabilities::default()).errno(), 0);
    match round % 4 {
        0 => {}
        1 => fixture.endpoint.disconnect(),
        2 => {
            let header = raw.header(Command::DmaMap.raw(), 32);
            raw.send(&header, &[0; 8], &fds);
        }
        _ => {
            let mut header = raw.header(Command::DmaMap.raw(), 0);
            header.size = u32::MAX;
            raw.send(&header, &[0; 8], &fds);
        }
    }
}

#[test]
fn descriptors_are_returned() {
    let before_all = count();
    let fixture = Fixture::new(Options { mappable: true, ..Options::default() });
    let mut idle = None;
    for round in 0..41 {
        use_and_abuse(&fixture, round);
        let detached = |event: &&Event| matches!(event, Event::Detached(_));
        fixture
            .dummy
            .wait("detached", |state| state.events.iter().filter(detached).count() == round + 1);
        // The thread's own copy of the socket goes right after that.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
        while idle.is_some_and(|idle| count() != idle) {
            assert!(std::time::Instant::now() < deadline, "round {round}: {idle:?}, {}", count());
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        idle.get_or_insert_with(|| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            count()
        });
    }
    drop(fixture);
    assert_eq!(count(), before_all);

    let server = Server::start(Config::default(), VfioUser::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    for n in 0..50 {
        let path = directory.path().join(format!("{n}"));
        let dummy = Dummy::new(Options::default());
        let endpoint = server.serve(&path, "vf", dummy).unwrap();
        Raw::attach(endpoint.path()).expect_alive();
    }
    drop(server);
    assert_eq!(count(), before_all);
}
