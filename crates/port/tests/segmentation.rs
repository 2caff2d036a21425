//! These tests compare the offloads of `manifold-offload` with the kernel's own: a frame that is
//! handed unfinished to one TAP, and forwarded by a bridge to another that takes only finished
//! ones, comes out byte for byte as we would have finished it.
//!
//! Needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN) and `ip` of iproute2.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests")]
#![allow(unsafe_code)] // entering a network namespace

use std::process::Command;
use std::time::{Duration, Instant};

use manifold_dma::Slice;
use manifold_offload::{
    Checksums, NetHeader, Offloads as Negotiated, Plan, Sum, Verdict, checksum, parse, verify,
};
use manifold_port::{Offloads, Sent, Tap, VNET_HDR_LEN};
use manifold_testing::Segments;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::UnshareFlags;

const TO: [u8; 6] = [2, 0, 0, 0, 0, 1];
const FROM: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Largest payload, which is what the MTU leaves of a packet with the longest headers: IPv6, three
/// extension headers, TCP with all options.
const MAX_PAYLOAD: u16 = 1500 - 40 - 3 * 8 - 60;

/// Two TAPs and a bridge between them, in a network namespace of the test's own.
struct Path {
    sender: Tap,
    receiver: Tap,
}

impl Path {
    fn new(receiver: Offloads) -> Path {
        // SAFETY: a network namespace is the thread's own; no memory or file table is unshared.
        if let Err(error) = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) } {
            panic!(
                "cannot make a network namespace: {error}. This test runs as root (CAP_SYS_ADMIN)"
            );
        }
        let path = Path { sender: Tap::open("in0").unwrap(), receiver: Tap::open("out0").unwrap() };
        path.receiver.set_offloads(receiver).unwrap();
        ip("link add name br0 type bridge stp_state 0 mcast_snooping 0");
        for name in ["in0", "out0", "br0"] {
            // Only frames that we send shall arrive.
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").unwrap();
        }
        for name in ["in0", "out0"] {
            ip(&format!("link set dev {name} master br0"));
        }
        for name in ["br0", "in0", "out0"] {
            ip(&format!("link set dev {name} up"));
        }
        path
    }

    fn send(&self, header: NetHeader, frame: &[u8]) {
        let mut bytes = [&header.to_bytes()[..], &[0; 2], frame].concat();
        assert_eq!(self.sender.send(&[Slice::from_mut(&mut bytes)]).unwrap(), Sent::Done);
    }

    /// Returns the next frame and its header.
    fn receive(&self) -> (NetHeader, Vec<u8>) {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut buffer = vec![0; 65_600];
        while Instant::now() < deadline {
            let timeout = Duration::from_secs(5).try_into().unwrap();
            poll(&mut [PollFd::new(&self.receiver, PollFlags::IN)], Some(&timeout)).unwrap();
            if let Some(len) = self.receiver.recv(&mut buffer).unwrap() {
                let header = NetHeader::from_bytes(buffer[..10].try_into().unwrap());
                return (header, buffer[VNET_HDR_LEN..len].to_vec());
            }
        }
        panic!("no frame within 5 s");
    }

    fn silent(&self) -> bool {
        self.receiver.recv(&mut [0; 2048]).unwrap().is_none()
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run ip (iproute2): {error}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {text}");
}

/// A frame that is not finished, with the offloads that are left.
#[derive(Clone, Debug)]
struct Frame {
    vlan: Option<u16>,
    /// True for IPv6 with `extra` as extension headers, false for IPv4 with `extra` as options.
    six: bool,
    /// Extension headers or options, a multiple of eight or four bytes.
    extra: Vec<u8>,
    identification: u16,
    /// TCP flags; `None` for UDP.
    tcp: Option<u8>,
    sequence: u32,
    options: usize,
    payload: Vec<u8>,
    gso_size: Option<u16>,
    ecn: bool,
}

