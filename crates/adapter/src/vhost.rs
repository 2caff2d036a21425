//! An attachment over vhost-user hands the VMM a function's queues alone; the VMM keeps the
//! registers.
//!
//! ```text
//!   vhost-user session ──► VhostAttachment ──► Domain   map and unmap the VMM's memory regions
//!                               │         ├──► Queues   serve and stop rings, steer to pairs
//!                               │         └──► Switch   the function's filters
//!   call, err eventfds ◄── RingEvents (QueueEvents)
//! ```
//!
//! The guest's control queue ends in the VMM, which keeps to itself what the guest wants to
//! receive. So the function gets what its policy lets it have: its own address, broadcast and all
//! multicast, of any VLAN.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use manifold_datapath::Kick;
use manifold_dma::{Backing, PAGE_SIZE, Permissions, SharedMemory};
use manifold_pci::DriverReport;
use manifold_vhost_user::{
    Capabilities, Device, DeviceStatus, Disconnect, Failure, Peer, Region, RingFds, RingSetup,
};
use manifold_virtio::net::{Filters, QueueHost, Role, Steering, feature_names};
use manifold_virtio::ring::{Inflight, MAX_QUEUE_SIZE, QueueAddresses, is_in_use};
use manifold_virtio::spec::feature as common;
use manifold_virtio::spec::net::feature;
use manifold_virtio::transport::{QueueEvents, QueueSetup, QueueState};
use parking_lot::Mutex;
use rustix::fd::OwnedFd;

use crate::function::{Function, Holder};
use crate::info::{PeerInfo, Protocol};
use crate::queues::Queues;

/// The features of a function that concern the queues and what is in them. The rest is the VMM's,
/// which keeps the control queue and the configuration.
const DATA_PATH: u64 = common::VERSION_1
    | common::INDIRECT_DESC
    | common::EVENT_IDX
    | common::RING_PACKED
    | common::IN_ORDER
    | feature::MTU
    | feature::MRG_RXBUF
    | feature::CSUM
    | feature::GUEST_OFFLOADS
    | feature::HOST_TSO4
    | feature::HOST_TSO6
    | feature::HOST_ECN
    | feature::HOST_USO
    | feature::GUEST_HDRLEN
    | feature::GUEST_ANNOUNCE
    | feature::MQ;

/// The reason why a VMM cannot have a function, or a queue cannot be served.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Held(Holder),
    #[error("the function has been disabled")]
    Gone,
    #[error(
        "the function's device model has no virtqueues: attach to its vfio-user socket instead"
    )]
    NoVirtqueues,
    #[error("the driver is a legacy one (VIRTIO_F_VERSION_1 was not negotiated)")]
    Legacy,
    #[error("the adapter's MTU is {0}: set host_mtu to that or less, or `manifold serve --mtu`")]
    Mtu(u16),
    #[error(
        "the ring is in use, and the VMM says that it begins: a VMM that connects again must use \
         split rings (packed=off); the machine's driver has to start anew"
    )]
    UnderWay,
}

/// One function as a vhost-user device.
pub(crate) struct VhostAttachment {
    function: Arc<Function>,
    /// Rings that the VMM has started and that cannot be served, with the positions that it gave.
    unserved: Mutex<BTreeMap<u16, QueueState>>,
}

impl VhostAttachment {
    pub(crate) fn new(function: Arc<Function>) -> Self {
        VhostAttachment { function, unserved: Mutex::default() }
    }

    /// Reports whether a packed ring goes on of which the VMM does not know where.
    fn is_lost(&self, setup: &RingSetup) -> bool {
        setup.features & common::RING_PACKED != 0
            && setup.inflight.is_none()
            && setup.position == QueueState::start(true)
            && is_in_use(&self.function.domain, setup.descriptors, setup.size)
    }

    fn queues(&self) -> Result<&Queues, Refused> {
        let virtqueues = self.function.virtqueues.as_ref();
        virtqueues.map(|virtqueues| &*virtqueues.queues).ok_or(Refused::NoVirtqueues)
    }

    /// Sets what the function receives, of multicast all or nothing.
    fn set_filters(&self, all_multicast: bool) {
        if let Ok(queues) = self.queues() {
            let filters = Filters { all_multicast, ..Filters::new(self.function.mac) };
            queues.filters_changed(&filters);
        }
    }
}

impl Device for VhostAttachment {
    fn capabilities(&self) -> Capabilities {
        // This is never asked of a function without virtqueues: `attached` has refused the VMM.
        let virtqueues = self.function.virtqueues.as_ref();
        let (features, pairs) = virtqueues.map_or((0, 0), |it| (it.features, it.pairs));
        let mut features = features & DATA_PATH;
        if pairs == 1 {
            features &= !feature::MQ;
        }
        Capabilities { features, rings: 2 * pairs, max_ring_size: MAX_QUEUE_SIZE }
    }

