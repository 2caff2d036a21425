//! The fuzz target's body does with any bytes what the data path does, and asserts what must hold.

use manifold_offload::spec::{hash_type, virtio};
use manifold_offload::{
    Checksums, Hasher, NetHeader, Offloads, Plan, Request, Sum, Transport, checksum, parse, rss,
    verify,
};
use manifold_testing::Segments;

/// Largest number of segments of one frame that are looked at: a fuzzer likes them short.
const MAX_SEGMENTS: usize = 64;

/// Runs one input. The first byte says how much of the frame is parsed at first, ten are a
/// virtio_net_hdr, the rest is the frame.
///
/// # Panics
///
/// Where something does not hold that always must.
pub(crate) fn frame(data: &[u8]) {
    let Some((seen, rest)) = data.split_first() else { return };
    let Some((header, frame)) = rest.split_first_chunk() else { return };
    let head = frame.get(..usize::from(*seen)).unwrap_or(frame);
    let layers = parse(head);
    for at in [layers.home_at, layers.route_at].into_iter().flatten() {
        assert!(usize::from(at) + 16 <= head.len(), "{layers:?}");
    }
    if layers.transport != Transport::Other {
        assert!(usize::from(layers.transport_at) + 4 <= head.len(), "{layers:?}");
        assert!(!layers.fragment);
        // More bytes of the frame change nothing of what is known.
        assert_eq!(parse(frame), layers);
    }
    verify(frame, &layers);
    rss::flow(&layers, head);
    Hasher::new(&[0x5a; rss::KEY]).hash(&layers, head, hash_type::ALL);
    sums(frame, usize::from(*seen));

    let Ok(request) = NetHeader::from_bytes(header).check(head, frame.len(), Offloads::ALL) else {
        return;
    };
    match request.plan(Offloads::NONE, 1514) {
        Plan::PassThrough(header) => assert_eq!(header, NetHeader::default()),
        Plan::Checksum => finish(frame, &request),
        Plan::Segment(checksums) => {
            assert_eq!(checksums, Checksums::Complete);
            segment(frame, &request);
        }
    }
}

/// Checks sums of the bytes in one piece, in two, and on the way into a copy.
fn sums(bytes: &[u8], at: usize) {
    let (first, second) = bytes.split_at_checked(at).unwrap_or((bytes, &[]));
    let (mut whole, mut parts, mut copied) = (Sum::new(), Sum::new(), Sum::new());
    whole.add(bytes);
    parts.add(first);
    parts.add(second);
    let mut copy = vec![0; bytes.len()];
    copied.add_copy(bytes, &mut copy);
    let naive = bytes.chunks(2).fold(0u64, |sum, pair| match *pair {
        [high, low] => sum + u64::from(u16::from_be_bytes([high, low])),
        [high] => sum + u64::from(u16::from_be_bytes([high, 0])),
        _ => sum,
    });
    assert_eq!(u64::from(whole.fold()) % 0xffff, naive % 0xffff);
    assert_eq!((whole.fold() == 0, whole.fold()), (naive == 0, parts.fold()));
    assert_eq!((copied.fold(), copy.as_slice()), (whole.fold(), bytes));
}

/// Checks that what was judged stays as it is, and that two bytes at most are changed.
fn finish(frame: &[u8], request: &Request) {
    let NetHeader { csum_start, csum_offset, .. } = request.header();
    let mut finished = frame.to_vec();
    assert!(checksum::finish(&mut finished, csum_start, csum_offset));
    let at = usize::from(csum_start) + usize::from(csum_offset);
    assert_eq!(finished.get(..at), frame.get(..at));
    assert_eq!(finished.get(at + 2..), frame.get(at + 2..));
    let (before, after) = (parse(frame), parse(&finished));
    assert!(
        before.network_end(frame).is_some_and(|end| at >= end),
        "{at} is in the network header"
    );
    assert_eq!((before.network, before.network_at), (after.network, after.network_at));
}

fn segment(frame: &[u8], request: &Request) {
    let Ok(segments) = Segments::new(frame, request, Checksums::Complete) else { return };
    let partial = Segments::new(frame, request, Checksums::Partial);
    assert!(partial.is_ok_and(|partial| partial.len() == segments.len()));
    let Ok(partial) = partial else { return };
    let layers = parse(frame);
    let size = usize::from(request.header().gso_size);
    let mut covered = layers.payload_at(frame).unwrap_or_default();
    let headers = covered;
    for i in 0..segments.len().min(MAX_SEGMENTS) {
        let (mut one, mut other) = (vec![0; segments.max_len()], vec![0; segments.max_len()]);
        let len = segments.write(i, &mut one).unwrap_or_default();
        assert_eq!(partial.write(i, &mut other), Some(len));
        one.truncate(len);
        other.truncate(len);
        assert!(len > headers && len <= headers + size || segments.len() == 1);
        // The payload is that of the frame; the headers that were judged are the same, and stay so.
        assert_eq!(one.get(headers..), frame.get(covered..covered + len - headers));
        covered += len - headers;
        assert_eq!(
            one.get(..usize::from(layers.network_at)),
            frame.get(..usize::from(layers.network_at))
        );
        assert_eq!(parse(&one), layers);
        let header = partial.net_header();
        assert_eq!(header.flags, virtio::NEEDS_CSUM);
        assert!(checksum::finish(&mut other, header.csum_start, header.csum_offset));
        assert_eq!(one, other, "finished at once, and later");
    }
    if segments.len() <= MAX_SEGMENTS {
        assert_eq!(covered, frame.len());
    }
    assert_eq!(segments.write(segments.len(), &mut vec![0; segments.max_len()]), None);
}
