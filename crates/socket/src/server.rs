//! The server: who listens where.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};

use crate::acceptor::Acceptor;
use crate::assemble::{Assembler, Header};
use crate::path::Listener;
use crate::service::{Seat, Service};
use crate::socket::{Peer, Socket};
use crate::{Errno, Error};

/// A device as it is spoken to on its socket.
pub trait Protocol: Send + Sync + 'static {
    /// What every message begins with.
    type Header: Header;
    /// The protocol's name.
    const NAME: &'static str;
    /// What the names of connection threads begin with. Linux shows 15 bytes of them.
    const THREAD: &'static str;

    /// Bytes that a client's first message may have after its header.
    fn max_first_payload(&self) -> usize;

    /// The answer to a first message whose header makes no sense. Nothing: the client is dropped.
    fn malformed(&self, header: &Self::Header) -> Vec<u8> {
        let _ = header;
        Vec::new()
    }

    /// The answer to the first message of a client that cannot have the device, because another
    /// one has it.
    fn busy(&self, header: &Self::Header) -> Vec<u8> {
        let _ = header;
        Vec::new()
    }

    /// Serves a client whose first message is in `assembler`, until the connection ends. Runs on a
    /// thread of its own; no two run at one time for one device.
    fn serve(&self, seat: &Seat, socket: &Arc<Socket>, assembler: &mut Assembler<Self::Header>);
}

/// Settings of a [`Server`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Permissions of the socket files. Whoever may write to a function's socket may attach to the
    /// function.
    pub socket_mode: u32,
    /// How long a client has to send its first message after it connected.
    pub handshake_timeout: Duration,
}

impl Default for Config {
    /// Sockets for the owner only, 5 s.
    fn default() -> Self {
        Self { socket_mode: 0o600, handshake_timeout: Duration::from_secs(5) }
    }
}

/// A server for any number of devices that speak one protocol.
///
/// One thread accepts the clients of all devices; each attached client has a thread of its own, so
/// that one that stalls, or does not read its replies, holds up nobody else.
pub struct Server<P: Protocol> {
    shared: Arc<Shared<P>>,
    acceptor: Option<JoinHandle<()>>,
}

/// Token of the eventfd that wakes the acceptor.
pub(crate) const WAKE: u64 = 0;

/// What the acceptor shares with everybody else.
pub(crate) struct Shared<P: Protocol> {
    pub(crate) config: Config,
    pub(crate) epoll: OwnedFd,
    wake: OwnedFd,
    is_shut_down: AtomicBool,
    next_token: AtomicU64,
    services: Mutex<HashMap<u64, Arc<Service<P>>>>,
}

impl<P: Protocol> Server<P> {
    /// Starts the thread that accepts clients.
    ///
    /// # Errors
    /// [`Error::Start`] when the system gives no thread or descriptor.
    pub fn start(config: Config) -> Result<Self, Error> {
        let failed = |what| move |errno: Errno| Error::Start { what, source: errno.into() };
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let shared = Arc::new(Shared {
            config,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed("no epoll"))?,
            wake: eventfd(0, flags).map_err(failed("no eventfd"))?,
            is_shut_down: AtomicBool::new(false),
            next_token: AtomicU64::new(WAKE + 1),
            services: Mutex::default(),
        });
        shared.watch(shared.wake.as_fd(), WAKE, EventFlags::IN).map_err(failed("no epoll"))?;
        let acceptor = Acceptor::new(Arc::clone(&shared));
        let acceptor = thread::Builder::new()
            .name(P::NAME.to_owned())
            .spawn(move || acceptor.run())
            .map_err(|source| Error::Start { what: "no thread", source })?;
        Ok(Self { shared, acceptor: Some(acceptor) })
    }

    /// Listens on `path` for clients of the device behind `protocol`. `name` is for log messages ("vf3").
    ///
    /// A socket file that nobody answers on, left behind by a server that was killed, is replaced.
    ///
    /// # Errors
    /// When `path` is in use, is no socket, is too long or cannot be made.
    pub fn serve(
        &self,
        path: impl AsRef<Path>,
        name: &str,
        protocol: P,
    ) -> Result<Endpoint<P>, Error> {
        let path = path.as_ref();
        let listener = Listener::bind(path, self.shared.config.socket_mode)?;
        let token = self.shared.new_token();
        let shared = Arc::clone(&self.shared);
        let service = Arc::new(Service::new(shared, token, name, protocol, path, listener));
        // From here on the socket goes with the endpoint.
        let endpoint = Endpoint { service: Arc::clone(&service) };
        self.shared.services.lock().insert(token, Arc::clone(&service));
        let watch =
            |listener: &Listener| self.shared.watch(listener.fd().as_fd(), token, EventFlags::IN);
        if let Some(Err(errno)) = service.with_listener(watch) {
            return Err(Error::Listen { path: path.into(), source: errno.into() });
        }
        Ok(endpoint)
    }

    /// Closes all endpoints and ends all threads. Dropping the server does the same.
    pub fn shutdown(self) {}
}

