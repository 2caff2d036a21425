//! The virtio network device (5.1): configuration, receive state and control queue. Frames are the [`QueueHost`]'s.

mod control;
mod control_queue;
mod filters;
mod host;
mod state;
mod steering;

use std::sync::Arc;

use manifold_dma::Domain;
use manifold_pci::{FunctionSpec, Msix};

use crate::Error;
use crate::ring::MAX_QUEUE_SIZE;
use crate::spec::feature as common_feature;
use crate::spec::net::{self as spec, config, feature, status};
use crate::transport::{
    DeviceFacts, QueueError, QueueSetup, QueueState, VirtioDevice, VirtioPci, layout,
};
use control_queue::ControlQueue;
pub use filters::{Filters, MAC_TABLE_ENTRIES, MacAddress, VlanTable};
pub use host::{QueueHost, Role};
use state::Receive;
pub use steering::{
    Coalescing, HashConfig, Indirection, QueueStatistics, RSS_KEY_SIZE, RSS_TABLE_ENTRIES, Steering,
};

/// Most queue pairs of one device.
pub const MAX_QUEUE_PAIRS: u16 = 16;

/// Descriptors of the control queue. A driver has one command under way, of three descriptors or so.
const CONTROL_QUEUE_SIZE: u16 = 64;

/// Ethernet controller.
const CLASS_CODE: u32 = 0x02_0000;

/// The features always offered.
const FEATURES: u64 = common_feature::VERSION_1
    | common_feature::ACCESS_PLATFORM
    | common_feature::INDIRECT_DESC
    | common_feature::EVENT_IDX
    | common_feature::RING_RESET
    | feature::MAC
    | feature::STATUS
    | feature::MTU
    | feature::MRG_RXBUF
    | feature::CTRL_VQ
    | feature::CTRL_RX
    | feature::CTRL_RX_EXTRA
    | feature::CTRL_VLAN
    | feature::CTRL_MAC_ADDR
    | feature::GUEST_ANNOUNCE;

/// Which feature requires which (5.1.3.1, and 5.1.4.2 for CTRL_RX_EXTRA).
const REQUIREMENTS: [(u64, u64, &str); 6] = [
    (feature::CTRL_RX, feature::CTRL_VQ, "VIRTIO_NET_F_CTRL_RX requires VIRTIO_NET_F_CTRL_VQ"),
    (
        feature::CTRL_RX_EXTRA,
        feature::CTRL_VQ,
        "VIRTIO_NET_F_CTRL_RX_EXTRA requires VIRTIO_NET_F_CTRL_VQ",
    ),
    (feature::CTRL_VLAN, feature::CTRL_VQ, "VIRTIO_NET_F_CTRL_VLAN requires VIRTIO_NET_F_CTRL_VQ"),
    (
        feature::GUEST_ANNOUNCE,
        feature::CTRL_VQ,
        "VIRTIO_NET_F_GUEST_ANNOUNCE requires VIRTIO_NET_F_CTRL_VQ",
    ),
    (feature::MQ, feature::CTRL_VQ, "VIRTIO_NET_F_MQ requires VIRTIO_NET_F_CTRL_VQ"),
    (
        feature::CTRL_MAC_ADDR,
        feature::CTRL_VQ,
        "VIRTIO_NET_F_CTRL_MAC_ADDR requires VIRTIO_NET_F_CTRL_VQ",
    ),
];

/// What makes one network device differ from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// The function's name in logs, such as `vf3`.
    pub name: String,
    /// The MAC address after each reset; a unicast address.
    pub mac: MacAddress,
    /// Largest frame payload in bytes, 68 to 65535 (5.1.4.1).
    pub mtu: u16,
    /// Most queue pairs the driver can use, 1 to [`MAX_QUEUE_PAIRS`].
    pub queue_pairs: u16,
    /// Largest size of a receive or transmit queue in descriptors: a power of two, 2 to [`MAX_QUEUE_SIZE`].
    pub queue_size: u16,
    /// Whether the link is up to begin with.
    pub link_up: bool,
    /// Whether to offer VIRTIO_F_SR_IOV: for a physical function, seen by software that also sees its SR-IOV
    /// capability.
    pub sr_iov: bool,
    /// Device serial number for the PCI capability, an EUI-64.
    pub serial: u64,
}

