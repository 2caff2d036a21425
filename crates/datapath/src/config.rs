//! This module describes a queue that a worker is to serve.

use std::fmt;
use std::sync::Arc;

use manifold_offload::Offloads;
use manifold_pci::FunctionId;
use manifold_virtio::ring::{Inflight, Queue, QueueAddresses, QueueState, RingError, RingFeatures};
use manifold_virtio::spec::net::{feature, header};
use manifold_virtio::transport::QueueEvents;

use crate::wake::kick::Kick;

/// The direction in which frames go, seen from the driver.
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
    /// Function that the queue belongs to.
    pub function: FunctionId,
    /// Queue pair, from 0.
    pub pair: u16,
    /// Direction of the queue, which says which queue of the pair it is.
    pub direction: Direction,
    /// IOVAs and size of the ring's parts.
    pub addresses: QueueAddresses,
    /// Ring features that the driver accepted.
    pub ring: RingFeatures,
    /// All features that the driver accepted, as masks of [`feature`]: offloads, merged buffers,
    /// hash report.
    pub features: u64,
    /// The doorbell by which the driver notifies the worker.
    pub kick: Kick,
    /// Place at which the queue goes on; `None` is its beginning.
    pub resume: Option<QueueState>,
    /// Record of chains in flight, for the process that serves the queue after this one.
    pub inflight: Option<Inflight>,
    /// Callbacks that interrupt the driver, and tell it that its ring broke the rules.
    pub events: Arc<dyn QueueEvents>,
}

impl QueueConfig {
    pub(crate) fn queue(&self) -> Result<Queue, RingError> {
        let queue = Queue::new(self.addresses, self.ring)?;
        let queue = match self.resume {
            Some(state) => queue.resume(state)?,
            None => queue,
        };
        match &self.inflight {
            Some(region) => queue.with_inflight(region.clone()),
            None => Ok(queue),
        }
    }

    /// Returns true if a received frame may span several buffers.
    pub(crate) fn is_mergeable(&self) -> bool {
        self.features & feature::MRG_RXBUF != 0
    }

    /// Returns the length of virtio_net_hdr in bytes.
    pub(crate) fn header_len(&self) -> usize {
        if self.features & feature::HASH_REPORT != 0 { header::SIZE_HASH } else { header::SIZE }
    }
}

/// Returns what the driver lets the device leave undone in frames that it receives.
pub(crate) fn receive_offloads(features: u64) -> Offloads {
    let has = |bit| features & bit != 0;
    Offloads::CSUM.only_if(has(feature::GUEST_CSUM))
        | Offloads::TSO4.only_if(has(feature::GUEST_TSO4))
        | Offloads::TSO6.only_if(has(feature::GUEST_TSO6))
        | Offloads::ECN.only_if(has(feature::GUEST_ECN))
        | Offloads::USO4.only_if(has(feature::GUEST_USO4))
        | Offloads::USO6.only_if(has(feature::GUEST_USO6))
}

/// Returns what the driver may leave undone in frames that it sends.
pub(crate) fn transmit_offloads(features: u64) -> Offloads {
    let has = |bit| features & bit != 0;
    let uso = Offloads::USO4 | Offloads::USO6;
    Offloads::CSUM.only_if(has(feature::CSUM))
        | Offloads::TSO4.only_if(has(feature::HOST_TSO4))
        | Offloads::TSO6.only_if(has(feature::HOST_TSO6))
        | Offloads::ECN.only_if(has(feature::HOST_ECN))
        | uso.only_if(has(feature::HOST_USO))
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
