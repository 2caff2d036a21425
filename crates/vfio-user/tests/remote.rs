//! Memory that is reached by message: the server asks, the client answers, in between requests of
//! its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use manifold_vfio_user::codec::{
    Capabilities, Command, DmaMapRequest, DmaUnmapRequest, Header, Kind, RegionAccess, Reply,
    Request,
};
use manifold_vfio_user::{Errno, RemoteDma, spec};
use parking_lot::Mutex;
use support::Fixture;
use support::dummy::Event;
use support::raw::{Raw, Received};

const BASE: u64 = 0x10_0000;
const SIZE: usize = 0x4000;

/// Attaches a client that takes `chunk` bytes at a time, and maps memory without a descriptor.
fn attach(fixture: &Fixture, chunk: u64, flags: u32) -> (Raw, RemoteDma) {
    let mut raw = Raw::connect(fixture.path());
    let capabilities = Capabilities {
        max_data_xfer_size: Some(chunk),
        max_msg_fds: Some(16),
        ..Capabilities::default()
    };
    assert_eq!(raw.version(capabilities).errno(), 0);
    let size = SIZE as u64;
    let map = DmaMapRequest { argsz: 32, flags, offset: 0, address: BASE, size };
    assert_eq!(raw.call(&Request::DmaMap(map), &[]).errno(), 0);
    (raw, fixture.dummy.remote(BASE).expect("no descriptor, so a handle"))
}

const READ_WRITE: u32 = spec::DMA_MAP_READ | spec::DMA_MAP_WRITE;

/// The memory of a client.
type Memory = Arc<Mutex<Vec<u8>>>;

/// Answers one request as a client should.
fn answer(raw: &mut Raw, message: &Received, memory: &Memory) {
    let command = Command::from_raw(message.header.command).unwrap();
    let mut payload = Vec::new();
    match Request::decode(command, &message.payload).unwrap() {
        Request::DmaRead { address, count } => {
            let at = (address - BASE) as usize;
            let data = &memory.lock()[at..at + count as usize];
            Reply::DmaRead { address, data }.encode(&mut payload);
        }
        Request::DmaWrite { address, data } => {
            let at = (address - BASE) as usize;
            memory.lock()[at..at + data.len()].copy_from_slice(data);
            Reply::DmaWrite { address, count: data.len() as u64 }.encode(&mut payload);
        }
        other => panic!("{other:?}"),
    }
    raw.send(&message.header.reply(payload.len()), &payload, &[]);
}

/// Answers requests until the connection ends; other messages are collected.
fn answer_all(mut raw: Raw, memory: Memory) -> JoinHandle<(u64, Vec<Header>)> {
    thread::spawn(move || {
        let (mut answered, mut others) = (0, Vec::new());
        while !ended(&raw.stream) {
            let message = raw.receive();
            if message.header.kind() == Some(Kind::Request) {
                answer(&mut raw, &message, &memory);
                answered += 1;
            } else {
                others.push(message.header);
            }
        }
        (answered, others)
    })
}

fn ended(stream: &UnixStream) -> bool {
    let flags = rustix::net::RecvFlags::PEEK;
    matches!(rustix::net::recv(stream, &mut [0_u8; 1], flags), Ok((0, _)) | Err(Errno::CONNRESET))
}

#[test]
fn memory_is_read_and_written_in_chunks() {
    let fixture = Fixture::default();
    let (raw, remote) = attach(&fixture, 1000, READ_WRITE);
    let memory: Memory = Arc::new(Mutex::new((0..SIZE).map(|i| (i * 13) as u8).collect()));
    let client = answer_all(raw, Arc::clone(&memory));

    for (offset, length) in [(0, 1), (0, SIZE), (5, 2500), (SIZE - 1, 1), (SIZE, 0), (100, 1000)] {
        let mut data = vec![0; length];
        remote.read(BASE + offset as u64, &mut data).unwrap();
        assert_eq!(data, memory.lock()[offset..offset + length]);
        data.iter_mut().for_each(|byte| *byte = !*byte);
        remote.write(BASE + offset as u64, &data).unwrap();
        assert_eq!(data, memory.lock()[offset..offset + length]);
    }
    fixture.endpoint.disconnect();
    let chunks = |length: usize| length.div_ceil(1000) as u64;
    let expected = 2 * (1 + chunks(SIZE) + chunks(2500) + 1 + 1);
    assert_eq!(client.join().unwrap().0, expected);
}

