use etherparse::IpHeaders;
use manifold_offload::{
    Checksums, Error, NetHeader, Offloads, Request, Segmenter, Sum, Verdict, checksum, parse,
    verify,
};
use manifold_testing::Segments;
use proptest::prelude::*;

use crate::packets::{Packet, Transport, packet};

/// Returns the segments, each built from scratch.
fn reference(packet: &Packet, size: usize) -> Vec<Packet> {
    let mut parts: Vec<&[u8]> = packet.payload.chunks(size).collect();
    if parts.is_empty() {
        parts.push(&[]);
    }
    let last = parts.len() - 1;
    let mut segments = Vec::new();
    for (i, part) in parts.into_iter().enumerate() {
        let mut segment = Packet { payload: part.to_vec(), ..packet.clone() };
        if let IpHeaders::Ipv4(header, _) = &mut segment.ip {
            header.identification = header.identification.wrapping_add(i as u16);
        }
        if let Transport::Tcp(header) = &mut segment.transport {
            header.sequence_number = header.sequence_number.wrapping_add((i * size) as u32);
            header.fin &= i == last;
            header.psh &= i == last;
            header.cwr &= i == 0;
        }
        segments.push(segment);
    }
    segments
}

fn check(header: NetHeader, frame: &[u8]) -> Request {
    header.check(&frame[..frame.len().min(256)], frame.len(), Offloads::ALL).unwrap()
}

fn write_all(segments: &Segments<'_>) -> Vec<Vec<u8>> {
    let one = |i| {
        let mut out = vec![0xee; segments.max_len() + 3];
        let len = segments.write(i, &mut out).unwrap();
        assert_eq!(out[len..], vec![0xee; out.len() - len], "beyond the end");
        out.truncate(len);
        out
    };
    (0..segments.len()).map(one).collect()
}

proptest! {
    #[test]
    fn segments_are_those_built_from_scratch(
        packet in packet(5000),
        size in 1..3000u16,
        ecn in any::<bool>(),
    ) {
        // Short segments of long frames are many.
        let size = size.max(packet.payload.len() as u16 / 100);
        let (header, frame) = packet.unsegmented(size, ecn);
        let request = check(header, &frame);
        let segments = Segments::new(&frame, &request, Checksums::Complete).unwrap();
        let expected = reference(&packet, usize::from(size));
        prop_assert_eq!(segments.len(), expected.len());
        prop_assert_eq!(segments.net_header(), NetHeader::default());
        let payload_at = packet.payload_at();
        let mut payload = Vec::<u8>::new();
        for (got, expected) in write_all(&segments).into_iter().zip(&expected) {
            prop_assert_eq!(&got, &expected.build());
            prop_assert_eq!(verify(&got, &parse(&got)), Verdict::Valid);
            payload.extend(&got[payload_at..]);
        }
        prop_assert_eq!(payload, packet.payload);
    }

    #[test]
    fn partial_checksums_are_finished_by_the_receiver(
        packet in packet(3000),
        size in 100..2000u16,
    ) {
        let (header, frame) = packet.unsegmented(size, false);
        let request = check(header, &frame);
        let segments = Segments::new(&frame, &request, Checksums::Partial).unwrap();
        let expected = reference(&packet, usize::from(size));
        for (got, expected) in write_all(&segments).into_iter().zip(expected) {
            let (header, mut unfinished) = expected.unfinished();
            prop_assert_eq!(segments.net_header(), header);
            prop_assert_eq!(&got, &unfinished);
            checksum::finish(&mut unfinished, header.csum_start, header.csum_offset);
            prop_assert_eq!(unfinished, expected.build());
        }
    }

    #[test]
    fn payload_that_is_elsewhere(
        packet in packet(3000),
        size in 100..2000u16,
        cut in any::<prop::sample::Index>(),
    ) {
        let (header, frame) = packet.unsegmented(size, false);
        let request = check(header, &frame);
        let whole = Segments::new(&frame, &request, Checksums::Complete).unwrap();
        // The headers may have some payload behind them.
        let at = packet.payload_at();
        let head = &frame[..at + cut.index(frame.len() - at + 1)];
        let cut = Segmenter::new(head, &request, Checksums::Complete).unwrap();
        prop_assert_eq!(cut.headers_len(), at);
        for (i, expected) in write_all(&whole).into_iter().enumerate() {
            let payload = &frame[cut.payload(i)];
            let mut sum = Sum::new();
            payload.chunks(7).for_each(|piece| sum.add(piece));
            let mut out = vec![0; at];
            prop_assert_eq!(cut.write_headers(i, &sum, &mut out), Some(at));
            out.extend(payload);
            prop_assert_eq!(out.len(), cut.segment_len(i));
            prop_assert_eq!(out, expected);
        }
        prop_assert_eq!(cut.write_headers(cut.len(), &Sum::new(), &mut [0; 512]), None);
        prop_assert_eq!(cut.write_headers(0, &Sum::new(), &mut vec![0; at - 1]), None);
        prop_assert!(cut.payload(cut.len()).is_empty());
    }

    #[test]
    fn sixty_four_bytes_are_enough_to_check_a_request(packet in packet(300), size in 1..2000u16) {
        for (header, frame) in [packet.unsegmented(size, true), packet.unfinished()] {
            let whole = header.check(&frame, frame.len(), Offloads::ALL);
            prop_assert!(whole.is_ok());
            let head = &frame[..frame.len().min(64)];
            prop_assert_eq!(header.check(head, frame.len(), Offloads::ALL), whole);
        }
    }

    #[test]
    fn a_frame_with_changed_bytes_is_cut_up_or_refused(
        packet in packet(300),
        size in any::<u16>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        header_changes in proptest::collection::vec((0..10usize, any::<u8>()), 0..2),
    ) {
        let (header, mut frame) = packet.unsegmented(size, false);
        for (at, value) in changes {
            let end = frame.len().min(packet.payload_at());
            frame[at.index(end)] = value;
        }
        let mut header = header.to_bytes();
        for (at, value) in header_changes {
            header[at] = value;
        }
        let header = NetHeader::from_bytes(&header);
        let head = &frame[..frame.len().min(64)];
        if let Ok(request) = header.check(head, frame.len(), Offloads::ALL)
            && let Ok(segments) = Segments::new(&frame, &request, Checksums::Complete)
        {
            let all = write_all(&segments);
            let headers = segments.max_len() - segments.max_len().min(usize::from(header.gso_size));
            prop_assert!(all.iter().map(Vec::len).sum::<usize>() >= frame.len().min(headers));
        }
    }
}

