//! This program measures what each part costs: nanoseconds per call, gigabytes per second.
//!
//! `cargo run --release -p manifold-offload --example finish_ns`

use std::hint::black_box;
use std::time::{Duration, Instant};

use manifold_offload::{
    Checksums, Hasher, NetHeader, Offloads, Plan, Request, Sum, Transport, checksum, parse, rss,
    verify,
};
use manifold_testing::Segments;

/// Number of times a measurement is repeated; the best counts.
const ROUNDS: usize = 200;
/// Duration of one measurement: short, so that some pass undisturbed on a machine with other work.
const ROUND: Duration = Duration::from_micros(500);

fn main() {
    let udp = ipv4(17, 22);
    let tcp4 = ipv4(6, 65_160);
    let tcp6 = ipv6(65_160);
    let hasher = Hasher::new(&std::array::from_fn(|n| n as u8 | 0x41));

    println!("ns per call");
    println!("  parse, UDP over IPv4         {:6.2}", ns(|| transport_at(&udp)));
    println!("  parse, TCP over IPv6         {:6.2}", ns(|| transport_at(&tcp6[..64])));
    let plain = NetHeader::default();
    println!("  check and plan, complete     {:6.2}", ns(|| passes(plain, &udp)));
    let unfinished = NetHeader { flags: 1, csum_start: 34, csum_offset: 6, ..plain };
    println!("  check and plan, checksum     {:6.2}", ns(|| passes(unfinished, &udp)));
    let tso4 = tso(1, 34);
    println!("  check and plan, TSO          {:6.2}", ns(|| passes(tso4, &tcp4)));
    let request = check(tso4, &tcp4);
    println!("  plan                         {:6.2}", ns(|| plan(black_box(&request))));
    for (name, frame) in [("IPv4", &udp), ("IPv6", &tcp6)] {
        let layers = parse(frame);
        let hash = || hasher.hash(black_box(&layers), black_box(frame), 0x3f);
        println!("  Toeplitz hash, {name}, ports   {:6.2}", ns(hash));
        let flow = || rss::flow(black_box(&layers), black_box(frame));
        println!("  flow hash, {name}              {:6.2}", ns(flow));
    }

    println!("GB/s of frame, and ns per frame or segment");
    for len in [64, 1514, 65_226] {
        let bytes = vec![0x5a; len];
        let mut to = bytes.clone();
        row(&format!("sum {len}"), len, 1, || sum(black_box(&bytes)));
        row(&format!("sum and copy {len}"), len, 1, || {
            let mut sum = Sum::new();
            sum.add_copy(black_box(&bytes), &mut to);
            sum.fold()
        });
        row(&format!("copy alone {len}"), len, 1, || to.copy_from_slice(black_box(&bytes)));
    }
    let mut frame = udp.clone();
    row("finish UDP 64", udp.len(), 1, || checksum::finish(black_box(&mut frame), 34, 6));
    let layers = parse(&tcp4);
    row("verify TCP 65214", tcp4.len(), 1, || verify(black_box(&tcp4), &layers));
    for (name, frame, header) in [("TCP/IPv4", &tcp4, tso4), ("TCP/IPv6", &tcp6, tso(4, 54))] {
        for checksums in [Checksums::Complete, Checksums::Partial] {
            let request = check(header, frame);
            let segments = frame.len().div_ceil(1500);
            let mut out = vec![0; 2048];
            row(&format!("segments {name} {checksums:?}"), frame.len(), segments, || {
                segment(&request, frame, checksums, &mut out)
            });
        }
    }
}

/// Returns what the data path asks of [`parse`].
fn transport_at(frame: &[u8]) -> Option<u16> {
    let layers = parse(black_box(frame));
    (layers.transport != Transport::Other).then_some(layers.transport_at)
}

fn check(header: NetHeader, frame: &[u8]) -> Request {
    header.check(frame, frame.len(), Offloads::ALL).unwrap_or_default()
}

/// Returns whether the frame passes to a receiver that takes everything.
fn passes(header: NetHeader, frame: &[u8]) -> bool {
    let frame = black_box(frame);
    black_box(header).check(frame, frame.len(), Offloads::ALL).is_ok_and(|request| plan(&request))
}

fn plan(request: &Request) -> bool {
    matches!(request.plan(Offloads::ALL, 65_535), Plan::PassThrough(_))
}

fn sum(bytes: &[u8]) -> u16 {
    let mut sum = Sum::new();
    sum.add(bytes);
    sum.fold()
}

fn segment(request: &Request, frame: &[u8], checksums: Checksums, out: &mut [u8]) -> usize {
    let Ok(segments) = Segments::new(black_box(frame), request, checksums) else { return 0 };
    (0..segments.len()).filter_map(|i| black_box(segments.write(i, out))).sum()
}

/// Returns a TCP frame's header that asks for segments of 1448 bytes.
fn tso(gso_type: u8, csum_start: u16) -> NetHeader {
    NetHeader { flags: 1, gso_type, hdr_len: 66, gso_size: 1448, csum_start, csum_offset: 16 }
}

fn ipv4(protocol: u8, payload: usize) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0]);
    frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    transport(&mut frame, protocol, payload);
    let len = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&len.to_be_bytes());
    frame
}

fn ipv6(payload: usize) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 6, 64]);
    frame.extend([0x20; 32]);
    transport(&mut frame, 6, payload);
    frame
}

fn transport(frame: &mut Vec<u8>, protocol: u8, payload: usize) {
    match protocol {
        6 => frame.extend([0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 1, 1, 0, 0, 0, 0]),
        _ => frame.extend([0, 80, 0, 81, 0, 30, 0, 0]),
    }
    frame.resize(frame.len() + payload, 0x5a);
}

fn row<T>(name: &str, bytes: usize, parts: usize, call: impl FnMut() -> T) {
    let time = ns(call);
    println!("  {name:32} {:7.2} GB/s {:10.1} ns", bytes as f64 / time, time / parts as f64);
}

/// Returns nanoseconds per call, the best of some rounds.
fn ns<T>(mut call: impl FnMut() -> T) -> f64 {
    let mut timed = |times: u32| {
        let start = Instant::now();
        for _ in 0..times {
            black_box(call());
        }
        start.elapsed()
    };
    let mut times = 1;
    while timed(times) < ROUND {
        times *= 2;
    }
    let best = (0..ROUNDS).map(|_| timed(times)).min().unwrap_or_default();
    best.as_secs_f64() * 1e9 / f64::from(times)
}
