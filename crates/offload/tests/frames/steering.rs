use std::collections::BTreeMap;
use std::net::SocketAddr;

use manifold_offload::spec::hash_type::*;
use manifold_offload::{Hash, Hasher, parse, rss};
use manifold_testing::toeplitz::{self, KEY, Vector};
use proptest::prelude::*;

use crate::packets::{Packet, Transport, packet};

fn frame(from: impl Into<SocketAddr>, to: impl Into<SocketAddr>, protocol: u8) -> Vec<u8> {
    [vec![2; 12], toeplitz::packet(from.into(), to.into(), protocol)].concat()
}

fn hash(frame: &[u8], types: u32) -> Option<Hash> {
    Hasher::new(&KEY).hash(&parse(frame), frame, types)
}

#[test]
fn microsofts_vectors() {
    for Vector { to, from, addresses, ports } in toeplitz::vectors() {
        let (of_ip, of_tcp, of_udp, report) = match to {
            SocketAddr::V4(_) => (IPV4, TCPV4, UDPV4, 1),
            SocketAddr::V6(_) => (IPV6, TCPV6, UDPV6, 4),
        };
        let tcp = frame(from, to, 6);
        assert_eq!(hash(&tcp, of_ip), Some(Hash { value: addresses, report }));
        assert_eq!(hash(&tcp, of_ip | of_tcp), Some(Hash { value: ports, report: report + 1 }));
        let udp = frame(from, to, 17);
        assert_eq!(hash(&udp, of_ip | of_udp), Some(Hash { value: ports, report: report + 2 }));
    }
}

/// Returns what virtio 1.3 section 5.1.6.4.3 says in words: the report, and what is hashed.
fn expected(packet: &Packet, types: u32) -> Option<(u16, Vec<u8>)> {
    let frame = packet.build();
    let ports = frame[packet.transport_at()..][..4].to_vec();
    let at = packet.network_at() + if packet.is_ipv4() { 12 } else { 8 };
    let addresses = frame[at..][..if packet.is_ipv4() { 8 } else { 32 }].to_vec();
    let with_ports = [addresses.clone(), ports.clone()].concat();
    let tcp = packet.is_tcp();
    if packet.is_ipv4() {
        return if tcp && types & TCPV4 != 0 {
            Some((2, with_ports))
        } else if !tcp && types & UDPV4 != 0 {
            Some((3, with_ports))
        } else {
            (types & IPV4 != 0).then_some((1, addresses))
        };
    }
    if packet.transport_at() > packet.network_at() + 40 {
        let home = packet.home.map_or(addresses[..16].to_vec(), |home| home.to_vec());
        let route = packet.route.map_or(addresses[16..].to_vec(), |route| route.to_vec());
        if tcp && types & TCP_EX != 0 {
            return Some((8, [home, route, ports].concat()));
        } else if !tcp && types & UDP_EX != 0 {
            return Some((9, [home, route, ports].concat()));
        } else if types & IP_EX != 0 {
            return Some((7, [home, route].concat()));
        }
    }
    if tcp && types & TCPV6 != 0 {
        Some((5, with_ports))
    } else if !tcp && types & UDPV6 != 0 {
        Some((6, with_ports))
    } else {
        (types & IPV6 != 0).then_some((4, addresses))
    }
}

/// Returns the packet that answers this one.
fn answer(packet: &Packet) -> Packet {
    let mut answer = packet.clone();
    match &mut answer.ip {
        etherparse::IpHeaders::Ipv4(header, _) => {
            std::mem::swap(&mut header.source, &mut header.destination);
        }
        etherparse::IpHeaders::Ipv6(header, _) => {
            std::mem::swap(&mut header.source, &mut header.destination);
        }
    }
    match &mut answer.transport {
        Transport::Tcp(header) => {
            std::mem::swap(&mut header.source_port, &mut header.destination_port);
        }
        Transport::Udp { source, destination } => std::mem::swap(source, destination),
    }
    answer
}

