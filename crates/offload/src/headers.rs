//! Where a frame's headers are.

use crate::bytes::{array, be16};
use crate::spec::{ethernet, ipv4, ipv6, tcp, udp};

/// VLAN tags that are looked behind.
const MAX_TAGS: u8 = 2;
/// IPv6 extension headers that are looked behind.
const MAX_EXTENSIONS: usize = 8;
/// Options of a destination options header among which the home address is looked for.
const MAX_OPTIONS: usize = 16;

/// The network layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Neither IPv4 nor IPv6, malformed, or cut off.
    #[default]
    Other,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// The transport layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Neither TCP nor UDP, a fragment, or cut off before the ports' end.
    #[default]
    Other,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What is known of a frame's headers. Offsets are from the frame's start, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// The network layer. If it is IP, the fixed part of its header is within the bytes that were parsed.
    pub network: Network,
    /// The transport layer. If it is TCP or UDP, its ports are within the bytes that were parsed.
    pub transport: Transport,
    /// VLAN tags, 0 to 2.
    pub tags: u8,
    /// IP protocol of what is at `transport_at`.
    pub protocol: u8,
    /// A fragment, not a whole packet.
    pub fragment: bool,
    /// IPv6 with extension headers.
    pub extensions: bool,
    /// IPv6 with a routing header that names another final destination than the IPv6 header, and is not of type 2.
    pub rerouted: bool,
    /// A header goes on, or begins, beyond the bytes that were parsed: with more of the frame, more is known.
    pub truncated: bool,
    /// Where the network header begins, of whatever protocol.
    pub network_at: u16,
    /// Where what IP carries begins; maybe beyond the end of the frame.
    pub transport_at: u16,
    /// Where the IPv6 source's home address is, if the packet has one.
    pub home_at: Option<u16>,
    /// Where the address in an IPv6 routing header of type 2 is, if the packet has one.
    pub route_at: Option<u16>,
}

impl Layers {
    /// Where the payload behind a TCP or UDP header begins; at most the length of `frame`, the bytes that were parsed or
    /// more of them.
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

    /// Where the network header's fixed part ends, or begins if it is not IP.
    pub(crate) fn network_end(&self) -> usize {
        let len = match self.network {
            Network::Other => 0,
            Network::Ipv4 => ipv4::HEADER,
            Network::Ipv6 => ipv6::HEADER,
        };
        usize::from(self.network_at) + len
    }
}

/// Finds the headers of a frame in its first bytes, from the destination address on. 64 bytes are enough for all but IPv6
/// with extension headers; [`Layers::truncated`] says when more are needed.
#[inline]
pub fn parse(frame: &[u8]) -> Layers {
    let mut layers = Layers::default();
    let mut at = ethernet::HEADER;
    let mut kind = be16(frame, ethernet::TYPE);
    while let Some(ethernet::CVLAN | ethernet::SVLAN) = kind
        && layers.tags < MAX_TAGS
    {
        kind = be16(frame, at + 2);
        at += ethernet::TAG;
        layers.tags += 1;
    }
    layers.network_at = at as u16;
    match kind {
        Some(ethernet::IPV4) => layers.ipv4(frame, at),
        Some(ethernet::IPV6) => layers.ipv6(frame, at),
        Some(_) => (),
        None => layers.truncated = true,
    }
    layers
}

impl Layers {
    #[inline]
    fn ipv4(&mut self, frame: &[u8], at: usize) {
        let Some(header) = array::<{ ipv4::HEADER }>(frame, at) else {
            self.truncated = true;
            return;
        };
        let [first, ..] = *header;
        // Version 4, at least five words.
        if !(0x45..=0x4f).contains(&first) {
            return;
        }
        self.network = Network::Ipv4;
        let [.., high, low, _, protocol, _, _, _, _, _, _, _, _, _, _] = *header;
        self.fragment = u16::from_be_bytes([high, low]) & ipv4::FRAGMENT_MASK != 0;
        self.transport(frame, at + usize::from(first & 0x0f) * 4, protocol);
    }

    #[inline]
    fn ipv6(&mut self, frame: &[u8], at: usize) {
        let Some(header) = array::<{ ipv6::HEADER }>(frame, at) else {
            self.truncated = true;
            return;
        };
        if header[0] >> 4 != 6 {
            return;
        }
        self.network = Network::Ipv6;
        let next = header[ipv6::NEXT_HEADER];
        let at = at + ipv6::HEADER;
        if matches!(next, tcp::PROTOCOL | udp::PROTOCOL) {
            self.transport(frame, at, next);
        } else {
            self.extensions(frame, at, next);
        }
    }

    /// Walks the extension headers that begin at `at`.
    fn extensions(&mut self, frame: &[u8], mut at: usize, mut next: u8) {
        for _ in 0..MAX_EXTENSIONS {
            if !matches!(
                next,
                ipv6::HOP_BY_HOP | ipv6::ROUTING | ipv6::FRAGMENT | ipv6::DESTINATION_OPTIONS
            ) {
                break;
            }
            self.extensions = true;
            let Some(unit) = array::<{ ipv6::EXTENSION_UNIT }>(frame, at) else {
                self.truncated = true;
                break;
            };
            let [after, units, kind, left, ..] = *unit;
            let mut len = (usize::from(units) + 1) * ipv6::EXTENSION_UNIT;
            match next {
                ipv6::FRAGMENT => {
                    // Its second byte is reserved. A fragment that is the whole packet is none (RFC 6946).
                    len = ipv6::EXTENSION_UNIT;
                    self.fragment |= u16::from_be_bytes([kind, left]) & ipv6::FRAGMENT_MASK != 0;
                }
                ipv6::ROUTING if [units, kind, left] == ipv6::ROUTING_TYPE_2 => {
                    self.route_at = Some((at + ipv6::ROUTING_ADDRESS) as u16);
                }
                ipv6::ROUTING => self.rerouted |= left != 0,
                ipv6::DESTINATION_OPTIONS => self.options(frame, at, at + len),
                _ => (),
            }
            if at + len > frame.len() {
                self.truncated = true;
                // What was found in it is not all there.
                self.route_at = self.route_at.filter(|at| usize::from(*at) + 16 <= frame.len());
                self.home_at = self.home_at.filter(|at| usize::from(*at) + 16 <= frame.len());
                next = after;
                at += len;
                break;
            }
            next = after;
            at += len;
            // In all fragments but the first, payload follows, whatever its first bytes look like.
            if self.fragment {
                break;
            }
        }
        self.transport(frame, at, next);
    }

    /// Looks for the home address among the options between `at` and `end`.
    fn options(&mut self, frame: &[u8], at: usize, end: usize) {
        let mut at = at + 2;
        for _ in 0..MAX_OPTIONS {
            match frame.get(at..end.min(frame.len())).unwrap_or_default() {
                [ipv6::PAD1, ..] => at += 1,
                [kind, len, rest @ ..] => {
                    if [*kind, *len] == ipv6::HOME_ADDRESS {
                        self.home_at = (rest.len() >= 16).then_some((at + 2) as u16);
                        return;
                    }
                    at += 2 + usize::from(*len);
                }
                _ => return,
            }
        }
    }

    #[inline]
    fn transport(&mut self, frame: &[u8], at: usize, protocol: u8) {
        self.transport_at = at as u16;
        self.protocol = protocol;
        let transport = match protocol {
            tcp::PROTOCOL => Transport::Tcp,
            udp::PROTOCOL => Transport::Udp,
            _ => return,
        };
        if self.fragment {
            return;
        }
        if at + 4 <= frame.len() {
            self.transport = transport;
        } else {
            self.truncated = true;
        }
    }
}