impl<P: Protocol> Drop for Server<P> {
    fn drop(&mut self) {
        self.shared.is_shut_down.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(acceptor) = self.acceptor.take() {
            // It has no way to panic, and nothing is left to do about it.
            let _ = acceptor.join();
        }
        let services: Vec<_> = self.shared.services.lock().values().cloned().collect();
        for service in services {
            service.close();
        }
    }
}

impl<P: Protocol> fmt::Debug for Server<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

/// One device's socket. Dropping it closes it.
pub struct Endpoint<P: Protocol> {
    service: Arc<Service<P>>,
}

impl<P: Protocol> Endpoint<P> {
    /// The device behind its protocol.
    #[must_use]
    pub fn protocol(&self) -> &P {
        self.service.protocol()
    }

    /// The socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.service.path()
    }

    /// The client that is attached.
    #[must_use]
    pub fn peer(&self) -> Option<Peer> {
        self.service.peer()
    }

    /// Disconnects the client, if there is one, and waits until its
    /// [`Protocol::serve`] has returned. The socket stays open for the next one.
    ///
    /// Called from inside [`Protocol::serve`] it does not wait; the connection ends after that. The
    /// caller must not hold a lock that the device takes.
    pub fn disconnect(&self) {
        self.service.disconnect();
    }

    /// Removes the socket, disconnects the client and waits until its
    /// [`Protocol::serve`] has returned: nothing is served after this. Otherwise as [`disconnect`](Self::disconnect).
    pub fn close(self) {}
}

impl<P: Protocol> Drop for Endpoint<P> {
    fn drop(&mut self) {
        self.service.close();
    }
}

impl<P: Protocol> fmt::Debug for Endpoint<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("name", &self.service.name())
            .field("path", &self.path())
            .field("peer", &self.peer())
            .finish()
    }
}

impl<P: Protocol> Shared<P> {
    pub(crate) fn is_shut_down(&self) -> bool {
        self.is_shut_down.load(Ordering::Acquire)
    }

    pub(crate) fn new_token(&self) -> u64 {
        self.next_token.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn service(&self, token: u64) -> Option<Arc<Service<P>>> {
        self.services.lock().get(&token).cloned()
    }

    pub(crate) fn forget(&self, token: u64) {
        self.services.lock().remove(&token);
    }

    pub(crate) fn watch(
        &self,
        fd: BorrowedFd<'_>,
        token: u64,
        flags: EventFlags,
    ) -> Result<(), Errno> {
        epoll::add(&self.epoll, fd, EventData::new_u64(token), flags)
    }

    pub(crate) fn unwatch(&self, fd: BorrowedFd<'_>) {
        // It fails only if the descriptor was never watched.
        let _ = epoll::delete(&self.epoll, fd);
    }

    pub(crate) fn wake(&self) {
        // It fails only if the acceptor has not seen 2^64 - 2 earlier calls.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    pub(crate) fn clear_wake(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }
}
