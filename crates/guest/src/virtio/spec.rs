//! This module has the registers, bits and layouts of virtio 1.3 that a network driver uses, each
//! with its section.
#![allow(missing_docs, reason = "the names are the specification's")]

/// Structures that vendor capabilities point at (4.1.4): the capability's `cfg_type`.
pub mod cfg_type {
    pub const COMMON: u8 = 1;
    pub const NOTIFY: u8 = 2;
    pub const ISR: u8 = 3;
    pub const DEVICE: u8 = 4;
}

/// `struct virtio_pci_cap` (4.1.4): offsets from the capability's start.
pub mod cap {
    pub const LEN: u16 = 2;
    pub const CFG_TYPE: u16 = 3;
    pub const BAR: u16 = 4;
    pub const OFFSET: u16 = 8;
    pub const LENGTH: u16 = 12;
    /// `struct virtio_pci_notify_cap` (4.1.4.4).
    pub const NOTIFY_MULTIPLIER: u16 = 16;
}

/// `struct virtio_pci_common_cfg` (4.1.4.3).
pub mod common {
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub const DEVICE_FEATURE: u64 = 0x04;
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub const DRIVER_FEATURE: u64 = 0x0c;
    pub const CONFIG_MSIX_VECTOR: u64 = 0x10;
    pub const NUM_QUEUES: u64 = 0x12;
    pub const DEVICE_STATUS: u64 = 0x14;
    pub const CONFIG_GENERATION: u64 = 0x15;
    pub const QUEUE_SELECT: u64 = 0x16;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const QUEUE_MSIX_VECTOR: u64 = 0x1a;
    pub const QUEUE_ENABLE: u64 = 0x1c;
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub const QUEUE_DESC: u64 = 0x20;
    pub const QUEUE_DRIVER: u64 = 0x28;
    pub const QUEUE_DEVICE: u64 = 0x30;
    /// Length in bytes that exists in every version.
    pub const SIZE: u64 = 0x38;
}

/// `VIRTIO_MSI_NO_VECTOR` (4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xffff;

/// Device status bits (2.1).
pub mod status {
    /// The driver has noticed the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The driver knows how to drive it.
    pub const DRIVER: u8 = 2;
    /// The driver is set up.
    pub const DRIVER_OK: u8 = 4;
    /// Features are agreed on.
    pub const FEATURES_OK: u8 = 8;
    /// The device cannot go on.
    pub const DEVICE_NEEDS_RESET: u8 = 64;
    /// The driver has given up.
    pub const FAILED: u8 = 128;
}