impl Frame {
    fn build(&self) -> (NetHeader, Vec<u8>) {
        let transport = match self.tcp {
            Some(flags) => {
                let words = 5 + self.options as u8;
                let mut tcp =
                    [&[0x9c, 0x40, 0x01, 0xbb][..], &self.sequence.to_be_bytes()].concat();
                tcp.extend([0, 0, 3, 9, words << 4, flags, 0x20, 0, 0, 0, 0, 5]);
                tcp.extend(vec![1; self.options * 4]);
                tcp
            }
            None => {
                let [high, low] = (8 + self.payload.len() as u16).to_be_bytes();
                vec![0x9c, 0x40, 0x01, 0xbb, high, low, 0, 0]
            }
        };
        let protocol = if self.tcp.is_some() { 6 } else { 17 };
        let carried = transport.len() + self.payload.len();
        let network =
            if self.six { self.ipv6(protocol, carried) } else { self.ipv4(protocol, carried) };
        let mut frame = [TO, FROM].concat();
        if let Some(vid) = self.vlan {
            frame.extend([0x81, 0]);
            frame.extend(vid.to_be_bytes());
        }
        frame.extend(if self.six { [0x86, 0xdd] } else { [8, 0] });
        let fixed = if self.six { 8..40 } else { 12..20 };
        let addresses = frame.len() + fixed.start..frame.len() + fixed.end;
        frame.extend(network);
        let csum_start = frame.len();
        let csum_offset = if self.tcp.is_some() { 16 } else { 6 };
        let mut pseudo = Sum::new();
        pseudo.add(&frame[addresses]);
        pseudo.add_u16(protocol.into());
        pseudo.add_u16(carried as u16);
        frame.extend(transport);
        frame[csum_start + csum_offset..][..2].copy_from_slice(&pseudo.fold().to_be_bytes());
        let hdr_len = frame.len() as u16;
        frame.extend(&self.payload);
        let header = NetHeader {
            flags: 1,
            csum_start: csum_start as u16,
            csum_offset: csum_offset as u16,
            ..NetHeader::default()
        };
        let gso_type = match (self.tcp.is_some(), self.six) {
            (true, false) => 1 | if self.ecn { 0x80 } else { 0 },
            (true, true) => 4 | if self.ecn { 0x80 } else { 0 },
            (false, _) => 5,
        };
        match self.gso_size {
            Some(gso_size) => (NetHeader { gso_type, gso_size, hdr_len, ..header }, frame),
            None => (header, frame),
        }
    }

    fn ipv4(&self, protocol: u8, carried: usize) -> Vec<u8> {
        let len = 20 + self.extra.len();
        let mut header = vec![0x40 | (len / 4) as u8, 0];
        header.extend(((len + carried) as u16).to_be_bytes());
        header.extend(self.identification.to_be_bytes());
        header.extend([0x40, 0, 64, protocol, 0, 0, 10, 1, 0, 1, 10, 1, 0, 2]);
        header.extend(&self.extra);
        let mut sum = Sum::new();
        sum.add(&header);
        header[10..12].copy_from_slice(&sum.checksum().to_be_bytes());
        header
    }

