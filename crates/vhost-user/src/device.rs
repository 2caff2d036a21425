//! This module is the interface between the protocol and the device behind a socket.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use manifold_socket::{Disconnect, Peer};
use manifold_virtio::ring::QueueState;

use crate::ring_fds::RingFds;
use crate::status::DeviceStatus;

/// The reason why a device cannot do what it was asked; the client is refused, and the log gives
/// the reason.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A virtio device whose rings are served here.
///
/// Methods are called from the thread of the client's connection, one at a time, between
/// [`attached`](Self::attached) and [`detached`](Self::detached) and not before or after. They may
/// take their time: only this client waits.
pub trait Device: Send + Sync + 'static {
    /// Returns what the device has. It is called once per client, when it attaches.
    fn capabilities(&self) -> Capabilities;

    /// Gives the device to a client that has sent its first message. `status` is its device status
    /// register, kept up to date while it is attached.
    ///
    /// # Errors
    /// Why it cannot have the device (another has it); no other method is called for it then.
    fn attached(&self, peer: &Peer, status: Arc<DeviceStatus>) -> Result<(), Failure>;

    /// Takes the device from a client that is gone, for the reason given. All rings are stopped
    /// already. The device must release the client's memory.
    fn detached(&self, how: &Disconnect);

    /// Makes a region of the client's memory accessible at its guest address.
    ///
    /// # Errors
    /// When it cannot be mapped.
    fn map(&self, region: &Region, file: OwnedFd) -> Result<(), Failure>;

    /// Removes a region that was mapped. On return nothing can touch that memory any more.
    fn unmap(&self, region: &Region);

    /// Begins to serve a ring that is not being served. The driver may have made buffers available
    /// already: no kick need follow.
    ///
    /// # Errors
    /// When it cannot be served as it is set up.
    fn start_ring(&self, ring: u16, setup: RingSetup) -> Result<(), Failure>;

    /// Ends serving a ring. On return nothing touches its memory any more, nor its [`RingFds`].
    fn stop_ring(&self, ring: u16) -> QueueState;

    /// Takes note that the driver receives on the first `pairs` pairs of rings, at least one, from
    /// now on.
    fn use_pairs(&self, pairs: u16);

    /// Makes the address of a machine that has moved here known to the network.
    fn announce(&self, mac: [u8; 6]);

    /// Takes note of the MTU of the client's machine in bytes.
    ///
    /// # Errors
    /// When frames of that size cannot be carried.
    fn set_mtu(&self, mtu: u16) -> Result<(), Failure>;

    /// Returns how many bytes it takes to track the chains in flight of a ring of `size` entries;
    /// `None` if the device does not track them.
    fn inflight_size(&self, size: u16, packed: bool) -> Option<u64> {
        let _ = (size, packed);
        None
    }
}

/// The properties of a device that the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Virtio's feature bits. VHOST_USER_F_PROTOCOL_FEATURES is added to them.
    pub features: u64,
    /// Number of rings: 2n to the driver, 2n + 1 from it. There are at most 256, as messages number
    /// them with a byte.
    pub rings: u16,
    /// Size of the largest ring in entries.
    pub max_ring_size: u16,
}

/// A region of a client's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Guest address of the first byte.
    pub guest_address: u64,
    /// Size in bytes, at least 1; neither range wraps around.
    pub size: u64,
    /// Address of the first byte in the client's address space.
    pub user_address: u64,
    /// Offset of the first byte in its file.
    pub offset: u64,
}

/// A ring that is to be served.
#[derive(Debug)]
pub struct RingSetup {
    /// Number of entries.
    pub size: u16,
    /// Guest address of the descriptor table (split) or ring (packed).
    pub descriptors: u64,
    /// Guest address of the available ring (split) or the driver's event suppression area (packed).
    pub driver: u64,
    /// Guest address of the used ring (split) or the device's event suppression area (packed).
    pub device: u64,
    /// Features that the driver accepted.
    pub features: u64,
    /// The position to continue at.
    pub position: QueueState,
    /// An eventfd that becomes readable when the driver kicks; `None` if the ring is to be polled.
    pub kick: Option<OwnedFd>,
    /// Eventfds towards the driver.
    pub fds: Arc<RingFds>,
    /// The place where chains in flight are tracked, if they are.
    pub inflight: Option<Inflight>,
}

/// The place where a ring's chains in flight are tracked: memory that outlives this process.
#[derive(Clone, Debug)]
pub struct Inflight {
    /// The file.
    pub file: Arc<OwnedFd>,
    /// Offset of the ring's part, in bytes.
    pub offset: u64,
    /// Size of the ring's part in bytes.
    pub size: u64,
}
