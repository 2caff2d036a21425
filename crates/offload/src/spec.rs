//! Numbers and offsets of the standards: Ethernet, IP, TCP, UDP, virtio's frame header. Offsets are
//! from the start of the header they belong to.

/// Ethernet: IEEE 802.3-2022 section 3.1.1, IEEE 802.1Q-2022 section 9.
pub mod ethernet {
    /// Offset of the length/type field.
    pub const TYPE: usize = 12;
    /// Bytes of destination, source and length/type.
    pub const HEADER: usize = 14;
    /// Bytes of a VLAN tag: tag control information, then the next type.
    pub const TAG: usize = 4;
    /// The bits of the tag control information that are the VLAN identifier: IEEE 802.1Q-2022
    /// section 9.6.
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

/// IPv4: RFC 791 section 3.1.
pub mod ipv4 {
    /// Bytes of the header without options.
    pub const HEADER: usize = 20;
    /// be16, bytes of header and payload.
    pub const TOTAL_LEN: usize = 2;
    /// be16.
    pub const IDENTIFICATION: usize = 4;
    /// be16: flags, fragment offset.
    pub const FRAGMENT: usize = 6;
    /// The bits of [`FRAGMENT`] that are zero in a whole packet: more fragments, and the offset.
    pub const FRAGMENT_MASK: u16 = 0x3fff;
    /// u8.
    pub const PROTOCOL: usize = 9;
    /// be16, over the header.
    pub const CHECKSUM: usize = 10;
    /// Source, then destination; 4 bytes each.
    pub const ADDRESSES: usize = 12;
}

/// IPv6: RFC 8200 sections 3 and 4.
pub mod ipv6 {
    /// Bytes of the header.
    pub const HEADER: usize = 40;
    /// be16, bytes after the header.
    pub const PAYLOAD_LEN: usize = 4;
    /// u8.
    pub const NEXT_HEADER: usize = 6;
    /// Source, then destination; 16 bytes each.
    pub const ADDRESSES: usize = 8;
    /// Next header: hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// Next header: routing.
    pub const ROUTING: u8 = 43;
    /// Next header: fragment; always [`EXTENSION_UNIT`] bytes.
    pub const FRAGMENT: u8 = 44;
    /// Next header: destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// Extension headers are multiples of so many bytes; their second byte counts those after the
    /// first.
    pub const EXTENSION_UNIT: usize = 8;
    /// In a fragment header, be16: offset and flags.
    pub const FRAGMENT_OFFSET: usize = 2;
    /// The bits of [`FRAGMENT_OFFSET`] that are zero in a whole packet: the offset, and more
    /// fragments.
    pub const FRAGMENT_MASK: u16 = 0xfff9;
    /// In a routing header: u8 type, u8 segments left.
    pub const ROUTING_TYPE: usize = 2;
    /// Offset of the address in a routing header of type 2 (RFC 6275 section 6.4.1).
    pub const ROUTING_ADDRESS: usize = 8;
    /// A routing header of type 2: length (in units after the first), type and segments left.
    pub const ROUTING_TYPE_2: [u8; 3] = [2, 2, 1];
    /// Option type: one byte of padding.
    pub const PAD1: u8 = 0;
    /// Option type and length: home address (RFC 6275 section 6.3).
    pub const HOME_ADDRESS: [u8; 2] = [0xc9, 16];
}

/// TCP: RFC 9293 section 3.1.
pub mod tcp {
    /// IP protocol number.
    pub const PROTOCOL: u8 = 6;
    /// Bytes of the header without options.
    pub const HEADER: usize = 20;
    /// be32.
    pub const SEQUENCE: usize = 4;
    /// be16: data offset in its upper four bits (in 32-bit words), flags in the lower byte.
    pub const OFFSET_FLAGS: usize = 12;
    /// be16.
    pub const CHECKSUM: usize = 16;
    /// Flag: no more data from the sender.
    pub const FIN: u16 = 0x01;
    /// Flag: push.
    pub const PSH: u16 = 0x08;
    /// Flag: congestion window reduced (RFC 3168).
    pub const CWR: u16 = 0x80;
}

/// UDP: RFC 768.
pub mod udp {
    /// IP protocol number.
    pub const PROTOCOL: u8 = 17;
    /// Bytes of the header.
    pub const HEADER: usize = 8;
    /// be16, bytes of header and payload.
    pub const LEN: usize = 4;
    /// be16. Zero says that there is none; a computed zero is written FFFFh.
    pub const CHECKSUM: usize = 6;
}

/// `struct virtio_net_hdr`: virtio 1.3 section 5.1.6.
pub mod virtio {
    /// Bytes up to `num_buffers`, which does not say what is to be done with the frame.
    pub const HEADER: usize = 10;
    /// Flag: the checksum is still to be finished.
    pub const NEEDS_CSUM: u8 = 1;
    /// Flag, to drivers only: the checksum has been verified.
    pub const DATA_VALID: u8 = 2;
    /// Not to be segmented.
    pub const GSO_NONE: u8 = 0;
    /// TCP over IPv4.
    pub const GSO_TCPV4: u8 = 1;
    /// TCP over IPv6.
    pub const GSO_TCPV6: u8 = 4;
    /// UDP over IPv4 or IPv6.
    pub const GSO_UDP_L4: u8 = 5;
    /// Bit beside a TCP type: the frame has explicit congestion notification.
    pub const GSO_ECN: u8 = 0x80;
}

/// What is hashed: virtio 1.3 section 5.1.6.4.3.1, as masks. Mask `1 << n` is reported as n + 1
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
    /// All of them.
    pub const ALL: u32 = 0x1ff;
}
