use manifold_offload::{
    Error, Layers, NetHeader, Network, Offloads, Plan, Transport, parse, verify,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::packets::{Packet, packet};

fn expected(packet: &Packet) -> Layers {
    let mut layers = Layers {
        network: if packet.is_ipv4() { Network::Ipv4 } else { Network::Ipv6 },
        transport: if packet.is_tcp() { Transport::Tcp } else { Transport::Udp },
        tags: packet.tags.len() as u8,
        protocol: if packet.is_tcp() { 6 } else { 17 },
        network_at: packet.network_at() as u16,
        transport_at: packet.transport_at() as u16,
        ..Layers::default()
    };
    if !packet.is_ipv4() {
        layers.extensions = packet.transport_at() > packet.network_at() + 40;
        let frame = packet.build();
        let find = |address: [u8; 16]| {
            let from = packet.network_at() + 40;
            let windows = frame[from..packet.transport_at()].windows(16);
            windows.enumerate().find(|(_, w)| *w == address).map(|(at, _)| (from + at) as u16)
        };
        layers.home_at = packet.home.and_then(find);
        layers.route_at = packet.route.and_then(find);
    }
    layers
}

proptest! {
    #[test]
    fn headers_are_found_where_etherparse_put_them(packet in packet(100)) {
        let frame = packet.build();
        let layers = parse(&frame);
        prop_assert_eq!(layers, expected(&packet));
        prop_assert_eq!(layers.payload_at(&frame), Some(packet.payload_at()));
    }

    #[test]
    fn cut_off_headers_give_what_is_known_and_say_so(
        packet in packet(20),
        at in any::<prop::sample::Index>(),
    ) {
        let frame = packet.build();
        let whole = parse(&frame);
        let cut = &frame[..at.index(frame.len())];
        let layers = parse(cut);
        if cut.len() >= packet.transport_at() + 4 {
            prop_assert_eq!(layers, whole);
        } else {
            prop_assert!(layers.truncated);
            prop_assert_eq!(layers.transport, Transport::Other);
            let fixed = if packet.is_ipv4() { 20 } else { 40 };
            let known = cut.len() >= packet.network_at() + fixed;
            prop_assert_eq!(layers.network, if known { whole.network } else { Network::Other });
            prop_assert!(layers.home_at.is_none() || layers.home_at == whole.home_at);
            prop_assert!(layers.route_at.is_none() || layers.route_at == whole.route_at);
        }
        if let Some(at) = layers.payload_at(cut) {
            prop_assert!(at <= cut.len());
            prop_assert_eq!(at, packet.payload_at());
        }
    }

    #[test]
    fn any_bytes_are_taken(mut bytes in vec(any::<u8>(), 0..200), kind in 0..4usize) {
        let kinds = [[8, 0], [0x86, 0xdd], [0x81, 0]];
        if let (Some(field), Some(kind)) = (bytes.get_mut(12..14), kinds.get(kind)) {
            field.copy_from_slice(kind);
        }
        let layers = parse(&bytes);
        verify(&bytes, &layers);
        for at in [layers.home_at, layers.route_at].into_iter().flatten() {
            prop_assert!(usize::from(at) + 16 <= bytes.len());
        }
        if layers.transport != Transport::Other {
            prop_assert!(usize::from(layers.transport_at) + 4 <= bytes.len());
        }
    }

    #[test]
    fn a_header_is_its_bytes(bytes in any::<[u8; 10]>()) {
        prop_assert_eq!(NetHeader::from_bytes(&bytes).to_bytes(), bytes);
    }
}

const ADDRESSES: [u8; 32] = [7; 32];

/// Returns an IPv6 frame with these bytes behind the header.
fn ipv6(next: u8, rest: &[u8]) -> Vec<u8> {
    let head = [0x86, 0xdd, 0x60, 0, 0, 0, 0, rest.len() as u8, next, 64];
    [&[2; 12][..], &head, &ADDRESSES, rest].concat()
}

fn ipv4(fragment: u16, protocol: u8) -> Vec<u8> {
    let [high, low] = fragment.to_be_bytes();
    let head = [8, 0, 0x45, 0, 0, 40, 0, 1, high, low, 64, protocol, 0, 0];
    [&[2; 12][..], &head, &[7; 8], &[9; 20]].concat()
}

#[test]
fn fragments_have_no_transport_but_an_atomic_one_has() {
    for (fragment, whole) in
        [(0, true), (0x4000, true), (0x2000, false), (1, false), (0x20ff, false)]
    {
        let layers = parse(&ipv4(fragment, 17));
        assert_eq!((layers.fragment, layers.transport != Transport::Other), (!whole, whole));
        assert_eq!(layers.protocol, 17);
    }
    for (fragment, whole) in [(0u16, true), (6, true), (1, false), (8, false), (0xfff9, false)] {
        let [high, low] = fragment.to_be_bytes();
        // Payload follows a fragment header, even if it looks like another extension header.
        for (next, kind) in [(6, Transport::Tcp), (60, Transport::Other)] {
            let layers =
                parse(&ipv6(44, &[&[next, 9, high, low, 0, 0, 0, 1][..], &[59; 20]].concat()));
            assert!(layers.extensions);
            assert_eq!(layers.fragment, !whole);
            if whole {
                assert_eq!(layers.transport, kind);
            } else {
                assert_eq!((layers.transport, layers.protocol), (Transport::Other, next));
                assert_eq!(layers.transport_at, 62);
            }
        }
    }
}

#[test]
fn what_is_not_ip_is_other() {
    let mut frames = vec![ipv4(0, 6), ipv4(0, 6), ipv6(6, &[0; 20]), ipv4(0, 6)];
    frames[0][14] = 0x65; // version 6 in a frame of IPv4
    frames[1][14] = 0x44; // a header of 16 bytes
    frames[2][14] = 0x45; // version 4 in a frame of IPv6
    frames[3][12..14].copy_from_slice(&[8, 6]); // ARP
    for frame in frames {
        let layers = parse(&frame);
        assert_eq!(layers, Layers { network_at: 14, ..Layers::default() });
        assert_eq!(layers.payload_at(&frame), None);
    }
    // The parser does not look behind a third tag.
    let tagged = [&[2; 12][..], &[0x81, 0, 0, 1].repeat(3), &[8, 0], &[0x45; 40]].concat();
    let layers = parse(&tagged);
    assert_eq!((layers.tags, layers.network, layers.network_at), (2, Network::Other, 22));
}

#[test]
fn the_walk_over_extension_headers_ends() {
    // There are nine extension headers, where eight are looked behind; all point to the next.
    let chain = |count: usize| {
        let mut rest = [60, 0, 1, 4, 0, 0, 0, 0].repeat(count);
        rest[(count - 1) * 8] = 6;
        ipv6(60, &[rest, vec![0; 20]].concat())
    };
    assert_eq!(parse(&chain(8)).transport, Transport::Tcp);
    let layers = parse(&chain(9));
    assert_eq!(
        (layers.transport, layers.protocol, layers.truncated),
        (Transport::Other, 60, false)
    );
    // Padding without end hides a home address from us, and nothing else.
    let padding = [&[6, 7][..], &[0; 24], &[0xc9, 16], &[1; 16], &[0; 18]].concat();
    let layers = parse(&ipv6(60, &[&padding[..], &[0; 24]].concat()));
    assert_eq!((layers.home_at, layers.transport), (None, Transport::Tcp));
}

#[test]
fn other_routing_headers_with_segments_left_hide_the_destination() {
    for (kind, left, rerouted, routed) in
        [(2, 1, false, true), (2, 0, false, false), (4, 1, true, false), (2, 2, true, false)]
    {
        let routing = [&[6, 2, kind, left, 0, 0, 0, 0][..], &[3; 16], &[0; 20]].concat();
        let frame = ipv6(43, &routing);
        let layers = parse(&frame);
        assert_eq!((layers.rerouted, layers.route_at.is_some()), (rerouted, routed));
        assert_eq!(layers.transport, Transport::Tcp);
        let unknown = verify(&frame, &layers) == manifold_offload::Verdict::Unknown;
        assert_eq!(unknown, rerouted);
    }
}

const TSO4: NetHeader = NetHeader {
    flags: 1,
    gso_type: 1,
    hdr_len: 54,
    gso_size: 1000,
    csum_start: 34,
    csum_offset: 16,
};

#[test]
fn the_fields_of_a_header() {
    // The fields are flags, gso_type, then hdr_len, gso_size, csum_start, csum_offset,
    // little-endian.
    let bytes = [1, 1, 54, 0, 0xe8, 0x03, 34, 0, 16, 0];
    assert_eq!(TSO4.to_bytes(), bytes);
    assert_eq!(NetHeader::data_valid().to_bytes(), [2, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_complete_frame_needs_nothing() {
    // Flags that are not known are ignored, as is what belongs to a flag that is not set.
    for flags in [0, 2, 0xfe] {
        let header = NetHeader { flags, gso_type: 0, ..TSO4 };
        let request = header.check(&[], 0, Offloads::NONE).unwrap();
        let plan = request.plan(Offloads::NONE, 0);
        assert_eq!(plan, Plan::PassThrough(NetHeader::default()));
    }
}

#[test]
fn requests_that_are_refused() {
    let frame = [&ipv4(0, 6)[..], &[0; 3000]].concat();
    let check = |header: NetHeader| header.check(&frame[..64], frame.len(), Offloads::ALL);
    check(TSO4).unwrap();
    let checksum = |header: NetHeader| Error::Checksum {
        start: header.csum_start,
        offset: header.csum_offset,
        len: frame.len(),
    };
    for gso_type in [2, 3, 6, 0x7f, 0x80, 0x85, 0x21] {
        assert_eq!(check(NetHeader { gso_type, ..TSO4 }), Err(Error::GsoType(gso_type)));
    }
    assert_eq!(check(NetHeader { flags: 0, ..TSO4 }), Err(Error::GsoWithoutChecksum(1)));
    assert_eq!(check(NetHeader { flags: 2, ..TSO4 }), Err(Error::GsoWithoutChecksum(1)));
    assert_eq!(check(NetHeader { gso_size: 0, ..TSO4 }), Err(Error::GsoSize(0)));
    for gso_type in [4, 0x84, 5] {
        assert_eq!(check(NetHeader { gso_type, ..TSO4 }), Err(Error::Mismatch(gso_type)));
    }
    for (csum_start, csum_offset) in [(38, 16), (34, 6), (33, 16)] {
        let header = NetHeader { csum_start, csum_offset, ..TSO4 };
        assert_eq!(check(header), Err(checksum(header)));
    }
    // The checksum may be anywhere behind the addresses without segmentation.
    let needs = NetHeader { gso_type: 0, ..TSO4 };
    for (csum_start, csum_offset, taken) in [
        (34, 0, true),
        (34, 3018, true),
        (34, 3019, false),
        (3053, 0, false),
        (33, 1, false),
        (0, 0, false),
        (14, 10, false),
        (u16::MAX, u16::MAX, false),
    ] {
        let header = NetHeader { csum_start, csum_offset, ..needs };
        let result = check(header);
        assert_eq!(result.is_ok(), taken, "{header:?}");
        assert!(taken || result == Err(checksum(header)));
    }
}

#[test]
fn no_checksum_is_written_into_what_was_judged() {
    let header = NetHeader { gso_type: 0, csum_start: 40, csum_offset: 6, ..TSO4 };
    let check =
        |frame: &[u8]| header.check(&frame[..frame.len().min(64)], frame.len(), Offloads::ALL);
    let (four, six) = (ipv4(0, 17), ipv6(17, &[0; 20]));
    check(&four).unwrap();
    // The place is within the IPv6 header.
    assert!(check(&six).is_err());
    let mut other = four.clone();
    other[12] = 0x88;
    check(&other).unwrap();
    // The frame is not valid IP, but the checksum could make it valid.
    let mut malformed = four.clone();
    malformed[14] = 0x44;
    assert!(check(&malformed).is_err());
    let mut malformed = six;
    malformed[14] = 0;
    assert!(check(&malformed).is_err());
    // There is too little of it to know.
    for len in [0, 13, 14, 33] {
        assert!(header.check(&four[..len], four.len(), Offloads::ALL).is_err());
    }
    header.check(&four[..34], four.len(), Offloads::ALL).unwrap();
}

#[test]
fn what_is_delivered_is_what_was_understood() {
    let frame = [&ipv4(0, 6)[..], &[0; 3000]].concat();
    let header = NetHeader { flags: 0xff, hdr_len: u16::MAX, ..TSO4 };
    let request = header.check(&frame, frame.len(), Offloads::ALL).unwrap();
    let delivered = NetHeader { hdr_len: frame.len() as u16, ..TSO4 };
    assert_eq!(request.plan(Offloads::ALL, 65_535), Plan::PassThrough(delivered));
    // Without segmentation, its fields are ignored too.
    let header = NetHeader { gso_type: 0, ..TSO4 };
    let request = header.check(&frame, frame.len(), Offloads::ALL).unwrap();
    let delivered = NetHeader { hdr_len: 0, gso_size: 0, ..header };
    assert_eq!(request.plan(Offloads::ALL, 65_535), Plan::PassThrough(delivered));
}

#[test]
fn the_length_of_the_headers_is_within_the_largest_frame() {
    let frame = [&ipv4(0, 6)[..], &[0; 65_495]].concat();
    let request = TSO4.check(&frame[..64], frame.len(), Offloads::ALL).unwrap();
    assert_eq!(request.plan(Offloads::ALL, usize::MAX), Plan::PassThrough(TSO4));
}

#[test]
fn who_knows_of_checksums_is_told_of_a_verified_one() {
    let request = NetHeader::default().check(&[], 60, Offloads::NONE).unwrap().verified();
    assert_eq!(request.plan(Offloads::CSUM, 1514), Plan::PassThrough(NetHeader::data_valid()));
    assert_eq!(request.plan(Offloads::NONE, 1514), Plan::PassThrough(NetHeader::default()));
    // An unfinished frame is not verified.
    let frame = [&ipv4(0, 6)[..], &[0; 3000]].concat();
    let request = TSO4.check(&frame, frame.len(), Offloads::ALL).unwrap();
    assert_eq!(request.verified(), request);
}

#[test]
fn a_plan_for_each_receiver() {
    use manifold_offload::Checksums::{Complete, Partial};
    let four = [&ipv4(0, 6)[..], &[0; 3000]].concat();
    let four_udp = [&ipv4(0, 17)[..], &[0; 3000]].concat();
    let six = ipv6(6, &[0; 120]);
    let six_udp = ipv6(17, &[0; 120]);
    let udp = |start| NetHeader { gso_type: 5, csum_start: start, csum_offset: 6, ..TSO4 };
    let tso6 = NetHeader { gso_type: 4, csum_start: 54, ..TSO4 };
    let ecn = NetHeader { gso_type: 0x81, ..TSO4 };
    let ecn6 = NetHeader { gso_type: 0x84, ..tso6 };
    use Offloads as O;
    for (frame, header, needed) in [
        (&four, TSO4, O::TSO4),
        (&four, ecn, O::TSO4 | O::ECN),
        (&six, tso6, O::TSO6),
        (&six, ecn6, O::TSO6 | O::ECN),
        (&four_udp, udp(34), O::USO4),
        (&six_udp, udp(54), O::USO6),
    ] {
        let needed = needed | O::CSUM;
        let request = header.check(&frame[..64], frame.len(), needed).unwrap();
        assert_eq!(request.needs(), needed);
        for one in [O::CSUM, O::TSO4, O::TSO6, O::ECN, O::USO4, O::USO6] {
            let others = [O::CSUM, O::TSO4, O::TSO6, O::ECN, O::USO4, O::USO6];
            let all_but = others.into_iter().filter(|o| *o != one).fold(O::NONE, |a, b| a | b);
            let plan = request.plan(all_but, 65_535);
            let error = header.check(&frame[..64], frame.len(), all_but);
            if needed.contains(one) {
                assert_eq!(plan, Plan::Segment(if one == O::CSUM { Complete } else { Partial }));
                assert_eq!(error, Err(Error::NotNegotiated { needs: needed, allowed: all_but }));
            } else {
                assert_eq!(plan, Plan::PassThrough(request.header()));
                assert!(error.is_ok());
            }
        }
        // The frame is too long for the receiver's buffers.
        assert_eq!(request.plan(O::ALL, frame.len()), Plan::PassThrough(request.header()));
        assert_eq!(request.plan(O::ALL, frame.len() - 1), Plan::Segment(Partial));
        assert_eq!(request.plan(O::NONE, 1514), Plan::Segment(Complete));
    }
}

#[test]
fn offloads_have_names() {
    assert_eq!(format!("{:?}", Offloads::CSUM | Offloads::USO6), "CSUM|USO6");
    assert_eq!(format!("{:?}", Offloads::NONE), "NONE");
    assert_eq!(Offloads::TSO4.only_if(false), Offloads::NONE);
}
