//! This module holds the sizes that this device has.

/// Largest number of queue pairs of one device.
pub const MAX_QUEUE_PAIRS: u16 = 16;

/// Number of addresses of each kind, unicast and multicast, that the MAC filter table holds. Where
/// a driver sets more of a kind, the function receives all frames of that kind: the driver is
/// promised its own frames, not the absence of others.
pub const MAC_TABLE_ENTRIES: usize = 64;