/// Feature bits (5.1.3 and 6), as masks.
pub mod feature {
    /// `VIRTIO_NET_F_CSUM`: the device completes checksums of what is sent.
    pub const CSUM: u64 = 1;
    /// `VIRTIO_NET_F_GUEST_CSUM`: the driver takes frames whose checksum is not complete.
    pub const GUEST_CSUM: u64 = 1 << 1;
    /// `VIRTIO_NET_F_CTRL_GUEST_OFFLOADS`: receive offloads can be switched through the control
    /// queue.
    pub const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
    /// `VIRTIO_NET_F_MTU`: the device says its MTU.
    pub const MTU: u64 = 1 << 3;
    /// `VIRTIO_NET_F_MAC`: the device has an address.
    pub const MAC: u64 = 1 << 5;
    /// `VIRTIO_NET_F_GUEST_TSO4`: the driver takes large frames of TCP over IPv4.
    pub const GUEST_TSO4: u64 = 1 << 7;
    /// `VIRTIO_NET_F_GUEST_TSO6`: the driver takes large frames of TCP over IPv6.
    pub const GUEST_TSO6: u64 = 1 << 8;
    /// `VIRTIO_NET_F_GUEST_ECN`: the driver takes large frames of TCP with ECN.
    pub const GUEST_ECN: u64 = 1 << 9;
    /// `VIRTIO_NET_F_HOST_TSO4`: the device takes large frames of TCP over IPv4.
    pub const HOST_TSO4: u64 = 1 << 11;
    /// `VIRTIO_NET_F_HOST_TSO6`: the device takes large frames of TCP over IPv6.
    pub const HOST_TSO6: u64 = 1 << 12;
    /// `VIRTIO_NET_F_HOST_ECN`: the device takes large frames of TCP with ECN.
    pub const HOST_ECN: u64 = 1 << 13;
    /// `VIRTIO_NET_F_MRG_RXBUF`: a received frame may span buffers.
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// `VIRTIO_NET_F_STATUS`: link status.
    pub const STATUS: u64 = 1 << 16;
    /// `VIRTIO_NET_F_CTRL_VQ`: there is a control queue.
    pub const CTRL_VQ: u64 = 1 << 17;
    /// `VIRTIO_NET_F_CTRL_RX`: receive modes.
    pub const CTRL_RX: u64 = 1 << 18;
    /// `VIRTIO_NET_F_CTRL_VLAN`: VLAN filtering.
    pub const CTRL_VLAN: u64 = 1 << 19;
    /// `VIRTIO_NET_F_MQ`: several queue pairs.
    pub const MQ: u64 = 1 << 22;
    /// `VIRTIO_NET_F_CTRL_MAC_ADDR`: the address can be set through the control queue.
    pub const CTRL_MAC_ADDR: u64 = 1 << 23;
    /// `VIRTIO_F_INDIRECT_DESC`.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// `VIRTIO_F_EVENT_IDX`.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// `VIRTIO_F_VERSION_1`.
    pub const VERSION_1: u64 = 1 << 32;
    /// `VIRTIO_F_ACCESS_PLATFORM`: the device uses the addresses of its DMA domain.
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
    /// `VIRTIO_F_RING_PACKED`: packed virtqueues.
    pub const RING_PACKED: u64 = 1 << 34;
    /// `VIRTIO_F_IN_ORDER`: buffers are used in the order in which they were made available.
    pub const IN_ORDER: u64 = 1 << 35;
    /// `VIRTIO_F_ORDER_PLATFORM`: the device orders memory as real hardware does.
    pub const ORDER_PLATFORM: u64 = 1 << 36;
    /// `VIRTIO_NET_F_DEVICE_STATS`: counters through the control queue.
    pub const DEVICE_STATS: u64 = 1 << 50;
    /// `VIRTIO_NET_F_VQ_NOTF_COAL`: interrupt moderation per virtqueue.
    pub const VQ_NOTF_COAL: u64 = 1 << 52;
    /// `VIRTIO_NET_F_NOTF_COAL`: interrupt moderation.
    pub const NOTF_COAL: u64 = 1 << 53;
    /// `VIRTIO_NET_F_HOST_USO`: the device takes large frames of UDP.
    pub const HOST_USO: u64 = 1 << 56;
    /// `VIRTIO_NET_F_HASH_REPORT`: received frames come with their hash.
    pub const HASH_REPORT: u64 = 1 << 57;
    /// `VIRTIO_NET_F_GUEST_HDRLEN`: the driver says exactly how long the headers of large frames
    /// are.
    pub const GUEST_HDRLEN: u64 = 1 << 59;
    /// `VIRTIO_NET_F_RSS`: receive-side scaling.
    pub const RSS: u64 = 1 << 60;
    /// `VIRTIO_NET_F_SPEED_DUPLEX`: the device says its speed.
    pub const SPEED_DUPLEX: u64 = 1 << 63;
}

/// `struct virtio_net_config` (5.1.4).
pub mod net_config {
    pub const MAC: u64 = 0;
    pub const STATUS: u64 = 6;
    pub const MAX_VIRTQUEUE_PAIRS: u64 = 8;
    pub const MTU: u64 = 10;
    pub const RSS_MAX_KEY_SIZE: u64 = 17;
    pub const STATUS_LINK_UP: u16 = 1;
}

