//! A function's data queues, served by the data path.

use std::io;
use std::sync::Arc;

use manifold_datapath::{Datapath, Direction, Kick, QueueConfig};
use manifold_pci::FunctionId;
use manifold_virtio::net::{Coalescing, Filters, QueueHost, QueueStatistics, Role, Steering};
use manifold_virtio::spec::net::feature;
use manifold_virtio::transport::{QueueError, QueueSetup, QueueState};

use crate::switch::Switch;

/// Starts and stops one function's queues on the workers, and rings for them.
pub(crate) struct Queues {
    function: FunctionId,
    datapath: Arc<Datapath>,
    switch: Arc<Switch>,
    /// Doorbells of the transmit queues, by pair. They live as long as the function, so a VMM can hold on to them.
    kicks: Vec<Kick>,
}

impl Queues {
    pub(crate) fn new(
        function: FunctionId,
        pairs: u16,
        datapath: Arc<Datapath>,
        switch: Arc<Switch>,
    ) -> io::Result<Self> {
        let kicks = (0..pairs).map(|_| Kick::new()).collect::<io::Result<_>>()?;
        Ok(Queues { function, datapath, switch, kicks })
    }

    /// The transmit queues' doorbells, with the queues' virtio numbers.
    pub(crate) fn doorbells(&self) -> impl Iterator<Item = (u16, &Kick)> {
        (1u16..).step_by(2).zip(&self.kicks)
    }

    fn place(index: u16) -> (u16, Direction) {
        let direction =
            if index.is_multiple_of(2) { Direction::Receive } else { Direction::Transmit };
        (index / 2, direction)
    }

    /// Serves a queue, woken by `kick`, or else by the doorbell of its pair.
    ///
    /// # Errors
    /// When the ring is not usable or there is no such pair.
    pub(crate) fn serve(
        &self,
        role: Role,
        setup: QueueSetup,
        kick: Option<Kick>,
    ) -> Result<(), QueueError> {
        let (pair, direction) = match role {
            Role::Rx(pair) => (pair, Direction::Receive),
            Role::Tx(pair) => (pair, Direction::Transmit),
        };
        let Some(own) = self.kicks.get(usize::from(pair)) else {
            return Err(QueueError::Unserved(format!("there is no queue pair {pair}")));
        };
        let config = QueueConfig {
            function: self.function,
            pair,
            direction,
            addresses: setup.addresses,
            features: setup.ring_features(),
            mergeable: setup.features & feature::MRG_RXBUF != 0,
            kick: kick.unwrap_or_else(|| own.clone()),
            resume: setup.resume.unwrap_or_default(),
            events: setup.events,
        };
        self.datapath.start_queue(config).map_err(|error| match error {
            manifold_datapath::Error::Ring(error) => QueueError::Ring(error),
            other => QueueError::Unserved(other.to_string()),
        })
    }
}

impl QueueHost for Queues {
    fn start(&self, role: Role, setup: QueueSetup) -> Result<(), QueueError> {
        self.serve(role, setup, None)
    }

    fn stop(&self, index: u16) -> QueueState {
        let (pair, direction) = Self::place(index);
        match self.datapath.stop_queue(self.function, pair, direction) {
            Ok(state) => state.unwrap_or_default(),
            // Without a worker nothing touches the queue either.
            Err(_) => QueueState::default(),
        }
    }

    fn notify(&self, index: u16) {
        if let (pair, Direction::Transmit) = Self::place(index)
            && let Some(kick) = self.kicks.get(usize::from(pair))
        {
            self.datapath.kick(kick);
        }
    }

    fn filters_changed(&self, filters: &Filters) {
        self.switch.set_filters(self.function, filters);
    }

    fn steering_changed(&self, steering: &Steering) {
        if let Err(error) = self.datapath.set_active_pairs(self.function, steering.pairs) {
            tracing::error!(function = %self.function, %error, "cannot steer to the queue pairs");
        }
    }

    fn offloads_changed(&self, _: u64) {}

    fn coalescing_changed(&self, _: u16, _: Coalescing) {}

    fn statistics(&self, _: u16) -> QueueStatistics {
        QueueStatistics::default()
    }
}
