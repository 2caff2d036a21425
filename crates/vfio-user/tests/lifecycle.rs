//! These tests let clients come, stall, die and come back; servers start and stop.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use manifold_vfio_user::codec::{Capabilities, Command, DmaMapRequest, RegionAccess, Request};
use manifold_vfio_user::{Config, Disconnect, DmaMemory, Errno, Error, Server, VfioUser, spec};
use support::Fixture;
use support::dummy::{Dummy, Event, Options, PANIC_OFFSET};
use support::raw::Raw;

const BUSY: i32 = Errno::BUSY.raw_os_error();

fn read(offset: u64, count: u32) -> Request<'static> {
    Request::RegionRead(RegionAccess { offset, region: 0, count })
}

#[test]
fn a_second_client_is_told_that_the_function_is_in_use() {
    let fixture = Fixture::default();
    let mut first = Raw::attach(fixture.path());
    for _ in 0..20 {
        let mut second = Raw::connect(fixture.path());
        assert_eq!(second.version(Capabilities::default()).errno(), BUSY);
    }
    // The refused client has to close its end, but not for ever.
    let mut second = Raw::connect(fixture.path());
    assert_eq!(second.version(Capabilities::default()).errno(), BUSY);
    second.expect_end();
    first.expect_alive();
    assert_eq!(fixture.dummy.state().events.len(), 1, "the device knows of the first only");
}

#[test]
fn a_client_that_died_is_replaced_at_once() {
    let options = Options { slow_detach: Duration::from_millis(150), ..Options::default() };
    let fixture = Fixture::new(options);
    for round in 1..=4 {
        // The device is not done with the previous client when this one connects.
        let mut raw = Raw::attach(fixture.path());
        raw.expect_alive();
        let attached = |event: &&Event| matches!(event, Event::Attached(_));
        assert_eq!(fixture.dummy.state().events.iter().filter(attached).count(), round);
        drop(raw);
    }
    fixture.dummy.wait("four detached", |state| {
        state.events.iter().filter(|event| **event == Event::Detached(Disconnect::Closed)).count()
            == 4
    });
    let events = &fixture.dummy.state().events;
    let in_turn =
        events.chunks(2).all(|pair| matches!(pair, [Event::Attached(_), Event::Detached(_)]));
    assert!(in_turn, "{events:?}");
}

#[test]
fn a_client_that_says_nothing_keeps_nobody_away() {
    let fixture = Fixture::default();
    let mut half = Raw::connect(fixture.path());
    let header = half.header(Command::Version.raw(), 100);
    half.send(&header, &[0; 50], &[]);
    Raw::attach(fixture.path()).expect_alive();

    // These clients are more than are heard out at one time.
    let silent: Vec<_> = (0..12).map(|_| UnixStream::connect(fixture.path()).unwrap()).collect();
    Raw::attach(fixture.path()).expect_alive();
    half.expect_end();
    // The time of those that are left is over after half a second.
    let began = Instant::now();
    for stream in silent {
        Raw::new(stream).expect_end();
    }
    assert!(began.elapsed() < Duration::from_secs(2));
    Raw::attach(fixture.path()).expect_alive();
}

#[test]
fn a_client_that_stalls_in_a_message_harms_nobody_and_can_be_disconnected() {
    let fixture = Fixture::default();
    let other = Dummy::new(Options::default());
    let other_endpoint = fixture.server.serve(fixture.other("vf1.sock"), "vf1", other).unwrap();
    let mut stalled = Raw::attach(fixture.path());
    let header = stalled.header(Command::RegionWrite.raw(), 100);
    stalled.send(&header, &[0; 10], &[]);

    Raw::attach(other_endpoint.path()).expect_alive();
    let mut second = Raw::connect(fixture.path());
    assert_eq!(second.version(Capabilities::default()).errno(), BUSY);

    let began = Instant::now();
    fixture.endpoint.disconnect();
    assert!(began.elapsed() < Duration::from_secs(1));
    let events = fixture.dummy.state().events.clone();
    assert_eq!(events.last(), Some(&Event::Detached(Disconnect::Server)));
    stalled.expect_end();
    Raw::attach(fixture.path()).expect_alive();
}

#[test]
fn a_client_that_does_not_read_its_replies_harms_nobody_and_can_be_disconnected() {
    let fixture = Fixture::default();
    let other = Dummy::new(Options::default());
    let other_endpoint = fixture.server.serve(fixture.other("vf1.sock"), "vf1", other).unwrap();
    let mut deaf = Raw::attach(fixture.path());
    // Requests are small and replies are large, so it is the server that gets stuck.
    deaf.stream.set_nonblocking(true).unwrap();
    let mut payload = Vec::new();
    read(0, 0x7000).encode(&mut payload);
    let mut message = deaf.header(Command::RegionRead.raw(), payload.len()).encode().to_vec();
    message.extend(payload);
    for _ in 0..200 {
        if std::io::Write::write(&mut deaf.stream, &message).is_err() {
            break;
        }
    }
    thread::sleep(Duration::from_millis(50));

    Raw::attach(other_endpoint.path()).expect_alive();
    let began = Instant::now();
    fixture.endpoint.disconnect();
    assert!(began.elapsed() < Duration::from_secs(1));
    fixture.dummy.wait_for(&Event::Detached(Disconnect::Server));
    Raw::attach(fixture.path()).expect_alive();
}

