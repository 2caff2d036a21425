//! These types tell a device model that a virtqueue starts, and let whoever serves the queue answer
//! back.

use std::fmt;
use std::sync::Arc;

pub use crate::ring::QueueState;
use crate::ring::{QueueAddresses, RingError, RingFeatures};
use crate::spec::feature;

/// A virtqueue that its driver has enabled on a live device.
#[derive(Clone)]
pub struct QueueSetup {
    /// The queue's number.
    pub index: u16,
    /// Size and place of the rings, as the driver wrote them: nothing is checked yet.
    pub addresses: QueueAddresses,
    /// All feature bits the driver accepted, as masks of [`crate::spec`].
    pub features: u64,
    /// The place to continue after the queue was stopped without being reset; `None` for the
    /// beginning.
    pub resume: Option<QueueState>,
    /// The way back to the driver, valid until the queue is stopped.
    pub events: Arc<dyn QueueEvents>,
}

impl QueueSetup {
    /// Returns the negotiated features that concern the ring.
    pub fn ring_features(&self) -> RingFeatures {
        RingFeatures {
            event_index: self.features & feature::EVENT_IDX != 0,
            indirect: self.features & feature::INDIRECT_DESC != 0,
            packed: self.features & feature::RING_PACKED != 0,
            in_order: self.features & feature::IN_ORDER != 0,
        }
    }
}

impl fmt::Debug for QueueSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueSetup")
            .field("index", &self.index)
            .field("addresses", &self.addresses)
            .field("features", &format_args!("{:#x}", self.features))
            .field("resume", &self.resume)
            .finish_non_exhaustive()
    }
}

/// The way from a queue to its driver, callable from any thread. Neither method takes a lock that
/// is held while a queue is stopped, so a worker may call them at any time before
/// [`VirtioDevice::stop_queue`](super::VirtioDevice::stop_queue) has returned.
pub trait QueueEvents: Send + Sync {
    /// Tells the driver that buffers were used (2.3: used buffer notification), through the vector
    /// the driver chose for the queue. The ring decides whether the driver wants to know.
    fn interrupt(&self);

    /// Says that the queue broke the rules and is not served any more: the device needs a reset
    /// (2.1.2).
    fn fail(&self, reason: &dyn fmt::Display);
}

/// The reason why a queue could not be started. The device then needs a reset.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The driver's rings are not usable.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The adapter cannot serve the queue.
    #[error("the queue cannot be served: {0}")]
    Unserved(String),
}
