//! This module is the protocol as `manifold-socket` serves it.

use std::sync::Arc;

use manifold_socket::{Peer, SCM_MAX_FDS};

use crate::codec::Header;
use crate::device::Device;
use crate::session::Session;

/// The vhost-user protocol.
#[derive(Clone, Copy, Debug, Default)]
pub struct VhostUser;

/// A vhost-user server for any number of devices.
pub type Server = manifold_socket::Server<VhostUser>;

/// The socket of one device, which is closed when this is dropped.
pub type Endpoint = manifold_socket::Endpoint<VhostUser>;

impl manifold_socket::Protocol for VhostUser {
    type Header = Header;
    type Device = dyn Device;
    type Session = Session;
    const NAME: &'static str = "vhost-user";
    const THREAD: &'static str = "vh";
    /// Size in bytes of a memory table with as many regions as a message can bring descriptors.
    const MAX_FIRST_PAYLOAD: usize = 8 + SCM_MAX_FDS * 32;
    /// The protocol has no way to say no, and QEMU connects again at once, for as long as it takes.
    const HOLDS_REFUSED: bool = true;

    fn open(&self, device: Arc<dyn Device>, peer: Peer) -> Session {
        Session::new(device, peer)
    }
}