#[test]
fn replies_find_whoever_waits_while_requests_go_on() {
    let fixture = Fixture::default();
    let (mut raw, remote) = attach(&fixture, 64, READ_WRITE);
    let memory: Memory = Arc::new(Mutex::new(vec![0; SIZE]));
    let answering = Raw::new(raw.stream.try_clone().unwrap());
    let client = answer_all(answering, Arc::clone(&memory));

    let workers: Vec<_> = (0..4_u8)
        .map(|worker| {
            let remote = remote.clone();
            thread::spawn(move || {
                let at = BASE + u64::from(worker) * 0x1000;
                for round in 0..50_u8 {
                    let written = [worker ^ round; 300];
                    remote.write(at, &written).unwrap();
                    let mut read = [0; 300];
                    remote.read(at, &mut read).unwrap();
                    assert_eq!(read, written);
                }
            })
        })
        .collect();
    // The client's own requests, whose replies arrive at the other thread.
    let requests = 200;
    for _ in 0..requests {
        let access = RegionAccess { offset: 0, region: 7, count: 4 };
        let mut payload = Vec::new();
        Request::RegionRead(access).encode(&mut payload);
        let header = raw.header(Command::RegionRead.raw(), payload.len());
        raw.send(&header, &payload, &[]);
    }
    for worker in workers {
        worker.join().unwrap();
    }
    thread::sleep(Duration::from_millis(50));
    fixture.endpoint.disconnect();
    let (answered, others) = client.join().unwrap();
    assert_eq!(answered, 4 * 50 * 2 * 300_u64.div_ceil(64));
    assert_eq!(others.len(), requests);
    assert!(others.iter().all(|header| !header.is_error()));
}

