//! This module lists the constants of virtio over PCI (4.1).

/// Vendor ID of every virtio device (4.1.2.1).
pub const VENDOR_ID: u16 = 0x1af4;
/// Sum of this and the virtio device ID: a non-transitional device's PCI Device ID (4.1.2.1).
pub const DEVICE_ID_BASE: u16 = 0x1040;
/// Lowest PCI Revision ID of a non-transitional device (4.1.2.1).
pub const REVISION: u8 = 1;
/// Lowest PCI Subsystem Device ID that keeps legacy drivers away (4.1.2.1).
pub const SUBSYSTEM_ID_MIN: u16 = 0x40;

/// Value of a vector register that maps to no vector (4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xffff;

/// Offsets of the fields of `struct virtio_pci_cap` (4.1.4), from the start of the capability;
/// `cap_vndr` is at 0.
pub mod cap {
    /// `cap_len`, u8.
    pub const LEN: u8 = 2;
    /// `cfg_type`, u8.
    pub const CFG_TYPE: u8 = 3;
    /// `bar`, u8.
    pub const BAR: u8 = 4;
    /// `offset`, le32.
    pub const OFFSET: u8 = 8;
    /// `length`, le32.
    pub const LENGTH: u8 = 12;
    /// Size of `struct virtio_pci_cap`.
    pub const SIZE: u8 = 16;
    /// `notify_off_multiplier`, le32, of `struct virtio_pci_notify_cap` (4.1.4.4).
    pub const NOTIFY_OFF_MULTIPLIER: u8 = SIZE;
    /// `pci_cfg_data`, 4 bytes, of `struct virtio_pci_cfg_cap` (4.1.4.9).
    pub const PCI_CFG_DATA: u8 = SIZE;

    /// `cfg_type`: common configuration (4.1.4.3).
    pub const COMMON_CFG: u8 = 1;
    /// `cfg_type`: notifications (4.1.4.4).
    pub const NOTIFY_CFG: u8 = 2;
    /// `cfg_type`: ISR status (4.1.4.5).
    pub const ISR_CFG: u8 = 3;
    /// `cfg_type`: device-specific configuration (4.1.4.6).
    pub const DEVICE_CFG: u8 = 4;
    /// `cfg_type`: access through configuration space (4.1.4.9).
    pub const PCI_CFG: u8 = 5;
}

/// Offsets of the fields of `struct virtio_pci_common_cfg` (4.1.4.3). 64-bit fields are two 32-bit
/// ones, low half first.
pub mod common {
    /// `device_feature_select`: le32, read-write.
    pub const DEVICE_FEATURE_SELECT: u8 = 0x00;
    /// `device_feature`: le32, read-only.
    pub const DEVICE_FEATURE: u8 = 0x04;
    /// `driver_feature_select`: le32, read-write.
    pub const DRIVER_FEATURE_SELECT: u8 = 0x08;
    /// `driver_feature`: le32, read-write.
    pub const DRIVER_FEATURE: u8 = 0x0c;
    /// `config_msix_vector`: le16, read-write.
    pub const CONFIG_MSIX_VECTOR: u8 = 0x10;
    /// `num_queues`: le16, read-only.
    pub const NUM_QUEUES: u8 = 0x12;
    /// `device_status`: u8, read-write.
    pub const DEVICE_STATUS: u8 = 0x14;
    /// `config_generation`: u8, read-only.
    pub const CONFIG_GENERATION: u8 = 0x15;
    /// `queue_select`: le16, read-write.
    pub const QUEUE_SELECT: u8 = 0x16;
    /// `queue_size`: le16, read-write.
    pub const QUEUE_SIZE: u8 = 0x18;
    /// `queue_msix_vector`: le16, read-write.
    pub const QUEUE_MSIX_VECTOR: u8 = 0x1a;
    /// `queue_enable`: le16, read-write.
    pub const QUEUE_ENABLE: u8 = 0x1c;
    /// `queue_notify_off`: le16, read-only.
    pub const QUEUE_NOTIFY_OFF: u8 = 0x1e;
    /// `queue_desc`: le64, read-write.
    pub const QUEUE_DESC: u8 = 0x20;
    /// `queue_driver`: le64, read-write.
    pub const QUEUE_DRIVER: u8 = 0x28;
    /// `queue_device`: le64, read-write.
    pub const QUEUE_DEVICE: u8 = 0x30;
    /// `queue_notif_config_data` (`queue_notify_data` before version 1.3): le16, read-only.
    pub const QUEUE_NOTIF_CONFIG_DATA: u8 = 0x38;
    /// `queue_reset`: le16, read-write.
    pub const QUEUE_RESET: u8 = 0x3a;
    /// `admin_queue_index`: le16, read-only.
    pub const ADMIN_QUEUE_INDEX: u8 = 0x3c;
    /// `admin_queue_num`: le16, read-only.
    pub const ADMIN_QUEUE_NUM: u8 = 0x3e;
    /// Size of the structure.
    pub const SIZE: u8 = 0x40;
}

/// Bits of the ISR status (4.1.4.5), which reading clears.
pub mod isr {
    /// A queue has used buffers.
    pub const QUEUE: u8 = 1;
    /// The device's configuration or status has changed.
    pub const CONFIG: u8 = 2;
}
