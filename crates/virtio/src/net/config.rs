//! This module holds what makes one network device differ from another.

use manifold_offload::MacAddr;
use manifold_pci::FunctionSpec;

use super::features::{self, SUPPORTED};
use super::host::Role;
use super::limits::MAX_QUEUE_PAIRS;
use crate::error::Error;
use crate::ring::MAX_QUEUE_SIZE;
use crate::spec::feature as common_feature;
use crate::spec::net::{self as spec, config, feature};
use crate::transport::{DeviceFacts, layout};

/// Value of [`NetConfig::speed`] for a speed that is not known (5.1.4).
pub const SPEED_UNKNOWN: u32 = u32::MAX;

/// PCI class code of an Ethernet controller.
const CLASS_CODE: u32 = 0x02_0000;

/// The configuration of a network device: all that makes one differ from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// The function's name in logs, such as `vf3`.
    pub name: String,
    /// The MAC address after each reset; a unicast address.
    pub mac: MacAddr,
    /// Largest frame payload in bytes, 68 to 65535 (5.1.4.1).
    pub mtu: u16,
    /// Number of queue pairs the driver can use at most, 1 to [`MAX_QUEUE_PAIRS`].
    pub queue_pairs: u16,
    /// Largest size of a receive or transmit queue in descriptors: a power of two, 2 to
    /// [`MAX_QUEUE_SIZE`].
    pub queue_size: u16,
    /// True if the link is up to begin with.
    pub link_up: bool,
    /// The link's speed that the driver is told, in Mbit/s: 0 to 7fff_ffffh, or [`SPEED_UNKNOWN`].
    /// It is information for the driver (bonding and routing daemons go by it) and no limit. The
    /// link is full duplex.
    pub speed: u32,
    /// The features offered, masks of [`crate::spec::feature`] and [`crate::spec::net::feature`]
    /// within [`SUPPORTED`], which is the default: all this crate knows. Whoever serves the queues
    /// takes out what it cannot do. VIRTIO_F_VERSION_1 is offered in any case; MQ and RSS are not
    /// if there is one queue pair.
    pub offer: u64,
    /// True if VIRTIO_F_SR_IOV is offered: for a physical function, seen by software that also sees
    /// its SR-IOV capability.
    pub sr_iov: bool,
    /// Device serial number for the PCI capability, an EUI-64.
    pub serial: u64,
}

/// The use of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Data(Role),
    Control,
}

impl NetConfig {
    /// Returns a function's usual configuration: MTU 1500, one queue pair of 256 descriptors, link
    /// up at 10 Gbit/s, all features.
    pub fn new(name: impl Into<String>, mac: impl Into<MacAddr>) -> Self {
        NetConfig {
            name: name.into(),
            mac: mac.into(),
            mtu: 1500,
            queue_pairs: 1,
            queue_size: 256,
            link_up: true,
            speed: 10_000,
            offer: SUPPORTED,
            sr_iov: false,
            serial: 0,
        }
    }

    /// Returns what the configuration space of a function with this device is built from.
    pub fn function_spec(&self) -> FunctionSpec {
        layout::function_spec(&self.facts(), self.serial)
    }

    pub(super) fn facts(&self) -> DeviceFacts {
        DeviceFacts {
            device_id: spec::DEVICE_ID,
            class_code: CLASS_CODE,
            queues: 2 * self.queue_pairs.min(MAX_QUEUE_PAIRS) + 1,
            config_size: config::SIZE as u16,
        }
    }

    /// Returns the features offered.
    pub(super) fn features(&self) -> u64 {
        let mut features = self.offer | common_feature::VERSION_1;
        if self.queue_pairs == 1 {
            features &= !feature::MULTIQUEUE;
        }
        if self.sr_iov {
            features |= common_feature::SR_IOV;
        }
        features
    }

    /// Returns what the queue of this number is for (5.1.2). Where the control queue is depends on
    /// what is negotiated.
    pub(super) fn queue_use(&self, index: u16, features: u64) -> Option<Use> {
        let pairs = if features & feature::MULTIQUEUE != 0 { self.queue_pairs } else { 1 };
        if index < 2 * pairs {
            Some(Use::Data(Role::of(index)))
        } else if index == 2 * pairs && features & feature::CTRL_VQ != 0 {
            Some(Use::Control)
        } else {
            None
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if !(1..=MAX_QUEUE_PAIRS).contains(&self.queue_pairs) {
            return Err(Error::QueuePairs(self.queue_pairs));
        }
        if !self.queue_size.is_power_of_two() || !(2..=MAX_QUEUE_SIZE).contains(&self.queue_size) {
            return Err(Error::QueueSize(self.queue_size));
        }
        if self.mtu < 68 {
            return Err(Error::Mtu(self.mtu));
        }
        if !self.mac.is_station() {
            return Err(Error::Mac(self.mac));
        }
        if self.speed > i32::MAX as u32 && self.speed != SPEED_UNKNOWN {
            return Err(Error::Speed(self.speed));
        }
        if self.offer & !SUPPORTED != 0 {
            return Err(Error::Unsupported(self.offer & !SUPPORTED));
        }
        features::check(self.features()).map_err(Error::Offer)
    }
}