/// `struct virtio_net_hdr` (5.1.6): offsets and values.
pub mod header {
    pub const FLAGS: usize = 0;
    pub const GSO_TYPE: usize = 1;
    pub const HDR_LEN: usize = 2;
    pub const GSO_SIZE: usize = 4;
    pub const CSUM_START: usize = 6;
    pub const CSUM_OFFSET: usize = 8;
    pub const F_NEEDS_CSUM: u8 = 1;
    pub const F_DATA_VALID: u8 = 2;
    pub const GSO_TCPV4: u8 = 1;
    /// Offset of the hash, with VIRTIO_NET_F_HASH_REPORT.
    pub const HASH_VALUE: usize = 12;
    pub const HASH_REPORT: usize = 16;
}

/// Returns the bytes of the header with the features agreed on: VIRTIO_NET_F_HASH_REPORT adds 8.
pub fn net_header(features: u64) -> usize {
    if features & feature::HASH_REPORT == 0 { NET_HEADER } else { NET_HEADER + 8 }
}

/// `struct virtio_net_hdr` (5.1.6) in bytes, with VERSION_1.
pub const NET_HEADER: usize = 12;
/// Offset of `num_buffers` in `struct virtio_net_hdr`.
pub const NET_HEADER_NUM_BUFFERS: usize = 10;

/// Split virtqueues (2.7).
pub mod ring {
    /// Size of a descriptor in bytes (2.7.5): address 8, length 4, flags 2, next 2.
    pub const DESC: usize = 16;
    pub const F_NEXT: u16 = 1;
    pub const F_WRITE: u16 = 2;
    pub const F_INDIRECT: u16 = 4;
    /// Available ring (2.7.6): flags, idx, `ring[size]`, used_event.
    pub const AVAIL_FLAGS: usize = 0;
    pub const AVAIL_IDX: usize = 2;
    pub const AVAIL_RING: usize = 4;
    pub const AVAIL_F_NO_INTERRUPT: u16 = 1;
    /// Used ring (2.7.8): flags, idx, `ring[size]` of (id 4, len 4), avail_event.
    pub const USED_FLAGS: usize = 0;
    pub const USED_IDX: usize = 2;
    pub const USED_RING: usize = 4;
    pub const USED_ELEMENT: usize = 8;
    pub const USED_F_NO_NOTIFY: u16 = 1;
    /// Largest number of entries in a queue (2.7).
    pub const MAX_SIZE: u16 = 32768;
}

/// Packed virtqueues (2.8).
pub mod packed {
    /// Size of a descriptor in bytes (2.8.13): address 8, length 4, buffer ID 2, flags 2.
    pub const DESC: usize = 16;
    pub const F_AVAIL: u16 = 1 << 7;
    pub const F_USED: u16 = 1 << 15;
    /// Event suppression structures (2.8.14): offset and wrap 2, flags 2.
    pub const EVENT: usize = 4;
    pub const EVENT_FLAGS: usize = 2;
    pub const EVENT_ENABLE: u16 = 0;
    pub const EVENT_DISABLE: u16 = 1;
    pub const EVENT_DESC: u16 = 2;
}

/// Control queue commands (5.1.6.5): class and command.
pub mod ctrl {
    pub const RX_PROMISC: (u8, u8) = (0, 0);
    pub const RX_ALLMULTI: (u8, u8) = (0, 1);
    pub const MAC_TABLE_SET: (u8, u8) = (1, 0);
    pub const MAC_ADDR_SET: (u8, u8) = (1, 1);
    pub const VLAN_ADD: (u8, u8) = (2, 0);
    pub const VLAN_DEL: (u8, u8) = (2, 1);
    pub const MQ_VQ_PAIRS_SET: (u8, u8) = (4, 0);
    pub const MQ_RSS_CONFIG: (u8, u8) = (4, 1);
    pub const MQ_HASH_CONFIG: (u8, u8) = (4, 2);
    /// `VIRTIO_NET_OK`.
    pub const OK: u8 = 0;
}
