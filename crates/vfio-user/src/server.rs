//! This module is the protocol as `manifold-socket` serves it.

use std::sync::Arc;

use manifold_socket::Peer;
use rustix::io::Errno;

use crate::codec::Header;
use crate::device::Device;
use crate::session::{Session, error_reply};

/// The vfio-user protocol, with what this side agrees to.
#[derive(Clone, Debug)]
pub struct VfioUser {
    /// Largest data transfer a client may ask for, in bytes. QEMU takes no number above 64 MiB.
    pub max_data_xfer_size: u32,
}

impl Default for VfioUser {
    /// Returns a protocol with transfers of at most 1 MiB.
    fn default() -> Self {
        Self { max_data_xfer_size: 1 << 20 }
    }
}

/// A vfio-user server for any number of devices.
pub type Server = manifold_socket::Server<VfioUser>;

/// The socket of one device, which is closed when this is dropped.
pub type Endpoint = manifold_socket::Endpoint<VfioUser>;

impl manifold_socket::Protocol for VfioUser {
    type Header = Header;
    type Device = dyn Device;
    type Session = Session;
    const NAME: &'static str = "vfio-user";
    const THREAD: &'static str = "vu";
    const MAX_FIRST_PAYLOAD: usize = Session::MAX_VERSION_PAYLOAD;

    fn max_payload(&self) -> usize {
        Session::max_payload(self.max_data_xfer_size)
    }

    fn open(&self, device: Arc<dyn Device>, peer: Peer) -> Session {
        Session::new(device, peer, self.max_data_xfer_size)
    }

    fn malformed(&self, header: &Header) -> Vec<u8> {
        error_reply(header, Errno::INVAL).to_vec()
    }

    fn busy(&self, header: &Header) -> Vec<u8> {
        error_reply(header, Errno::BUSY).to_vec()
    }
}