proptest! {
    #[test]
    fn the_hash_is_of_what_virtio_says(
        packet in packet(10),
        types in 0..0x200u32,
        key in any::<[u8; 40]>(),
    ) {
        let frame = packet.build();
        let got = Hasher::new(&key).hash(&parse(&frame), &frame, types);
        let expected = expected(&packet, types)
            .map(|(report, input)| Hash { value: toeplitz::hash(&key, &input), report });
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn both_directions_are_one_flow(packet in packet(10)) {
        let (one, other) = (packet.build(), answer(&packet).build());
        prop_assert_eq!(rss::flow(&parse(&one), &one), rss::flow(&parse(&other), &other));
    }
}

#[test]
fn fragments_are_hashed_by_their_addresses() {
    let ends = (([10, 0, 0, 1], 5), ([10, 0, 0, 2], 6));
    let whole = frame(ends.0, ends.1, 17);
    let alone = hash(&whole, IPV4);
    for fragment in [[0x20, 0], [0, 1]] {
        let mut frame = whole.clone();
        frame[20..22].copy_from_slice(&fragment);
        assert_eq!(hash(&frame, ALL), alone);
        assert_eq!(hash(&frame, UDPV4), None);
        let one = rss::flow(&parse(&frame), &frame);
        frame[34..38].fill(0x77);
        assert_eq!(rss::flow(&parse(&frame), &frame), one, "payload is not hashed");
    }
}

const ALL: u32 = 0x1ff;

#[test]
fn what_is_not_ip_has_no_hash_but_a_flow() {
    let frame =
        |from: u8, to: u8| [&[2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 8, 6][..], &[0; 46]].concat();
    let flow = |frame: &[u8]| rss::flow(&parse(frame), frame);
    assert_eq!(hash(&frame(1, 2), ALL), None);
    assert_eq!(flow(&frame(1, 2)), flow(&frame(2, 1)));
    assert_ne!(flow(&frame(1, 2)), flow(&frame(1, 3)));
    for len in 0..14 {
        assert_eq!(hash(&frame(1, 2)[..len], ALL), None);
        flow(&frame(1, 2)[..len]);
    }
}

/// Few hosts have connections with consecutive ports, as in practice, which spread over any number
/// of queues by the upper and the lower bits of the hash.
#[test]
fn flows_spread_evenly() {
    for queues in [2, 3, 8, 16] {
        let mut high = BTreeMap::<u64, u32>::new();
        let mut low = BTreeMap::<u32, u32>::new();
        let flows = 20_000;
        for n in 0..flows {
            let client = [10, 0, (n % 4) as u8, (n % 100) as u8];
            let frame = frame((client, 32_768 + (n / 100) as u16), ([10, 0, 0, 200], 443), 6);
            let flow = rss::flow(&parse(&frame), &frame);
            *high.entry((u64::from(flow) * queues) >> 32).or_default() += 1;
            *low.entry(flow % queues as u32).or_default() += 1;
        }
        let mean = f64::from(flows) / queues as f64;
        for count in high.values().chain(low.values()) {
            // The limit is six standard deviations.
            assert!(
                (f64::from(*count) - mean).abs() < 6.0 * mean.sqrt(),
                "{queues}: {high:?} {low:?}"
            );
        }
        assert_eq!((high.len(), low.len()), (queues as usize, queues as usize));
    }
}

#[test]
fn swapped_ports_are_another_flow() {
    let flow = |from, to| {
        let frame = frame(from, to, 6);
        rss::flow(&parse(&frame), &frame)
    };
    let (one, two) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    assert_ne!(flow((one, 80), (two, 81)), flow((one, 81), (two, 80)));
    let frame = frame((one, 80), (two, 81), 17);
    assert_ne!(flow((one, 80), (two, 81)), rss::flow(&parse(&frame), &frame));
}