#[test]
fn a_slow_reader_gets_every_reply() {
    let fixture = Fixture::default();
    let mut raw = Raw::attach(fixture.path());
    let mut sender = Raw::new(raw.stream.try_clone().unwrap());
    let requests = 100;
    let thread = thread::spawn(move || {
        for _ in 0..requests {
            let mut payload = Vec::new();
            read(0, 0x7000).encode(&mut payload);
            let header = sender.header(Command::RegionRead.raw(), payload.len());
            sender.send(&header, &payload, &[]);
        }
    });
    thread::sleep(Duration::from_millis(100));
    for _ in 0..requests {
        assert_eq!(raw.receive().payload.len(), 16 + 0x7000);
    }
    thread.join().unwrap();
    raw.expect_alive();
}

#[test]
fn a_panic_in_a_device_costs_this_client_its_connection_only() {
    let fixture = Fixture::default();
    let other = Dummy::new(Options::default());
    let other_endpoint = fixture.server.serve(fixture.other("vf1.sock"), "vf1", other).unwrap();
    let mut bystander = Raw::attach(other_endpoint.path());
    let mut raw = Raw::attach(fixture.path());
    let access = RegionAccess { offset: PANIC_OFFSET, region: 0, count: 1 };
    raw.post(&Request::RegionWrite { access, data: &[1] });
    raw.expect_end();
    fixture.dummy.wait_for(&Event::Detached(Disconnect::DevicePanicked));
    bystander.expect_alive();
    Raw::attach(fixture.path()).expect_alive();
}

#[test]
fn closing_an_endpoint_ends_everything_about_it() {
    let Fixture { endpoint, server, dummy, directory } = Fixture::default();
    let path = endpoint.path().to_owned();
    let mut raw = Raw::attach(&path);
    let mut silent = Raw::connect(&path);
    endpoint.close();
    assert_eq!(dummy.state().events.last(), Some(&Event::Detached(Disconnect::Server)));
    assert!(!path.exists());
    assert!(UnixStream::connect(&path).is_err());
    raw.expect_end();
    silent.expect_end();
    assert_eq!(Arc::strong_count(&dummy), 1, "nothing of the server holds the device");

    // The name is free again.
    let endpoint = server.serve(&path, "vf0", dummy).unwrap();
    Raw::attach(endpoint.path()).expect_alive();
    drop((endpoint, server, directory));
}

#[test]
fn a_server_shuts_down_with_clients_attached_and_starts_again_at_once() {
    let Fixture { endpoint, server, dummy, directory } = Fixture::default();
    let path = endpoint.path().to_owned();
    let mut raw = Raw::attach(&path);
    let began = Instant::now();
    server.shutdown();
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(!path.exists());
    raw.expect_end();
    assert_eq!(dummy.state().events.last(), Some(&Event::Detached(Disconnect::Server)));
    drop(endpoint);

    let server = Server::start(Config::default(), VfioUser::default()).unwrap();
    let endpoint = server.serve(&path, "vf0", dummy).unwrap();
    Raw::attach(endpoint.path()).expect_alive();
    drop((endpoint, server, directory));
}

#[test]
fn two_servers_do_not_share_a_socket() {
    let fixture = Fixture::default();
    let second = Server::start(Config::default(), VfioUser::default()).unwrap();
    let dummy = Dummy::new(Options::default());
    let error = second.serve(fixture.path(), "vf0", dummy).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    drop(second);
    Raw::attach(fixture.path()).expect_alive();
}

#[test]
fn many_devices_share_one_acceptor() {
    let fixture = Fixture::default();
    let endpoints: Vec<_> = (1..=64)
        .map(|n| {
            let dummy = Dummy::new(Options::default());
            fixture.server.serve(fixture.other(&format!("vf{n}.sock")), "vf", dummy).unwrap()
        })
        .collect();
    let mut clients: Vec<_> = endpoints.iter().map(|e| Raw::attach(e.path())).collect();
    for client in &mut clients {
        client.expect_alive();
    }
    drop(endpoints);
    for client in &mut clients {
        client.expect_end();
    }
}

#[test]
fn a_device_may_disconnect_its_own_client() {
    let fixture = Fixture::default();
    let mut raw = Raw::attach(fixture.path());
    let Fixture { endpoint, server, dummy, directory } = fixture;
    *dummy.on_reset.lock() = Some(Box::new(move || endpoint.disconnect()));
    let header = raw.header(Command::DeviceReset.raw(), 0);
    raw.send(&header, &[], &[]);
    raw.expect_end();
    dummy.wait_for(&Event::Detached(Disconnect::Server));
    drop((server, directory));
}

#[test]
fn memory_without_a_descriptor_is_mapped_as_not_shared() {
    let fixture = Fixture::default();
    let mut raw = Raw::attach(fixture.path());
    let flags = spec::DMA_MAP_READ;
    let map = DmaMapRequest { argsz: 32, flags, offset: 0, address: 0x10_0000, size: 0x4000 };
    assert_eq!(raw.call(&Request::DmaMap(map), &[]).errno(), 0);
    let (iova, size, readable, writable) = (0x10_0000, 0x4000, true, false);
    fixture.dummy.wait_for(&Event::Map { iova, size, offset: None, readable, writable });
    assert!(matches!(fixture.dummy.state().mappings[0].memory, DmaMemory::NotShared));
}