/// Returns a frame of 64 KiB whose identification and sequence number wrap.
fn large() -> (Packet, NetHeader, Vec<u8>) {
    let mut header = etherparse::TcpHeader::new(1, 2, u32::MAX - 5000, 100);
    header.psh = true;
    header.fin = true;
    header.cwr = true;
    let mut ip = etherparse::Ipv4Header {
        source: [10, 0, 0, 1],
        destination: [10, 0, 0, 2],
        time_to_live: 64,
        ..etherparse::Ipv4Header::default()
    };
    ip.identification = u16::MAX - 3;
    let packet = Packet {
        tags: Vec::new(),
        ip: IpHeaders::Ipv4(ip, etherparse::Ipv4Extensions::default()),
        home: None,
        route: None,
        transport: Transport::Tcp(Box::new(header)),
        payload: (0..65_495u32).map(|n| (n * 7 / 5) as u8).collect(),
    };
    let (header, frame) = packet.unsegmented(1448, true);
    (packet, header, frame)
}

#[test]
fn the_largest_frame() {
    let (packet, header, frame) = large();
    assert_eq!(frame.len(), 14 + 65_535);
    let request = check(header, &frame);
    let segments = Segments::new(&frame, &request, Checksums::Complete).unwrap();
    assert_eq!(segments.len(), 46);
    let expected: Vec<_> = reference(&packet, 1448).iter().map(Packet::build).collect();
    assert_eq!(write_all(&segments), expected);
}

#[test]
fn a_frame_whose_lengths_were_not_filled_in() {
    // Linux sends what is too long for the field like this.
    let (packet, header, mut frame) = large();
    frame[16..18].fill(0);
    frame[24..26].fill(0);
    let segments = Segments::new(&frame, &check(header, &frame), Checksums::Complete).unwrap();
    assert_eq!(write_all(&segments)[45], reference(&packet, 1448)[45].build());
}

#[test]
fn headers_that_do_not_match_are_refused() {
    let (_, header, frame) = large();
    let request = check(header, &frame);
    let new = |frame: &[u8]| Segmenter::new(frame, &request, Checksums::Complete).map(|_| ());
    new(&frame[..54]).unwrap();
    for len in [0, 14, 33, 37, 53] {
        assert_eq!(new(&frame[..len]), Err(Error::Truncated(len)));
    }
    assert_eq!(
        Segments::new(&frame[..1000], &request, Checksums::Complete).map(|_| ()),
        Err(Error::Truncated(1000))
    );
    for (at, value, error) in [
        (12, 0x86, Error::Mismatch(0x81)), // not IP
        (14, 0x65, Error::Mismatch(0x81)), // version 6
        (20, 0x20, Error::Mismatch(0x81)), // a fragment
        (21, 0x01, Error::Mismatch(0x81)), // another
        (23, 17, Error::Mismatch(0x81)),   // UDP
        (14, 0x46, Error::Checksum { start: 34, offset: 16, len: frame.len() }), // TCP elsewhere
        (46, 0x40, Error::Truncated(1000)), // a TCP header of 16 bytes
    ] {
        let mut changed = frame[..1000].to_vec();
        changed[at] = value;
        assert_eq!(new(&changed), Err(error), "byte {at} = {value:#x}");
    }
    // A request for a checksum is not one for segments.
    let request = check(NetHeader { gso_type: 0, ..header }, &frame);
    let refused = Segmenter::new(&frame, &request, Checksums::Complete);
    assert_eq!(refused.map(|_| ()), Err(Error::Mismatch(0)));
}

#[test]
fn a_segment_is_no_longer_than_ip_allows() {
    let (_, header, frame) = large();
    let frame = [&frame[..], &[0; 10_000]].concat();
    let new = |gso_size| {
        let request = check(NetHeader { gso_size, ..header }, &frame);
        Segments::new(&frame, &request, Checksums::Complete).map(|segments| segments.len())
    };
    assert_eq!(new(65_495), Ok(2));
    assert_eq!(new(65_496), Err(Error::GsoSize(65_496)));
    assert_eq!(new(1), Ok(75_495));
}

#[test]
fn where_there_is_no_room_or_no_segment_nothing_is_written() {
    let (_, header, frame) = large();
    let segments = Segments::new(&frame, &check(header, &frame), Checksums::Complete).unwrap();
    let mut out = [0; 1501];
    assert_eq!(segments.write(0, &mut out), None);
    assert_eq!(segments.write(46, &mut out), None);
    assert_eq!(segments.write(usize::MAX, &mut out), None);
    assert_eq!(out, [0; 1501]);
    assert_eq!(segments.max_len(), 1502);
    // The last segment is shorter.
    assert_eq!(segments.write(45, &mut out), Some(54 + 65_495 - 45 * 1448));
}
