//! This module finds a frame's headers.

use crate::bytes::{array, be16};
use crate::spec::{ethernet, ipv4, ipv6, tcp, udp};

/// Number of VLAN tags that are looked behind.
const MAX_TAGS: u8 = 2;
/// Number of IPv6 extension headers that are looked behind.
const MAX_EXTENSIONS: usize = 8;
/// Size in bytes of the ports, with which TCP's and UDP's headers begin.
const PORTS: usize = 4;
/// Number of options of a destination options header among which the home address is looked for.
const MAX_OPTIONS: usize = 16;

/// The protocol of the network layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The packet is neither IPv4 nor IPv6, malformed, or cut off.
    #[default]
    Other,
    /// The packet is IPv4.
    Ipv4,
    /// The packet is IPv6.
    Ipv6,
}

/// The protocol of the transport layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// The packet is neither TCP nor UDP, a fragment, or cut off before the ports' end.
    #[default]
    Other,
    /// The packet is TCP.
    Tcp,
    /// The packet is UDP.
    Udp,
}

/// The headers that were found in a frame. Offsets are from the frame's start, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// The network layer. If it is IP, the fixed part of its header is within the bytes that were
    /// parsed.
    pub network: Network,
    /// The transport layer. If it is TCP or UDP, its ports are within the bytes that were parsed.
    pub transport: Transport,
    /// Number of VLAN tags, 0 to 2.
    pub tags: u8,
    /// IP protocol of what is at `transport_at`.
    pub protocol: u8,
    /// True for a fragment, which is not a whole packet.
    pub fragment: bool,
    /// True for IPv6 with extension headers.
    pub extensions: bool,
    /// True for IPv6 with a routing header that names another final destination than the IPv6
    /// header, and is not of type 2.
    pub rerouted: bool,
    /// True if a header continues, or begins, beyond the bytes that were parsed: more of the frame
    /// would tell more.
    pub truncated: bool,
    /// Offset of the network header, of whatever protocol.
    pub network_at: u16,
    /// Offset of what IP carries, which may be beyond the end of the frame.
    pub transport_at: u16,
    /// Offset of the IPv6 source's home address, if the packet has one.
    pub home_at: Option<u16>,
    /// Offset of the address in an IPv6 routing header of type 2, if the packet has one.
    pub route_at: Option<u16>,
}

impl Layers {
    /// Returns where the payload behind a TCP or UDP header begins, at most the length of `frame`,
    /// which is the bytes that were parsed or more of them.
    pub fn payload_at(&self, frame: &[u8]) -> Option<usize> {
        let at = usize::from(self.transport_at);
        let len = match self.transport {
            Transport::Tcp => {
                let words = frame.get(at + tcp::OFFSET_FLAGS)? >> 4;
                usize::from(words) * 4
            }
            Transport::Udp => udp::HEADER,
            Transport::Other => return None,
        };
        let valid = self.transport == Transport::Udp || len >= tcp::HEADER;
        (valid && at + len <= frame.len()).then_some(at + len)
    }

    /// Returns where the fixed part of the network header ends, in bytes from the frame's
    /// beginning; if it is not IP's, where it begins. Returns `None` if it should be IP's, but is
    /// malformed or cut off.
    pub fn network_end(&self, frame: &[u8]) -> Option<usize> {
        let at = usize::from(self.network_at);
        match self.network {
            Network::Ipv4 => Some(at + ipv4::HEADER),
            Network::Ipv6 => Some(at + ipv6::HEADER),
            Network::Other => {
                let kind = be16(frame, at.checked_sub(2)?)?;
                (!matches!(kind, ethernet::IPV4 | ethernet::IPV6)).then_some(at)
            }
        }
    }
}

/// Finds the headers of a frame in its first bytes, from the destination address on. 64 bytes hold
/// the addresses of any packet, and its ports but for IPv4 options, IPv6 extension headers and IPv6
/// behind two tags; [`Layers::truncated`] says when more are needed.
#[inline]
pub fn parse(frame: &[u8]) -> Layers {
    let (kind, at, tags) = link(frame);
    let layers = Layers { tags, network_at: at as u16, ..Layers::default() };
    match kind {
        Some(ethernet::IPV4) => ipv4(frame, at, layers),
        Some(ethernet::IPV6) => ipv6(frame, at, layers),
        Some(_) => layers,
        None => Layers { truncated: true, ..layers },
    }
}

/// Returns the type of what the Ethernet header carries, where that begins, and how many tags come
/// before.
#[inline]
fn link(frame: &[u8]) -> (Option<u16>, usize, u8) {
    let mut at = ethernet::TYPE;
    let mut tags = 0;
    let mut kind = be16(frame, at);
    while let Some(ethernet::CVLAN | ethernet::SVLAN) = kind
        && tags < MAX_TAGS
    {
        at += ethernet::TAG;
        tags += 1;
        kind = be16(frame, at);
    }
    (kind, at + 2, tags)
}