    fn attached(&self, peer: &Peer, status: Arc<DeviceStatus>) -> Result<(), Failure> {
        if !self.function.is_present() {
            return Err(Refused::Gone.into());
        }
        self.queues()?;
        let info = PeerInfo::new(Protocol::VhostUser, peer.pid);
        let holder = Holder { info, status: Some(status) };
        let claim = self.function.claim(holder).map_err(Refused::Held)?;
        self.function.take();
        self.function.set_bus_master(true);
        self.set_filters(true);
        claim.keep();
        Ok(())
    }

    fn detached(&self, _: &Disconnect) {
        let _claim = self.function.kept_claim();
        self.set_filters(false);
        self.function.release();
    }

    fn map(&self, region: &Region, file: OwnedFd) -> Result<(), Failure> {
        let backing = Backing::File { fd: file, offset: region.offset };
        let Region { guest_address, size, .. } = *region;
        Ok(self.function.domain.map(guest_address, size, Permissions::READ_WRITE, backing)?)
    }

    fn unmap(&self, region: &Region) {
        // The region was mapped as a whole, so it cannot be cut in two.
        if let Err(error) = self.function.domain.unmap(region.guest_address, region.size) {
            tracing::error!(function = %self.function.id, %error, "a region stays mapped");
        }
    }

    fn start_ring(&self, ring: u16, setup: RingSetup) -> Result<(), Failure> {
        if !self.function.is_present() {
            return Err(Refused::Gone.into());
        }
        if setup.features & common::VERSION_1 == 0 {
            return Err(Refused::Legacy.into());
        }
        if self.is_lost(&setup) {
            // The error event tells the VMM and people why; after a refusal the VMM would only try
            // again.
            let reason = Refused::UnderWay;
            tracing::warn!(function = %self.function.id, ring, %reason, "a ring is not served");
            setup.fds.fail(&format_args!("queue {ring}: {reason}"));
            self.unserved.lock().insert(ring, setup.position);
            return Ok(());
        }
        let queue = QueueSetup {
            index: ring,
            addresses: QueueAddresses {
                size: setup.size,
                descriptors: setup.descriptors,
                driver: setup.driver,
                device: setup.device,
            },
            features: setup.features,
            resume: Some(setup.position),
            events: Arc::new(RingEvents { ring, function: self.function.id, fds: setup.fds }),
        };
        let inflight = setup.inflight.map(|part| track(&part)).transpose()?;
        self.queues()?.serve(Role::of(ring), queue, setup.kick.map(Kick::from_fd), inflight)?;
        Ok(())
    }

    fn stop_ring(&self, ring: u16) -> QueueState {
        if let Some(position) = self.unserved.lock().remove(&ring) {
            return position;
        }
        let stop = |queues: &Queues| queues.stop(ring);
        self.queues().map(stop).unwrap_or_default()
    }

    fn use_pairs(&self, pairs: u16) {
        if let Ok(queues) = self.queues() {
            queues.steering_changed(&Steering { pairs, ..Steering::default() });
        }
    }

    fn announce(&self, mac: [u8; 6]) {
        // The switch knows where its functions are without learning it, and guests that negotiate
        // VIRTIO_NET_F_GUEST_ANNOUNCE tell the world beyond the uplink themselves.
        tracing::debug!(function = %self.function.id, ?mac, "a machine has moved here");
    }

    fn inflight_size(&self, size: u16, packed: bool) -> Option<u64> {
        (1..=MAX_QUEUE_SIZE).contains(&size).then(|| Inflight::size(size, packed) as u64)
    }

    fn set_mtu(&self, mtu: u16) -> Result<(), Failure> {
        let offered = self.function.with_model(|nic| nic.mtu());
        if mtu > offered { Err(Refused::Mtu(offered).into()) } else { Ok(()) }
    }
}

/// Returns how far a driver has come by what the VMM says, which keeps its registers.
pub(crate) fn driver(status: &DeviceStatus) -> DriverReport {
    DriverReport {
        status: status.get(),
        features: feature_names(status.features()).collect(),
        failure: status.failure(),
    }
}

/// Maps a ring's part of the file in which the VMM keeps what is in flight.
fn track(part: &manifold_vhost_user::Inflight) -> Result<Inflight, Failure> {
    let within = part.offset % PAGE_SIZE;
    let memory = SharedMemory::map(&part.file, part.offset - within, within + part.size)?;
    Ok(Inflight::new(Arc::new(memory), usize::try_from(within)?))
}

/// Passes the events of a ring on to its VMM.
struct RingEvents {
    ring: u16,
    function: manifold_pci::FunctionId,
    fds: Arc<RingFds>,
}

impl QueueEvents for RingEvents {
    fn interrupt(&self) {
        self.fds.interrupt();
    }

    fn fail(&self, reason: &dyn fmt::Display) {
        // A guest can get here as often as it likes: no louder than debug.
        tracing::debug!(
            function = %self.function, ring = self.ring, %reason, "device needs a reset"
        );
        self.fds.fail(&format_args!("queue {}: {reason}", self.ring));
    }
}
