//! This module holds what the driver wrote into registers of the common configuration structure.

use super::queue::QueueState;

/// The registers that choose what others show.
#[derive(Debug, Default)]
pub(super) struct Selectors {
    pub(super) device_feature: u32,
    pub(super) driver_feature: u32,
    pub(super) queue: u16,
}

/// The registers of one queue, and whether it is being served.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The size that the driver wrote; `None` for the largest there is.
    pub(super) size: Option<u16>,
    pub(super) enabled: bool,
    pub(super) descriptors: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
    pub(super) running: bool,
    /// The place to continue, if the queue ran before and was not reset since.
    pub(super) resume: Option<QueueState>,
}
