//! This module has the header in front of each frame, and the offloads that may stand in it.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use crate::spec::virtio;

/// The offloads that a driver negotiated in one direction: as a sender, what it may leave to the
/// device (VIRTIO_NET_F_CSUM, HOST_TSO4, ...); as a receiver, what it takes unfinished (GUEST_CSUM,
/// GUEST_TSO4, ...).
///
/// A sender has one feature for UDP, VIRTIO_NET_F_HOST_USO: both [`Offloads::USO4`] and
/// [`Offloads::USO6`].
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Offloads(u8);

impl Offloads {
    /// The set without offloads, for complete frames only.
    pub const NONE: Offloads = Offloads(0);
    /// Transport checksums.
    pub const CSUM: Offloads = Offloads(1 << 0);
    /// Segmentation of TCP over IPv4.
    pub const TSO4: Offloads = Offloads(1 << 1);
    /// Segmentation of TCP over IPv6.
    pub const TSO6: Offloads = Offloads(1 << 2);
    /// Segmentation of TCP with explicit congestion notification.
    pub const ECN: Offloads = Offloads(1 << 3);
    /// Segmentation of UDP over IPv4.
    pub const USO4: Offloads = Offloads(1 << 4);
    /// Segmentation of UDP over IPv6.
    pub const USO6: Offloads = Offloads(1 << 5);
    /// The set of all offloads.
    pub const ALL: Offloads = Offloads(0x3f);

    const NAMES: [(Offloads, &str); 6] = [
        (Offloads::CSUM, "CSUM"),
        (Offloads::TSO4, "TSO4"),
        (Offloads::TSO6, "TSO6"),
        (Offloads::ECN, "ECN"),
        (Offloads::USO4, "USO4"),
        (Offloads::USO6, "USO6"),
    ];

    /// Returns whether all of `other` is among these.
    #[inline]
    pub const fn contains(self, other: Offloads) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns these offloads if `condition` holds, else none: for translation from feature bits.
    #[must_use]
    pub const fn only_if(self, condition: bool) -> Offloads {
        if condition { self } else { Offloads::NONE }
    }
}

impl BitOr for Offloads {
    type Output = Offloads;

    fn bitor(self, other: Offloads) -> Offloads {
        Offloads(self.0 | other.0)
    }
}

impl BitOrAssign for Offloads {
    fn bitor_assign(&mut self, other: Offloads) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Offloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (offload, name) in Self::NAMES {
            if self.contains(offload) {
                write!(f, "{separator}{name}")?;
                separator = "|";
            }
        }
        if separator.is_empty() { f.write_str("NONE") } else { Ok(()) }
    }
}

/// `struct virtio_net_hdr` without `num_buffers` (virtio 1.3 section 5.1.6). The default says: a
/// complete frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetHeader {
    /// Flags: [`virtio::NEEDS_CSUM`], [`virtio::DATA_VALID`]; other bits are to be ignored.
    pub flags: u8,
    /// Type: a `GSO_` value of [`virtio`], maybe with [`virtio::GSO_ECN`].
    pub gso_type: u8,
    /// Length of all headers in bytes. It is a hint only: code that depends on it counts itself.
    pub hdr_len: u16,
    /// Number of payload bytes per segment.
    pub gso_size: u16,
    /// Offset of the first byte that is summed, from the frame's start.
    pub csum_start: u16,
    /// Offset of the checksum, from `csum_start`.
    pub csum_offset: u16,
}

impl NetHeader {
    /// Reads a header from its bytes, which are little-endian.
    #[inline]
    pub const fn from_bytes(bytes: &[u8; virtio::HEADER]) -> NetHeader {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = *bytes;
        NetHeader {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            csum_start: u16::from_le_bytes([s0, s1]),
            csum_offset: u16::from_le_bytes([o0, o1]),
        }
    }

    /// Returns the header's bytes.
    #[inline]
    pub const fn to_bytes(self) -> [u8; virtio::HEADER] {
        let [h0, h1] = self.hdr_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.csum_start.to_le_bytes();
        let [o0, o1] = self.csum_offset.to_le_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }

    /// Returns the header of a complete frame whose checksum has been verified, for a receiver with
    /// [`Offloads::CSUM`].
    pub const fn data_valid() -> NetHeader {
        NetHeader {
            flags: virtio::DATA_VALID,
            gso_type: virtio::GSO_NONE,
            hdr_len: 0,
            gso_size: 0,
            csum_start: 0,
            csum_offset: 0,
        }
    }

    /// Returns whether the frame is complete as it is, for every receiver.
    #[inline]
    pub const fn is_complete(&self) -> bool {
        self.flags & virtio::NEEDS_CSUM == 0 && self.gso_type == virtio::GSO_NONE
    }
}
