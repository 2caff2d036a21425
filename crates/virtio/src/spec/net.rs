//! This module lists the constants of the network device (5.1).

/// Virtio device ID (5.1.1).
pub const DEVICE_ID: u16 = 1;

/// Feature bits of network devices, as masks (5.1.3).
pub mod feature {
    /// The device takes frames whose checksum is still to be completed.
    pub const CSUM: u64 = 1 << 0;
    /// The driver takes frames whose checksum is still to be completed.
    pub const GUEST_CSUM: u64 = 1 << 1;
    /// A control command changes which receive offloads are in force.
    pub const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
    /// The configuration's `mtu` is valid.
    pub const MTU: u64 = 1 << 3;
    /// The configuration's `mac` is valid.
    pub const MAC: u64 = 1 << 5;
    /// The driver takes unsegmented TCP over IPv4.
    pub const GUEST_TSO4: u64 = 1 << 7;
    /// The driver takes unsegmented TCP over IPv6.
    pub const GUEST_TSO6: u64 = 1 << 8;
    /// The driver takes unsegmented TCP with explicit congestion notification.
    pub const GUEST_ECN: u64 = 1 << 9;
    /// The device segments TCP over IPv4.
    pub const HOST_TSO4: u64 = 1 << 11;
    /// The device segments TCP over IPv6.
    pub const HOST_TSO6: u64 = 1 << 12;
    /// The device segments TCP with explicit congestion notification.
    pub const HOST_ECN: u64 = 1 << 13;
    /// A frame may be spread over several receive buffers.
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// The configuration's `status` is valid.
    pub const STATUS: u64 = 1 << 16;
    /// The device has a control queue.
    pub const CTRL_VQ: u64 = 1 << 17;
    /// The device has control commands for promiscuous and all-multicast mode and the MAC filter
    /// table.
    pub const CTRL_RX: u64 = 1 << 18;
    /// The device has control commands for the VLAN filter table.
    pub const CTRL_VLAN: u64 = 1 << 19;
    /// The device has control commands for the further receive modes.
    pub const CTRL_RX_EXTRA: u64 = 1 << 20;
    /// The driver announces itself when asked.
    pub const GUEST_ANNOUNCE: u64 = 1 << 21;
    /// The device has several queue pairs with automatic receive steering.
    pub const MQ: u64 = 1 << 22;
    /// A control command sets the MAC address.
    pub const CTRL_MAC_ADDR: u64 = 1 << 23;
    /// Control commands read statistics (virtio 1.4).
    pub const DEVICE_STATS: u64 = 1 << 50;
    /// The device coalesces notifications per queue.
    pub const VQ_NOTF_COAL: u64 = 1 << 52;
    /// The device coalesces notifications.
    pub const NOTF_COAL: u64 = 1 << 53;
    /// The driver takes unsegmented UDP over IPv4.
    pub const GUEST_USO4: u64 = 1 << 54;
    /// The driver takes unsegmented UDP over IPv6.
    pub const GUEST_USO6: u64 = 1 << 55;
    /// The device segments UDP.
    pub const HOST_USO: u64 = 1 << 56;
    /// Received frames carry a hash.
    pub const HASH_REPORT: u64 = 1 << 57;
    /// The driver's `hdr_len` is exact.
    pub const GUEST_HDRLEN: u64 = 1 << 59;
    /// The device has receive-side scaling.
    pub const RSS: u64 = 1 << 60;
    /// The configuration's `speed` and `duplex` are valid.
    pub const SPEED_DUPLEX: u64 = 1 << 63;

    /// The features of which either gives more than one queue pair (5.1.2).
    pub const MULTIQUEUE: u64 = MQ | RSS;

    /// The receive offloads, which [`CTRL_GUEST_OFFLOADS`] can switch.
    pub const GUEST_OFFLOADS: u64 =
        GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN | GUEST_USO4 | GUEST_USO6;
}

