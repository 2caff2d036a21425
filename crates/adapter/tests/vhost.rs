//! These tests attach functions over vhost-user with an independent client, the vhost crate's
//! front-end, whose rings are in its memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail so")]

mod vhost_client;

use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use manifold_adapter::{Adapter, Config, Protocol};
use manifold_pci::FunctionId::{Pf, Vf};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserProtocolFeatures;

use vhost_client::{Client, frame};

fn start(folder: &Path, vfs: u16) -> Adapter {
    let config = Config { base_mac: Some([2, 0, 0, 0, 0, 0]), ..Config::new(folder) };
    let adapter = Adapter::start(config).unwrap();
    adapter.enable_vfs(vfs).unwrap();
    adapter
}

fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !check() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn frames_pass_between_functions_and_count_as_ever() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = start(folder.path(), 2);
    let info = |index| adapter.function(Vf(index)).unwrap();
    let mut a = Client::attach(&info(0).vhost_socket);
    let mut b = Client::attach(&info(1).vhost_socket);
    eventually("attached", || info(0).attached.is_some() && info(1).attached.is_some());
    assert_eq!(info(0).attached.unwrap().protocol, Protocol::VhostUser);
    assert_eq!(info(0).dma.stats.mappings, 1);
    a.start_pair(0);
    b.start_pair(0);
    assert_eq!(info(0).driver.status, 15);

    for n in 0..600_u16 {
        b.provide(0);
        let sent = frame(info(1).mac, info(0).mac, &n.to_be_bytes());
        a.send(0, &sent);
        assert_eq!(b.receive(0), sent);
        assert!(b.interrupted(0));
    }
    // Broadcast, unknown multicast and a VLAN that nobody subscribed to arrive.
    for destination in [[0xff; 6], [1, 0, 0x5e, 0, 0, 9]] {
        b.provide(0);
        let sent = frame(destination, info(0).mac, &[0x81, 0, 0, 7]);
        a.send(0, &sent);
        assert_eq!(b.receive(0), sent);
    }
    // A frame for another station does not arrive.
    b.provide(0);
    a.send(0, &frame([2, 9, 9, 9, 9, 9], info(0).mac, b"not yours"));
    a.send(0, &frame(info(1).mac, info(0).mac, b"yours"));
    assert!(b.receive(0).ends_with(b"yours"));

    // Frames that go nowhere are not counted as sent.
    assert_eq!(info(0).counters.tx.frames, 603);
    assert_eq!(info(1).counters.rx.frames, 603);
    drop((a, b));
    eventually("detached", || info(0).attached.is_none() && info(1).attached.is_none());
    assert_eq!(info(0).dma.stats.mappings, 0);
    assert_eq!(info(0).dma.faults.count, 0);
    assert_eq!(info(0).driver.status, 0);
}

#[test]
fn rings_stop_and_go_on_where_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = start(folder.path(), 2);
    let info = |index| adapter.function(Vf(index)).unwrap();
    let mut a = Client::attach(&info(0).vhost_socket);
    let mut b = Client::attach(&info(1).vhost_socket);
    a.start_pair(0);
    b.start_pair(0);
    let exchange = |a: &mut Client, b: &mut Client, text: &[u8]| {
        b.provide(0);
        let sent = frame(info(1).mac, info(0).mac, text);
        a.send(0, &sent);
        assert_eq!(b.receive(0), sent);
    };
    exchange(&mut a, &mut b, b"one");
    // The memory table is replaced while the rings run.
    a.share_memory();
    b.share_memory();
    exchange(&mut a, &mut b, b"two");
    // The rings are stopped and started again, as a VMM does around a guest's reset of the queue or
    // a stop of the machine.
    let bases = [a.stop_ring(0), a.stop_ring(1)];
    assert_eq!(bases, [0, 2]);
    a.resume_pair(0, bases);
    exchange(&mut a, &mut b, b"three");
    // A client that dies is replaced by one that finds everything as at first.
    drop(b);
    eventually("detached", || info(1).attached.is_none());
    let mut b = Client::attach(&info(1).vhost_socket);
    b.start_pair(0);
    exchange(&mut a, &mut b, b"four");
    // A disabled ring does not receive.
    b.enable(0, false);
    b.provide(0);
    a.send(0, &frame(info(1).mac, info(0).mac, b"lost"));
    eventually("dropped", || !info(1).counters.drops.is_empty());
    b.enable(0, true);
    a.send(0, &frame(info(1).mac, info(0).mac, b"five"));
    assert!(b.receive(0).ends_with(b"five"));
}

