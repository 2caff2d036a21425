//! This module has the hashes that choose a receive queue: the Toeplitz hash of receive-side
//! scaling, and a cheaper one for automatic steering.

use crate::bytes::array;
use crate::headers::{Layers, Network, Transport};
use crate::spec::{hash_type, ipv4, ipv6};

/// Size of the key in bytes.
pub const KEY: usize = 40;
/// Size in bytes of the longest input: two IPv6 addresses and two ports.
const INPUT: usize = 36;

/// A Toeplitz hash function (virtio 1.3 section 5.1.6.4.3) with one key.
///
/// The hash is linear: the hash of the input is the exclusive or of the hashes of its half bytes,
/// each taken from a table of
/// 16. That is 128 bytes of table per byte of input, so that a function's tables (4.5 KiB) stay in
///     the first cache even
/// beside those of others; tables for whole bytes would take eight times as much.
#[derive(Clone, Debug)]
pub struct Hasher {
    /// Tables by position, upper and lower half, and value.
    tables: [[[u32; 16]; 2]; INPUT],
}

/// A hash, as it is reported to the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    /// Value of `hash_value`.
    pub value: u32,
    /// Value of `hash_report`, from 1: what was hashed (virtio 1.3 section 5.1.6.4.4).
    pub report: u16,
}

impl Hasher {
    /// Makes a hasher for a key; a shorter key is filled up with zeros.
    pub fn new(key: &[u8; KEY]) -> Hasher {
        let mut tables = [[[0; 16]; 2]; INPUT];
        for (half, table) in tables.iter_mut().flatten().enumerate() {
            // The windows are the key's 32 bits from the half byte's first bit on, and from its
            // three others on.
            let windows: [u32; 4] = std::array::from_fn(|bit| window(key, half * 4 + bit));
            for (value, entry) in table.iter_mut().enumerate() {
                for (bit, window) in windows.iter().enumerate() {
                    if value & (8 >> bit) != 0 {
                        *entry ^= window;
                    }
                }
            }
        }
        Hasher { tables }
    }

    /// Returns the hash of a frame, of the first of these that applies and is among `types` (masks
    /// of [`hash_type`]): addresses of extension headers and ports, such addresses alone, addresses
    /// and ports, addresses. A fragment has no ports, not even the first, so that a packet's parts
    /// do not go different ways. Returns `None` if nothing is hashed.
    ///
    /// `frame` is what `layers` were found in, or more of it.
    #[inline]
    pub fn hash(&self, layers: &Layers, frame: &[u8], types: u32) -> Option<Hash> {
        match layers.network {
            Network::Other => None,
            Network::Ipv4 => {
                let kind =
                    choose(layers, types, [hash_type::TCPV4, hash_type::UDPV4, hash_type::IPV4])?;
                let at = usize::from(layers.network_at) + ipv4::ADDRESSES;
                let addresses = self.part(0, array::<8>(frame, at)?);
                let ports = match kind {
                    hash_type::IPV4 => 0,
                    _ => self.part(8, array::<4>(frame, usize::from(layers.transport_at))?),
                };
                Some(Hash { value: addresses ^ ports, report: report(kind) })
            }
            Network::Ipv6 => self.hash_ipv6(layers, frame, types),
        }
    }

    fn hash_ipv6(&self, layers: &Layers, frame: &[u8], types: u32) -> Option<Hash> {
        use hash_type::{IP_EX, IPV6, TCP_EX, TCPV6, UDP_EX, UDPV6};
        let source = usize::from(layers.network_at) + ipv6::ADDRESSES;
        let (mut source, mut destination) = (source, source + 16);
        let extended =
            if layers.extensions { choose(layers, types, [TCP_EX, UDP_EX, IP_EX]) } else { None };
        let kind = match extended {
            Some(kind) => {
                source = layers.home_at.map_or(source, usize::from);
                destination = layers.route_at.map_or(destination, usize::from);
                kind
            }
            None => choose(layers, types, [TCPV6, UDPV6, IPV6])?,
        };
        let mut value = self.part(0, array::<16>(frame, source)?);
        value ^= self.part(16, array::<16>(frame, destination)?);
        if !matches!(kind, IPV6 | IP_EX) {
            value ^= self.part(32, array::<4>(frame, usize::from(layers.transport_at))?);
        }
        Some(Hash { value, report: report(kind) })
    }

