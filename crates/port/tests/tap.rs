//! These tests use TAP interfaces of this machine's kernel, each in a network namespace of its own.
//!
//! Needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN) and `ip` of iproute2.

#![allow(clippy::unwrap_used, clippy::panic)] // the helpers of tests
#![allow(unsafe_code)] // entering a network namespace

use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use manifold_dma::Slice;
use manifold_port::{Error, Offloads, Sent, Tap, VNET_HDR_LEN};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::{CapabilitySet, UnshareFlags, capabilities, set_capabilities};

const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OUR_IP: [u8; 4] = [10, 77, 0, 2];
const HOST_IP: [u8; 4] = [10, 77, 0, 1];
const HEADER: [u8; VNET_HDR_LEN] = [0; VNET_HDR_LEN];

/// Moves this thread, and what it opens and starts from now on, into a new network namespace.
fn own_namespace() {
    // SAFETY: a network namespace is the thread's own; no memory or file table is unshared.
    if let Err(error) = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) } {
        panic!("cannot make a network namespace: {error}. These tests run as root (CAP_SYS_ADMIN)");
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run ip (iproute2): {error}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {text}");
}

/// Opens an interface that is up and has the host's address, without IPv6's own traffic.
fn tap_with_address() -> Tap {
    own_namespace();
    let tap = Tap::open("up0").unwrap();
    std::fs::write("/proc/sys/net/ipv6/conf/up0/disable_ipv6", "1").unwrap();
    ip("address add 10.77.0.1/24 dev up0");
    ip("neighbour add 10.77.0.2 lladdr 02:00:00:00:00:01 dev up0");
    tap.set_up(true).unwrap();
    tap
}

fn wait(tap: &Tap, flags: PollFlags) {
    let timeout = Duration::from_secs(5).try_into().unwrap();
    let ready = poll(&mut [PollFd::new(tap, flags)], Some(&timeout)).unwrap();
    assert_eq!(ready, 1, "nothing within 5 s");
}

/// Returns the next frame that `wanted` accepts, with its header.
fn receive(tap: &Tap, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut buffer = vec![0; 65_565];
    while Instant::now() < deadline {
        wait(tap, PollFlags::IN);
        if let Some(len) = tap.recv(&mut buffer).unwrap()
            && wanted(&buffer[VNET_HDR_LEN..len])
        {
            buffer.truncate(len);
            return buffer;
        }
    }
    panic!("no such frame within 5 s");
}

/// Sends header and frame cut into pieces of these lengths, the rest in one.
fn send(tap: &Tap, header: [u8; VNET_HDR_LEN], frame: &[u8], lengths: &[usize]) -> Sent {
    let mut bytes = [&header[..], frame].concat();
    let mut parts = Vec::new();
    let mut rest = bytes.as_mut_slice();
    for len in lengths {
        let (part, after) = rest.split_at_mut(*len);
        parts.push(Slice::from_mut(part));
        rest = after;
    }
    parts.push(Slice::from_mut(rest));
    tap.send(&parts).unwrap()
}

fn ethernet(to: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &OUR_MAC, &kind.to_be_bytes(), payload].concat()
}

fn arp_request() -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    ethernet([0xff; 6], 0x0806, &[&head[..], &OUR_MAC, &OUR_IP, &[0; 6], &HOST_IP].concat())
}

/// Returns the interface's address, learned as any neighbour would.
fn host_mac(tap: &Tap) -> [u8; 6] {
    assert_eq!(send(tap, HEADER, &arp_request(), &[]), Sent::Done);
    let reply = receive(tap, |frame| frame.get(12..14) == Some(&[8, 6]) && frame[21] == 2);
    reply[VNET_HDR_LEN + 6..][..6].try_into().unwrap()
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Returns a UDP datagram from us to the host. With `partial`, the checksum field holds only the
/// pseudo-header's sum.
fn udp(to: [u8; 6], port: u16, data: &[u8], partial: bool) -> Vec<u8> {
    let len = 8 + data.len() as u16;
    let mut pseudo = [&OUR_IP[..], &HOST_IP, &[0, 17]].concat();
    pseudo.extend(len.to_be_bytes());
    let mut udp = [9u16.to_be_bytes(), port.to_be_bytes(), len.to_be_bytes(), [0; 2]].concat();
    udp.extend(data);
    let checksum = if partial { fold(sum(&pseudo)) } else { !fold(sum(&pseudo) + sum(&udp)) };
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    let mut ip = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0].to_vec();
    ip[2..4].copy_from_slice(&(20 + len).to_be_bytes());
    ip.extend([OUR_IP, HOST_IP].concat());
    let checksum = !fold(sum(&ip));
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    ethernet(to, 0x0800, &[ip, udp].concat())
}