#[test]
fn a_handle_is_good_for_its_own_mapping_only() {
    let fixture = Fixture::default();
    let (raw, remote) = attach(&fixture, 1 << 20, spec::DMA_MAP_READ);
    for (iova, length) in
        [(BASE - 1, 1), (BASE + SIZE as u64, 1), (BASE + 1, SIZE), (0, 1), (u64::MAX, 2)]
    {
        let error = remote.read(iova, &mut vec![0; length]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{iova:#x}");
    }
    assert_eq!(remote.write(BASE, &[1]).unwrap_err().kind(), ErrorKind::PermissionDenied);
    drop(raw);
    let fixture = Fixture::default();
    let (_raw, remote) = attach(&fixture, 1 << 20, spec::DMA_MAP_WRITE);
    assert_eq!(remote.read(BASE, &mut [1]).unwrap_err().kind(), ErrorKind::PermissionDenied);
}

/// Runs a read in another thread.
fn read(remote: &RemoteDma, iova: u64, length: usize) -> JoinHandle<io::Result<Vec<u8>>> {
    let remote = remote.clone();
    thread::spawn(move || {
        let mut data = vec![0; length];
        remote.read(iova, &mut data).map(|()| data)
    })
}

#[test]
fn the_client_s_errors_are_passed_on() {
    let fixture = Fixture::default();
    let (mut raw, remote) = attach(&fixture, 1 << 20, READ_WRITE);
    for (sent, expected) in [(14, 14), (0, 5), (5000, 5), (u32::MAX, 5)] {
        let reading = read(&remote, BASE, 4);
        let request = raw.receive();
        raw.send(&request.header.error_reply(sent), &[], &[]);
        let error = reading.join().unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(expected));
    }
    raw.expect_alive();
}

#[test]
fn a_client_whose_answers_make_no_sense_is_not_asked_again() {
    for (address, count, length) in [
        (BASE, 4, 3),
        (BASE, 5, 5),
        (BASE + 1, 4, 4),
        // As QEMU 10.1 had it: the data begins in the upper half of the count.
        (BASE, 4 | 0xaabb_ccdd << 32, 4),
    ] {
        let fixture = Fixture::default();
        let (mut raw, remote) = attach(&fixture, 1 << 20, READ_WRITE);
        let reading = read(&remote, BASE, 4);
        let request = raw.receive();
        let mut payload = Vec::new();
        payload.extend(u64::to_ne_bytes(address));
        payload.extend(u64::to_ne_bytes(count));
        payload.extend(vec![0; length]);
        raw.send(&request.header.reply(payload.len()), &payload, &[]);
        assert_eq!(reading.join().unwrap().unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(remote.write(BASE, &[1]).unwrap_err().kind(), ErrorKind::Unsupported);
        raw.expect_alive();
    }
}

#[test]
fn a_reply_to_another_command_or_request_is_no_answer() {
    let fixture = Fixture::default();
    let (mut raw, remote) = attach(&fixture, 1 << 20, READ_WRITE);
    let reading = read(&remote, BASE, 4);
    let request = raw.receive();
    let (mut wrong, mut payload) = (Vec::new(), Vec::new());
    Reply::DmaRead { address: BASE, data: &[9; 4] }.encode(&mut wrong);
    Reply::DmaRead { address: BASE, data: &[1, 2, 3, 4] }.encode(&mut payload);
    let right = request.header.reply(payload.len());
    raw.send(&Header { id: right.id.wrapping_add(1), ..right }, &wrong, &[]);
    raw.send(&Header { command: Command::DmaWrite.raw(), ..right }, &wrong, &[]);
    raw.send(&right, &payload, &[]);
    raw.send(&right, &wrong, &[]);
    assert_eq!(reading.join().unwrap().unwrap(), [1, 2, 3, 4]);
    raw.expect_alive();
}

#[test]
fn a_client_that_does_not_answer_costs_one_time_out() {
    let fixture = Fixture::default();
    let (mut raw, remote) = attach(&fixture, 1 << 20, READ_WRITE);
    let began = Instant::now();
    let error = remote.read(BASE, &mut [0; 4]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(began.elapsed() >= Duration::from_millis(250));

    // From now on calls fail at once, until the client answers, if only to the first request.
    let began = Instant::now();
    for _ in 0..1000 {
        assert_eq!(remote.write(BASE, &[0; 4]).unwrap_err().kind(), ErrorKind::TimedOut);
    }
    assert!(began.elapsed() < Duration::from_millis(250));
    raw.expect_alive_after(|raw| {
        let request = raw.receive();
        raw.send(&request.header.error_reply(5), &[], &[]);
    });

    let reading = read(&remote, BASE, 4);
    let request = raw.receive();
    let memory = Arc::new(Mutex::new(vec![7; SIZE]));
    answer(&mut raw, &request, &memory);
    assert_eq!(reading.join().unwrap().unwrap(), [7; 4]);
}

#[test]
fn a_client_with_no_room_for_requests_costs_one_time_out_too() {
    let fixture = Fixture::default();
    let (mut raw, remote) = attach(&fixture, 1 << 20, READ_WRITE);
    // Larger than what the socket takes, so it is sent in part only.
    let memory = vec![0; SIZE];
    let writers: Vec<_> = (0..100)
        .map(|_| {
            let (remote, memory) = (remote.clone(), memory.clone());
            thread::spawn(move || remote.write(BASE, &memory).unwrap_err().kind())
        })
        .collect();
    let began = Instant::now();
    for writer in writers {
        let kind = writer.join().unwrap();
        assert!(
            matches!(kind, ErrorKind::TimedOut | ErrorKind::BrokenPipe | ErrorKind::NotConnected),
            "{kind}"
        );
    }
    assert!(began.elapsed() < Duration::from_secs(2));
    // Whether or not a message was cut short, the endpoint is of use.
    raw.stream.shutdown(std::net::Shutdown::Both).unwrap();
    raw.expect_end_eventually();
    Raw::attach(fixture.path()).expect_alive();
}

#[test]
fn an_end_fails_what_is_under_way_and_all_that_follows() {
    let fixture = Fixture::default();
    let (mut raw, remote) = attach(&fixture, 1 << 20, READ_WRITE);
    let reading = read(&remote, BASE, 4);
    raw.receive();
    let began = Instant::now();
    drop(raw);
    assert_eq!(reading.join().unwrap().unwrap_err().kind(), ErrorKind::NotConnected);
    assert!(began.elapsed() < Duration::from_millis(200));
    assert_eq!(remote.read(BASE, &mut [0]).unwrap_err().kind(), ErrorKind::NotConnected);

    // The next client's memory is its own.
    let (_raw, next) = attach(&fixture, 1 << 20, READ_WRITE);
    assert_eq!(remote.read(BASE, &mut [0]).unwrap_err().kind(), ErrorKind::NotConnected);
    let error = next.read(BASE, &mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "connected, and nobody answers");
}

#[test]
fn unmapping_fails_what_is_under_way_so_that_nobody_waits_for_it() {
    let fixture = Fixture::default();
    let (mut raw, remote) = attach(&fixture, 1 << 20, READ_WRITE);
    let other = DmaMapRequest { argsz: 32, flags: 3, offset: 0, address: 0, size: 0x1000 };
    assert_eq!(raw.call(&Request::DmaMap(other), &[]).errno(), 0);
    let elsewhere = read(&fixture.dummy.remote(0).unwrap(), 0x10, 4);
    let unanswered = raw.receive();
    let reading = read(&remote, BASE, 4);
    raw.receive();

    let began = Instant::now();
    let size = SIZE as u64;
    let unmap = DmaUnmapRequest { argsz: 24, flags: 0, address: BASE, size };
    assert_eq!(raw.call(&Request::DmaUnmap(unmap), &[]).errno(), 0);
    let error = reading.join().unwrap().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::CANCELED.raw_os_error()));
    assert!(began.elapsed() < Duration::from_millis(200));

    // Another mapping's request goes on.
    let mut payload = Vec::new();
    Reply::DmaRead { address: 0x10, data: &[9; 4] }.encode(&mut payload);
    raw.send(&unanswered.header.reply(payload.len()), &payload, &[]);
    assert_eq!(elsewhere.join().unwrap().unwrap(), [9; 4]);
}

#[test]
fn a_reset_fails_what_comes_while_it_lasts() {
    let fixture = Fixture::default();
    let (mut raw, remote) = attach(&fixture, 1 << 20, READ_WRITE);
    let seen = Arc::new(Mutex::new(None));
    let (inside, handle) = (Arc::clone(&seen), remote.clone());
    *fixture.dummy.on_reset.lock() = Some(Box::new(move || {
        let error = read(&handle, BASE, 4).join().unwrap().unwrap_err();
        *inside.lock() = error.raw_os_error();
    }));
    assert_eq!(raw.call(&Request::DeviceReset, &[]).errno(), 0);
    assert_eq!(*seen.lock(), Some(Errno::CANCELED.raw_os_error()));

    let reading = read(&remote, BASE, 4);
    let request = raw.receive();
    answer(&mut raw, &request, &Arc::new(Mutex::new(vec![7; SIZE])));
    assert_eq!(reading.join().unwrap().unwrap(), [7; 4]);
}

#[test]
fn a_device_method_cannot_wait_for_its_own_client() {
    let fixture = Fixture::default();
    let (mut raw, _remote) = attach(&fixture, 1 << 20, READ_WRITE);
    // The dummy tries, and checks that it is told so.
    assert_eq!(raw.call(&Request::DeviceReset, &[]).errno(), 0);
    fixture.dummy.wait_for(&Event::Reset);
}

#[test]
fn a_client_that_takes_no_transfers_is_not_asked() {
    let fixture = Fixture::default();
    let (mut raw, remote) = attach(&fixture, 0, READ_WRITE);
    assert_eq!(remote.read(BASE, &mut [0]).unwrap_err().kind(), ErrorKind::Unsupported);
    raw.expect_alive();
}
