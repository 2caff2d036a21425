//! This module lists the numbers of the protocol, by section of "Vhost-user Protocol" in QEMU's
//! documentation (docs/interop/vhost-user.rst). It has no behaviour.

/// Size of a message's header in bytes ("Header").
pub const HEADER_SIZE: usize = 12;

/// Bits of a header's flags ("Header").
pub mod flag {
    /// Mask of the version, bits 0 and 1.
    pub const VERSION_MASK: u32 = 3;
    /// The only version there is.
    pub const VERSION: u32 = 1;
    /// The message answers another.
    pub const REPLY: u32 = 1 << 2;
    /// The client wants to know how the request ended (with REPLY_ACK).
    pub const NEED_REPLY: u32 = 1 << 3;
}

/// Numbers of the requests ("Front-end message types").
pub mod request {
    #![allow(missing_docs, reason = "the names are the specification's, less VHOST_USER_")]
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const RESET_OWNER: u32 = 4;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const SEND_RARP: u32 = 19;
    pub const NET_SET_MTU: u32 = 20;
    pub const GET_INFLIGHT_FD: u32 = 31;
    pub const SET_INFLIGHT_FD: u32 = 32;
    pub const RESET_DEVICE: u32 = 34;
    pub const GET_MAX_MEM_SLOTS: u32 = 36;
    pub const ADD_MEM_REG: u32 = 37;
    pub const REM_MEM_REG: u32 = 38;
    pub const SET_STATUS: u32 = 39;
    pub const GET_STATUS: u32 = 40;
}

/// Protocol features, as masks ("Protocol features").
pub mod protocol_feature {
    /// The device has more rings than two.
    pub const MQ: u64 = 1 << 0;
    /// The backend announces a machine that has moved.
    pub const RARP: u64 = 1 << 2;
    /// Requests can ask how they ended.
    pub const REPLY_ACK: u64 = 1 << 3;
    /// The client tells the MTU.
    pub const NET_MTU: u64 = 1 << 4;
    /// Chains in flight are tracked in memory that outlives the backend.
    pub const INFLIGHT_SHMFD: u64 = 1 << 12;
    /// The device can be reset.
    pub const RESET_DEVICE: u64 = 1 << 13;
    /// Memory regions come and go one by one.
    pub const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
    /// The client passes on the device status register.
    pub const STATUS: u64 = 1 << 16;
}

/// VHOST_USER_F_PROTOCOL_FEATURES, a bit beside virtio's ("Feature bits").
pub const F_PROTOCOL_FEATURES: u64 = 1 << 30;

/// VIRTIO_F_RING_PACKED (virtio 1.3, 6), which decides what a ring's base is made of ("Ring base").
pub const F_RING_PACKED: u64 = 1 << 34;

/// Bit in the payload of SET_VRING_KICK, CALL and ERR: no descriptor is attached ("Vring descriptor
/// index").
pub const NO_FD: u64 = 1 << 8;

/// Mask of the ring's index in the payload of SET_VRING_KICK, CALL and ERR.
pub const INDEX_MASK: u64 = 0xff;

/// Device status (virtio 1.3, 2.1) of a device whose client does not pass the register on.
pub mod status {
    /// ACKNOWLEDGE, DRIVER and FEATURES_OK: features are negotiated.
    pub const NEGOTIATED: u8 = 1 | 2 | 8;
    /// DRIVER_OK.
    pub const DRIVER_OK: u8 = 4;
    /// DEVICE_NEEDS_RESET.
    pub const NEEDS_RESET: u8 = 64;
}
