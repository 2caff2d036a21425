//! Receive-side scaling and hash report of a real adapter, as a driver sees them: the hash in a received frame's header, and
//! the queue it arrives on. What they must be is worked out here, bit by bit, with nothing of the adapter's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail so")]

mod support;

use manifold_guest::memory::Arena;
use manifold_guest::vfio::{ClientKind, DmaMode, Function};
use manifold_guest::virtio::{NetOptions, Rss, VirtioNet, feature};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{Bed, LONG};

/// The key of Microsoft's "Verifying the RSS Hash Calculation".
const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];
/// Its vectors: destination, source, the hash of the addresses, and that of addresses and ports.
const VECTORS: [(&str, &str, u32, u32); 8] = [
    ("161.142.100.80:1766", "66.9.149.187:2794", 0x323e_8fc2, 0x51cc_c178),
    ("65.69.140.83:4739", "199.92.111.2:14230", 0xd718_262a, 0xc626_b0ea),
    ("12.22.207.184:38024", "24.19.198.95:12898", 0xd2d0_a5de, 0x5c2b_394a),
    ("209.142.163.6:2217", "38.27.205.30:48228", 0x8298_9176, 0xafc7_327f),
    ("202.188.127.2:1303", "153.39.163.191:44251", 0x5d18_09c5, 0x10e8_28a2),
    ("[3ffe:2501:200:3::1]:1766", "[3ffe:2501:200:1fff::7]:2794", 0x2cc1_8cd5, 0x4020_7d3d),
    ("[ff02::1]:4739", "[3ffe:501:8::260:97ff:fe40:efab]:14230", 0x0f0c_461c, 0xdde5_1bbf),
    (
        "[fe80::200:f8ff:fe21:67cf]:38024",
        "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
        0x4b61_e985,
        0x02d1_feef,
    ),
];
/// Hash types (5.1.6.4.3.1): addresses of IPv4 and IPv6, and with ports of TCP and UDP.
const ADDRESSES: u32 = 1 | 1 << 3;
const TCP: u32 = 1 << 1 | 1 << 4;
const UDP: u32 = 1 << 2 | 1 << 5;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PAIRS: u16 = 4;

fn open(bed: &Bed, vf: u16, pairs: u16, refuse: u64) -> VirtioNet {
    let options = NetOptions { queue_pairs: pairs, refuse, ..NetOptions::default() };
    let arena = Arc::new(Arena::new(options.memory(1500), 0x1_0000_0000).unwrap());
    let function =
        Function::open(&bed.socket(vf), ClientKind::Own, DmaMode::Shared, arena).unwrap();
    VirtioNet::start(function, &options).unwrap()
}

/// Each bit of the input that is set contributes the key's 32 bits from there on.
fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], n: usize| bytes[n / 8] >> (7 - n % 8) & 1;
    (0..input.len() * 8)
        .filter(|n| bit(input, *n) == 1)
        .map(|n| (0..32).fold(0, |window, i| window << 1 | u32::from(bit(key, n + i))))
        .fold(0, |hash, window| hash ^ window)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(it) => it.octets().to_vec(),
        IpAddr::V6(it) => it.octets().to_vec(),
    }
}

/// A packet with 16 bytes after its ports.
fn packet(from: SocketAddr, to: SocketAddr, protocol: u8) -> Vec<u8> {
    let mut packet = match to {
        SocketAddr::V4(_) => vec![8, 0, 0x45, 0, 0, 40, 0, 1, 0, 0, 64, protocol, 0, 0],
        SocketAddr::V6(_) => vec![0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, protocol, 64],
    };
    for end in [from, to] {
        packet.extend(octets(end.ip()));
    }
    for end in [from, to] {
        packet.extend(end.port().to_be_bytes());
    }
    packet.extend([0x50; 16]);
    packet
}

/// What a packet's hash is made of: addresses, and ports if they count.
fn input(from: SocketAddr, to: SocketAddr, ports: bool) -> Vec<u8> {
    let mut input = [octets(from.ip()), octets(to.ip())].concat();
    if ports {
        input.extend(from.port().to_be_bytes());
        input.extend(to.port().to_be_bytes());
    }
    input
}

