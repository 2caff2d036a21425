//! This module is the virtio network device (5.1): its configuration, settings and control queue.
//! The [`QueueHost`] moves the frames.

mod config;
mod control;
mod control_queue;
mod features;
mod host;
pub(crate) mod limits;
mod names;
mod nic;
mod settings;
mod steering;

use std::sync::Arc;

use manifold_dma::Domain;
use manifold_pci::Msix;

use crate::error::Error;
use crate::spec::net::{config as layout, feature, hash_type, status};
use crate::transport::{DeviceFacts, QueueError, QueueSetup, QueueState, VirtioDevice, VirtioPci};
use config::Use;
pub use config::{NetConfig, SPEED_UNKNOWN};
use control::{CommandContext, CommandCounts};
use control_queue::{Commands, ControlQueue};
pub use features::{PLAIN, SUPPORTED};
pub use host::{QueueHost, Role};
pub use limits::{MAC_TABLE_ENTRIES, MAX_QUEUE_PAIRS};
pub use manifold_offload::Filters;
pub use names::feature_names;
use settings::{Changes, Queues, Settings};
pub use steering::{
    Coalescing, HashConfig, Indirection, QueueStatistics, RSS_KEY_SIZE, RSS_TABLE_ENTRIES, Steering,
};

/// Size of the control queue in descriptors. A driver has one command under way, of three
/// descriptors or so.
const CONTROL_QUEUE_SIZE: u16 = 64;

/// A virtio network device as a PCIe function.
pub type NetDevice = VirtioPci<Net>;

impl VirtioPci<Net> {
    /// Makes a function with a network device, as after power-on. `domain` is the function's
    /// memory, `msix` are the vectors of its configuration space (made from
    /// [`NetConfig::function_spec`]), and `host` serves its queues.
    ///
    /// # Errors
    /// When `config` is out of range.
    pub fn new(
        config: NetConfig,
        domain: Arc<Domain>,
        msix: &Msix,
        host: Arc<dyn QueueHost>,
    ) -> Result<Self, Error> {
        config.check()?;
        let name = config.name.clone();
        Ok(VirtioPci::with_device(Net::new(config, domain, host), name, msix))
    }

    /// Asks the driver to announce itself to the network (5.1.6.5.4). Returns false when it cannot
    /// be asked: it is not live or has not negotiated VIRTIO_NET_F_GUEST_ANNOUNCE.
    ///
    /// The adapter has no reason to ask yet; the feature is offered, and this is how it works.
    pub fn announce(&mut self) -> bool {
        let settings = &mut self.device.settings;
        let able = settings.features & feature::GUEST_ANNOUNCE != 0;
        if able {
            settings.announce = true;
            self.notify_config();
        }
        able
    }

    // The four methods below are for tests: no register shows these settings, and what the host
    // was told last is right only if it equals them.

    /// Returns the filters in force.
    pub fn filters(&self) -> &Filters {
        &self.device.settings.filters
    }

    /// Returns the steering in force.
    pub fn steering(&self) -> &Steering {
        &self.device.settings.steering
    }

    /// Returns the receive offloads in force: masks of [`GUEST_OFFLOADS`](feature::GUEST_OFFLOADS).
    pub fn offloads(&self) -> u64 {
        self.device.settings.offloads
    }

    /// Returns how notifications of the data queue of this number are coalesced.
    pub fn coalescing(&self, index: u16) -> Coalescing {
        self.device.settings.coalescing.get(index)
    }
}

/// The network device behind a [`NetDevice`]'s registers.
pub struct Net {
    config: NetConfig,
    domain: Arc<Domain>,
    host: Arc<dyn QueueHost>,
    settings: Settings,
    /// The data queues that the host serves.
    started: Queues,
    commands: CommandCounts,
    /// The control queue, while it runs.
    control: Option<ControlQueue>,
}

impl Net {
    fn new(config: NetConfig, domain: Arc<Domain>, host: Arc<dyn QueueHost>) -> Self {
        Net {
            settings: Settings::new(config.mac, config.queue_pairs),
            config,
            domain,
            host,
            started: Queues::default(),
            commands: CommandCounts::default(),
            control: None,
        }
    }

    fn process_control(&mut self) {
        if let Some(control) = &mut self.control {
            control.process(&mut Executor {
                settings: &mut self.settings,
                host: &*self.host,
                started: self.started,
                counts: &mut self.commands,
                changes: Changes::NONE,
            });
        }
    }

    fn start_data_queue(&mut self, role: Role, setup: QueueSetup) -> Result<(), QueueError> {
        let index = setup.index;
        if setup.resume.is_none() {
            self.settings.coalescing.reset(index);
        }
        self.host.start(role, setup)?;
        self.started.insert(Queues::one(index));
        let coalescing = self.settings.coalescing.get(index);
        if coalescing != Coalescing::default() {
            self.host.coalescing_changed(index, coalescing);
        }
        Ok(())
    }
}

