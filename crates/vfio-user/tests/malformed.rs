//! These tests show that what a client does wrong costs it an error reply or its connection, and
//! nobody else anything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::os::fd::AsFd;

use manifold_vfio_user::codec::{
    Capabilities, Command, DmaMapRequest, DmaUnmapRequest, Header, RegionAccess, Reply, Request,
    SmallWrite, Version,
};
use manifold_vfio_user::{Disconnect, Errno, VfioUser, spec};
use support::Fixture;
use support::dummy::{BAD_OFFSET, BAR0_SIZE, Event, Options};
use support::raw::{Raw, Watch};

fn number(errno: Errno) -> i32 {
    errno.raw_os_error()
}

const INVAL: i32 = 22;

#[test]
fn an_unknown_command_is_drained_and_its_descriptors_are_closed() {
    let fixture = Fixture::default();
    let mut raw = Raw::attach(fixture.path());
    for command in [0, 19, 0x1234, u16::MAX] {
        let (a, b) = (Watch::new(), Watch::new());
        let reply = raw.call_raw(command, &[0xa5; 5000], &[a.fd(), b.fd()]);
        assert_eq!(reply.errno(), number(Errno::OPNOTSUPP), "command {command}");
        a.expect_closed();
        b.expect_closed();
        raw.expect_alive();
    }
}

#[test]
fn commands_that_are_not_served_say_so() {
    let fixture = Fixture::default();
    let mut raw = Raw::attach(fixture.path());
    for (command, errno) in [
        (Command::DirtyPages, Errno::OPNOTSUPP),
        (Command::DeviceFeature, Errno::NOTTY),
        (Command::MigDataRead, Errno::OPNOTSUPP),
        (Command::MigDataWrite, Errno::OPNOTSUPP),
        // A server sends these, never a client.
        (Command::DmaRead, Errno::OPNOTSUPP),
        (Command::DmaWrite, Errno::OPNOTSUPP),
    ] {
        let reply = raw.call_raw(command.raw(), &[0; 24], &[]);
        assert_eq!(reply.errno(), number(errno), "{command:?}");
    }
    let flags = spec::DMA_UNMAP_GET_DIRTY_BITMAP;
    let unmap = DmaUnmapRequest { argsz: 100, flags, address: 0, size: 4096 };
    assert_eq!(raw.call(&Request::DmaUnmap(unmap), &[]).errno(), number(Errno::OPNOTSUPP));
    raw.expect_alive();
}

#[test]
fn descriptors_with_a_message_that_takes_none_are_refused_and_closed() {
    let fixture = Fixture::default();
    let mut raw = Raw::attach(fixture.path());
    let access = RegionAccess { offset: 0, region: 0, count: 1 };
    for request in [
        Request::RegionRead(access),
        Request::RegionWrite { access, data: &[1] },
        Request::DeviceReset,
        Request::RegionWriteMulti(Vec::new()),
    ] {
        let watch = Watch::new();
        assert_eq!(raw.call(&request, &[watch.fd()]).errno(), INVAL, "{request:?}");
        watch.expect_closed();
    }
    raw.expect_alive();
    assert_eq!(fixture.dummy.state().events.len(), 1, "only attached");
}

#[test]
fn every_command_survives_a_payload_that_is_too_short() {
    let fixture = Fixture::default();
    let mut raw = Raw::attach(fixture.path());
    for (command, size) in [
        (Command::Version, 4),
        (Command::DmaMap, 32),
        (Command::DmaUnmap, 24),
        (Command::DeviceGetInfo, 16),
        (Command::DeviceGetRegionInfo, 32),
        (Command::DeviceGetRegionIoFds, 16),
        (Command::DeviceGetIrqInfo, 16),
        (Command::DeviceSetIrqs, 20),
        (Command::RegionRead, 16),
        (Command::RegionWrite, 16),
        (Command::RegionWriteMulti, 8),
    ] {
        for length in [0, size / 2, size - 1] {
            let reply = raw.call_raw(command.raw(), &vec![0xff; length], &[]);
            assert_eq!(reply.errno(), INVAL, "{command:?} of {length}");
        }
    }
    raw.expect_alive();
}

