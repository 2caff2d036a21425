//! This module has packets as values, from which etherparse makes frames.

use etherparse::{
    EtherType, Ethernet2Header, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions,
    Ipv6Header, Ipv6RawExtHeader, Ipv6RoutingExtensions, SingleVlanHeader, TcpHeader, UdpHeader,
    VlanId,
};
use manifold_offload::NetHeader;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use smoltcp::wire::{Ipv4Address, Ipv6Address, checksum};

/// A frame in parts.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    /// Types and VLAN identifiers of tags, the outer one first.
    pub(crate) tags: Vec<(u16, u16)>,
    pub(crate) ip: IpHeaders,
    /// Address that the packet really goes to or comes from, if not where the IPv6 header says.
    pub(crate) home: Option<[u8; 16]>,
    pub(crate) route: Option<[u8; 16]>,
    pub(crate) transport: Transport,
    pub(crate) payload: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(crate) enum Transport {
    Tcp(Box<TcpHeader>),
    Udp { source: u16, destination: u16 },
}

impl Packet {
    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self.transport, Transport::Tcp(_))
    }

    pub(crate) fn is_ipv4(&self) -> bool {
        matches!(self.ip, IpHeaders::Ipv4(..))
    }

    pub(crate) fn network_at(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    pub(crate) fn transport_at(&self) -> usize {
        self.network_at() + self.ip.header_len()
    }

    pub(crate) fn payload_at(&self) -> usize {
        self.transport_at()
            + match &self.transport {
                Transport::Tcp(header) => header.header_len(),
                Transport::Udp { .. } => 8,
            }
    }

    pub(crate) fn csum_offset(&self) -> usize {
        if self.is_tcp() { 16 } else { 6 }
    }

    /// Returns source and destination in the pseudo-header.
    fn ends(&self) -> (Vec<u8>, Vec<u8>) {
        match &self.ip {
            IpHeaders::Ipv4(header, _) => (header.source.to_vec(), header.destination.to_vec()),
            IpHeaders::Ipv6(header, _) => (
                self.home.unwrap_or(header.source).to_vec(),
                self.route.unwrap_or(header.destination).to_vec(),
            ),
        }
    }

    /// Returns the frame with all checksums, every byte of it made by etherparse.
    pub(crate) fn build(&self) -> Vec<u8> {
        let protocol = if self.is_tcp() { IpNumber::TCP } else { IpNumber::UDP };
        let mut ip = self.ip.clone();
        ip.set_next_headers(protocol);
        // The type that etherparse 0.21.0 returns is IPv4's in any case.
        let ether_type = if self.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        ip.set_payload_len(self.payload_at() - self.transport_at() + self.payload.len()).unwrap();
        let types: Vec<u16> =
            self.tags.iter().map(|(kind, _)| *kind).chain([ether_type.0]).collect();
        let mut frame = Ethernet2Header {
            destination: [2, 0, 0, 0, 0, 1],
            source: [2, 0, 0, 0, 0, 2],
            ether_type: EtherType(types[0]),
        }
        .to_bytes()
        .to_vec();
        for ((_, vid), next) in self.tags.iter().zip(&types[1..]) {
            let tag = SingleVlanHeader {
                vlan_id: VlanId::try_new(*vid).unwrap(),
                ether_type: EtherType(*next),
                ..SingleVlanHeader::default()
            };
            frame.extend(tag.to_bytes());
        }
        // The call computes the header's checksum, too.
        ip.write(&mut frame).unwrap();
        let (from, to) = self.ends();
        match &self.transport {
            Transport::Tcp(header) => {
                let mut header = header.clone();
                header.checksum = if self.is_ipv4() {
                    let ends = (from.try_into().unwrap(), to.try_into().unwrap());
                    header.calc_checksum_ipv4_raw(ends.0, ends.1, &self.payload).unwrap()
                } else {
                    let ends = (from.try_into().unwrap(), to.try_into().unwrap());
                    header.calc_checksum_ipv6_raw(ends.0, ends.1, &self.payload).unwrap()
                };
                frame.extend(header.to_bytes());
            }
            Transport::Udp { source, destination } => {
                let mut header = UdpHeader {
                    source_port: *source,
                    destination_port: *destination,
                    length: (8 + self.payload.len()) as u16,
                    checksum: 0,
                };
                header.checksum = if self.is_ipv4() {
                    let ends = (from.try_into().unwrap(), to.try_into().unwrap());
                    header.calc_checksum_ipv4_raw(ends.0, ends.1, &self.payload).unwrap()
                } else {
                    let ends = (from.try_into().unwrap(), to.try_into().unwrap());
                    header.calc_checksum_ipv6_raw(ends.0, ends.1, &self.payload).unwrap()
                };
                frame.extend(header.to_bytes());
            }
        }
        frame.extend(&self.payload);
        frame
    }

    /// Returns the sum of the pseudo-header, by smoltcp.
    pub(crate) fn pseudo_header(&self) -> u16 {
        let len = (self.payload_at() - self.transport_at() + self.payload.len()) as u32;
        let protocol = if self.is_tcp() { 6.into() } else { 17.into() };
        let (from, to) = self.ends();
        if self.is_ipv4() {
            let from = Ipv4Address::from(<[u8; 4]>::try_from(from).unwrap());
            let to = Ipv4Address::from(<[u8; 4]>::try_from(to).unwrap());
            checksum::pseudo_header_v4(&from, &to, protocol, len)
        } else {
            let from = Ipv6Address::from(<[u8; 16]>::try_from(from).unwrap());
            let to = Ipv6Address::from(<[u8; 16]>::try_from(to).unwrap());
            checksum::pseudo_header_v6(&from, &to, protocol, len)
        }
    }

    /// Returns the frame as a driver hands it over that leaves the checksum to the device.
    pub(crate) fn unfinished(&self) -> (NetHeader, Vec<u8>) {
        let mut frame = self.build();
        let at = self.transport_at() + self.csum_offset();
        frame[at..at + 2].copy_from_slice(&self.pseudo_header().to_be_bytes());
        let header = NetHeader {
            flags: 1,
            csum_start: self.transport_at() as u16,
            csum_offset: self.csum_offset() as u16,
            ..NetHeader::default()
        };
        (header, frame)
    }

    /// Returns the frame as a driver hands it over that leaves segmentation to the device.
    pub(crate) fn unsegmented(&self, gso_size: u16, ecn: bool) -> (NetHeader, Vec<u8>) {
        let (header, frame) = self.unfinished();
        let gso_type = match (self.is_tcp(), self.is_ipv4()) {
            (true, true) => 1 | if ecn { 0x80 } else { 0 },
            (true, false) => 4 | if ecn { 0x80 } else { 0 },
            (false, _) => 5,
        };
        let hdr_len = self.payload_at() as u16;
        (NetHeader { gso_type, gso_size, hdr_len, ..header }, frame)
    }
}

