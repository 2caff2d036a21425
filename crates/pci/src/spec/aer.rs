//! This module lists the numbers of Advanced Error Reporting, version 2 (section 7.8.4).

/// Extended capability ID.
pub const ID: u16 = 0x0001;
/// Version of the capability.
pub const VERSION: u8 = 2;
/// Size of the capability in bytes, TLP prefix log included.
pub const SIZE: u16 = 0x48;

/// Uncorrectable Error Status (section 7.8.4.2).
pub const UNCORRECTABLE_STATUS: u16 = 0x04;
/// Uncorrectable Error Mask (section 7.8.4.3).
pub const UNCORRECTABLE_MASK: u16 = 0x08;
/// Uncorrectable Error Severity: set for fatal (section 7.8.4.4).
pub const UNCORRECTABLE_SEVERITY: u16 = 0x0c;

/// Data Link Protocol Error.
pub const DATA_LINK_PROTOCOL: u32 = 1 << 4;
/// Poisoned TLP Received.
pub const POISONED_TLP: u32 = 1 << 12;
/// Flow Control Protocol Error.
pub const FLOW_CONTROL_PROTOCOL: u32 = 1 << 13;
/// Completion Timeout.
pub const COMPLETION_TIMEOUT: u32 = 1 << 14;
/// Completer Abort.
pub const COMPLETER_ABORT: u32 = 1 << 15;
/// Unexpected Completion.
pub const UNEXPECTED_COMPLETION: u32 = 1 << 16;
/// Receiver Overflow.
pub const RECEIVER_OVERFLOW: u32 = 1 << 17;
/// Malformed TLP.
pub const MALFORMED_TLP: u32 = 1 << 18;
/// Unsupported Request Error.
pub const UNSUPPORTED_REQUEST: u32 = 1 << 20;
/// Uncorrectable Internal Error.
pub const UNCORRECTABLE_INTERNAL: u32 = 1 << 22;

/// Uncorrectable errors that an endpoint here implements.
pub const UNCORRECTABLE: u32 = DATA_LINK_PROTOCOL
    | FLOW_CONTROL_PROTOCOL
    | RECEIVER_OVERFLOW
    | MALFORMED_TLP
    | FUNCTION_SPECIFIC;
/// Uncorrectable errors that one function of several can have; a VF logs no others (section 9.3.7).
pub const FUNCTION_SPECIFIC: u32 = POISONED_TLP
    | COMPLETION_TIMEOUT
    | COMPLETER_ABORT
    | UNEXPECTED_COMPLETION
    | UNSUPPORTED_REQUEST
    | UNCORRECTABLE_INTERNAL;
/// Errors that are fatal unless software says otherwise.
pub const SEVERITY_DEFAULT: u32 = DATA_LINK_PROTOCOL
    | FLOW_CONTROL_PROTOCOL
    | RECEIVER_OVERFLOW
    | MALFORMED_TLP
    | UNCORRECTABLE_INTERNAL;
/// Errors that are masked unless software says otherwise.
pub const MASK_DEFAULT: u32 = UNCORRECTABLE_INTERNAL;

/// Correctable Error Status (section 7.8.4.5).
pub const CORRECTABLE_STATUS: u16 = 0x10;
/// Correctable Error Mask (section 7.8.4.6).
pub const CORRECTABLE_MASK: u16 = 0x14;
/// Advisory Non-Fatal Error.
pub const ADVISORY_NON_FATAL: u32 = 1 << 13;
/// The correctable errors an endpoint here implements: Receiver Error, Bad TLP, Bad DLLP,
/// REPLAY_NUM Rollover, Replay Timer Timeout and Advisory Non-Fatal Error.
pub const CORRECTABLE: u32 = 1 << 0 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 12 | ADVISORY_NON_FATAL;

/// Advanced Error Capabilities and Control (section 7.8.4.7).
pub const CONTROL: u16 = 0x18;
/// Header Log, four dwords (section 7.8.4.8).
pub const HEADER_LOG: u16 = 0x1c;