#[test]
fn a_size_that_makes_no_sense_ends_the_connection_after_an_error_reply() {
    let fixture = Fixture::default();
    for (size, errno) in [
        (0, Errno::INVAL),
        (15, Errno::INVAL),
        ((1 << 20) + 33, Errno::MSGSIZE),
        (u32::MAX, Errno::MSGSIZE),
    ] {
        let mut raw = Raw::attach(fixture.path());
        let mut header = raw.header(Command::RegionWrite.raw(), 0);
        header.size = size;
        raw.send(&header, &[], &[]);
        let reply = raw.receive();
        assert_eq!((reply.header.id, reply.errno()), (header.id, number(errno)), "size {size}");
        raw.expect_end();
        fixture.dummy.wait("detached", |state| {
            matches!(state.events.last(), Some(Event::Detached(Disconnect::Protocol(_))))
        });
        fixture.dummy.state().events.clear();
    }
}

#[test]
fn a_type_that_is_not_defined_ends_the_connection() {
    let fixture = Fixture::default();
    let mut raw = Raw::attach(fixture.path());
    let mut header = raw.header(Command::DeviceReset.raw(), 0);
    header.flags = 7;
    raw.send(&header, &[], &[]);
    assert_eq!(raw.receive().errno(), INVAL);
    raw.expect_end();
}

#[test]
fn replies_nobody_waits_for_are_dropped() {
    let fixture = Fixture::default();
    let mut raw = Raw::attach(fixture.path());
    for command in [Command::DmaRead.raw(), Command::DeviceReset.raw(), 999] {
        let watch = Watch::new();
        let header = raw.header(command, 40).reply(40);
        raw.send(&header, &[1; 40], &[watch.fd()]);
        watch.expect_closed();
    }
    raw.expect_alive();
}

#[test]
fn the_version_comes_first_and_makes_sense() {
    let fixture = Fixture::default();
    let text = |text: &[u8]| [&[0; 4], text].concat();
    let first = |command: Command, payload: &[u8]| {
        let mut raw = Raw::connect(fixture.path());
        let reply = raw.call_raw(command.raw(), payload, &[]);
        assert_eq!(reply.errno(), INVAL, "{command:?} {payload:?}");
        raw.expect_end();
    };
    first(Command::DeviceGetInfo, &[0; 16]);
    first(Command::Version, &[0; 3]);
    first(Command::Version, &[1, 0, 0, 0]);
    first(Command::Version, &text(b"{}"));
    first(Command::Version, &text(b"not json\0"));
    first(Command::Version, &text(b"{\"capabilities\":{\"max_msg_fds\":\"many\"}}\0"));

    // The message has a descriptor.
    let mut raw = Raw::connect(fixture.path());
    let watch = Watch::new();
    let version = Request::Version(Version::default());
    assert_eq!(raw.call(&version, &[watch.fd()]).errno(), INVAL);
    watch.expect_closed();
    raw.expect_end();

    // The message is a reply.
    let mut raw = Raw::connect(fixture.path());
    let header = raw.header(Command::Version.raw(), 0).reply(0);
    raw.send(&header, &[], &[]);
    raw.expect_end();

    assert!(fixture.dummy.state().events.is_empty(), "the device has heard of none of them");

    // The message comes twice.
    let mut raw = Raw::attach(fixture.path());
    assert_eq!(raw.version(Capabilities::default()).errno(), INVAL);
    raw.expect_alive();
}

#[test]
fn a_first_message_too_large_for_a_version_is_refused_early() {
    let fixture = Fixture::default();
    let mut raw = Raw::connect(fixture.path());
    let header = raw.header(Command::Version.raw(), 100_000);
    raw.send(&header, &[], &[]);
    assert_eq!(raw.receive().errno(), INVAL);
    raw.expect_end();
}

