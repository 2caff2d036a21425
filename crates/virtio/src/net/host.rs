//! This module defines the interface to whoever serves the queues of a network device.

use manifold_offload::Filters;

use super::steering::{Coalescing, QueueStatistics, Steering};
use crate::transport::{QueueError, QueueSetup, QueueState};

/// The role of a data queue (5.1.2). The number is that of the pair, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The queue carries frames to the driver: it is queue 2n.
    Rx(u16),
    /// The queue carries frames from the driver: it is queue 2n + 1.
    Tx(u16),
}

impl Role {
    /// Returns the role of the data queue of this number.
    pub fn of(index: u16) -> Self {
        let pair = index / 2;
        if index.is_multiple_of(2) { Role::Rx(pair) } else { Role::Tx(pair) }
    }
}

/// The data path behind one network device. The device model serves the control queue itself.
///
/// It is called from the thread that accesses the function's registers, one call at a time, with
/// the device locked: an implementation must not wait for that lock.
pub trait QueueHost: Send + Sync {
    /// Begins to serve a queue. The driver may have made buffers available already: no notification
    /// need follow.
    ///
    /// # Errors
    /// The device then needs a reset, and the queue counts as stopped.
    fn start(&self, role: Role, setup: QueueSetup) -> Result<(), QueueError>;

    /// Ends serving a started queue. On return no worker touches the queue's memory any more, nor
    /// calls its events. The result is handed to [`QueueHost::start`] if the queue is to go on.
    fn stop(&self, index: u16) -> QueueState;

    /// Tells that the driver made buffers available in a started queue.
    fn notify(&self, index: u16);

    /// Says what the function is to receive. This is called before the queues of a new driver start
    /// and for each change after that, a reset's included. On return the new filters are in force.
    fn filters_changed(&self, filters: &Filters);

    /// Says on which queue pairs the function receives. This is called before the queues of a new
    /// driver start and for each change after that, a reset's included. On return the new steering
    /// is in force.
    fn steering_changed(&self, steering: &Steering);

    /// Says which of the negotiated receive offloads are in force: masks of
    /// [`GUEST_OFFLOADS`](crate::spec::net::feature::GUEST_OFFLOADS), none without those it
    /// requires. They hold for all queues of the function, also for those that start later. This is
    /// called before the queues of a new driver start and for each change after that, a reset's
    /// included.
    fn offloads_changed(&self, offloads: u64);

    /// Says how notifications of a started data queue are coalesced from now on. Each queue starts
    /// without coalescing; if it is to have some, this call follows [`QueueHost::start`].
    fn coalescing_changed(&self, index: u16, coalescing: Coalescing);

    /// Returns the counters of a data queue, started or not. It must not wait for a worker: guest
    /// memory is pinned meanwhile.
    fn statistics(&self, index: u16) -> QueueStatistics;
}
