//! This module tells whether a frame's transport checksum is right.

use crate::bytes::be16;
use crate::checksum::Sum;
use crate::headers::{Layers, Network, Transport};
use crate::spec::{ipv4, ipv6, tcp, udp};

/// The verdict on a frame's transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The checksum is right: a receiver may be told (VIRTIO_NET_HDR_F_DATA_VALID).
    Valid,
    /// The checksum is wrong, or the lengths in the headers do not fit the frame.
    Invalid,
    /// There is no checksum that could be checked: neither TCP nor UDP, a fragment, UDP without
    /// checksum, or a routing header of unknown type.
    Unknown,
}

/// Checks the TCP or UDP checksum of a frame, all of which it reads; `layers` were found in it.
pub fn verify(frame: &[u8], layers: &Layers) -> Verdict {
    if layers.transport == Transport::Other || layers.rerouted {
        return Verdict::Unknown;
    }
    match check(frame, layers) {
        Some(verdict) => verdict,
        None => Verdict::Invalid,
    }
}

/// Checks the checksum; returns `None` if what should be there is not.
fn check(frame: &[u8], layers: &Layers) -> Option<Verdict> {
    let network_at = usize::from(layers.network_at);
    let transport_at = usize::from(layers.transport_at);
    let network = frame.get(network_at..)?;
    // Ethernet's padding may follow behind the packet.
    let packet_len = match layers.network {
        Network::Ipv4 => usize::from(be16(network, ipv4::TOTAL_LEN)?),
        Network::Ipv6 => ipv6::HEADER + usize::from(be16(network, ipv6::PAYLOAD_LEN)?),
        Network::Other => return Some(Verdict::Unknown),
    };
    let segment = frame.get(transport_at..network_at + packet_len)?;
    let (covered, protocol) = match layers.transport {
        Transport::Tcp => {
            layers.payload_at(frame).filter(|at| *at <= transport_at + segment.len())?;
            (segment, tcp::PROTOCOL)
        }
        _ => {
            let len = usize::from(be16(segment, udp::LEN)?);
            if be16(segment, udp::CHECKSUM)? == 0 {
                return Some(Verdict::Unknown);
            }
            (segment.get(..len).filter(|bytes| bytes.len() >= udp::HEADER)?, udp::PROTOCOL)
        }
    };
    let mut sum = Sum::new();
    sum.add_u16(u16::from(protocol));
    sum.add_u16(covered.len() as u16);
    match layers.network {
        Network::Ipv4 => sum.add(network.get(ipv4::ADDRESSES..ipv4::HEADER)?),
        _ => {
            let source = network_at + ipv6::ADDRESSES;
            let source_at = layers.home_at.map_or(source, usize::from);
            let destination_at = layers.route_at.map_or(source + 16, usize::from);
            sum.add(frame.get(source_at..source_at + 16)?);
            sum.add(frame.get(destination_at..destination_at + 16)?);
        }
    }
    sum.add(covered);
    Some(if sum.checksum() == 0 { Verdict::Valid } else { Verdict::Invalid })
}