#[test]
fn accesses_outside_a_region_never_reach_the_device() {
    let fixture = Fixture::default();
    let mut raw = Raw::attach(fixture.path());
    let max = 1 << 20;
    for (region, offset, count) in [
        (0, BAR0_SIZE, 1),
        (0, BAR0_SIZE - 1, 2),
        (0, u64::MAX, 1),
        (0, u64::MAX - 3, 8),
        (0, 0, BAR0_SIZE as u32 + 1),
        (0, 0, max + 1),
        (0, 0, u32::MAX),
        (1, 0, 1),
        (9, 0, 1),
        (u32::MAX, 0, 1),
    ] {
        let access = RegionAccess { offset, region, count };
        let reply = raw.call(&Request::RegionRead(access), &[]);
        assert_eq!(reply.errno(), INVAL, "read {access:?}");
        if count < max {
            let data = vec![0; count as usize];
            let reply = raw.call(&Request::RegionWrite { access, data: &data }, &[]);
            assert_eq!(reply.errno(), INVAL, "write {access:?}");
        }
    }
    assert_eq!(fixture.dummy.state().events.len(), 1, "only attached");

    // A client may ask for nothing at the very end.
    let access = RegionAccess { offset: BAR0_SIZE, region: 0, count: 0 };
    let reply = raw.call(&Request::RegionRead(access), &[]);
    assert_eq!(reply.reply(), Reply::RegionRead { access, data: &[] });
    let reply = raw.call(&Request::RegionWrite { access, data: &[] }, &[]);
    assert_eq!(reply.reply(), Reply::RegionWrite(access));
}

#[test]
fn transfers_are_no_larger_than_agreed_on() {
    let protocol = VfioUser { max_data_xfer_size: 1000 };
    let fixture = Fixture::with_protocol(Options::default(), protocol);
    let mut raw = Raw::attach(fixture.path());
    let access = |count| RegionAccess { offset: 0, region: 0, count };
    for (count, errno) in [(1000, 0), (1001, INVAL), (0x4000, INVAL)] {
        assert_eq!(raw.call(&Request::RegionRead(access(count)), &[]).errno(), errno);
        let data = vec![0; count as usize];
        let write = Request::RegionWrite { access: access(count), data: &data };
        assert_eq!(raw.call(&write, &[]).errno(), errno);
    }
}

#[test]
fn the_device_s_errors_are_passed_on() {
    let fixture = Fixture::default();
    let mut raw = Raw::attach(fixture.path());
    let access = RegionAccess { offset: BAD_OFFSET, region: 0, count: 1 };
    assert_eq!(raw.call(&Request::RegionRead(access), &[]).errno(), number(Errno::IO));
    let write = Request::RegionWrite { access, data: &[1] };
    assert_eq!(raw.call(&write, &[]).errno(), number(Errno::IO));
    // Nobody is told about a write that was posted.
    raw.post(&write);
    raw.expect_alive();
}

#[test]
fn multiple_writes_stop_at_the_first_that_fails() {
    let fixture = Fixture::default();
    let mut raw = Raw::attach(fixture.path());
    let write = |offset, count| SmallWrite {
        access: RegionAccess { offset, region: 0, count },
        data: [1, 2, 3, 4, 5, 6, 7, 8],
    };
    let good = vec![write(0, 8), write(8, 1), write(16, 0), write(24, 4)];
    let reply = raw.call(&Request::RegionWriteMulti(good), &[]);
    assert_eq!(reply.reply(), Reply::RegionWriteMulti { count: 4 });
    let cut = vec![write(0, 2), write(BAD_OFFSET, 1), write(8, 1)];
    let reply = raw.call(&Request::RegionWriteMulti(cut), &[]);
    assert_eq!(reply.reply(), Reply::RegionWriteMulti { count: 1 });
    let bad = vec![write(BAR0_SIZE, 1), write(8, 1)];
    assert_eq!(raw.call(&Request::RegionWriteMulti(bad), &[]).errno(), INVAL);
    raw.post(&Request::RegionWriteMulti(vec![write(32, 8)]));
    raw.expect_alive();

    let written: Vec<(u64, usize)> = fixture
        .dummy
        .state()
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Write { offset, data, .. } => Some((*offset, data.len())),
            _ => None,
        })
        .collect();
    assert_eq!(written, [(0, 8), (8, 1), (24, 4), (0, 2), (32, 8)]);
    drop(raw);

    // A client that did not ask for them does not get them.
    fixture.dummy.wait("detached", |state| matches!(state.events.last(), Some(Event::Detached(_))));
    let mut raw = Raw::connect(fixture.path());
    assert_eq!(raw.version(Capabilities::default()).errno(), 0);
    let reply = raw.call(&Request::RegionWriteMulti(vec![write(0, 8)]), &[]);
    assert_eq!(reply.errno(), number(Errno::OPNOTSUPP));
}

