//! A function's data queues, served by the data path.

use std::io;
use std::sync::Arc;

use manifold_datapath::{Datapath, Direction, Drop, FunctionCounters, Kick, QueueConfig};
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
    /// Doorbells of the transmit queues, by pair. They live as long as the function, so a VMM can hold on to them.
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

    /// The transmit queues' doorbells, with the queues' virtio numbers.
    pub(crate) fn doorbells(&self) -> impl Iterator<Item = (u16, Kick)> {
        (1u16..).step_by(2).zip(self.kicks.iter().cloned())
    }

    fn tell(&self, what: &str, result: Result<(), manifold_datapath::Error>) {
        if let Err(error) = result {
            tracing::error!(function = %self.function, %error, "{what} cannot be changed");
        }
    }

    fn place(index: u16) -> (u16, Direction) {
        let direction =
            if index.is_multiple_of(2) { Direction::Receive } else { Direction::Transmit };
        (index / 2, direction)
    }

    /// Serves a queue, woken by `kick`, or else by the doorbell of its pair. What it has taken is recorded in `inflight`.
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
        self.tell("steering", self.datapath.set_steering(self.function, steering));
    }

    fn offloads_changed(&self, offloads: u64) {
        self.tell("offloads", self.datapath.set_offloads(self.function, offloads));
    }

    fn coalescing_changed(&self, index: u16, coalescing: Coalescing) {
        let (pair, direction) = Self::place(index);
        let result = self.datapath.set_coalescing(self.function, pair, direction, coalescing);
        self.tell("coalescing", result);
    }

    fn statistics(&self, index: u16) -> QueueStatistics {
        let (pair, direction) = Self::place(index);
        let Some(counters) = self.counters.pairs().nth(pair.into()) else {
            return QueueStatistics::default();
        };
        let way = match direction {
            Direction::Receive => counters.rx,
            Direction::Transmit => counters.tx,
        };
        let dropped = |reasons: &[Drop]| reasons.iter().map(|r| counters.dropped(*r)).sum();
        let (overruns, malformed) = match direction {
            Direction::Receive => (dropped(&[Drop::NoBuffer]), 0),
            Direction::Transmit => (0, dropped(&[Drop::BadHeader])),
        };
        QueueStatistics {
            packets: way.frames,
            bytes: way.bytes,
            interrupts: way.interrupts,
            notifications: match direction {
                Direction::Receive => 0,
                Direction::Transmit => counters.notifications,
            },
            drops: counters
                .drops
                .iter()
                .filter(|(reason, _)| reason.direction() == direction)
                .map(|(_, n)| n)
                .sum(),
            overruns,
            malformed,
            partial_checksums: way.partial,
            gso_packets: way.gso_frames,
            gso_bytes: way.gso_bytes,
        }
    }
}