#[test]
fn the_host_answers_a_frame_sent_in_any_number_of_parts() {
    let tap = tap_with_address();
    let to = host_mac(&tap);
    let socket = UdpSocket::bind("10.77.0.1:4000").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for lengths in [&[][..], &[12], &[12, 14, 20, 8], &[1; 64], &[1; 80], &[0, 5, 0, 7, 33]] {
        let data = format!("in {} parts and enough bytes to cut eighty times", lengths.len() + 1);
        let frame = udp(to, 4000, data.as_bytes(), false);
        assert_eq!(send(&tap, HEADER, &frame, lengths), Sent::Done);
        let mut got = [0; 200];
        let len = socket.recv(&mut got).unwrap();
        assert_eq!(&got[..len], data.as_bytes());
    }
}

#[test]
fn a_frame_of_the_host_arrives_whole_with_its_header() {
    let tap = tap_with_address();
    let socket = UdpSocket::bind("10.77.0.1:4001").unwrap();
    socket.send_to(b"hello, port", "10.77.0.2:9").unwrap();
    let got = receive(&tap, |frame| frame.get(12..14) == Some(&[8, 0]));
    // No offload was asked for, so the header's flags and GSO type say that nothing is left to do.
    assert_eq!(got[..2], [0, 0]);
    let frame = &got[VNET_HDR_LEN..];
    assert_eq!(frame[..6], OUR_MAC);
    assert_eq!(&frame[42..], b"hello, port");
    // The kernel computed the checksum, so over pseudo-header and datagram it comes to zero.
    let pseudo = [&frame[26..34], &[0, 17], &frame[38..40]].concat();
    assert_eq!(fold(sum(&pseudo) + sum(&frame[34..])), 0xffff);
    // The queue is empty, and says so without blocking.
    assert_eq!(tap.recv(&mut [0; 2048]).unwrap(), None);
}

#[test]
fn checksum_offload_travels_in_the_header_both_ways() {
    let tap = tap_with_address();
    tap.set_offloads(Offloads { checksum: true, ..Offloads::default() }).unwrap();
    let to = host_mac(&tap);
    let socket = UdpSocket::bind("10.77.0.1:4002").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();

    // The host's frame needs a checksum over what begins at byte 34, to be put 6 bytes further.
    socket.send_to(b"unfinished", "10.77.0.2:9").unwrap();
    let got = receive(&tap, |frame| frame.get(12..14) == Some(&[8, 0]));
    assert_eq!(got[0], 1, "VIRTIO_NET_HDR_F_NEEDS_CSUM");
    assert_eq!(got[6..10], [34, 0, 6, 0], "csum_start, csum_offset");

    // The host takes a frame with such a header.
    let mut header = HEADER;
    header[0] = 1;
    header[6..10].copy_from_slice(&[34, 0, 6, 0]);
    let frame = udp(to, 4002, b"partial", true);
    assert_eq!(send(&tap, header, &frame, &[12]), Sent::Done);
    let mut got = [0; 100];
    let len = socket.recv(&mut got).unwrap();
    assert_eq!(&got[..len], b"partial");
}

#[test]
fn a_bad_header_or_frame_is_refused_and_the_port_goes_on() {
    let tap = tap_with_address();
    let mut beyond = HEADER;
    beyond[0] = 1;
    beyond[6..10].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
    assert_eq!(send(&tap, beyond, &arp_request(), &[]), Sent::Refused, "checksum out of frame");
    let mut unknown = HEADER;
    unknown[1] = 0x7f;
    assert_eq!(send(&tap, unknown, &arp_request(), &[]), Sent::Refused, "unknown GSO type");
    assert_eq!(send(&tap, HEADER, &[], &[]), Sent::Refused, "no frame");
    assert_eq!(send(&tap, HEADER, &[0; 13], &[]), Sent::Refused, "runt");
    assert_eq!(tap.send(&[Slice::from_mut(&mut [0; 5])]).unwrap(), Sent::Refused, "no header");
    assert_eq!(tap.send(&[]).unwrap(), Sent::Refused, "nothing");
    let mut byte = [0; 1];
    let part = Slice::from_mut(&mut byte);
    assert_eq!(tap.send(&vec![part; 1025]).unwrap(), Sent::Refused, "too many parts");
    host_mac(&tap);
}