#[test]
fn mappings_that_make_no_sense_are_refused() {
    let fixture = Fixture::default();
    let mut raw = Raw::attach(fixture.path());
    let good = DmaMapRequest { argsz: 32, flags: 3, offset: 0, address: 0x1000, size: 0x1000 };
    for (map, errno) in [
        (DmaMapRequest { argsz: 31, ..good }, Errno::INVAL),
        (DmaMapRequest { flags: 0, ..good }, Errno::INVAL),
        (DmaMapRequest { flags: 3 | 1 << 9, ..good }, Errno::INVAL),
        (DmaMapRequest { flags: 3 | spec::DMA_MAP_FILE_IO, ..good }, Errno::OPNOTSUPP),
        (DmaMapRequest { size: 0, ..good }, Errno::INVAL),
        (DmaMapRequest { address: u64::MAX - 0xffe, ..good }, Errno::INVAL),
        (DmaMapRequest { offset: u64::MAX - 0xffe, ..good }, Errno::INVAL),
    ] {
        let watch = Watch::new();
        let reply = raw.call(&Request::DmaMap(map), &[watch.fd()]);
        assert_eq!(reply.errno(), number(errno), "{map:?}");
        watch.expect_closed();
    }
    // The message has two descriptors, or none where one is announced.
    let (a, b) = (Watch::new(), Watch::new());
    assert_eq!(raw.call(&Request::DmaMap(good), &[a.fd(), b.fd()]).errno(), INVAL);
    a.expect_closed();
    b.expect_closed();
    let map = DmaMapRequest { flags: 3 | spec::DMA_MAP_MMAP, ..good };
    assert_eq!(raw.call(&Request::DmaMap(map), &[]).errno(), INVAL);
    assert_eq!(fixture.dummy.state().events.len(), 1, "only attached");

    // The last byte of the address space is like any other.
    let file = tempfile::tempfile().unwrap();
    let top = DmaMapRequest { address: u64::MAX - 0xfff, ..good };
    assert_eq!(raw.call(&Request::DmaMap(top), &[file.as_fd()]).errno(), 0);
    let reply = raw.call(&Request::DmaMap(top), &[file.as_fd()]);
    assert_eq!(reply.errno(), number(Errno::EXIST), "the device's own error");

    let good = DmaUnmapRequest { argsz: 24, flags: 0, address: top.address, size: 0x1000 };
    for (unmap, errno) in [
        (DmaUnmapRequest { argsz: 23, ..good }, Errno::INVAL),
        (DmaUnmapRequest { flags: 1 << 2, ..good }, Errno::INVAL),
        (DmaUnmapRequest { size: 0, ..good }, Errno::INVAL),
        (DmaUnmapRequest { size: 0x1001, ..good }, Errno::INVAL),
        (DmaUnmapRequest { flags: spec::DMA_UNMAP_ALL, ..good }, Errno::INVAL),
        (DmaUnmapRequest { address: 0, ..good }, Errno::NOENT),
    ] {
        let reply = raw.call(&Request::DmaUnmap(unmap), &[]);
        assert_eq!(reply.errno(), number(errno), "{unmap:?}");
    }
    assert_eq!(raw.call(&Request::DmaUnmap(good), &[]).reply(), Reply::DmaUnmap(good));
    let all = DmaUnmapRequest { flags: spec::DMA_UNMAP_ALL, address: 0, size: 0, ..good };
    assert_eq!(raw.call(&Request::DmaUnmap(all), &[]).reply(), Reply::DmaUnmap(all));
    fixture.dummy.wait_for(&Event::UnmapAll);
}

