//! What a worker is told about a queue.

use std::fmt;
use std::sync::Arc;

use manifold_pci::FunctionId;
use manifold_virtio::ring::{QueueAddresses, RingFeatures};
use manifold_virtio::transport::{QueueEvents, QueueState};

use crate::poll::Kick;

/// Which way frames go, seen from the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The driver receives.
    Receive,
    /// The driver transmits.
    Transmit,
}

/// One virtqueue, ready to be served.
#[derive(Clone)]
pub struct QueueConfig {
    /// The function it belongs to.
    pub function: FunctionId,
    /// Queue pair, from 0.
    pub pair: u16,
    /// Which of the pair.
    pub direction: Direction,
    /// Where the rings are.
    pub addresses: QueueAddresses,
    /// Ring features the driver accepted.
    pub features: RingFeatures,
    /// Whether a received frame may span several buffers (VIRTIO_NET_F_MRG_RXBUF).
    pub mergeable: bool,
    /// How the driver's notifications reach the worker.
    pub kick: Kick,
    /// Where to go on; the default is the beginning.
    pub resume: QueueState,
    /// The way back to the driver: interrupts, and the news that its ring broke the rules.
    pub events: Arc<dyn QueueEvents>,
}

impl fmt::Debug for QueueConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueConfig")
            .field("function", &self.function)
            .field("pair", &self.pair)
            .field("direction", &self.direction)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}