    /// Returns what `bytes` at position `at` of the input add to the hash.
    #[inline]
    fn part<const N: usize>(&self, at: usize, bytes: &[u8; N]) -> u32 {
        let tables = self.tables.get(at..).unwrap_or_default();
        bytes.iter().zip(tables).fold(0, |hash, (byte, [upper, lower])| {
            hash ^ upper[usize::from(byte >> 4)] ^ lower[usize::from(byte & 0x0f)]
        })
    }
}

/// Returns the key's 32 bits from `bit` on.
fn window(key: &[u8; KEY], bit: usize) -> u32 {
    let mut bytes = [0; 8];
    for (byte, from) in bytes.iter_mut().zip(key.get(bit / 8..).unwrap_or_default()) {
        *byte = *from;
    }
    (u64::from_be_bytes(bytes) << (bit % 8) >> 32) as u32
}

/// Returns the first hash type that is enabled and applies, of those for TCP, for UDP and for the
/// addresses alone.
#[inline]
fn choose(layers: &Layers, types: u32, [tcp, udp, addresses]: [u32; 3]) -> Option<u32> {
    let with_ports = match layers.transport {
        Transport::Tcp => tcp,
        Transport::Udp => udp,
        Transport::Other => 0,
    };
    if types & with_ports != 0 {
        Some(with_ports)
    } else {
        (types & addresses != 0).then_some(addresses)
    }
}

/// Returns how a hash of this type is reported.
#[inline]
fn report(kind: u32) -> u16 {
    kind.trailing_zeros() as u16 + 1
}

/// Returns a hash of the flow a frame belongs to, the same in both directions. It is over
/// addresses, protocol and ports, and over the MAC addresses if the frame is not IP. All of its
/// bits are equally good.
#[inline]
pub fn flow(layers: &Layers, frame: &[u8]) -> u32 {
    let ports = match layers.transport {
        Transport::Other => [0; 4],
        _ => array::<4>(frame, usize::from(layers.transport_at)).copied().unwrap_or_default(),
    };
    let [p0, p1, p2, p3] = ports.map(u64::from);
    let (from, to) = (p0 << 8 | p1, p2 << 8 | p3);
    let at = usize::from(layers.network_at);
    let ends = match layers.network {
        Network::Ipv4 => array::<8>(frame, at + ipv4::ADDRESSES).map(|both| {
            let both = u64::from_be_bytes(*both);
            (end(both >> 32, from), end(both & 0xffff_ffff, to))
        }),
        Network::Ipv6 => array::<32>(frame, at + ipv6::ADDRESSES).map(|both| {
            let (words, _) = both.as_chunks::<8>();
            let [a, b, c, d] =
                [0, 1, 2, 3].map(|n| words.get(n).map_or(0, |word| u64::from_be_bytes(*word)));
            (end(mix(a) ^ b, from), end(mix(c) ^ d, to))
        }),
        Network::Other => array::<12>(frame, 0).map(|macs| {
            let [a, b, c, d, e, f, g, h, i, j, k, l] = *macs;
            let mac = |bytes| u64::from_be_bytes(bytes);
            (end(mac([0, 0, a, b, c, d, e, f]), 0), end(mac([0, 0, g, h, i, j, k, l]), 0))
        }),
    };
    let (one, other) = ends.unwrap_or_default();
    let both = one.wrapping_add(other).wrapping_add(u64::from(layers.protocol));
    (mix(both) >> 32) as u32
}

/// Hashes one end of a flow. It is not linear, so that two ends cannot swap their ports unnoticed.
#[inline]
fn end(address: u64, port: u64) -> u64 {
    mix(address.rotate_left(16) ^ port)
}

/// Mixes a value: it multiplies by an odd constant without pattern (the golden ratio's fraction),
/// and folds the upper half into the lower.
#[inline]
fn mix(value: u64) -> u64 {
    let product = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}
