//! Network device (5.1).

/// Virtio device ID (5.1.1).
pub const DEVICE_ID: u16 = 1;

/// Feature bits of network devices that this device model offers, as masks (5.1.3).
pub mod feature {
    /// The configuration's `mtu` is valid.
    pub const MTU: u64 = 1 << 3;
    /// The configuration's `mac` is valid.
    pub const MAC: u64 = 1 << 5;
    /// A frame may be spread over several receive buffers.
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// The configuration's `status` is valid.
    pub const STATUS: u64 = 1 << 16;
    /// There is a control queue.
    pub const CTRL_VQ: u64 = 1 << 17;
    /// Control commands for promiscuous and all-multicast mode and the MAC filter table.
    pub const CTRL_RX: u64 = 1 << 18;
    /// Control commands for the VLAN filter table.
    pub const CTRL_VLAN: u64 = 1 << 19;
    /// Control commands for the further receive modes.
    pub const CTRL_RX_EXTRA: u64 = 1 << 20;
    /// The driver announces itself when asked.
    pub const GUEST_ANNOUNCE: u64 = 1 << 21;
    /// Several queue pairs with automatic receive steering.
    pub const MQ: u64 = 1 << 22;
    /// A control command sets the MAC address.
    pub const CTRL_MAC_ADDR: u64 = 1 << 23;
}

/// `struct virtio_net_config` (5.1.4): offsets of its fields. The driver only reads them.
pub mod config {
    /// Six bytes.
    pub const MAC: usize = 0;
    /// le16, bits in [`super::status`].
    pub const STATUS: usize = 6;
    /// le16, 1 to 8000h.
    pub const MAX_VIRTQUEUE_PAIRS: usize = 8;
    /// le16, 68 to 65535, in bytes without the Ethernet header.
    pub const MTU: usize = 10;
    /// le32, in Mbit/s.
    pub const SPEED: usize = 12;
    /// u8.
    pub const DUPLEX: usize = 16;
    /// u8, in bytes.
    pub const RSS_MAX_KEY_SIZE: usize = 17;
    /// le16, in entries.
    pub const RSS_MAX_INDIRECTION_TABLE_LENGTH: usize = 18;
    /// le32.
    pub const SUPPORTED_HASH_TYPES: usize = 20;
    /// le32.
    pub const SUPPORTED_TUNNEL_TYPES: usize = 24;
    /// Size of the structure.
    pub const SIZE: usize = 28;
}

/// Bits of the configuration's `status` (5.1.4).
pub mod status {
    /// The link is up.
    pub const LINK_UP: u16 = 1;
    /// The driver shall announce itself.
    pub const ANNOUNCE: u16 = 2;
}

/// `struct virtio_net_hdr` (5.1.6), which precedes each frame in a buffer.
pub mod header {
    /// Offset of `num_buffers`, le16: how many buffers the frame is spread over.
    pub const NUM_BUFFERS: usize = 10;
    /// Size of the structure without hash report and tunnel fields.
    pub const SIZE: usize = 12;
}

/// Control queue (5.1.6.5): `class` and `command` bytes, then data; the device answers one byte and, for some commands,
/// a result.
pub mod ctrl {
    /// Answer: done.
    pub const OK: u8 = 0;
    /// Answer: refused.
    pub const ERR: u8 = 1;

    /// Class: receive modes (5.1.6.5.1). Data of every command: one byte, 0 or 1.
    pub const RX: u8 = 0;
    /// Receive everything.
    pub const RX_PROMISC: u8 = 0;
    /// Receive every multicast frame.
    pub const RX_ALLMULTI: u8 = 1;
    /// Receive every unicast frame.
    pub const RX_ALLUNI: u8 = 2;
    /// Receive no multicast frame.
    pub const RX_NOMULTI: u8 = 3;
    /// Receive no unicast frame.
    pub const RX_NOUNI: u8 = 4;
    /// Receive no broadcast frame.
    pub const RX_NOBCAST: u8 = 5;

    /// Class: MAC address filtering (5.1.6.5.2).
    pub const MAC: u8 = 1;
    /// Data: `struct virtio_net_ctrl_mac` twice, unicast then multicast: le32 count, then count addresses.
    pub const MAC_TABLE_SET: u8 = 0;
    /// Data: the address.
    pub const MAC_ADDR_SET: u8 = 1;

    /// Class: VLAN filtering (5.1.6.5.3). Data of both commands: le16 VLAN identifier.
    pub const VLAN: u8 = 2;
    /// Adds to the table.
    pub const VLAN_ADD: u8 = 0;
    /// Removes from the table.
    pub const VLAN_DEL: u8 = 1;

    /// Class: gratuitous packets (5.1.6.5.4).
    pub const ANNOUNCE: u8 = 3;
    /// No data: the driver has seen [`super::status::ANNOUNCE`].
    pub const ANNOUNCE_ACK: u8 = 0;

    /// Class: several queue pairs (5.1.6.5.5).
    pub const MQ: u8 = 4;
    /// Data: le16 number of pairs to use (5.1.6.5.6).
    pub const MQ_VQ_PAIRS_SET: u8 = 0;
}