#[test]
fn memory_that_is_gone_is_refused() {
    let tap = tap_with_address();
    // SAFETY: the length is a page's, the address the kernel's choice; nobody else knows of it.
    let page = unsafe {
        rustix::mm::mmap_anonymous(
            std::ptr::null_mut(),
            4096,
            rustix::mm::ProtFlags::empty(),
            rustix::mm::MapFlags::PRIVATE,
        )
    }
    .unwrap();
    // SAFETY: not readable, which is what is tested: nothing but the kernel looks at it.
    let hole = unsafe { Slice::from_raw(page.cast(), 100) };
    let mut header = HEADER;
    assert_eq!(tap.send(&[Slice::from_mut(&mut header), hole]).unwrap(), Sent::Refused);
}

#[test]
fn an_interface_that_is_down_takes_nothing() {
    own_namespace();
    let tap = Tap::open("up0").unwrap();
    assert!(!tap.is_up().unwrap());
    assert_eq!(send(&tap, HEADER, &arp_request(), &[]), Sent::Down);
    assert_eq!(tap.recv(&mut [0; 2048]).unwrap(), None);
    tap.set_up(true).unwrap();
    assert!(tap.is_up().unwrap());
    assert_eq!(send(&tap, HEADER, &arp_request(), &[]), Sent::Done);
    tap.set_up(false).unwrap();
    assert!(!tap.is_up().unwrap());
}

#[test]
fn an_interface_that_was_deleted_is_an_error() {
    let tap = tap_with_address();
    ip("link delete up0");
    let mut bytes = [0; 60];
    assert!(tap.send(&[Slice::from_mut(&mut bytes)]).is_err());
    assert!(tap.recv(&mut [0; 2048]).is_err());
    assert!(matches!(tap.set_up(true), Err(Error::Setup { .. })));
}

#[test]
fn mtu() {
    own_namespace();
    let tap = Tap::open("up0").unwrap();
    assert_eq!(tap.mtu().unwrap(), 1500);
    tap.set_mtu(9000).unwrap();
    assert_eq!(tap.mtu().unwrap(), 9000);
    for refused in [67, 70_000, u32::MAX] {
        assert!(matches!(tap.set_mtu(refused), Err(Error::Setup { .. })), "{refused}");
    }
}

#[test]
fn settings_find_an_interface_that_was_renamed_and_from_another_thread() {
    own_namespace();
    let tap = Tap::open("up0").unwrap();
    ip("link set up0 name out7");
    assert_eq!(tap.name().unwrap(), "out7");
    tap.set_mtu(1400).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            own_namespace();
            assert_eq!(tap.mtu().unwrap(), 1400);
        });
    });
}

#[test]
fn attaches_to_an_interface_made_before_and_leaves_it_there() {
    own_namespace();
    ip("tuntap add dev kept mode tap");
    for _ in 0..2 {
        let tap = Tap::open("kept").unwrap();
        tap.set_up(true).unwrap();
    }
    ip("link show dev kept");
    // An interface that did not exist before is removed with its holder.
    let brief = Tap::open("brief").unwrap();
    let listed = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap().contains("brief");
    assert!(listed());
    drop(brief);
    assert!(!listed());
}

#[test]
fn one_holder_at_a_time() {
    own_namespace();
    let first = Tap::open("up0").unwrap();
    let error = Tap::open("up0").unwrap_err();
    assert!(matches!(&error, Error::Busy(name) if name == "up0"), "{error}");
    drop(first);
    Tap::open("up0").unwrap();
}

#[test]
fn names_that_lead_nowhere() {
    own_namespace();
    for name in ["", "sixteen-letters!", "a/b", "tap%d"] {
        assert!(matches!(Tap::open(name), Err(Error::InvalidName(_))), "{name}");
    }
    // The loopback interface, a TUN and a TAP of several queues are not such a TAP.
    ip("tuntap add dev layer3 mode tun");
    ip("tuntap add dev queues mode tap multi_queue");
    for name in ["lo", "layer3", "queues"] {
        let error = Tap::open(name).unwrap_err();
        assert!(matches!(error, Error::NotATap(_)), "{name}: {error}");
    }
}

#[test]
fn without_the_capability_the_error_says_what_to_do() {
    own_namespace();
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::NET_ADMIN);
    // The capabilities are those of this thread alone.
    set_capabilities(None, sets).unwrap();
    let error = Tap::open("up0").unwrap_err();
    assert!(matches!(error, Error::Permission(_)));
    let text = error.to_string();
    assert!(text.contains("CAP_NET_ADMIN") && text.contains("ip tuntap add dev up0"), "{text}");
}
