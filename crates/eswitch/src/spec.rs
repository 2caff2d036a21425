//! This module holds what IEEE 802.3 and 802.1Q say about a frame's header.

pub use manifold_offload::spec::ethernet::{GROUP_BIT, VID_MASK};

/// Size of the header in bytes: destination (6), source (6) and length/type (2), IEEE 802.3-2022
/// section 3.1.1. A shorter frame is a runt.
///
/// The 64-byte minimum of the wire is not required: padding is the business of a MAC on a cable,
/// and guests send unpadded frames.
pub const HEADER_LEN: usize = 14;

/// Size of a C-tag in bytes: tag protocol identifier (2) and tag control information (2), between
/// source and type. IEEE 802.1Q-2022 section 9.3.
pub const VLAN_TAG_LEN: usize = 4;

/// Tag protocol identifier of a customer VLAN tag (C-tag): IEEE 802.1Q-2022 table 9-1.
///
/// Service tags (88A8h) are opaque to a function's VLAN filter, as they are to the filter of a
/// Linux interface.
pub const TPID_CVLAN: u16 = 0x8100;

/// VID of a priority-tagged frame, which belongs to no VLAN: IEEE 802.1Q-2022 table 9-2.
pub const VID_PRIORITY: u16 = 0;

/// First of the sixteen addresses a bridge never forwards (spanning tree, pause, LACP, 802.1X, LLDP
/// ...): IEEE 802.1Q-2022 table 8-1, section 8.6.3. The last octet is 00h to 0Fh.
pub const RESERVED_FIRST: [u8; 6] = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x00];

/// Default limit of [`TableBuilder::max_frame_len`](crate::TableBuilder::max_frame_len): a 64 KiB
/// payload, the largest that virtio-net's MTU field or a TSO frame can name, behind its header.
pub const MAX_FRAME_LEN: u32 = 65_535 + HEADER_LEN as u32;
