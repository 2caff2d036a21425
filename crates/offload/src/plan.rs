//! This module says what a sender asks for, and what that means for a receiver.

use crate::error::Error;
use crate::headers::parse;
use crate::headers::{Layers, Network, Transport};
use crate::net_header::{NetHeader, Offloads};
use crate::spec::{tcp, udp, virtio};

/// A virtio_net_hdr that was checked, which says what is left to do with a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The header to deliver to a receiver that takes the frame unfinished.
    header: NetHeader,
    /// The offloads that such a receiver must have negotiated.
    needs: Offloads,
    frame_len: usize,
}

/// The work to be done on a frame before a receiver gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing is to be done: the frame is delivered as it is, behind this header.
    PassThrough(NetHeader),
    /// The frame's checksum must be finished ([`checksum::finish`](crate::checksum::finish)), and
    /// it is then complete.
    Checksum,
    /// The frame must be cut up ([`Segmenter`](crate::Segmenter)).
    Segment(Checksums),
}

/// The state of the checksums in segments that are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// The checksums are complete.
    Complete,
    /// The checksums are for the receiver to finish
    /// ([`Segmenter::net_header`](crate::Segmenter::net_header) says so): it takes them unfinished,
    /// and the payload need not be read.
    Partial,
}

impl NetHeader {
    /// Checks what the sender of a frame asks for against what it negotiated, and against the frame
    /// (virtio 1.3 section 5.1.6.2). `head` is the beginning of the frame, whose length is
    /// `frame_len`: 64 bytes, or all of it if it has less.
    ///
    /// Bits of `flags` that are not known are ignored, VIRTIO_NET_HDR_F_DATA_VALID among them:
    /// drivers do not set it. `hdr_len` is a hint, with or without VIRTIO_NET_F_GUEST_HDRLEN.
    ///
    /// # Errors
    /// The frame is to be dropped.
    #[inline]
    pub fn check(self, head: &[u8], frame_len: usize, allowed: Offloads) -> Result<Request, Error> {
        if self.is_complete() {
            return Ok(Request { frame_len, ..Request::default() });
        }
        self.check_unfinished(head, frame_len, allowed)
    }

    fn check_unfinished(
        self,
        head: &[u8],
        frame_len: usize,
        allowed: Offloads,
    ) -> Result<Request, Error> {
        let (start, offset) = (self.csum_start, self.csum_offset);
        let layers = parse(head);
        let needs = Offloads::CSUM | segmentation(self.gso_type, layers.network)?;
        if !allowed.contains(needs) {
            return Err(Error::NotNegotiated { needs, allowed });
        }
        let gso = self.gso_type != virtio::GSO_NONE;
        if self.flags & virtio::NEEDS_CSUM == 0 {
            return Err(Error::GsoWithoutChecksum(self.gso_type));
        }
        if gso && self.gso_size == 0 {
            return Err(Error::GsoSize(0));
        }
        // The checks have judged addresses, VLAN tags and protocol, so these must not be written
        // to.
        let bad_checksum = Error::Checksum { start, offset, len: frame_len };
        let begin = layers.network_end(head).ok_or(bad_checksum)?;
        let end = usize::from(start) + usize::from(offset) + 2;
        if usize::from(start) < begin || end > frame_len {
            return Err(bad_checksum);
        }
        if gso {
            let (transport, field) = transport(self.gso_type);
            // Extension headers may hide the transport from `head`; Segmenter looks at all of them.
            if layers.transport != transport && !layers.truncated {
                return Err(Error::Mismatch(self.gso_type));
            }
            let begins = usize::from(start) == usize::from(layers.transport_at);
            if usize::from(offset) != field || !(begins || layers.truncated) {
                return Err(bad_checksum);
            }
        }
        let header = NetHeader {
            flags: virtio::NEEDS_CSUM,
            gso_type: self.gso_type,
            // The value is not more than there is, which a TAP would refuse.
            hdr_len: if gso { self.hdr_len.min(saturated(frame_len)) } else { 0 },
            gso_size: if gso { self.gso_size } else { 0 },
            csum_start: start,
            csum_offset: offset,
        };
        Ok(Request { header, needs, frame_len })
    }
}