#[test]
fn several_pairs_are_used_when_enabled() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = start(folder.path(), 2);
    let info = |index| adapter.function(Vf(index)).unwrap();
    let mut a = Client::attach(&info(0).vhost_socket);
    let mut b = Client::attach(&info(1).vhost_socket);
    assert_eq!(b.frontend.get_queue_num().unwrap(), 8);
    for pair in 0..4 {
        b.start_pair(pair);
        for _ in 0..64 {
            b.provide(pair);
        }
    }
    a.start_pair(0);
    // Flows are told apart by their addresses and ports.
    for port in 0..64_u16 {
        a.send(0, &vhost_client::udp(info(1).mac, info(0).mac, port));
    }
    eventually("64 frames", || info(1).counters.rx.frames == 64);
    let received: Vec<u16> = (0..4).map(|pair| b.received(pair)).collect();
    assert_eq!(received.iter().sum::<u16>(), 64);
    assert!(received.iter().all(|count| *count > 0), "{received:?}");
}

#[test]
fn a_function_has_one_attachment_whatever_the_protocol() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = start(folder.path(), 1);
    let info = || adapter.function(Vf(0)).unwrap();
    let client = Client::attach(&info().vhost_socket);
    eventually("attached", || info().attached.is_some());
    // A second client is refused over either protocol.
    let second = vhost_client::connect(&info().vhost_socket);
    assert!(second.get_features().is_err());
    let client_of_vfio = vfio_user_version(&info().socket);
    assert_eq!(client_of_vfio, rustix::io::Errno::BUSY.raw_os_error() as u32);
    assert_eq!(info().attached.unwrap().protocol, Protocol::VhostUser);
    drop(client);
    eventually("free", || info().attached.is_none());
    assert_eq!(vfio_user_version(&info().socket), 0);
    eventually("free again", || info().attached.is_none());
    // The PF can be attached in the same way.
    let mut pf = Client::attach(&adapter.function(Pf).unwrap().vhost_socket);
    pf.start_pair(0);
    assert_eq!(adapter.function(Pf).unwrap().driver.status, 15);
    // A function that is disabled is taken away.
    let vf = Client::attach(&info().vhost_socket);
    eventually("attached", || info().attached.is_some());
    assert_eq!(adapter.disable_vfs(), (1, 1));
    assert!(vf.frontend.get_features().is_err());
}

#[test]
fn protocol_features_are_there_and_a_reset_works() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = start(folder.path(), 1);
    let info = adapter.function(Vf(0)).unwrap();
    let mut client = Client::attach(&info.vhost_socket);
    let offered = client.frontend.get_protocol_features().unwrap();
    let needed = VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::RARP
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::MTU
        | VhostUserProtocolFeatures::RESET_DEVICE
        | VhostUserProtocolFeatures::INFLIGHT_SHMFD
        | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
        | VhostUserProtocolFeatures::STATUS;
    assert!(offered.contains(needed), "{offered:?}");
    client.start_pair(0);
    client.frontend.reset_device().unwrap();
    assert_eq!(adapter.function(Vf(0)).unwrap().driver.status, 0);
    client.start_pair(0);
}

