//! This module segments TCP and UDP frames.

use std::ops::Range;

use crate::bytes::{array, be16, put16, put32};
use crate::checksum::Sum;
use crate::error::Error;
use crate::headers::parse;
use crate::headers::{Network, Transport};
use crate::net_header::NetHeader;
use crate::plan::{Checksums, Request};
use crate::spec::{ipv4, ipv6, tcp, udp, virtio};

/// A segmenter cuts a frame up from its headers alone: it makes the headers of each segment, and
/// says which part of the payload follows.
///
/// The payload need not be in one piece, and is not read.
#[derive(Clone, Copy, Debug)]
pub struct Segmenter<'h> {
    headers: &'h [u8],
    payload_len: usize,
    /// Number of payload bytes per segment.
    size: usize,
    len: usize,
    network: Network,
    network_at: usize,
    transport: Transport,
    transport_at: usize,
    checksums: Checksums,
    /// The sum of the IPv4 header, without what differs between segments.
    network_sum: Sum,
    identification: u16,
    /// The sum of pseudo-header and transport header, without what differs between segments.
    transport_sum: Sum,
    sequence: u32,
    offset_flags: u16,
}

impl<'h> Segmenter<'h> {
    /// Cuts up a frame. `head` is the beginning of the frame, with all headers; `request` is the
    /// result of checking the frame's virtio_net_hdr.
    ///
    /// The lengths that the headers give are not looked at: the payload is what follows them in the
    /// frame.
    ///
    /// # Errors
    /// The headers are not those of the `gso_type`, or not all in `head`, or one segment were
    /// longer than IP allows.
    pub fn new(head: &'h [u8], request: &Request, checksums: Checksums) -> Result<Self, Error> {
        let (header, frame_len) = (request.header(), request.frame_len());
        let head = head.get(..frame_len.min(head.len())).unwrap_or_default();
        let layers = parse(head);
        let transport_at = usize::from(layers.transport_at);
        if !request.matches(&layers) {
            return Err(if layers.truncated {
                Error::Truncated(head.len())
            } else {
                Error::Mismatch(header.gso_type)
            });
        }
        if usize::from(header.csum_start) != transport_at {
            let (start, offset) = (header.csum_start, header.csum_offset);
            return Err(Error::Checksum { start, offset, len: frame_len });
        }
        let payload_at = layers.payload_at(head).ok_or(Error::Truncated(head.len()))?;
        let headers = head.get(..payload_at).unwrap_or_default();
        let payload_len = frame_len - payload_at;
        let size = usize::from(header.gso_size);
        let network_at = usize::from(layers.network_at);
        let counted = match layers.network {
            Network::Ipv6 => network_at + ipv6::HEADER,
            _ => network_at,
        };
        if size == 0 || payload_at - counted + size.min(payload_len) > usize::from(u16::MAX) {
            return Err(Error::GsoSize(header.gso_size));
        }
        let mut segmenter = Segmenter {
            headers,
            payload_len,
            size,
            len: payload_len.div_ceil(size).max(1),
            network: layers.network,
            network_at,
            transport: layers.transport,
            transport_at,
            checksums,
            network_sum: Sum::new(),
            identification: 0,
            transport_sum: Sum::new(),
            sequence: 0,
            offset_flags: 0,
        };
        segmenter.sum_network();
        segmenter.sum_transport(frame_len - transport_at);
        Ok(segmenter)
    }

    /// Sums what the IPv4 headers of all segments have in common.
    fn sum_network(&mut self) {
        if self.network != Network::Ipv4 {
            return;
        }
        let header = self.headers.get(self.network_at..self.transport_at).unwrap_or_default();
        let field = |at| be16(header, at).unwrap_or_default();
        self.identification = field(ipv4::IDENTIFICATION);
        self.network_sum.add(header);
        for at in [ipv4::TOTAL_LEN, ipv4::IDENTIFICATION, ipv4::CHECKSUM] {
            self.network_sum.remove_u16(field(at));
        }
    }

    /// Sums what the transport headers of all segments have in common. The checksum field holds the
    /// pseudo-header's sum, which knows the final destination where the IPv6 header does not; only
    /// the length in it must go.
    fn sum_transport(&mut self, transport_len: usize) {
        let header = self.headers.get(self.transport_at..).unwrap_or_default();
        let sum = &mut self.transport_sum;
        sum.add(header);
        match self.transport {
            Transport::Tcp => {
                self.sequence = array(header, tcp::SEQUENCE).map_or(0, |f| u32::from_be_bytes(*f));
                self.offset_flags = be16(header, tcp::OFFSET_FLAGS).unwrap_or_default();
                sum.remove_u32(self.sequence);
                sum.remove_u16(self.offset_flags);
                sum.remove_u32(transport_len as u32);
            }
            _ => {
                // The length is in the sum twice: for the field and for the pseudo-header.
                let len = be16(header, udp::LEN).unwrap_or_default();
                sum.remove_u16(len);
                sum.remove_u16(len);
            }
        }
    }

