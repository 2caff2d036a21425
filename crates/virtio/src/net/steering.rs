//! These types tell the data path of steering (5.1.6.5.5 to 5.1.6.5.7) and coalescing (5.1.6.5.9),
//! and its queues' counters back.

/// Bytes of the longest RSS key (`rss_max_key_size`): enough for two IPv6 addresses and two ports.
pub const RSS_KEY_SIZE: usize = 40;

/// Largest number of entries of the indirection table (`rss_max_indirection_table_length`).
pub const RSS_TABLE_ENTRIES: u16 = 128;

/// The rule by which received frames are spread over queue pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steering {
    /// Number of queue pairs in use, from 1. Without [`Steering::table`] frames are steered to them
    /// automatically, by flow. With one, the driver sends on these pairs, and the table alone says
    /// where frames are received.
    pub pairs: u16,
    /// The fields that are hashed, for the table, the report or both; `None` if nothing is.
    pub hash: Option<HashConfig>,
    /// Receive-side scaling, when the driver has configured it.
    pub table: Option<Indirection>,
}

impl Default for Steering {
    fn default() -> Self {
        Steering { pairs: 1, hash: None, table: None }
    }
}

/// A Toeplitz hash (5.1.6.4.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashConfig {
    /// Masks of [`hash_type`](crate::spec::net::hash_type); not 0.
    pub types: u32,
    /// The key; what the driver did not give is zero.
    pub key: [u8; RSS_KEY_SIZE],
}

/// An indirection table (5.1.6.5.7.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indirection {
    /// Queue pair by hash, masked with the length; a power of two, at most [`RSS_TABLE_ENTRIES`].
    /// Pairs that do not exist were refused.
    pub entries: Vec<u16>,
    /// Queue pair of frames that have no hash.
    pub unclassified: u16,
}

/// Notification coalescing of one queue (5.1.6.5.9): an interrupt waits until `max_packets` frames
/// have gone through the queue or `max_usecs` have passed since the first of them. If either is
/// zero, it does not wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coalescing {
    /// Number of frames.
    pub max_packets: u32,
    /// Time in microseconds.
    pub max_usecs: u32,
}

/// Counts of what has gone through one data queue since the function was made (virtio 1.4,
/// 5.1.6.5.11). Counters wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStatistics {
    /// Number of frames that passed.
    pub packets: u64,
    /// Number of bytes of the frames that passed.
    pub bytes: u64,
    /// Number of interrupts raised.
    pub interrupts: u64,
    /// Number of notifications from the driver that were acted upon.
    pub notifications: u64,
    /// Number of frames dropped for any reason.
    pub drops: u64,
    /// Number of frames dropped for want of a receive buffer.
    pub overruns: u64,
    /// Number of transmitted frames dropped as malformed.
    pub malformed: u64,
    /// Number of frames whose checksum was left to, or by, the other side.
    pub partial_checksums: u64,
    /// Number of frames larger than the MTU that passed unsegmented.
    pub gso_packets: u64,
    /// Number of bytes of the frames counted in `gso_packets`.
    pub gso_bytes: u64,
}
