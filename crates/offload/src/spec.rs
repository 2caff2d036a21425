//! This module lists numbers and offsets of the standards: Ethernet, IP, TCP, UDP, virtio's frame
//! header. Offsets are from the start of the header they belong to.

/// The numbers of Ethernet (IEEE 802.3-2022 section 3.1.1, IEEE 802.1Q-2022 section 9).
pub mod ethernet {
    /// Offset of the length/type field.
    pub const TYPE: usize = 12;
    /// Size in bytes of destination, source and length/type.
    pub const HEADER: usize = 14;
    /// Size in bytes of a VLAN tag: tag control information, then the next type.
    pub const TAG: usize = 4;
    /// Mask of the VLAN identifier in the tag control information: IEEE 802.1Q-2022 section 9.6.
    pub const VID_MASK: u16 = 0x0fff;
    /// Number of VLAN identifiers that a 12-bit field holds.
    pub const VID_COUNT: usize = 4096;
    /// The group (multicast) bit in the first octet of an address: IEEE 802.3-2022 section 3.2.3.
    pub const GROUP_BIT: u8 = 0x01;
    /// Type: customer VLAN tag.
    pub const CVLAN: u16 = 0x8100;
    /// Type: service VLAN tag.
    pub const SVLAN: u16 = 0x88a8;
    /// Type: IPv4.
    pub const IPV4: u16 = 0x0800;
    /// Type: IPv6.
    pub const IPV6: u16 = 0x86dd;
}

/// The numbers of IPv4 (RFC 791 section 3.1).
pub mod ipv4 {
    /// Size in bytes of the header without options.
    pub const HEADER: usize = 20;
    /// Total length: be16, bytes of header and payload.
    pub const TOTAL_LEN: usize = 2;
    /// Identification: be16.
    pub const IDENTIFICATION: usize = 4;
    /// Flags and fragment offset: be16.
    pub const FRAGMENT: usize = 6;
    /// The bits of [`FRAGMENT`] that are zero in a whole packet: more fragments, and the offset.
    pub const FRAGMENT_MASK: u16 = 0x3fff;
    /// Protocol: u8.
    pub const PROTOCOL: usize = 9;
    /// Checksum over the header: be16.
    pub const CHECKSUM: usize = 10;
    /// Source, then destination address; 4 bytes each.
    pub const ADDRESSES: usize = 12;
}

/// The numbers of IPv6 (RFC 8200 sections 3 and 4).
pub mod ipv6 {
    /// Size of the header in bytes.
    pub const HEADER: usize = 40;
    /// Payload length: be16, bytes after the header.
    pub const PAYLOAD_LEN: usize = 4;
    /// Next header: u8.
    pub const NEXT_HEADER: usize = 6;
    /// Source, then destination address; 16 bytes each.
    pub const ADDRESSES: usize = 8;
    /// Next header: hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// Next header: routing.
    pub const ROUTING: u8 = 43;
    /// Next header: fragment; always [`EXTENSION_UNIT`] bytes.
    pub const FRAGMENT: u8 = 44;
    /// Next header: destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// Unit of the size of extension headers in bytes; their second byte counts the units after the
    /// first.
    pub const EXTENSION_UNIT: usize = 8;
    /// Offset and flags in a fragment header: be16.
    pub const FRAGMENT_OFFSET: usize = 2;
    /// The bits of [`FRAGMENT_OFFSET`] that are zero in a whole packet: the offset, and more
    /// fragments.
    pub const FRAGMENT_MASK: u16 = 0xfff9;
    /// Type (u8) and segments left (u8) in a routing header.
    pub const ROUTING_TYPE: usize = 2;
    /// Offset of the address in a routing header of type 2 (RFC 6275 section 6.4.1).
    pub const ROUTING_ADDRESS: usize = 8;
    /// Length (in units after the first), type and segments left of a routing header of type 2.
    pub const ROUTING_TYPE_2: [u8; 3] = [2, 2, 1];
    /// Option type: one byte of padding.
    pub const PAD1: u8 = 0;
    /// Option type and length: home address (RFC 6275 section 6.3).
    pub const HOME_ADDRESS: [u8; 2] = [0xc9, 16];
}

/// The numbers of TCP (RFC 9293 section 3.1).
pub mod tcp {
    /// IP protocol number.
    pub const PROTOCOL: u8 = 6;
    /// Size in bytes of the header without options.
    pub const HEADER: usize = 20;
    /// Sequence number: be32.
    pub const SEQUENCE: usize = 4;
    /// Data offset and flags: be16, with the data offset (in 32-bit words) in its upper four bits
    /// and the flags in the lower byte.
    pub const OFFSET_FLAGS: usize = 12;
    /// Checksum: be16.
    pub const CHECKSUM: usize = 16;
    /// Flag: no more data from the sender.
    pub const FIN: u16 = 0x01;
    /// Flag: push.
    pub const PSH: u16 = 0x08;
    /// Flag: congestion window reduced (RFC 3168).
    pub const CWR: u16 = 0x80;
}

/// The numbers of UDP (RFC 768).
pub mod udp {
    /// IP protocol number.
    pub const PROTOCOL: u8 = 17;
    /// Size of the header in bytes.
    pub const HEADER: usize = 8;
    /// Length: be16, bytes of header and payload.
    pub const LEN: usize = 4;
    /// Checksum: be16. Zero says that there is none; a computed zero is written FFFFh.
    pub const CHECKSUM: usize = 6;
}

/// The fields of `struct virtio_net_hdr` (virtio 1.3 section 5.1.6).
pub mod virtio {
    /// Size in bytes up to `num_buffers`, which does not say what is to be done with the frame.
    pub const HEADER: usize = 10;
    /// Flag: the checksum is still to be finished.
    pub const NEEDS_CSUM: u8 = 1;
    /// Flag, to drivers only: the checksum has been verified.
    pub const DATA_VALID: u8 = 2;
    /// Type: the frame is not to be segmented.
    pub const GSO_NONE: u8 = 0;
    /// Type: TCP over IPv4.
    pub const GSO_TCPV4: u8 = 1;
    /// Type: TCP over IPv6.
    pub const GSO_TCPV6: u8 = 4;
    /// Type: UDP over IPv4 or IPv6.
    pub const GSO_UDP_L4: u8 = 5;
    /// Bit beside a TCP type: the frame has explicit congestion notification.
    pub const GSO_ECN: u8 = 0x80;
}

/// The masks of what is hashed (virtio 1.3 section 5.1.6.4.3.1). Mask `1 << n` is reported as n + 1
/// (5.1.6.4.4).
pub mod hash_type {
    /// IPv4 addresses.
    pub const IPV4: u32 = 1 << 0;
    /// IPv4 addresses and TCP ports.
    pub const TCPV4: u32 = 1 << 1;
    /// IPv4 addresses and UDP ports.
    pub const UDPV4: u32 = 1 << 2;
    /// IPv6 addresses.
    pub const IPV6: u32 = 1 << 3;
    /// IPv6 addresses and TCP ports.
    pub const TCPV6: u32 = 1 << 4;
    /// IPv6 addresses and UDP ports.
    pub const UDPV6: u32 = 1 << 5;
    /// Home address and routing header's address, where there are any, of packets with extension
    /// headers.
    pub const IP_EX: u32 = 1 << 6;
    /// IPv6 addresses with extension headers considered, and TCP ports.
    pub const TCP_EX: u32 = 1 << 7;
    /// IPv6 addresses with extension headers considered, and UDP ports.
    pub const UDP_EX: u32 = 1 << 8;
    /// Mask of all hash types.
    pub const ALL: u32 = 0x1ff;
}
