//! Devices on sockets: what is this protocol's own about serving them.

mod connection;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use manifold_socket::{Protocol, Seat, Socket};
use parking_lot::Mutex;

use crate::assemble::Assembler;
use crate::codec::Header;
use crate::session::{Session, error_reply};
use crate::{Device, Errno, Error, Peer};

/// Settings of a [`Server`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Permissions of the socket files. Whoever may write to a function's socket may attach to the
    /// function.
    pub socket_mode: u32,
    /// Largest data transfer a client may ask for, in bytes. QEMU takes no number above 64 MiB.
    pub max_data_xfer_size: u32,
    /// How long a client has to send its version after it connected.
    pub handshake_timeout: Duration,
}

impl Default for Config {
    /// Sockets for the owner only, 1 MiB, 5 s.
    fn default() -> Self {
        Self {
            socket_mode: 0o600,
            max_data_xfer_size: 1 << 20,
            handshake_timeout: Duration::from_secs(5),
        }
    }
}

/// A vfio-user server for any number of devices.
///
/// One thread accepts the clients of all devices; each attached client has a thread of its own, so
/// that one that stalls, or does not read its replies, holds up nobody else.
#[derive(Debug)]
pub struct Server {
    sockets: manifold_socket::Server<Service>,
    config: Config,
}

impl Server {
    /// Starts the thread that accepts clients.
    ///
    /// # Errors
    /// [`Error::Start`] when the system gives no thread or descriptor.
    pub fn start(config: Config) -> Result<Self, Error> {
        let Config { socket_mode, handshake_timeout, .. } = config;
        let sockets = manifold_socket::Server::start(manifold_socket::Config {
            socket_mode,
            handshake_timeout,
        })?;
        Ok(Self { sockets, config })
    }

    /// Listens on `path` for clients of `device`. `name` is for log messages ("vf3").
    ///
    /// A socket file that nobody answers on, left behind by a server that was killed, is replaced.
    ///
    /// # Errors
    /// When `path` is in use, is no socket, is too long or cannot be made.
    pub fn serve(
        &self,
        path: impl AsRef<Path>,
        name: &str,
        device: Arc<dyn Device>,
    ) -> Result<Endpoint, Error> {
        let service = Service { device, config: self.config.clone(), peer: Mutex::new(None) };
        Ok(Endpoint { socket: self.sockets.serve(path, name, service)? })
    }

    /// Closes all endpoints and ends all threads. Dropping the server does the same.
    pub fn shutdown(self) {}
}

/// One device's socket. Dropping it closes it.
pub struct Endpoint {
    socket: manifold_socket::Endpoint<Service>,
}

impl Endpoint {
    /// The socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.socket.path()
    }

    /// The client that is attached.
    #[must_use]
    pub fn peer(&self) -> Option<Peer> {
        self.socket.protocol().peer.lock().clone()
    }

    /// Disconnects the client, if there is one, and waits until its `detached` has returned. The
    /// socket stays open for the next one.
    ///
    /// Called from inside a method of the device it does not wait; the connection ends after that
    /// method. The caller must not hold a lock that a method of the device takes.
    pub fn disconnect(&self) {
        self.socket.disconnect();
    }

    /// Removes the socket, disconnects the client and waits until its `detached` has returned: no
    /// method of the device is called after this. Otherwise as [`disconnect`](Self::disconnect).
    pub fn close(self) {}
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("path", &self.path()).field("peer", &self.peer()).finish()
    }
}

/// A device as it is spoken to over vfio-user.
struct Service {
    device: Arc<dyn Device>,
    config: Config,
    /// The client, once its version was agreed on.
    peer: Mutex<Option<Peer>>,
}

impl Protocol for Service {
    type Header = Header;
    const NAME: &'static str = "vfio-user";
    const THREAD: &'static str = "vu";

    fn max_first_payload(&self) -> usize {
        Session::MAX_VERSION_PAYLOAD
    }

    fn malformed(&self, header: &Header) -> Vec<u8> {
        error_reply(header, Errno::INVAL).to_vec()
    }

    fn busy(&self, header: &Header) -> Vec<u8> {
        error_reply(header, Errno::BUSY).to_vec()
    }

    fn serve(&self, seat: &Seat, socket: &Arc<Socket>, assembler: &mut Assembler) {
        connection::run(self, seat, socket, assembler);
    }
}

impl Service {
    fn attached(&self, seat: &Seat, peer: &Peer) {
        let Peer { pid, uid, gid, .. } = *peer;
        seat.attached(manifold_socket::Peer { pid, uid, gid });
        *self.peer.lock() = Some(peer.clone());
    }

    fn detaching(&self, seat: &Seat) {
        seat.detaching();
        *self.peer.lock() = None;
    }
}
