use std::collections::BTreeMap;

use manifold_offload::spec::hash_type::*;
use manifold_offload::{Hash, Hasher, parse, rss};
use proptest::prelude::*;

use crate::packets::{Packet, Transport, packet};

/// The key of Microsoft's "Verifying the RSS Hash Calculation".
const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// As it is defined: for each bit of the input that is set, the key's 32 bits from there on.
fn toeplitz(key: &[u8; 40], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], n: usize| bytes[n / 8] >> (7 - n % 8) & 1;
    let mut hash = 0;
    for n in (0..input.len() * 8).filter(|n| bit(input, *n) == 1) {
        hash ^= (0..32).fold(0, |window, i| window << 1 | u32::from(bit(key, n + i)));
    }
    hash
}

fn ipv4(from: ([u8; 4], u16), to: ([u8; 4], u16), protocol: u8) -> Vec<u8> {
    let head = [8, 0, 0x45, 0, 0, 40, 0, 1, 0, 0, 64, protocol, 0, 0];
    let ports = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    [&[2; 12][..], &head, &from.0, &to.0, &ports, &[0; 16]].concat()
}

fn ipv6(from: (&str, u16), to: (&str, u16), protocol: u8) -> Vec<u8> {
    let address = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    let head = [0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, protocol, 64];
    let ports = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    [&[2; 12][..], &head, &address(from.0), &address(to.0), &ports, &[0; 16]].concat()
}

fn hash(frame: &[u8], types: u32) -> Option<Hash> {
    Hasher::new(&KEY).hash(&parse(frame), frame, types)
}

#[test]
fn microsofts_vectors() {
    for (to, from, addresses, ports) in [
        (([161, 142, 100, 80], 1766), ([66, 9, 149, 187], 2794), 0x323e_8fc2, 0x51cc_c178),
        (([65, 69, 140, 83], 4739), ([199, 92, 111, 2], 14230), 0xd718_262a, 0xc626_b0ea),
        (([12, 22, 207, 184], 38024), ([24, 19, 198, 95], 12898), 0xd2d0_a5de, 0x5c2b_394a),
        (([209, 142, 163, 6], 2217), ([38, 27, 205, 30], 48228), 0x8298_9176, 0xafc7_327f),
        (([202, 188, 127, 2], 1303), ([153, 39, 163, 191], 44251), 0x5d18_09c5, 0x10e8_28a2),
    ] {
        let frame = ipv4(from, to, 6);
        assert_eq!(hash(&frame, IPV4), Some(Hash { value: addresses, report: 1 }));
        assert_eq!(hash(&frame, IPV4 | TCPV4), Some(Hash { value: ports, report: 2 }));
        let frame = ipv4(from, to, 17);
        assert_eq!(hash(&frame, IPV4 | UDPV4), Some(Hash { value: ports, report: 3 }));
    }
    let long = "3ffe:1900:4545:3:200:f8ff:fe21:67cf";
    for (to, from, addresses, ports) in [
        (("3ffe:2501:200:3::1", 1766), ("3ffe:2501:200:1fff::7", 2794), 0x2cc1_8cd5, 0x4020_7d3d),
        (("ff02::1", 4739), ("3ffe:501:8::260:97ff:fe40:efab", 14230), 0x0f0c_461c, 0xdde5_1bbf),
        (("fe80::200:f8ff:fe21:67cf", 38024), (long, 44251), 0x4b61_e985, 0x02d1_feef),
    ] {
        let frame = ipv6(from, to, 6);
        assert_eq!(hash(&frame, IPV6), Some(Hash { value: addresses, report: 4 }));
        assert_eq!(hash(&frame, IPV6 | TCPV6), Some(Hash { value: ports, report: 5 }));
        let frame = ipv6(from, to, 17);
        assert_eq!(hash(&frame, IPV6 | UDPV6), Some(Hash { value: ports, report: 6 }));
    }
}

/// What virtio 1.3 section 5.1.6.4.3 says in words: the report, and what is hashed.
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

/// The packet that answers this one.
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
    fn the_hash_is_of_what_virtio_says(packet in packet(10), types in 0..0x200u32, key in any::<[u8; 40]>()) {
        let frame = packet.build();
        let got = Hasher::new(&key).hash(&parse(&frame), &frame, types);
        let expected = expected(&packet, types)
            .map(|(report, input)| Hash { value: toeplitz(&key, &input), report });
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
    let whole = ipv4(ends.0, ends.1, 17);
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

/// Connections of few hosts with consecutive ports, as they are in practice, spread over any number of queues; by the upper
/// and the lower bits of the hash.
#[test]
fn flows_spread_evenly() {
    for queues in [2, 3, 8, 16] {
        let mut high = BTreeMap::<u64, u32>::new();
        let mut low = BTreeMap::<u32, u32>::new();
        let flows = 20_000;
        for n in 0..flows {
            let client = [10, 0, (n % 4) as u8, (n % 100) as u8];
            let frame = ipv4((client, 32_768 + (n / 100) as u16), ([10, 0, 0, 200], 443), 6);
            let flow = rss::flow(&parse(&frame), &frame);
            *high.entry((u64::from(flow) * queues) >> 32).or_default() += 1;
            *low.entry(flow % queues as u32).or_default() += 1;
        }
        let mean = f64::from(flows) / queues as f64;
        for count in high.values().chain(low.values()) {
            // Six standard deviations.
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
        let frame = ipv4(from, to, 6);
        rss::flow(&parse(&frame), &frame)
    };
    let (one, two) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    assert_ne!(flow((one, 80), (two, 81)), flow((one, 81), (two, 80)));
    let frame = ipv4((one, 80), (two, 81), 17);
    assert_ne!(flow((one, 80), (two, 81)), rss::flow(&parse(&frame), &frame));
}