#[test]
fn messages_in_pieces_and_many_at_once_are_understood() {
    let fixture = Fixture::default();
    let mut raw = Raw::attach(fixture.path());
    let mut bytes = Vec::new();
    for offset in 0..3 {
        let access = RegionAccess { offset, region: 0, count: 1 };
        let mut payload = Vec::new();
        Request::RegionWrite { access, data: &[offset as u8] }.encode(&mut payload);
        bytes.extend(raw.header(Command::RegionWrite.raw(), payload.len()).encode());
        bytes.extend(payload);
    }
    for byte in &bytes {
        raw.send_bytes(&[*byte], &[]);
    }
    raw.send_bytes(&bytes.repeat(20), &[]);
    let replies: Vec<Header> = (0..63).map(|_| raw.receive().header).collect();
    assert!(replies.iter().all(|reply| !reply.is_error()));
    assert_eq!(replies[0].id + 1, replies[1].id, "in order");
    raw.expect_alive();
}

#[test]
fn descriptors_may_come_with_any_part_of_a_message() {
    let fixture = Fixture::default();
    let mut raw = Raw::attach(fixture.path());
    let file = tempfile::tempfile().unwrap();
    let map = DmaMapRequest { argsz: 32, flags: 3, offset: 0, address: 0, size: 0x1000 };
    let mut payload = Vec::new();
    Request::DmaMap(map).encode(&mut payload);
    let header = raw.header(Command::DmaMap.raw(), payload.len());
    raw.send_bytes(&header.encode(), &[]);
    raw.send_bytes(&payload[..8], &[file.as_fd()]);
    raw.send_bytes(&payload[8..], &[]);
    assert_eq!(raw.receive().errno(), 0);
    assert!(
        fixture
            .dummy
            .state()
            .events
            .iter()
            .any(|event| { matches!(event, Event::Map { offset: Some(0), size: 0x1000, .. }) })
    );
}

#[test]
fn more_descriptors_than_a_message_can_have_end_the_connection() {
    let fixture = Fixture::default();
    let mut raw = Raw::attach(fixture.path());
    let watch = Watch::new();
    let fds = vec![watch.fd(); 200];
    let header = raw.header(Command::DmaMap.raw(), 32).encode();
    raw.send_bytes(&header[..4], &fds);
    raw.send_bytes(&header[4..8], &fds);
    raw.expect_end();
    drop(fds);
    watch.expect_closed();
}

#[test]
fn a_message_cut_in_half_is_told_from_an_orderly_end() {
    let fixture = Fixture::default();
    for (bytes, how) in
        [(0, Disconnect::Closed), (7, Disconnect::MidMessage), (20, Disconnect::MidMessage)]
    {
        let mut raw = Raw::attach(fixture.path());
        let watch = Watch::new();
        let mut message = raw.header(Command::DmaMap.raw(), 32).encode().to_vec();
        message.extend([0; 32]);
        if bytes > 0 {
            raw.send_bytes(&message[..bytes], &[watch.fd()]);
        }
        drop(raw);
        fixture.dummy.wait_for(&Event::Detached(how));
        watch.expect_closed();
    }
}

#[test]
fn a_client_the_device_refuses_is_told() {
    let options = Options { refuse: Some(Errno::PERM), ..Options::default() };
    let fixture = Fixture::new(options);
    let mut raw = Raw::connect(fixture.path());
    assert_eq!(raw.version(Capabilities::default()).errno(), number(Errno::PERM));
    raw.expect_end();
    assert!(fixture.dummy.state().events.is_empty());
}