/// Sends a packet from one function to another and returns the queue it arrives on, its hash and what that is of.
fn crosses(a: &mut VirtioNet, b: &mut VirtioNet, packet: &[u8]) -> (u16, u32, u16) {
    let frame = [&b.info().mac[..], &a.info().mac, packet].concat();
    let (device, _, tx) = a.parts();
    assert!(tx[0].send(&frame).unwrap());
    tx[0].flush(device).unwrap();
    let mut room = vec![0; 65536];
    let begin = Instant::now();
    while begin.elapsed() < LONG {
        let (device, rx, _) = b.parts();
        for (index, queue) in (0..).zip(rx) {
            if let Some(len) = queue.receive(&mut room).unwrap() {
                assert_eq!(room[..len], frame);
                queue.flush(device).unwrap();
                let (value, report) = queue.hash().expect("VIRTIO_NET_F_HASH_REPORT");
                return (index, value, report);
            }
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    panic!("the frame does not arrive");
}

fn rss(hash_types: u32, table: Vec<u16>, key: &[u8]) -> Rss {
    Rss { hash_types, unclassified: 3, table, max_tx: PAIRS, key: key.to_vec() }
}

#[test]
fn microsofts_vectors_are_reported_and_spread() {
    let bed = Bed::new(2, 1500);
    let (mut a, mut b) = (open(&bed, 0, 1, 0), open(&bed, 1, PAIRS, 0));
    let wants = feature::RSS | feature::HASH_REPORT;
    assert_eq!(b.info().features & wants, wants);
    // No two neighbours the same, and not simply the hash modulo the pairs.
    let table = vec![2, 0, 1, 3, 1, 2, 3, 0];
    let queue = |hash: u32| table[hash as usize & 7];
    // `hash_report` is the number of the type's bit, from 1; of IPv6 three further.
    for (types, protocol, report, ports) in [
        (ADDRESSES, PROTOCOL_TCP, 1, false),
        (ADDRESSES | TCP, PROTOCOL_TCP, 2, true),
        (ADDRESSES | TCP, PROTOCOL_UDP, 1, false),
        (ADDRESSES | TCP | UDP, PROTOCOL_UDP, 3, true),
        (UDP, PROTOCOL_UDP, 3, true),
    ] {
        b.set_rss(&rss(types, table.clone(), &KEY)).unwrap();
        for (to, from, of_addresses, of_ports) in VECTORS {
            let (to, from): (SocketAddr, SocketAddr) = (to.parse().unwrap(), from.parse().unwrap());
            let expected = if ports { of_ports } else { of_addresses };
            assert_eq!(toeplitz(&KEY, &input(from, to, ports)), expected, "the test itself");
            let report = if to.is_ipv6() { report + 3 } else { report };
            assert_eq!(
                crosses(&mut a, &mut b, &packet(from, to, protocol)),
                (queue(expected), expected, report),
                "{from} to {to}, protocol {protocol}, types {types:#x}"
            );
        }
    }
    // Not one of the types: no hash, and the queue for such.
    b.set_rss(&rss(TCP, table.clone(), &KEY)).unwrap();
    let (to, from) = (VECTORS[0].0.parse().unwrap(), VECTORS[0].1.parse().unwrap());
    assert_eq!(crosses(&mut a, &mut b, &packet(from, to, PROTOCOL_UDP)), (3, 0, 0));
    let other = [&[0x88, 0xb5][..], &[0; 46]].concat();
    assert_eq!(crosses(&mut a, &mut b, &other), (3, 0, 0), "not IP");
}

#[test]
fn many_flows_with_any_key() {
    let bed = Bed::new(2, 1500);
    let (mut a, mut b) = (open(&bed, 0, 1, 0), open(&bed, 1, PAIRS, 0));
    // Nothing in it repeats at a multiple of a byte.
    let mut state = 0x1234_5678_9abc_def1u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut seen = [0; PAIRS as usize];
    for _ in 0..4 {
        let key: Vec<u8> = (0..40).map(|_| random() as u8).collect();
        let table: Vec<u16> = (0..128).map(|_| (random() % u64::from(PAIRS)) as u16).collect();
        b.set_rss(&rss(ADDRESSES | TCP | UDP, table.clone(), &key)).unwrap();
        for n in 0..40 {
            let mut end = || match n % 2 {
                0 => SocketAddr::from(((random() as u32).to_be_bytes(), random() as u16)),
                _ => {
                    let address = u128::from(random()) << 64 | u128::from(random());
                    SocketAddr::from((address.to_be_bytes(), random() as u16))
                }
            };
            let (from, to) = (end(), end());
            let (protocol, report) = if n % 4 < 2 { (PROTOCOL_TCP, 2) } else { (PROTOCOL_UDP, 3) };
            let hash = toeplitz(&key, &input(from, to, true));
            let queue = table[hash as usize & 127];
            let report = if to.is_ipv6() { report + 3 } else { report };
            let got = crosses(&mut a, &mut b, &packet(from, to, protocol));
            assert_eq!(got, (queue, hash, report), "{from} to {to}, protocol {protocol}");
            seen[usize::from(queue)] += 1;
        }
    }
    assert!(seen.iter().all(|frames| *frames > 10), "{seen:?}");
}

#[test]
fn hashes_are_reported_without_spreading() {
    let bed = Bed::new(2, 1500);
    let (mut a, mut b) = (open(&bed, 0, 1, 0), open(&bed, 1, 1, feature::RSS));
    b.set_hash(ADDRESSES | TCP, &KEY).unwrap();
    for (to, from, _, of_ports) in VECTORS {
        let (to, from): (SocketAddr, SocketAddr) = (to.parse().unwrap(), from.parse().unwrap());
        let report = if to.is_ipv6() { 5 } else { 2 };
        let got = crosses(&mut a, &mut b, &packet(from, to, PROTOCOL_TCP));
        assert_eq!(got, (0, of_ports, report), "{from} to {to}");
    }
    // Until it is configured, and again when it is taken back, there is no hash (5.1.6.5.6.4).
    b.set_hash(0, &[]).unwrap();
    let (to, from) = (VECTORS[0].0.parse().unwrap(), VECTORS[0].1.parse().unwrap());
    assert_eq!(crosses(&mut a, &mut b, &packet(from, to, PROTOCOL_TCP)), (0, 0, 0));
}