    /// Returns how many segments there are, from 1. There are tens of thousands if the sender wants
    /// them of a byte. They can be made in any order, and at different times.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the length of each segment's headers in bytes.
    #[inline]
    pub fn headers_len(&self) -> usize {
        self.headers.len()
    }

    /// Returns where in the frame the payload of segment `i` is. The range is empty for a segment
    /// that does not exist.
    #[inline]
    pub fn payload(&self, i: usize) -> Range<usize> {
        let from = i.saturating_mul(self.size).min(self.payload_len);
        let to = from.saturating_add(self.size).min(self.payload_len);
        self.headers.len() + from..self.headers.len() + to
    }

    /// Returns the length of segment `i` in bytes, headers included.
    #[inline]
    pub fn segment_len(&self, i: usize) -> usize {
        self.headers.len() + self.payload(i).len()
    }

    /// Returns the virtio_net_hdr in front of each segment.
    pub fn net_header(&self) -> NetHeader {
        match self.checksums {
            Checksums::Complete => NetHeader::default(),
            Checksums::Partial => NetHeader {
                flags: virtio::NEEDS_CSUM,
                csum_start: self.transport_at as u16,
                csum_offset: match self.transport {
                    Transport::Tcp => tcp::CHECKSUM as u16,
                    _ => udp::CHECKSUM as u16,
                },
                ..NetHeader::default()
            },
        }
    }

    /// Writes the headers of segment `i` to the beginning of `out`, given the sum of its payload,
    /// which is ignored with [`Checksums::Partial`]. Returns how many bytes; `None`, and nothing is
    /// written, if there is no such segment or no room.
    #[inline]
    pub fn write_headers(&self, i: usize, payload: &Sum, out: &mut [u8]) -> Option<usize> {
        if i >= self.len {
            return None;
        }
        let out = out.get_mut(..self.headers.len())?;
        out.copy_from_slice(self.headers);
        let segment_len = self.segment_len(i);
        self.write_network(i, segment_len - self.network_at, out);
        let transport = out.get_mut(self.transport_at..).unwrap_or_default();
        self.write_transport(i, segment_len - self.transport_at, payload, transport);
        Some(self.headers.len())
    }

    /// Writes the network header of segment `i`; `len` is that of the network header and all that
    /// follows.
    #[inline]
    fn write_network(&self, i: usize, len: usize, out: &mut [u8]) {
        let out = out.get_mut(self.network_at..).unwrap_or_default();
        match self.network {
            Network::Ipv4 => {
                let len = len as u16;
                let identification = self.identification.wrapping_add(i as u16);
                let mut sum = self.network_sum;
                sum.add_u16(len);
                sum.add_u16(identification);
                put16(out, ipv4::TOTAL_LEN, len);
                put16(out, ipv4::IDENTIFICATION, identification);
                put16(out, ipv4::CHECKSUM, sum.checksum());
            }
            _ => put16(out, ipv6::PAYLOAD_LEN, (len - ipv6::HEADER) as u16),
        }
    }

    /// Writes the transport header of segment `i`; `len` is that of the transport header and the
    /// payload.
    #[inline]
    fn write_transport(&self, i: usize, len: usize, payload: &Sum, out: &mut [u8]) {
        let mut sum = self.transport_sum;
        let len = len as u16;
        sum.add_u16(len);
        let checksum_at = match self.transport {
            Transport::Tcp => {
                let sequence = self.sequence.wrapping_add((i * self.size) as u32);
                let mut offset_flags = self.offset_flags;
                if i > 0 {
                    offset_flags &= !tcp::CWR;
                }
                if i + 1 < self.len {
                    offset_flags &= !(tcp::FIN | tcp::PSH);
                }
                sum.add_u32(sequence);
                sum.add_u16(offset_flags);
                put32(out, tcp::SEQUENCE, sequence);
                put16(out, tcp::OFFSET_FLAGS, offset_flags);
                tcp::CHECKSUM
            }
            _ => {
                sum.add_u16(len);
                put16(out, udp::LEN, len);
                udp::CHECKSUM
            }
        };
        let field = match self.checksums {
            Checksums::Complete => {
                sum.add_sum(payload);
                sum.field(checksum_at as u16)
            }
            Checksums::Partial => self.pseudo_header(len).to_be_bytes(),
        };
        put16(out, checksum_at, u16::from_be_bytes(field));
    }

    /// Returns the pseudo-header's sum for a segment of `len` bytes.
    fn pseudo_header(&self, len: u16) -> u16 {
        let header = self.headers.get(self.transport_at..).unwrap_or_default();
        let mut sum = Sum::new();
        match self.transport {
            Transport::Tcp => {
                let whole = header.len() + self.payload_len;
                sum.add_u16(be16(header, tcp::CHECKSUM).unwrap_or_default());
                sum.remove_u32(whole as u32);
            }
            _ => {
                sum.add_u16(be16(header, udp::CHECKSUM).unwrap_or_default());
                sum.remove_u16(be16(header, udp::LEN).unwrap_or_default());
            }
        }
        sum.add_u16(len);
        sum.fold()
    }
}
