//! This module lists the numbers of the PCI Express capability, version 2 (section 7.5.3).

/// Capability ID.
pub const ID: u8 = 0x10;
/// Size of the capability in bytes.
pub const SIZE: u16 = 0x3c;

/// PCI Express Capabilities, 16 bits (section 7.5.3.2).
pub const CAPABILITIES: u16 = 0x02;
/// PCI Express Capabilities: version 2; the device type in 7:4 is 0, an endpoint.
pub const CAPABILITIES_VERSION: u16 = 2;

/// Device Capabilities (section 7.5.3.3).
pub const DEVICE_CAPABILITIES: u16 = 0x04;
/// Device Capabilities: Max_Payload_Size Supported of 256 bytes.
pub const DEVICE_CAPABILITIES_PAYLOAD_256: u32 = 1;
/// Device Capabilities: Extended Tag Field Supported.
pub const DEVICE_CAPABILITIES_EXTENDED_TAG: u32 = 1 << 5;
/// Device Capabilities: Role-Based Error Reporting.
pub const DEVICE_CAPABILITIES_ROLE_BASED_ERRORS: u32 = 1 << 15;
/// Device Capabilities: Function Level Reset Capability.
pub const DEVICE_CAPABILITIES_FLR: u32 = 1 << 28;

/// Device Control, 16 bits (section 7.5.3.4).
pub const DEVICE_CONTROL: u16 = 0x08;
/// Device Control: Correctable Error Reporting Enable.
pub const DEVICE_CONTROL_CORRECTABLE: u16 = 1 << 0;
/// Device Control: Non-Fatal Error Reporting Enable.
pub const DEVICE_CONTROL_NON_FATAL: u16 = 1 << 1;
/// Device Control: Fatal Error Reporting Enable.
pub const DEVICE_CONTROL_FATAL: u16 = 1 << 2;
/// Device Control: Unsupported Request Reporting Enable.
pub const DEVICE_CONTROL_UNSUPPORTED_REQUEST: u16 = 1 << 3;
/// Device Control: Enable Relaxed Ordering.
pub const DEVICE_CONTROL_RELAXED_ORDERING: u16 = 1 << 4;
/// Device Control: Max_Payload_Size.
pub const DEVICE_CONTROL_PAYLOAD: u16 = 0b111 << 5;
/// Device Control: Extended Tag Field Enable.
pub const DEVICE_CONTROL_EXTENDED_TAG: u16 = 1 << 8;
/// Device Control: Enable No Snoop.
pub const DEVICE_CONTROL_NO_SNOOP: u16 = 1 << 11;
/// Device Control: Max_Read_Request_Size.
pub const DEVICE_CONTROL_READ_REQUEST: u16 = 0b111 << 12;
/// Device Control: Max_Read_Request_Size of 512 bytes, the initial value.
pub const DEVICE_CONTROL_READ_REQUEST_512: u16 = 0b010 << 12;
/// Device Control: Initiate Function Level Reset; reads as zero.
pub const DEVICE_CONTROL_FLR: u16 = 1 << 15;

/// Device Status, 16 bits (section 7.5.3.5).
pub const DEVICE_STATUS: u16 = 0x0a;
/// Device Status: all bits that software clears by writing one.
pub const DEVICE_STATUS_CLEARABLE: u16 = 0xf;

/// Link Capabilities (section 7.5.3.6).
pub const LINK_CAPABILITIES: u16 = 0x0c;
/// Link Capabilities: ASPM Optionality Compliance.
pub const LINK_CAPABILITIES_ASPM_OPTIONALITY: u32 = 1 << 22;
/// Link speed fields: 5.0 GT/s.
pub const LINK_SPEED_5_0: u16 = 2;
/// Link width fields, in place: 16 lanes.
pub const LINK_WIDTH_X16: u16 = 16 << 4;

/// Link Control, 16 bits (section 7.5.3.7).
pub const LINK_CONTROL: u16 = 0x10;
/// Link Control: ASPM Control, Read Completion Boundary, Common Clock Configuration and Extended
/// Synch.
pub const LINK_CONTROL_WRITABLE: u16 = 0b11 | 1 << 3 | 1 << 6 | 1 << 7;

/// Link Status: Slot Clock Configuration (section 7.5.3.8).
pub const LINK_STATUS_SLOT_CLOCK: u16 = 1 << 12;

/// Device Capabilities 2 (section 7.5.3.15).
pub const DEVICE_CAPABILITIES_2: u16 = 0x24;
/// Device Capabilities 2: completion timeout ranges A to D, and Completion Timeout Disable.
pub const DEVICE_CAPABILITIES_2_COMPLETION_TIMEOUT: u32 = 0x1f;

/// Device Control 2, 16 bits (section 7.5.3.16).
pub const DEVICE_CONTROL_2: u16 = 0x28;
/// Device Control 2: Completion Timeout Value and Disable.
pub const DEVICE_CONTROL_2_COMPLETION_TIMEOUT: u16 = 0x1f;

/// Link Capabilities 2 (section 7.5.3.18).
pub const LINK_CAPABILITIES_2: u16 = 0x2c;
/// Link Capabilities 2: Supported Link Speeds of 2.5 and 5.0 GT/s.
pub const LINK_CAPABILITIES_2_SPEEDS: u32 = 0b11 << 1;

/// Link Control 2, 16 bits (section 7.5.3.19); Link Status 2 in the upper half.
pub const LINK_CONTROL_2: u16 = 0x30;
/// Link Control 2: Target Link Speed, Enter Compliance and Hardware Autonomous Speed Disable.
pub const LINK_CONTROL_2_WRITABLE: u16 = 0x3f;