#[test]
fn a_ring_that_breaks_the_rules_harms_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = start(folder.path(), 3);
    let info = |index| adapter.function(Vf(index)).unwrap();
    let mut bad = Client::attach(&info(0).vhost_socket);
    bad.start_pair(0);
    bad.break_ring(1);
    eventually("needs reset", || info(0).driver.status & 64 != 0);
    assert!(bad.failed(1));
    let reason = info(0).driver.failure.expect("no reason is given");
    assert!(reason.starts_with("queue 1: "), "{reason}");
    assert!(info(0).driver.features.contains(&"VERSION_1"), "{:?}", info(0).driver.features);
    let mut a = Client::attach(&info(1).vhost_socket);
    let mut b = Client::attach(&info(2).vhost_socket);
    a.start_pair(0);
    b.start_pair(0);
    b.provide(0);
    let sent = frame(info(2).mac, info(1).mac, b"undisturbed");
    a.send(0, &sent);
    assert_eq!(b.receive(0), sent);
    // The function works after a reset.
    bad.frontend.reset_device().unwrap();
    assert_eq!((info(0).driver.failure, info(0).driver.features.len()), (None, 0));
    bad.mend();
    bad.start_pair(0);
    assert_eq!(info(0).driver.status, 15);
    b.provide(0);
    bad.send(0, &frame(info(2).mac, info(0).mac, b"mended"));
    assert!(b.receive(0).ends_with(b"mended"));
}

#[test]
fn what_was_in_flight_when_the_adapter_ended_is_sent_by_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = start(folder.path(), 2);
    let sockets = [0, 1].map(|index| adapter.function(Vf(index)).unwrap().vhost_socket);
    let [from, to] = [0, 1].map(|index| adapter.function(Vf(index)).unwrap().mac);
    let mut a = Client::attach(&sockets[0]);
    let mut b = Client::attach(&sockets[1]);
    let (tracked, file) = a.track();
    a.start_pair(0);
    b.start_pair(0);
    for text in [b"one", b"two", b"six"] {
        b.provide(0);
        a.send(0, &frame(to, from, text));
        assert!(b.receive(0).ends_with(text));
    }
    drop(adapter);

    // The file is changed as if the adapter had ended with the next chain taken and not given back:
    // ring 1's part of the file says so of descriptor 3 ("Inflight I/O tracking": 16 bytes, then an
    // entry of 16 bytes for each, with a count in its end).
    a.send(0, &frame(to, from, b"taken"));
    let part = tracked.mmap_size / u64::from(tracked.num_queues);
    let entry = part + 16 + 3 * 16;
    file.write_all_at(&[1], entry).unwrap();
    file.write_all_at(&1000_u64.to_ne_bytes(), entry + 8).unwrap();

    let adapter = start(folder.path(), 2);
    b.reattach(&sockets[1]);
    b.resume_pair(0, [3, 0]);
    b.provide(0);
    a.reattach(&sockets[0]);
    a.frontend.set_inflight_fd(&tracked, file.as_raw_fd()).unwrap();
    // The client counts the chain as taken.
    a.resume_pair(0, [0, 4]);
    assert!(b.receive(0).ends_with(b"taken"));
    // The frame arrives only once.
    b.provide(0);
    a.send(0, &frame(to, from, b"next"));
    assert!(b.receive(0).ends_with(b"next"));
    assert_eq!(adapter.function(Vf(0)).unwrap().counters.tx.frames, 2);
}

/// Returns the errno in the answer to a vfio-user client's version, 0 for none.
fn vfio_user_version(socket: &Path) -> u32 {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    let payload = b"\x00\x00\x00\x00{}\0";
    let mut message = [0; 16];
    message[2] = 1;
    message[4..8].copy_from_slice(&(16 + payload.len() as u32).to_ne_bytes());
    stream.write_all(&[&message[..], payload].concat()).unwrap();
    let mut reply = [0; 16];
    stream.read_exact(&mut reply).unwrap();
    u32::from_ne_bytes(reply[12..].try_into().unwrap())
}