// These make the result in one piece: fields written one by one in memory and then read together
// cost more than all the rest.

#[inline]
fn ipv4(frame: &[u8], at: usize, layers: Layers) -> Layers {
    let Some(header) = array::<{ ipv4::HEADER }>(frame, at) else {
        return Layers { truncated: true, ..layers };
    };
    // The first byte says version 4 and at least five words.
    if !(0x45..=0x4f).contains(&header[0]) {
        return layers;
    }
    let fragment = be16(header, ipv4::FRAGMENT).is_some_and(|f| f & ipv4::FRAGMENT_MASK != 0);
    let protocol = header[ipv4::PROTOCOL];
    let at = at + usize::from(header[0] & 0x0f) * 4;
    let (transport, truncated) = transport(frame, at, protocol, fragment);
    Layers {
        network: Network::Ipv4,
        transport,
        protocol,
        fragment,
        truncated,
        transport_at: at as u16,
        ..layers
    }
}

#[inline]
fn ipv6(frame: &[u8], at: usize, layers: Layers) -> Layers {
    let Some(header) = array::<{ ipv6::HEADER }>(frame, at) else {
        return Layers { truncated: true, ..layers };
    };
    if header[0] >> 4 != 6 {
        return layers;
    }
    let protocol = header[ipv6::NEXT_HEADER];
    let at = at + ipv6::HEADER;
    if is_extension(protocol) {
        return extensions(frame, at, protocol, &layers);
    }
    let (transport, truncated) = transport(frame, at, protocol, false);
    Layers {
        network: Network::Ipv6,
        transport,
        protocol,
        truncated,
        transport_at: at as u16,
        ..layers
    }
}

/// Returns what carries `protocol`, whose header begins at `at`, and whether it is cut off.
#[inline]
fn transport(frame: &[u8], at: usize, protocol: u8, fragment: bool) -> (Transport, bool) {
    let transport = match protocol {
        tcp::PROTOCOL => Transport::Tcp,
        udp::PROTOCOL => Transport::Udp,
        _ => return (Transport::Other, false),
    };
    if fragment {
        (Transport::Other, false)
    } else if at + PORTS <= frame.len() {
        (transport, false)
    } else {
        (Transport::Other, true)
    }
}

#[inline]
fn is_extension(next: u8) -> bool {
    matches!(next, ipv6::HOP_BY_HOP | ipv6::ROUTING | ipv6::FRAGMENT | ipv6::DESTINATION_OPTIONS)
}

/// Walks the extension headers that begin at `at`, the first of type `next`.
#[cold]
fn extensions(frame: &[u8], mut at: usize, mut next: u8, layers: &Layers) -> Layers {
    let mut layers = Layers { network: Network::Ipv6, extensions: true, ..*layers };
    let address = |at: usize| (at + 16 <= frame.len()).then_some(at as u16);
    for _ in 0..MAX_EXTENSIONS {
        // Payload follows in all fragments but the first, whatever its first bytes look like.
        if !is_extension(next) || layers.fragment {
            break;
        }
        let Some(unit) = array::<{ ipv6::EXTENSION_UNIT }>(frame, at) else {
            layers.truncated = true;
            break;
        };
        let [after, units, kind, left, ..] = *unit;
        let mut len = (usize::from(units) + 1) * ipv6::EXTENSION_UNIT;
        match next {
            ipv6::FRAGMENT => {
                // The second byte is reserved. A fragment that is the whole packet is none (RFC
                // 6946).
                len = ipv6::EXTENSION_UNIT;
                layers.fragment = u16::from_be_bytes([kind, left]) & ipv6::FRAGMENT_MASK != 0;
            }
            ipv6::ROUTING if [units, kind, left] == ipv6::ROUTING_TYPE_2 => {
                layers.route_at = address(at + ipv6::ROUTING_ADDRESS);
            }
            ipv6::ROUTING => layers.rerouted |= left != 0,
            ipv6::DESTINATION_OPTIONS => {
                layers.home_at = layers.home_at.or(home_address(frame, at + 2, at + len));
            }
            _ => (),
        }
        next = after;
        at += len;
        if at > frame.len() {
            layers.truncated = true;
            break;
        }
    }
    layers.protocol = next;
    layers.transport_at = at as u16;
    let (transport, truncated) = transport(frame, at, next, layers.fragment);
    layers.transport = transport;
    layers.truncated |= truncated;
    layers
}

/// Returns the offset of the home address among the options from `at` to `end`.
fn home_address(frame: &[u8], mut at: usize, end: usize) -> Option<u16> {
    let options = frame.get(..end.min(frame.len()))?;
    for _ in 0..MAX_OPTIONS {
        match options.get(at..)? {
            [ipv6::PAD1, ..] => at += 1,
            [kind, len, rest @ ..] => {
                if [*kind, *len] == ipv6::HOME_ADDRESS {
                    return (rest.len() >= 16).then_some((at + 2) as u16);
                }
                at += 2 + usize::from(*len);
            }
            _ => return None,
        }
    }
    None
}
