//! What the driver counts.

use serde::{Deserialize, Serialize};

/// What the guest's driver counted since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received, without the virtio-net header.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes sent, without the virtio-net header.
    pub tx_bytes: u64,
    /// Frames not sent because the ring was full.
    pub tx_dropped: u64,
    /// Doorbells rung.
    pub kicks: u64,
    /// Interrupts taken.
    pub interrupts: u64,
    /// Times the process slept.
    pub sleeps: u64,
}