fn tags() -> impl Strategy<Value = Vec<(u16, u16)>> {
    let kind = prop_oneof![Just(0x8100), Just(0x88a8)];
    vec((kind, 0..4096u16), 0..=2)
}

fn ipv4() -> impl Strategy<Value = IpHeaders> {
    let options = (0..=10usize).prop_flat_map(|words| vec(any::<u8>(), words * 4));
    (any::<([u8; 4], [u8; 4], u16, u8, bool)>(), options).prop_map(
        |((source, destination, identification, time_to_live, dont_fragment), options)| {
            let header = Ipv4Header {
                source,
                destination,
                identification,
                time_to_live,
                dont_fragment,
                options: options.as_slice().try_into().unwrap(),
                ..Ipv4Header::default()
            };
            IpHeaders::Ipv4(header, Ipv4Extensions::default())
        },
    )
}

/// Returns the options of an extension header: padding of any kind, and the home address if there
/// is one.
fn options(home: Option<[u8; 16]>, before: usize, pad1: bool) -> Ipv6RawExtHeader {
    let pad = |bytes: &mut Vec<u8>, len: usize| match len {
        0 => (),
        len if len == 1 || pad1 => bytes.extend(vec![0; len]),
        len => bytes.extend([&[1, (len - 2) as u8][..], &vec![0; len - 2]].concat()),
    };
    let mut bytes = Vec::new();
    pad(&mut bytes, before);
    if let Some(home) = home {
        bytes.extend([0xc9, 16]);
        bytes.extend(home);
    }
    let end = (bytes.len() + 2).next_multiple_of(8) - 2;
    let behind = end - bytes.len();
    pad(&mut bytes, behind);
    Ipv6RawExtHeader::new_raw(IpNumber(0), &bytes).unwrap()
}

