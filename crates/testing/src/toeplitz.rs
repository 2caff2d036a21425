//! This module computes the Toeplitz hash of receive-side scaling bit by bit, and has Microsoft's
//! test vectors for it. This is what faster implementations, and real drivers, are compared with.

use std::net::{IpAddr, SocketAddr};

/// The key of Microsoft's "Verifying the RSS Hash Calculation".
pub const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// A packet's ends and its hashes under [`KEY`].
#[derive(Debug, Clone, Copy)]
pub struct Vector {
    /// Destination address and port.
    pub to: SocketAddr,
    /// Source address and port.
    pub from: SocketAddr,
    /// Hash of the addresses.
    pub addresses: u32,
    /// Hash of addresses and ports.
    pub ports: u32,
}

/// Returns the vectors of "Verifying the RSS Hash Calculation".
pub fn vectors() -> [Vector; 8] {
    let long = "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251";
    [
        ("161.142.100.80:1766", "66.9.149.187:2794", 0x323e_8fc2, 0x51cc_c178),
        ("65.69.140.83:4739", "199.92.111.2:14230", 0xd718_262a, 0xc626_b0ea),
        ("12.22.207.184:38024", "24.19.198.95:12898", 0xd2d0_a5de, 0x5c2b_394a),
        ("209.142.163.6:2217", "38.27.205.30:48228", 0x8298_9176, 0xafc7_327f),
        ("202.188.127.2:1303", "153.39.163.191:44251", 0x5d18_09c5, 0x10e8_28a2),
        ("[3ffe:2501:200:3::1]:1766", "[3ffe:2501:200:1fff::7]:2794", 0x2cc1_8cd5, 0x4020_7d3d),
        ("[ff02::1]:4739", "[3ffe:501:8::260:97ff:fe40:efab]:14230", 0x0f0c_461c, 0xdde5_1bbf),
        ("[fe80::200:f8ff:fe21:67cf]:38024", long, 0x4b61_e985, 0x02d1_feef),
    ]
    .map(|(to, from, addresses, ports)| {
        let [to, from] = [to, from].map(|end| end.parse().unwrap());
        Vector { to, from, addresses, ports }
    })
}

/// Returns the hash as it is defined (virtio 1.3, section 5.1.6.4.3): each bit of the input that is
/// set contributes the key's 32 bits from there on. The key is at least 4 bytes longer than the
/// input.
pub fn hash(key: &[u8], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], n: usize| bytes[n / 8] >> (7 - n % 8) & 1;
    (0..input.len() * 8)
        .filter(|n| bit(input, *n) == 1)
        .map(|n| (0..32).fold(0, |window, i| window << 1 | u32::from(bit(key, n + i))))
        .fold(0, |hash, window| hash ^ window)
}

/// Returns what a packet's hash is made of: its addresses, and its ports if they count.
pub fn input(from: SocketAddr, to: SocketAddr, ports: bool) -> Vec<u8> {
    let mut input = [octets(from.ip()), octets(to.ip())].concat();
    if ports {
        input.extend([from.port().to_be_bytes(), to.port().to_be_bytes()].concat());
    }
    input
}

/// Returns a packet that begins with its Ethertype, of IP protocol `protocol`, with 16 bytes after
/// its ports.
pub fn packet(from: SocketAddr, to: SocketAddr, protocol: u8) -> Vec<u8> {
    let head = match to {
        SocketAddr::V4(_) => vec![8, 0, 0x45, 0, 0, 40, 0, 1, 0, 0, 64, protocol, 0, 0],
        SocketAddr::V6(_) => vec![0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, protocol, 64],
    };
    [head, input(from, to, true), vec![0x50; 16]].concat()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(it) => it.octets().to_vec(),
        IpAddr::V6(it) => it.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_gives_microsofts_hashes() {
        for vector in vectors() {
            let Vector { to, from, addresses, ports } = vector;
            assert_eq!(hash(&KEY, &input(from, to, false)), addresses, "{vector:?}");
            assert_eq!(hash(&KEY, &input(from, to, true)), ports, "{vector:?}");
        }
    }
}
