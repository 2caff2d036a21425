//! These tests hand over unfinished frames between drivers that take different offloads.

use manifold_dma::Slice;
use manifold_offload::{Checksums, Offloads, Verdict, parse, verify};
use manifold_testing::Segments;
use manifold_virtio::net::{HashConfig, Indirection};
use manifold_virtio::spec::net::{feature, hash_type};

use super::driver::Driver;
use super::*;
use crate::frame::Frame;
use crate::frame::finish::Scratch;
use crate::frame::pieces::Pieces;

const SENDER: u64 =
    feature::CSUM | feature::HOST_TSO4 | feature::HOST_TSO6 | feature::HOST_ECN | feature::HOST_USO;
/// Number of payload bytes per segment.
const MSS: usize = 1000;
const HEADERS: usize = 14 + 20 + 20;

/// Returns a TCP segment over IPv4 whose checksum is left to the device: the pseudo-header's sum is
/// in its place.
fn tcp(payload: usize, port: u16) -> Vec<u8> {
    let mut frame = [&mac(Vf(1))[..], &mac(Vf(0)), &[8, 0]].concat();
    let len = (40 + payload) as u16;
    let mut ip = [0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    ip[2..4].copy_from_slice(&len.to_be_bytes());
    let sum = fold(&ip);
    ip[10..12].copy_from_slice(&(!sum).to_be_bytes());
    let mut tcp = [0; 20];
    tcp[..2].copy_from_slice(&port.to_be_bytes());
    tcp[2..4].copy_from_slice(&80u16.to_be_bytes());
    tcp[4..8].copy_from_slice(&0x1122_3344u32.to_be_bytes());
    tcp[12..14].copy_from_slice(&[0x50, 0x18]);
    let pseudo = [&ip[12..20], &[0, 6], &(len - 20).to_be_bytes()].concat();
    tcp[16..18].copy_from_slice(&fold(&pseudo).to_be_bytes());
    frame.extend(ip);
    frame.extend(tcp);
    frame.extend((0..payload).map(|i| (i / 7) as u8));
    frame
}

fn fold(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|p| u32::from(u16::from_be_bytes([p[0], p[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Returns the virtio_net_hdr of such a segment.
fn header(gso: bool) -> [u8; 12] {
    let mut header = [1, u8::from(gso), 54, 0, 0, 0, 34, 0, 16, 0, 0, 0];
    if gso {
        header[4..6].copy_from_slice(&(MSS as u16).to_le_bytes());
    }
    header
}

fn switch(receiver: u64) -> (Datapath, Driver, Driver) {
    let datapath = Datapath::start(&table(&[Vf(0), Vf(1)]), &[None]).unwrap();
    let start = |id, features| {
        let mut driver = Driver::new(&datapath, id);
        driver.features = features;
        for direction in [Direction::Receive, Direction::Transmit] {
            driver.start_queue(&datapath, direction, true, QueueState::default());
        }
        driver
    };
    let (sender, mut receiver) = (start(Vf(0), SENDER), start(Vf(1), receiver));
    for _ in 0..100 {
        receiver.post(2048);
    }
    (datapath, sender, receiver)
}

#[test]
fn a_large_frame_passes_unsegmented_to_whom_takes_it() {
    let (_datapath, mut sender, mut receiver) = switch(feature::GUEST_CSUM | feature::GUEST_TSO4);
    for payload in [10_000, 15_000] {
        let sent = tcp(payload, 1000);
        sender.send_with_header(header(true), &sent);
        let (got, whole) = receiver.receive_with_header();
        assert_eq!(whole, sent);
        assert_eq!(got[..10], header(true)[..10]);
    }
    let (tx, rx) = (sender.counters.total().tx, receiver.counters.total().rx);
    assert_eq!((tx.frames, tx.gso_frames, tx.partial), (2, 2, 2));
    assert_eq!((rx.frames, rx.gso_frames, rx.gso_bytes), (2, 2, tx.gso_bytes));
}

#[test]
fn it_is_segmented_for_whom_does_not() {
    // The receiver takes nothing, checksums only, or the wrong kind of segmentation.
    for features in [0, feature::GUEST_CSUM, feature::GUEST_CSUM | feature::GUEST_TSO6] {
        let (_datapath, mut sender, mut receiver) = switch(features);
        let payload = 14_300;
        let sent = tcp(payload, 1000);
        sender.send_with_header(header(true), &sent);
        let mut data = Vec::new();
        for segment in 0..15 {
            let (got, mut frame) = receiver.receive_with_header();
            assert_eq!(got[1], 0, "not GSO");
            if got[0] & 1 != 0 {
                assert_ne!(features, 0, "a checksum left to who does not take it");
                let start = u16::from_le_bytes([got[6], got[7]]);
                let offset = u16::from_le_bytes([got[8], got[9]]);
                assert!(manifold_offload::checksum::finish(&mut frame, start, offset));
            }
            assert_eq!(verify(&frame, &parse(&frame)), Verdict::Valid, "segment {segment}");
            let sequence = u32::from_be_bytes(frame[38..42].try_into().unwrap());
            assert_eq!(sequence, 0x1122_3344 + segment * MSS as u32);
            data.extend_from_slice(&frame[HEADERS..]);
        }
        assert_eq!(data, sent[HEADERS..]);
        sender.wait_sent();
        assert_eq!(receiver.counters.total().rx.frames, 15);
    }
}

/// Returns what becomes of a frame in software: virtio_net_hdr and all.
fn finished(
    scratch: &mut Scratch,
    frame: &Frame,
    pieces: &Pieces<'_>,
    takes: Offloads,
) -> Vec<Vec<u8>> {
    let mut made = Vec::new();
    let all = scratch.finish(frame, pieces, takes, |frames, pieces| {
        for frame in frames {
            let mut bytes = frame.plain_head().to_vec();
            for piece in frame.rest(pieces) {
                let begin = bytes.len();
                bytes.resize(begin + piece.len(), 0);
                piece.read(&mut bytes[begin..]);
            }
            assert_eq!(bytes.len(), 12 + frame.len());
            made.push(bytes);
        }
        true
    });
    all.unwrap();
    made
}

proptest! {
    /// Segments of a frame in pieces are those of the frame in one piece, however it is cut.
    #[test]
    fn the_cut_of_a_large_frame_does_not_matter(
        payload in 0..20_000usize,
        mss in 64..4000u16,
        cuts in proptest::collection::vec(0..20_000usize, 0..1020),
        headers_in_pieces: bool,
    ) {
        let sent = tcp(payload, 1000);
        let mut asked = header(true);
        asked[4..6].copy_from_slice(&mss.to_le_bytes());
        let mut bytes = [&asked[..], &sent].concat();
        let from = if headers_in_pieces { 0 } else { 12 + HEADERS };
        let mut cuts: Vec<_> =
            cuts.iter().map(|cut| cut % (bytes.len() + 1)).filter(|cut| *cut >= from).collect();
        cuts.sort_unstable();
        let (mut pieces, mut rest, mut at) = (Pieces::new(), &mut bytes[..], 0);
        for cut in cuts {
            let (piece, tail) = rest.split_at_mut(cut - at);
            pieces.push(Slice::from_mut(piece));
            (rest, at) = (tail, cut);
        }
        pieces.push(Slice::from_mut(rest));
        let (total, mut frame) = ((12 + sent.len()) as u32, Frame::EMPTY);
        frame.read(&pieces, (0, pieces.len()), 12, Offloads::ALL, total).unwrap();
        let request = *frame.request().unwrap();
        let mut scratch = Scratch::default();
        for (takes, checksums) in
            [(Offloads::NONE, Checksums::Complete), (Offloads::CSUM, Checksums::Partial)]
        {
            let expected = Segments::new(&sent, &request, checksums).unwrap();
            let made = finished(&mut scratch, &frame, &pieces, takes);
            prop_assert_eq!(made.len(), expected.len());
            for (i, made) in made.iter().enumerate() {
                let mut segment = vec![0; expected.max_len()];
                let len = expected.write(i, &mut segment).unwrap();
                prop_assert_eq!(&made[..10], &expected.net_header().to_bytes());
                prop_assert_eq!(&made[10..12], &[1, 0]);
                prop_assert_eq!(&made[12..], &segment[..len], "segment {}", i);
            }
        }
    }
}

#[test]
fn headers_may_be_longer_than_is_usual() {
    // The packet is IPv6 with 300 bytes of destination options, and TCP behind them.
    let mut options = [0; 304];
    options[..4].copy_from_slice(&[6, 37, 1, 254]);
    (options[258], options[259]) = (1, 44);
    let payload = vec![7; 3000];
    let mut sent = [&mac(Vf(1))[..], &mac(Vf(0)), &[0x86, 0xdd, 0x60, 0, 0, 0]].concat();
    sent.extend(((options.len() + 20 + payload.len()) as u16).to_be_bytes());
    sent.extend([60, 64].iter().chain(&[0xfe; 32]).chain(&options));
    let start = sent.len() as u16;
    sent.extend([0, 1, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, 0x18, 0, 0, 0, 0, 0, 0]);
    sent.extend(&payload);
    let mut asked = [1, 4, 0, 0, 0xe8, 3, 0, 0, 16, 0, 0, 0];
    asked[6..8].copy_from_slice(&start.to_le_bytes());
    let mut bytes = [&asked[..], &sent].concat();
    let (total, mut pieces, mut frame) = (bytes.len() as u32, Pieces::new(), Frame::EMPTY);
    pieces.push(Slice::from_mut(&mut bytes));
    frame.read(&pieces, (0, 1), 12, Offloads::ALL, total).unwrap();
    for takes in [Offloads::NONE, Offloads::CSUM] {
        let made = finished(&mut Scratch::default(), &frame, &pieces, takes);
        assert_eq!(made.len(), 3);
        for segment in made {
            assert_eq!(segment[12 + usize::from(start) + 20..], payload[..1000]);
        }
    }
}

#[test]
fn a_checksum_is_finished_for_whom_does_not_take_it_unfinished() {
    let (datapath, mut sender, mut receiver) = switch(feature::GUEST_CSUM);
    let sent = tcp(700, 1000);
    sender.send_with_header(header(false), &sent);
    let (got, frame) = receiver.receive_with_header();
    assert_eq!((got[0], &frame), (1, &sent));
    datapath.set_offloads(Vf(1), 0).unwrap();
    sender.send_with_header(header(false), &sent);
    let (got, frame) = receiver.receive_with_header();
    assert_eq!(got[..10], [0; 10]);
    assert_eq!(frame[..50], sent[..50]);
    assert_eq!(verify(&frame, &parse(&frame)), Verdict::Valid);
}

#[test]
fn only_the_host_says_that_a_checksum_is_verified() {
    let takes = [Offloads::CSUM, Offloads::ALL];
    let does_not = [Offloads::NONE, Offloads::TSO4];
    let mut sent = [&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &tcp(100, 1000)].concat();
    let bytes = sent.clone();
    let mut pieces = Pieces::new();
    pieces.push(Slice::from_mut(&mut sent));
    let mut from_host = Frame::from_uplink(&pieces, 0, Offloads::ALL).unwrap();
    // Each receiver of a broadcast gets the flags that fit its offloads, and the frame untouched.
    for (accepts, flags) in
        takes.map(|it| (it, 2)).into_iter().chain(does_not.map(|it| (it, 0))).chain([(takes[0], 2)])
    {
        assert!(from_host.prepare(accepts));
        let head = from_host.plain_head();
        assert_eq!(head[..12], [flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], "{accepts:?}");
        assert_eq!(head[12..], bytes[12..head.len()]);
    }
    // The header says so if something is left to be done.
    let mut sent = [&header(false)[..], &tcp(100, 1000)].concat();
    sent[0] |= 2;
    let mut pieces = Pieces::new();
    pieces.push(Slice::from_mut(&mut sent));
    let mut from_host = Frame::from_uplink(&pieces, 0, Offloads::ALL).unwrap();
    assert!(from_host.prepare(Offloads::CSUM) && !from_host.prepare(Offloads::NONE));
    assert_eq!(from_host.plain_head()[..10], [1, 0, 0, 0, 0, 0, 34, 0, 16, 0]);

    let (_datapath, mut sender, mut receiver) = switch(feature::GUEST_CSUM);
    for (flags, delivered) in [(2, 0), (0x82, 0), (3, 1), (1, 1)] {
        let mut header = header(false);
        header[0] = flags;
        sender.send_with_header(header, &tcp(100, 1000));
        let (got, _) = receiver.receive_with_header();
        assert_eq!(got[0], delivered, "a driver's flags {flags:#x}");
    }
}

#[test]
fn lies_are_dropped_and_counted() {
    let (_datapath, mut sender, mut receiver) = switch(0);
    let good = tcp(5000, 1000);
    let lies: [(&str, [u8; 12], Vec<u8>); 5] = [
        ("GSO without a checksum", [0, 1, 54, 0, 200, 0, 34, 0, 16, 0, 0, 0], good.clone()),
        ("a segment size of zero", [1, 1, 54, 0, 0, 0, 34, 0, 16, 0, 0, 0], good.clone()),
        ("a checksum beyond the end", [1, 0, 0, 0, 0, 0, 0xff, 0xff, 16, 0, 0, 0], good.clone()),
        ("IPv6 in name only", [1, 4, 54, 0, 200, 0, 34, 0, 16, 0, 0, 0], good.clone()),
        ("segments of a byte", [1, 1, 54, 0, 1, 0, 34, 0, 16, 0, 0, 0], good),
    ];
    for (_, header, frame) in &lies {
        sender.send_with_header(*header, frame);
    }
    sender.wait_sent();
    assert!(receiver.take_received().is_none());
    assert_eq!(sender.drops("bad_net_header"), lies.len() as u64);
}

#[test]
fn a_segment_longer_than_the_switch_forwards_is_dropped() {
    let (datapath, mut sender, mut receiver) = switch(feature::GUEST_CSUM | feature::GUEST_TSO4);
    let policies = [Vf(0), Vf(1)].map(|id| (id, Policy::new(MacAddr(mac(id)))));
    let mut builder = TableBuilder::new();
    builder.max_frame_len(1514);
    for (id, policy) in &policies {
        builder.function(*id, policy);
    }
    datapath.set_table(&Arc::new(builder.build())).unwrap();
    let mut long = header(true);
    long[4..6].copy_from_slice(&10_000u16.to_le_bytes());
    sender.send_with_header(long, &tcp(12_000, 1000));
    sender.wait_sent();
    assert_eq!(sender.drops("oversize"), 1);
    assert!(receiver.take_received().is_none());
    sender.send_with_header(header(true), &tcp(12_000, 1000));
    assert_eq!(receiver.receive_whole().len(), HEADERS + 12_000);
}

#[test]
fn flows_are_spread_and_their_hash_is_told() {
    let (datapath, mut sender, mut receiver) = switch(feature::HASH_REPORT);
    let key = std::array::from_fn(|i| (i * 37) as u8);
    let hash = Some(HashConfig { types: hash_type::IPV4 | hash_type::TCPV4, key });
    let table = Some(Indirection { entries: vec![0, 7], unclassified: 0 });
    datapath.set_steering(Vf(1), &Steering { pairs: 8, hash, table }).unwrap();
    let hasher = manifold_offload::Hasher::new(&key);
    let mut arrived = 0;
    for port in 0..40 {
        let sent = tcp(100, port);
        sender.send_with_header(header(false), &sent);
        sender.wait_sent();
        let types = hash_type::IPV4 | hash_type::TCPV4;
        let expected = hasher.hash(&parse(&sent), &sent, types).unwrap();
        // Nobody serves queue pair 7.
        if expected.value & 1 == 0 {
            let raw = receiver.receive();
            assert_eq!(raw[12..16], expected.value.to_le_bytes());
            assert_eq!(raw[16..18], 2u16.to_le_bytes(), "TCP over IPv4");
            assert_eq!(raw.len(), 20 + sent.len());
            arrived += 1;
        }
    }
    assert!((1..40).contains(&arrived));
    assert_eq!(receiver.drops("no_driver"), 40 - arrived);
}