/// Returns what cutting up a frame of this network layer takes.
fn segmentation(gso_type: u8, network: Network) -> Result<Offloads, Error> {
    let ecn = Offloads::ECN.only_if(gso_type & virtio::GSO_ECN != 0);
    match (gso_type, gso_type & !virtio::GSO_ECN, network) {
        (virtio::GSO_NONE, ..) => Ok(Offloads::NONE),
        (_, virtio::GSO_TCPV4, Network::Ipv4) => Ok(Offloads::TSO4 | ecn),
        (_, virtio::GSO_TCPV6, Network::Ipv6) => Ok(Offloads::TSO6 | ecn),
        (virtio::GSO_UDP_L4, _, Network::Ipv4) => Ok(Offloads::USO4),
        (virtio::GSO_UDP_L4, _, Network::Ipv6) => Ok(Offloads::USO6),
        (virtio::GSO_UDP_L4, ..) | (_, virtio::GSO_TCPV4 | virtio::GSO_TCPV6, _) => {
            Err(Error::Mismatch(gso_type))
        }
        _ => Err(Error::GsoType(gso_type)),
    }
}

/// Returns what a known `gso_type` cuts up, and where in its header the checksum is.
fn transport(gso_type: u8) -> (Transport, usize) {
    match gso_type {
        virtio::GSO_UDP_L4 => (Transport::Udp, udp::CHECKSUM),
        _ => (Transport::Tcp, tcp::CHECKSUM),
    }
}

fn saturated(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

impl Request {
    /// Marks the frame as one whose checksum somebody trusted has verified, such as the kernel
    /// behind a TAP that set VIRTIO_NET_HDR_F_DATA_VALID. Receivers that take unfinished checksums
    /// are told so. Nothing changes for a frame that is unfinished itself.
    #[must_use]
    pub fn verified(mut self) -> Request {
        if self.needs == Offloads::NONE {
            self.header = NetHeader::data_valid();
        }
        self
    }

    /// Returns the offloads that a receiver must have negotiated to get the frame as it is.
    #[inline]
    pub fn needs(&self) -> Offloads {
        self.needs
    }

    /// Returns the header of the frame as it is.
    #[inline]
    pub fn header(&self) -> NetHeader {
        self.header
    }

    /// Returns the length of the frame in bytes.
    #[inline]
    pub fn frame_len(&self) -> usize {
        self.frame_len
    }

    /// Returns whether the frame is to be segmented.
    #[inline]
    pub fn is_gso(&self) -> bool {
        self.header.gso_type != virtio::GSO_NONE
    }

    /// Returns what must be done for a receiver that takes `receiver` unfinished, and frames of up
    /// to `max_len` bytes. A frame that is longer, and not one to segment, is planned as if it
    /// fitted.
    #[inline]
    pub fn plan(&self, receiver: Offloads, max_len: usize) -> Plan {
        let fits = self.frame_len <= max_len || !self.is_gso();
        if receiver.contains(self.needs) && fits {
            // All flags require that the receiver knows of checksums.
            let header =
                if receiver.contains(Offloads::CSUM) { self.header } else { NetHeader::default() };
            return Plan::PassThrough(header);
        }
        if !self.is_gso() {
            return Plan::Checksum;
        }
        let partial = receiver.contains(Offloads::CSUM);
        Plan::Segment(if partial { Checksums::Partial } else { Checksums::Complete })
    }

    /// Returns whether the frame is to be segmented and has the headers that its `gso_type` says.
    pub(crate) fn matches(&self, layers: &Layers) -> bool {
        let gso_type = self.header.gso_type;
        self.is_gso()
            && segmentation(gso_type, layers.network).is_ok_and(|it| self.needs.contains(it))
            && layers.transport == transport(gso_type).0
    }
}
