//! This module is the state of a session: what it knows of its client.

use std::sync::Arc;

use manifold_socket::{Disconnect, Peer};

use crate::device::{Capabilities, Device};
use crate::inflight::Tracking;
use crate::memory::Memory;
use crate::ring::Ring;
use crate::spec::{self, protocol_feature};
use crate::status::DeviceStatus;

/// The connection of one client.
pub struct Session {
    pub(super) device: Arc<dyn Device>,
    pub(super) peer: Peer,
    pub(super) is_attached: bool,
    pub(super) capabilities: Capabilities,
    pub(super) status: Arc<DeviceStatus>,
    pub(super) rings: Vec<Ring>,
    pub(super) memory: Memory,
    /// The features that the driver accepted; `None` until the client has set them.
    pub(super) features: Option<u64>,
    /// Protocol features offered and negotiated, as masks.
    pub(super) protocol_offer: u64,
    pub(super) protocol_features: u64,
    /// Number of pairs of rings that the driver receives on.
    pub(super) pairs: u16,
    pub(super) tracking: Option<Tracking>,
}

/// Mask of the protocol features there are; one depends on the device.
const PROTOCOL_FEATURES: u64 = protocol_feature::MQ
    | protocol_feature::RARP
    | protocol_feature::REPLY_ACK
    | protocol_feature::NET_MTU
    | protocol_feature::INFLIGHT_SHMFD
    | protocol_feature::RESET_DEVICE
    | protocol_feature::CONFIGURE_MEM_SLOTS
    | protocol_feature::STATUS;

impl Session {
    /// Begins a session with a client that has not been given the device yet.
    pub(crate) fn new(device: Arc<dyn Device>, peer: Peer) -> Self {
        Self {
            device,
            peer,
            is_attached: false,
            capabilities: Capabilities { features: 0, rings: 0, max_ring_size: 0 },
            status: Arc::default(),
            rings: Vec::new(),
            memory: Memory::default(),
            features: None,
            protocol_offer: 0,
            protocol_features: 0,
            pairs: 1,
            tracking: None,
        }
    }

    /// Gives the device to the client.
    pub(super) fn attach(&mut self) -> Result<(), Disconnect> {
        let attached = self.device.attached(&self.peer, Arc::clone(&self.status));
        attached.map_err(|failure| Disconnect::Unavailable(failure.to_string()))?;
        self.is_attached = true;
        self.capabilities = self.device.capabilities();
        // Messages number rings with a byte.
        self.capabilities.rings = self.capabilities.rings.min(256);
        let tracks = self.device.inflight_size(self.capabilities.max_ring_size, false).is_some();
        let untracked = if tracks { 0 } else { protocol_feature::INFLIGHT_SHMFD };
        self.protocol_offer = PROTOCOL_FEATURES & !untracked;
        self.rings = (0..self.capabilities.rings).map(|_| Ring::new(&self.status)).collect();
        Ok(())
    }

    pub(super) fn has(&self, protocol_feature: u64) -> bool {
        self.protocol_features & protocol_feature != 0
    }

    pub(super) fn is_packed(&self) -> bool {
        self.features.unwrap_or(0) & spec::F_RING_PACKED != 0
    }

    pub(super) fn forget_memory(&mut self) {
        for region in self.memory.take_all() {
            self.device.unmap(&region);
        }
    }
}
