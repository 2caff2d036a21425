//! This module has the data path serve a function's data queues.

use std::io;
use std::sync::Arc;

use manifold_datapath::{Datapath, Direction, DropCause, FunctionCounters, Kick, QueueConfig};
use manifold_pci::FunctionId;
use manifold_virtio::net::{Coalescing, Filters, QueueHost, QueueStatistics, Role, Steering};
use manifold_virtio::ring::Inflight;
use manifold_virtio::transport::{QueueError, QueueSetup, QueueState};

use crate::switch::Switch;

/// Starts and stops one function's queues on the workers, and rings for them.
pub(crate) struct Queues {
    function: FunctionId,
    datapath: Arc<Datapath>,
    switch: Arc<Switch>,
    /// Doorbells of the transmit queues, by queue pair. They live as long as the function, so that
    /// a VMM can keep them.
    kicks: Vec<Kick>,
    counters: FunctionCounters,
}

impl Queues {
    pub(crate) fn new(
        function: FunctionId,
        pairs: u16,
        datapath: Arc<Datapath>,
        switch: Arc<Switch>,
        counters: FunctionCounters,
    ) -> io::Result<Self> {
        let kicks = (0..pairs).map(|_| Kick::new()).collect::<io::Result<_>>()?;
        Ok(Queues { function, datapath, switch, kicks, counters })
    }

    /// Returns the transmit queues' doorbells, with the queues' virtio numbers.
    pub(crate) fn doorbells(&self) -> impl Iterator<Item = (u16, Kick)> {
        (1u16..).step_by(2).zip(self.kicks.iter().cloned())
    }

    fn log_failure(&self, what: &str, result: Result<(), manifold_datapath::Error>) {
        if let Err(error) = result {
            tracing::error!(function = %self.function, %error, "{what} cannot be changed");
        }
    }

    fn pair(role: Role) -> (u16, Direction) {
        match role {
            Role::Rx(pair) => (pair, Direction::Receive),
            Role::Tx(pair) => (pair, Direction::Transmit),
        }
    }

    /// Starts to serve a queue, woken by `kick` or else by the doorbell of its pair. Chains in
    /// flight are recorded in `inflight`.
    ///
    /// # Errors
    /// When the ring is not usable or there is no such pair.
    pub(crate) fn serve(
        &self,
        role: Role,
        setup: QueueSetup,
        kick: Option<Kick>,
        inflight: Option<Inflight>,
    ) -> Result<(), QueueError> {
        let (pair, direction) = Self::pair(role);
        let Some(own) = self.kicks.get(usize::from(pair)) else {
            return Err(QueueError::Unserved(format!("there is no queue pair {pair}")));
        };
        let config = QueueConfig {
            function: self.function,
            pair,
            direction,
            addresses: setup.addresses,
            ring: setup.ring_features(),
            features: setup.features,
            kick: kick.unwrap_or_else(|| own.clone()),
            resume: setup.resume,
            inflight,
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
        self.serve(role, setup, None, None)
    }

    fn stop(&self, index: u16) -> QueueState {
        let (pair, direction) = Self::pair(Role::of(index));
        match self.datapath.stop_queue(self.function, pair, direction) {
            Ok(state) => state.unwrap_or_default(),
            // There is no worker, so nothing touches the queue either.
            Err(_) => QueueState::default(),
        }
    }

    fn notify(&self, index: u16) {
        if let Role::Tx(pair) = Role::of(index)
            && let Some(kick) = self.kicks.get(usize::from(pair))
        {
            self.datapath.kick(kick);
        }
    }

    fn filters_changed(&self, filters: &Filters) {
        self.switch.set_filters(self.function, filters);
    }

    fn steering_changed(&self, steering: &Steering) {
        self.log_failure("steering", self.datapath.set_steering(self.function, steering));
    }

    fn offloads_changed(&self, offloads: u64) {
        self.log_failure("offloads", self.datapath.set_offloads(self.function, offloads));
    }

    fn coalescing_changed(&self, index: u16, coalescing: Coalescing) {
        let (pair, direction) = Self::pair(Role::of(index));
        let result = self.datapath.set_coalescing(self.function, pair, direction, coalescing);
        self.log_failure("coalescing", result);
    }

    fn statistics(&self, index: u16) -> QueueStatistics {
        let (pair, direction) = Self::pair(Role::of(index));
        let Some(counters) = self.counters.pairs().nth(pair.into()) else {
            return QueueStatistics::default();
        };
        let (passed, notifications, overruns, malformed) = match direction {
            Direction::Receive => (counters.rx, 0, counters.dropped(DropCause::NoReceiveBuffer), 0),
            Direction::Transmit => {
                (counters.tx, counters.notifications, 0, counters.dropped(DropCause::BadNetHeader))
            }
        };
        QueueStatistics {
            packets: passed.frames,
            bytes: passed.bytes,
            interrupts: passed.interrupts,
            notifications,
            drops: counters
                .drops
                .iter()
                .filter(|(reason, _)| reason.direction() == direction)
                .map(|(_, n)| n)
                .sum(),
            overruns,
            malformed,
            partial_checksums: passed.partial,
            gso_packets: passed.gso_frames,
            gso_bytes: passed.gso_bytes,
        }
    }
}
