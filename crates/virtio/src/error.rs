use manifold_offload::MacAddr;

use crate::net::limits::MAX_QUEUE_PAIRS;
use crate::ring::MAX_QUEUE_SIZE;

/// The reason why a device cannot be made as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The number of queue pairs is 0 or larger than supported.
    #[error("{0} queue pairs: choose 1 to {MAX_QUEUE_PAIRS}")]
    QueuePairs(u16),
    /// The queue size is no power of two or out of range.
    #[error("queue size {0}: choose a power of two from 2 to {MAX_QUEUE_SIZE}")]
    QueueSize(u16),
    /// The MTU is out of the range of 5.1.4.1.
    #[error("MTU {0}: choose 68 to 65535")]
    Mtu(u16),
    /// The MAC address is all zeros or a group address.
    #[error("MAC address {0} is not one that a station can have: choose a unicast address")]
    Mac(MacAddr),
    /// The speed is out of the range of 5.1.4.1.
    #[error("speed {0} Mbit/s: choose 0 to 2147483647, or 4294967295 for unknown")]
    Speed(u32),
    /// The configuration offers features that this device does not have.
    #[error("features {0:#x} are not supported and cannot be offered")]
    Unsupported(u64),
    /// The configuration offers a feature without one that it requires.
    #[error("the features offered do not go together: {0}")]
    Offer(&'static str),
}