impl NetConfig {
    /// A function's usual configuration: MTU 1500, one queue pair of 256 descriptors, link up.
    pub fn new(name: impl Into<String>, mac: MacAddress) -> Self {
        NetConfig {
            name: name.into(),
            mac,
            mtu: 1500,
            queue_pairs: 1,
            queue_size: 256,
            link_up: true,
            sr_iov: false,
            serial: 0,
        }
    }

    /// What the configuration space of a function with this device is built from.
    pub fn function_spec(&self) -> FunctionSpec {
        layout::function_spec(&self.facts(), self.serial)
    }

    fn facts(&self) -> DeviceFacts {
        DeviceFacts {
            device_id: spec::DEVICE_ID,
            class_code: CLASS_CODE,
            queues: 2 * self.queue_pairs.min(MAX_QUEUE_PAIRS) + 1,
            config_size: config::SIZE as u16,
        }
    }

    fn features(&self) -> u64 {
        let mut features = FEATURES;
        if self.queue_pairs > 1 {
            features |= feature::MQ;
        }
        if self.sr_iov {
            features |= common_feature::SR_IOV;
        }
        features
    }

    /// What the queue of this number is (5.1.2): where the control queue is depends on what is negotiated.
    fn queue_use(&self, index: u16, features: u64) -> Option<Use> {
        let pairs = if features & feature::MQ != 0 { self.queue_pairs } else { 1 };
        if index < 2 * pairs {
            let pair = index / 2;
            Some(Use::Data(if index.is_multiple_of(2) { Role::Rx(pair) } else { Role::Tx(pair) }))
        } else if index == 2 * pairs && features & feature::CTRL_VQ != 0 {
            Some(Use::Control)
        } else {
            None
        }
    }

    fn check(&self) -> Result<(), Error> {
        if !(1..=MAX_QUEUE_PAIRS).contains(&self.queue_pairs) {
            return Err(Error::QueuePairs(self.queue_pairs));
        }
        if !self.queue_size.is_power_of_two() || !(2..=MAX_QUEUE_SIZE).contains(&self.queue_size) {
            return Err(Error::QueueSize(self.queue_size));
        }
        if self.mtu < 68 {
            return Err(Error::Mtu(self.mtu));
        }
        if filters::is_group(&self.mac) || self.mac == [0; 6] {
            return Err(Error::Mac(self.mac));
        }
        Ok(())
    }
}

/// A virtio network device as a PCIe function.
pub type NetDevice = VirtioPci<Net>;

impl VirtioPci<Net> {
    /// A function with a network device, as after power-on. `domain` is the function's memory, `msix` the vectors of
    /// its configuration space (made from [`NetConfig::function_spec`]), `host` who serves its queues.
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
        let (name, serial) = (config.name.clone(), config.serial);
        Ok(VirtioPci::with_device(Net::new(config, domain, host), name, serial, msix))
    }

    /// The link goes up or down; the driver is told.
    pub fn set_link(&mut self, up: bool) {
        if std::mem::replace(&mut self.device.link_up, up) != up {
            self.notify_config();
        }
    }

    /// Whether the link is up.
    pub fn link_up(&self) -> bool {
        self.device.link_up
    }

    /// Asks the driver to announce itself to the network (5.1.6.5.4). False when it cannot be asked: it is not live or
    /// has not negotiated VIRTIO_NET_F_GUEST_ANNOUNCE.
    pub fn announce(&mut self) -> bool {
        let receive = &mut self.device.receive;
        let able = receive.features & feature::GUEST_ANNOUNCE != 0;
        if able {
            receive.announce = true;
            self.notify_config();
        }
        able
    }

    /// Offers VIRTIO_F_SR_IOV to the next driver, or does not: a guest that is given the physical function does not see
    /// the SR-IOV capability, and so shall not see the feature. The device must be reset.
    pub fn offer_sr_iov(&mut self, offer: bool) {
        self.device.config.sr_iov = offer;
    }

    /// The filters in force.
    pub fn filters(&self) -> &Filters {
        &self.device.receive.filters
    }
}