/// The device's part that carries out the commands of the control queue.
struct Executor<'a> {
    settings: &'a mut Settings,
    host: &'a dyn QueueHost,
    started: Queues,
    counts: &'a mut CommandCounts,
    /// The changes that the host has not been told of yet.
    changes: Changes,
}

impl Commands for Executor<'_> {
    fn execute(&mut self, command: &[u8], result: &mut Vec<u8>) -> bool {
        self.counts.received = self.counts.received.wrapping_add(1);
        let context =
            CommandContext { host: self.host, started: self.started, commands: *self.counts };
        let outcome = self.settings.execute(command, &context, result);
        if let Ok(changes) = outcome {
            self.changes.merge(changes);
            self.counts.done = self.counts.done.wrapping_add(1);
        }
        outcome.is_ok()
    }

    fn settle(&mut self) {
        std::mem::take(&mut self.changes).tell(self.host, self.settings, self.started);
    }
}

impl VirtioDevice for Net {
    fn facts(&self) -> DeviceFacts {
        self.config.facts()
    }

    fn features(&self) -> u64 {
        self.config.features()
    }

    fn check_features(&self, features: u64) -> Result<(), &'static str> {
        features::check(features)
    }

    fn queue_max_size(&self, index: u16, features: u64) -> u16 {
        match self.config.queue_use(index, features) {
            Some(Use::Data(_)) => self.config.queue_size,
            Some(Use::Control) => CONTROL_QUEUE_SIZE,
            None => 0,
        }
    }

    /// Fills in the configuration; fields of features that are not offered are zero, but for the
    /// number of queue pairs.
    fn read_config(&self, out: &mut [u8]) {
        let offered = self.features();
        let mut status = 0;
        if self.config.link_up {
            status |= status::LINK_UP;
        }
        if self.settings.announce {
            status |= status::ANNOUNCE;
        }
        out.fill(0);
        let mut put = |offset: usize, bytes: &[u8]| {
            for (out, byte) in out.iter_mut().skip(offset).zip(bytes) {
                *out = *byte;
            }
        };
        put(layout::MAC, &self.settings.filters.mac.octets());
        put(layout::STATUS, &status.to_le_bytes());
        put(layout::MAX_VIRTQUEUE_PAIRS, &self.config.queue_pairs.to_le_bytes());
        put(layout::MTU, &self.config.mtu.to_le_bytes());
        if offered & feature::SPEED_DUPLEX != 0 {
            put(layout::SPEED, &self.config.speed.to_le_bytes());
            put(layout::DUPLEX, &[layout::DUPLEX_FULL]);
        }
        if offered & (feature::RSS | feature::HASH_REPORT) != 0 {
            put(layout::RSS_MAX_KEY_SIZE, &[RSS_KEY_SIZE as u8]);
            put(layout::SUPPORTED_HASH_TYPES, &hash_type::ALL.to_le_bytes());
        }
        if offered & feature::RSS != 0 {
            put(layout::RSS_MAX_INDIRECTION_TABLE_LENGTH, &RSS_TABLE_ENTRIES.to_le_bytes());
        }
    }

    fn activate(&mut self, features: u64) {
        self.settings.activate(features);
        let all = Changes { filters: true, steering: true, offloads: true, ..Changes::NONE };
        all.tell(&*self.host, &self.settings, self.started);
    }

    fn start_queue(&mut self, setup: QueueSetup) -> Result<(), QueueError> {
        match self.config.queue_use(setup.index, setup.features) {
            Some(Use::Data(role)) => self.start_data_queue(role, setup),
            Some(Use::Control) => {
                self.control = Some(ControlQueue::new(setup, &self.domain)?);
                self.process_control();
                Ok(())
            }
            None => Err(QueueError::Unserved("no such queue".into())),
        }
    }

    fn stop_queue(&mut self, index: u16) -> QueueState {
        match self.config.queue_use(index, self.settings.features) {
            Some(Use::Data(_)) => {
                self.started.remove(index);
                self.host.stop(index)
            }
            Some(Use::Control) => {
                self.control.take().map_or_else(QueueState::default, |control| control.state())
            }
            None => QueueState::default(),
        }
    }

    fn notify(&mut self, index: u16) {
        match self.config.queue_use(index, self.settings.features) {
            Some(Use::Data(_)) => self.host.notify(index),
            Some(Use::Control) => self.process_control(),
            None => {}
        }
    }

    fn reset(&mut self) {
        let fresh = Settings::new(self.config.mac, self.config.queue_pairs);
        let before = std::mem::replace(&mut self.settings, fresh);
        let changes = Changes {
            filters: before.filters != self.settings.filters,
            steering: before.steering != self.settings.steering,
            offloads: before.offloads != self.settings.offloads,
            ..Changes::NONE
        };
        changes.tell(&*self.host, &self.settings, self.started);
    }
}
