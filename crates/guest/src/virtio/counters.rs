//! This module has the driver's counters.

use serde::{Deserialize, Serialize};

/// Counters of the guest's driver since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Number of frames received.
    pub rx_frames: u64,
    /// Bytes received, without the virtio-net header.
    pub rx_bytes: u64,
    /// Number of frames sent.
    pub tx_frames: u64,
    /// Bytes sent, without the virtio-net header.
    pub tx_bytes: u64,
    /// Number of frames not sent because the ring was full.
    pub tx_dropped: u64,
    /// Number of doorbells rung.
    pub kicks: u64,
    /// Number of interrupts taken.
    pub interrupts: u64,
    /// Number of times that the process slept.
    pub sleeps: u64,
}
