//! These tests check receive-side scaling and hash report of a real adapter, as a driver sees them:
//! the hash in a received frame's header, and the queue it arrives on. The reference works out bit
//! by bit what they must be, with nothing of the adapter's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail so")]

mod support;

use manifold_guest::memory::Arena;
use manifold_guest::vfio::{ClientKind, DmaMode, Function};
use manifold_guest::virtio::{NetOptions, Rss, VirtioNet, feature};
use manifold_testing::toeplitz::{KEY, Vector, hash, input, packet, vectors};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{Bed, LONG};

/// Hash types (5.1.6.4.3.1) of addresses of IPv4 and IPv6, and with ports of TCP and UDP.
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

/// Sends a packet from one function to another and returns the queue it arrives on, its hash and
/// what that is of.
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
    // The table has no two equal neighbours, and is not simply the hash modulo the pairs.
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
        for Vector { to, from, addresses, ports: with_ports } in vectors() {
            let expected = if ports { with_ports } else { addresses };
            let report = if to.is_ipv6() { report + 3 } else { report };
            assert_eq!(
                crosses(&mut a, &mut b, &packet(from, to, protocol)),
                (queue(expected), expected, report),
                "{from} to {to}, protocol {protocol}, types {types:#x}"
            );
        }
    }
    // A frame of none of the types has no hash, and goes to the queue for such frames.
    b.set_rss(&rss(TCP, table.clone(), &KEY)).unwrap();
    let Vector { to, from, .. } = vectors()[0];
    assert_eq!(crosses(&mut a, &mut b, &packet(from, to, PROTOCOL_UDP)), (3, 0, 0));
    let other = [&[0x88, 0xb5][..], &[0; 46]].concat();
    assert_eq!(crosses(&mut a, &mut b, &other), (3, 0, 0), "not IP");
}

#[test]
fn many_flows_with_any_key() {
    let bed = Bed::new(2, 1500);
    let (mut a, mut b) = (open(&bed, 0, 1, 0), open(&bed, 1, PAIRS, 0));
    // The key has nothing that repeats at a multiple of a byte.
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
            let value = hash(&key, &input(from, to, true));
            let queue = table[value as usize & 127];
            let report = if to.is_ipv6() { report + 3 } else { report };
            let got = crosses(&mut a, &mut b, &packet(from, to, protocol));
            assert_eq!(got, (queue, value, report), "{from} to {to}, protocol {protocol}");
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
    for Vector { to, from, ports, .. } in vectors() {
        let report = if to.is_ipv6() { 5 } else { 2 };
        let got = crosses(&mut a, &mut b, &packet(from, to, PROTOCOL_TCP));
        assert_eq!(got, (0, ports, report), "{from} to {to}");
    }
    // There is no hash until it is configured, and again when it is taken back (5.1.6.5.6.4).
    b.set_hash(0, &[]).unwrap();
    let Vector { to, from, .. } = vectors()[0];
    assert_eq!(crosses(&mut a, &mut b, &packet(from, to, PROTOCOL_TCP)), (0, 0, 0));
}