/// The network device behind a [`NetDevice`]'s registers.
pub struct Net {
    config: NetConfig,
    domain: Arc<Domain>,
    host: Arc<dyn QueueHost>,
    link_up: bool,
    receive: Receive,
    /// While the control queue runs.
    control: Option<ControlQueue>,
}

/// What a queue is for.
enum Use {
    Data(Role),
    Control,
}

impl Net {
    fn new(config: NetConfig, domain: Arc<Domain>, host: Arc<dyn QueueHost>) -> Self {
        let link_up = config.link_up;
        let receive = Receive::new(config.mac, config.queue_pairs);
        Net { config, domain, host, link_up, receive, control: None }
    }

    fn process_control(&mut self) {
        if let Some(control) = &mut self.control {
            control.process(&mut self.receive, &mut |filters| self.host.filters_changed(filters));
        }
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
        for (needs, needed, message) in REQUIREMENTS {
            if features & needs != 0 && features & needed == 0 {
                return Err(message);
            }
        }
        Ok(())
    }

    fn queue_max_size(&self, index: u16, features: u64) -> u16 {
        match self.config.queue_use(index, features) {
            Some(Use::Data(_)) => self.config.queue_size,
            Some(Use::Control) => CONTROL_QUEUE_SIZE,
            None => 0,
        }
    }

    fn read_config(&self, out: &mut [u8]) {
        let mut status = 0;
        if self.link_up {
            status |= status::LINK_UP;
        }
        if self.receive.announce {
            status |= status::ANNOUNCE;
        }
        out.fill(0);
        let mut put = |offset: usize, bytes: &[u8]| {
            for (out, byte) in out.iter_mut().skip(offset).zip(bytes) {
                *out = *byte;
            }
        };
        put(config::MAC, &self.receive.filters.mac);
        put(config::STATUS, &status.to_le_bytes());
        put(config::MAX_VIRTQUEUE_PAIRS, &self.config.queue_pairs.to_le_bytes());
        put(config::MTU, &self.config.mtu.to_le_bytes());
    }

    fn activate(&mut self, features: u64) {
        self.receive.activate(features);
        self.host.filters_changed(&self.receive.filters);
    }

    fn start_queue(&mut self, setup: QueueSetup) -> Result<(), QueueError> {
        match self.config.queue_use(setup.index, setup.features) {
            Some(Use::Data(role)) => self.host.start(role, setup),
            Some(Use::Control) => {
                self.control = Some(ControlQueue::new(setup, &self.domain)?);
                self.process_control();
                Ok(())
            }
            None => Err(QueueError::Unserved("no such queue".into())),
        }
    }

    fn stop_queue(&mut self, index: u16) -> QueueState {
        match self.config.queue_use(index, self.receive.features) {
            Some(Use::Data(_)) => self.host.stop(index),
            Some(Use::Control) => {
                self.control.take().map_or_else(QueueState::default, |control| control.state())
            }
            None => QueueState::default(),
        }
    }

    fn notify(&mut self, index: u16) {
        match self.config.queue_use(index, self.receive.features) {
            Some(Use::Data(_)) => self.host.notify(index),
            Some(Use::Control) => self.process_control(),
            None => {}
        }
    }

    fn reset(&mut self) {
        let fresh = Receive::new(self.config.mac, self.config.queue_pairs);
        let before = std::mem::replace(&mut self.receive, fresh);
        if before.filters != self.receive.filters {
            self.host.filters_changed(&self.receive.filters);
        }
    }
}
