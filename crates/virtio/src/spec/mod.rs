//! This module lists registers, structures and constants of "Virtual I/O Device (VIRTIO) Version
//! 1.3", by section. It has no behaviour.

pub mod net;
pub mod pci;

/// Bits of the device status (2.1 Device Status Field).
pub mod status {
    /// The guest has found the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The guest has a driver for the device.
    pub const DRIVER: u8 = 2;
    /// The driver is set up: the device is live.
    pub const DRIVER_OK: u8 = 4;
    /// Feature negotiation is complete. Stays clear when the device refuses what was chosen.
    pub const FEATURES_OK: u8 = 8;
    /// The device cannot go on without a reset. Only the device sets it.
    pub const DEVICE_NEEDS_RESET: u8 = 64;
    /// The driver has given up.
    pub const FAILED: u8 = 128;

    /// The bits a driver may set.
    pub const DRIVER_BITS: u8 = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED;
}

/// Device-independent feature bits, as masks (6 Reserved Feature Bits).
pub mod feature {
    /// Descriptors may point to tables of descriptors (2.7.5.3, 2.8.7).
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// `used_event` and `avail_event` say when to notify (2.7.7, 2.7.10).
    pub const EVENT_IDX: u64 = 1 << 29;
    /// The device is not a legacy one.
    pub const VERSION_1: u64 = 1 << 32;
    /// Addresses may be translated by an IOMMU.
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
    /// Packed virtqueues (2.8).
    pub const RING_PACKED: u64 = 1 << 34;
    /// Buffers are used in the order they were made available.
    pub const IN_ORDER: u64 = 1 << 35;
    /// Memory accesses need the platform's barriers.
    pub const ORDER_PLATFORM: u64 = 1 << 36;
    /// The function is a physical function that can enable virtual functions.
    pub const SR_IOV: u64 = 1 << 37;
    /// Notifications carry the available index.
    pub const NOTIFICATION_DATA: u64 = 1 << 38;
    /// Notifications carry a value the device chose.
    pub const NOTIF_CONFIG_DATA: u64 = 1 << 39;
    /// Queues can be reset one by one (2.6.1).
    pub const RING_RESET: u64 = 1 << 40;
    /// The device has administration virtqueues.
    pub const ADMIN_VQ: u64 = 1 << 41;
}