    fn ipv6(&self, protocol: u8, carried: usize) -> Vec<u8> {
        let mut header = vec![0x60, 0, 0, 0];
        header.extend(((self.extra.len() + carried) as u16).to_be_bytes());
        header.extend([if self.extra.is_empty() { protocol } else { 60 }, 64]);
        header.extend([0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        header.extend([0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        let end = header.len();
        header.extend(&self.extra);
        // There are destination options, each pointing to the next.
        for at in (end..header.len()).step_by(8) {
            let last = at + 8 == header.len();
            header[at..at + 8].copy_from_slice(&[
                if last { protocol } else { 60 },
                0,
                1,
                4,
                0,
                0,
                0,
                0,
            ]);
        }
        header
    }
}

fn frame(gso: bool) -> impl Strategy<Value = Frame> {
    let flags = proptest::option::weighted(0.6, any::<u8>());
    let sizes = if gso { 100..=MAX_PAYLOAD } else { 0..=MAX_PAYLOAD };
    (
        (proptest::option::of(1..4095u16), any::<bool>(), 0..=3usize, any::<u16>()),
        (flags, any::<u32>(), 0..=10usize, any::<bool>()),
        (sizes, 1..=40usize, vec(any::<u8>(), 1..=1400)),
    )
        .prop_map(
            move |((vlan, six, extra, identification), (tcp, sequence, options, ecn), sizes)| {
                let (gso_size, segments, pattern) = sizes;
                // The kernel does not segment a frame that fits one segment.
                let len =
                    if gso { usize::from(gso_size) * segments + 1 } else { usize::from(gso_size) };
                let payload = pattern.into_iter().cycle().take(len).collect();
                // The frame has eight bytes of options that do nothing, or eight bytes of extension
                // header.
                let extra = vec![1; extra * 8];
                let gso_size = gso.then_some(gso_size);
                Frame {
                    vlan,
                    six,
                    extra,
                    identification,
                    tcp,
                    sequence,
                    options,
                    payload,
                    gso_size,
                    ecn,
                }
            },
        )
}

/// Sends many a frame and compares what the kernel makes of it with what we do.
fn compare(gso: bool, receiver: Offloads, negotiated: Negotiated) {
    let path = Path::new(receiver);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 150,
        // It takes long to notice that a frame does not come.
        max_shrink_iters: 8,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let result = runner.run(&frame(gso), |frame| {
        let (header, bytes) = frame.build();
        path.send(header, &bytes);
        let head = &bytes[..bytes.len().min(256)];
        let request = header.check(head, bytes.len(), Negotiated::ALL).unwrap();
        match request.plan(negotiated, 1514) {
            Plan::PassThrough(header) => {
                prop_assert_eq!(path.receive(), (header, bytes));
            }
            Plan::Checksum => {
                let mut finished = bytes;
                prop_assert!(checksum::finish(
                    &mut finished,
                    header.csum_start,
                    header.csum_offset
                ));
                prop_assert_eq!(path.receive(), (NetHeader::default(), finished));
            }
            Plan::Segment(checksums) => {
                let segments = Segments::new(&bytes, &request, checksums).unwrap();
                for i in 0..segments.len() {
                    let mut ours = vec![0; segments.max_len()];
                    let len = segments.write(i, &mut ours).unwrap();
                    ours.truncate(len);
                    let (header, theirs) = path.receive();
                    prop_assert_eq!(&ours, &theirs, "segment {}", i);
                    prop_assert_eq!(header, segments.net_header());
                    let complete = checksums == Checksums::Complete;
                    prop_assert!(!complete || verify(&theirs, &parse(&theirs)) == Verdict::Valid);
                }
            }
        }
        prop_assert!(path.silent(), "more than there should be");
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn segments_are_the_kernels() {
    compare(true, Offloads::default(), Negotiated::NONE);
}

#[test]
fn segments_with_partial_checksums_are_the_kernels() {
    let receiver = Offloads { checksum: true, ..Offloads::default() };
    compare(true, receiver, Negotiated::CSUM);
}

#[test]
fn checksums_are_the_kernels() {
    compare(false, Offloads::default(), Negotiated::NONE);
}

#[test]
fn a_receiver_that_takes_everything_gets_frames_as_they_are() {
    let receiver = Offloads { checksum: true, tso4: true, tso6: true, ecn: true, uso: true };
    let path = Path::new(receiver);
    for (six, tcp) in [(false, true), (true, true), (false, false), (true, false)] {
        let frame = Frame {
            vlan: None,
            six,
            extra: Vec::new(),
            identification: 7,
            tcp: tcp.then_some(0x98),
            sequence: 9,
            options: 3,
            payload: vec![0x5a; 10_000],
            gso_size: Some(1400),
            ecn: tcp,
        };
        let (header, bytes) = frame.build();
        path.send(header, &bytes);
        let request = header.check(&bytes, bytes.len(), Negotiated::ALL).unwrap();
        assert_eq!(request.plan(Negotiated::ALL, 65_535), Plan::PassThrough(header));
        assert_eq!(path.receive(), (header, bytes));
    }
}