/// The IPv6 headers, the home address and the routing header's address.
type Ipv6 = (IpHeaders, Option<[u8; 16]>, Option<[u8; 16]>);

fn ipv6() -> impl Strategy<Value = Ipv6> {
    let hop_by_hop = option::of((0..20usize, any::<bool>()));
    let destination = option::of((option::of(any::<[u8; 16]>()), 0..15usize, any::<bool>()));
    let routing = option::of((any::<[u8; 16]>(), any::<bool>()));
    (any::<([u8; 16], [u8; 16], u8)>(), hop_by_hop, destination, routing).prop_map(
        |((source, destination, hop_limit), hop_by_hop, last, routing)| {
            let mut extensions = Ipv6Extensions {
                hop_by_hop_options: hop_by_hop.map(|(before, pad1)| options(None, before, pad1)),
                ..Ipv6Extensions::default()
            };
            let home = last.and_then(|(home, ..)| home);
            let last = last.map(|(home, before, pad1)| options(home, before, pad1));
            let mut route = None;
            if let Some((address, done)) = routing {
                // The header is of type 2 with one segment left and four reserved bytes, or one of
                // any type that has done its part.
                let kind = if done { [4, 0] } else { [2, 1] };
                let payload = [&kind[..], &[0; 4], &address].concat();
                let routing = Ipv6RawExtHeader::new_raw(IpNumber(0), &payload).unwrap();
                route = (!done).then_some(address);
                extensions.routing =
                    Some(Ipv6RoutingExtensions { routing, final_destination_options: last });
            } else {
                extensions.destination_options = last;
            }
            let header = Ipv6Header { source, destination, hop_limit, ..Ipv6Header::default() };
            (IpHeaders::Ipv6(header, extensions), home, route)
        },
    )
}

fn tcp() -> impl Strategy<Value = Transport> {
    let options = (0..=10usize).prop_flat_map(|words| vec(Just(1u8), words * 4));
    (any::<(u16, u16, u32, u32, u16, u16)>(), any::<[bool; 9]>(), options).prop_map(
        |(fields, flags, options)| {
            let (source, destination, sequence, acknowledgment, window, urgent_pointer) = fields;
            let [ns, fin, syn, rst, psh, ack, urg, ece, cwr] = flags;
            let mut header = TcpHeader::new(source, destination, sequence, window);
            header.acknowledgment_number = acknowledgment;
            header.urgent_pointer = urgent_pointer;
            header.set_options_raw(&options).unwrap();
            let header = TcpHeader { ns, fin, syn, rst, psh, ack, urg, ece, cwr, ..header };
            Transport::Tcp(Box::new(header))
        },
    )
}

fn udp() -> impl Strategy<Value = Transport> {
    any::<(u16, u16)>().prop_map(|(source, destination)| Transport::Udp { source, destination })
}

/// Returns any TCP or UDP packet that is no fragment, with a payload of up to `max` bytes.
pub(crate) fn packet(max: usize) -> impl Strategy<Value = Packet> {
    let ip = prop_oneof![ipv4().prop_map(|ip| (ip, None, None)), ipv6()];
    let transport = prop_oneof![tcp(), udp()];
    // The payload is often much of the same byte: sums that come to zero.
    let payload = prop_oneof![
        vec(any::<u8>(), 0..=max),
        (prop_oneof![Just(0u8), Just(0xff)], 0..=max).prop_map(|(byte, len)| vec![byte; len]),
    ];
    (tags(), ip, transport, payload).prop_map(|(tags, (ip, home, route), transport, payload)| {
        Packet { tags, ip, home, route, transport, payload }
    })
}