/// Offsets of the fields of `struct virtio_net_config` (5.1.4). The driver only reads them.
pub mod config {
    /// `mac`: six bytes.
    pub const MAC: usize = 0;
    /// `status`: le16, bits in [`super::status`].
    pub const STATUS: usize = 6;
    /// `max_virtqueue_pairs`: le16, 1 to 8000h.
    pub const MAX_VIRTQUEUE_PAIRS: usize = 8;
    /// `mtu`: le16, 68 to 65535, in bytes without the Ethernet header.
    pub const MTU: usize = 10;
    /// `speed`: le32, in Mbit/s.
    pub const SPEED: usize = 12;
    /// `duplex`: u8, [`DUPLEX_FULL`].
    pub const DUPLEX: usize = 16;
    /// `rss_max_key_size`: u8, in bytes.
    pub const RSS_MAX_KEY_SIZE: usize = 17;
    /// `rss_max_indirection_table_length`: le16, in entries.
    pub const RSS_MAX_INDIRECTION_TABLE_LENGTH: usize = 18;
    /// `supported_hash_types`: le32.
    pub const SUPPORTED_HASH_TYPES: usize = 20;
    /// `supported_tunnel_types`: le32.
    pub const SUPPORTED_TUNNEL_TYPES: usize = 24;
    /// Size of the structure.
    pub const SIZE: usize = 28;

    /// Value of `duplex` for full duplex. (5.1.4.1 has full and half the wrong way round; 5.1.4 and
    /// all drivers have it like this.)
    pub const DUPLEX_FULL: u8 = 1;
}

/// Bits of the configuration's `status` (5.1.4).
pub mod status {
    /// The link is up.
    pub const LINK_UP: u16 = 1;
    /// The driver shall announce itself.
    pub const ANNOUNCE: u16 = 2;
}

/// Sizes of `struct virtio_net_hdr` (5.1.6), which precedes each frame in a buffer, and its fields
/// after [`manifold_offload::NetHeader`], which knows the others. All are little-endian.
pub mod header {
    /// `num_buffers`: le16, how many buffers the frame is spread over.
    pub const NUM_BUFFERS: usize = manifold_offload::spec::virtio::HEADER;
    /// Size of the structure without hash report and tunnel fields.
    pub const SIZE: usize = 12;
    /// `hash_value`: le32, with VIRTIO_NET_F_HASH_REPORT.
    pub const HASH_VALUE: usize = 12;
    /// `hash_report`: le16, with VIRTIO_NET_F_HASH_REPORT, what the hash was made of (5.1.6.4.4).
    /// 0: nothing; n + 1: bit n of [`super::hash_type`].
    pub const HASH_REPORT: usize = 16;
    /// Size of the structure with VIRTIO_NET_F_HASH_REPORT.
    pub const SIZE_HASH: usize = 20;
}

pub use manifold_offload::spec::hash_type;

/// Numbers of the control queue (5.1.6.5), whose commands are `class` and `command` bytes, then
/// data; the device answers one byte and, for some commands, a result.
pub mod ctrl {
    /// Answer: the command was carried out.
    pub const OK: u8 = 0;
    /// Answer: the command was refused.
    pub const ERR: u8 = 1;

    /// Class: receive modes (5.1.6.5.1). Data of every command: one byte, 0 or 1.
    pub const RX: u8 = 0;
    /// The function receives everything.
    pub const RX_PROMISC: u8 = 0;
    /// The function receives every multicast frame.
    pub const RX_ALLMULTI: u8 = 1;
    /// The function receives every unicast frame.
    pub const RX_ALLUNI: u8 = 2;
    /// The function receives no multicast frame.
    pub const RX_NOMULTI: u8 = 3;
    /// The function receives no unicast frame.
    pub const RX_NOUNI: u8 = 4;
    /// The function receives no broadcast frame.
    pub const RX_NOBCAST: u8 = 5;

    /// Class: MAC address filtering (5.1.6.5.2).
    pub const MAC: u8 = 1;
    /// Data: `struct virtio_net_ctrl_mac` twice, unicast then multicast: le32 count, then count
    /// addresses.
    pub const MAC_TABLE_SET: u8 = 0;
    /// Data: the MAC address.
    pub const MAC_ADDR_SET: u8 = 1;

    /// Class: VLAN filtering (5.1.6.5.3). Data of both commands: le16 VLAN identifier.
    pub const VLAN: u8 = 2;
    /// Command: the identifier is added to the table.
    pub const VLAN_ADD: u8 = 0;
    /// Command: the identifier is removed from the table.
    pub const VLAN_DEL: u8 = 1;

    /// Class: gratuitous packets (5.1.6.5.4).
    pub const ANNOUNCE: u8 = 3;
    /// No data: the driver has seen [`super::status::ANNOUNCE`].
    pub const ANNOUNCE_ACK: u8 = 0;

    /// Class: several queue pairs (5.1.6.5.5).
    pub const MQ: u8 = 4;
    /// Data: le16 number of pairs to use (5.1.6.5.6).
    pub const MQ_VQ_PAIRS_SET: u8 = 0;
    /// Data: `struct virtio_net_rss_config` (5.1.6.5.7.1): le32 hash types, le16 indirection table
    /// mask, le16 unclassified queue, le16 for each table entry (mask + 1 of them), le16 number of
    /// transmit queues, u8 key length, key.
    pub const MQ_RSS_CONFIG: u8 = 1;
    /// Data: `struct virtio_net_hash_config` (5.1.6.5.6.4): le32 hash types, four reserved le16, u8
    /// key length, key.
    pub const MQ_HASH_CONFIG: u8 = 2;

    /// Class: receive offloads (5.1.6.5.8).
    pub const GUEST_OFFLOADS: u8 = 5;
    /// Data: le64, the offloads in force as masks of [`super::feature::GUEST_OFFLOADS`].
    pub const GUEST_OFFLOADS_SET: u8 = 0;

    /// Class: notification coalescing (5.1.6.5.9). `struct virtio_net_ctrl_coal` is le32
    /// max_packets, le32 max_usecs.
    pub const NOTF_COAL: u8 = 6;
    /// Data: `struct virtio_net_ctrl_coal`, for all transmit queues.
    pub const NOTF_COAL_TX_SET: u8 = 0;
    /// Data: `struct virtio_net_ctrl_coal`, for all receive queues.
    pub const NOTF_COAL_RX_SET: u8 = 1;
    /// Data: `struct virtio_net_ctrl_coal_vq`: le16 queue, le16 reserved, `struct
    /// virtio_net_ctrl_coal`.
    pub const NOTF_COAL_VQ_SET: u8 = 2;
    /// Data: le16 queue, le16 reserved. Result: `struct virtio_net_ctrl_coal`.
    pub const NOTF_COAL_VQ_GET: u8 = 3;

    /// Class: statistics (virtio 1.4, 5.1.6.5.11).
    pub const STATS: u8 = 8;
    /// No data. Result: le64, masks of [`super::statistics`].
    pub const STATS_QUERY: u8 = 0;
    /// Data: any number of le16 queue, three reserved le16, le64 masks of [`super::statistics`].
    /// Result: for each of these in turn and each bit of its mask, from the lowest, a header (see
    /// there) and le64 counters.
    pub const STATS_GET: u8 = 1;
}

/// Types of statistics (virtio 1.4, 5.1.6.5.11). Each reply begins with `struct
/// virtio_net_stats_reply_hdr`: u8 type (the number of its bit), u8 reserved, le16 queue, le16
/// reserved, le16 size of the reply, this header included.
pub mod statistics {
    /// Size of `struct virtio_net_stats_reply_hdr`.
    pub const HEADER: usize = 8;
    /// Receive queues: notifications, packets, bytes, interrupts, drops, overruns.
    pub const RX_BASIC: u64 = 1 << 0;
    /// Receive queues: checksums valid, to be completed, none, bad. Requires
    /// VIRTIO_NET_F_GUEST_CSUM.
    pub const RX_CSUM: u64 = 1 << 1;
    /// Receive queues: unsegmented packets and bytes, and of these the ones that the device itself
    /// coalesced. Requires VIRTIO_NET_F_GUEST_TSO4 or VIRTIO_NET_F_GUEST_TSO6.
    pub const RX_GSO: u64 = 1 << 2;
    /// Receive queues: packets and bytes dropped for exceeding the speed.
    pub const RX_SPEED: u64 = 1 << 3;
    /// Transmit queues: notifications, packets, bytes, interrupts, drops, malformed.
    pub const TX_BASIC: u64 = 1 << 16;
    /// Transmit queues: packets without and with a checksum to be completed. Requires
    /// VIRTIO_NET_F_CSUM.
    pub const TX_CSUM: u64 = 1 << 17;
    /// Transmit queues: unsegmented packets and bytes, segments and bytes made of them, packets and
    /// bytes passed as they were. Requires VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6 or
    /// VIRTIO_NET_F_HOST_USO.
    pub const TX_GSO: u64 = 1 << 18;
    /// Transmit queues: packets and bytes dropped for exceeding the speed.
    pub const TX_SPEED: u64 = 1 << 19;
    /// The control queue: commands received, commands done.
    pub const CVQ: u64 = 1 << 32;
}
