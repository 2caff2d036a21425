//! Sockets, threads and their life cycle.
//!
//! ```text
//!   Server ─ acceptor thread ─ epoll over all listeners and handshakes
//!     └─ Endpoint (one per device) ─ connection thread while a client is attached
//! ```

mod acceptor;
mod connection;
mod path;
mod service;
mod socket;

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

use self::acceptor::Acceptor;
use self::path::Listener;
use self::service::Service;
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
    /// How long a client has to answer a request for its memory. QEMU gives up on a request of its
    /// own after 5 s, so less than that.
    pub dma_timeout: Duration,
}

impl Default for Config {
    /// Sockets for the owner only, 1 MiB, 5 s, 2 s.
    fn default() -> Self {
        Self {
            socket_mode: 0o600,
            max_data_xfer_size: 1 << 20,
            handshake_timeout: Duration::from_secs(5),
            dma_timeout: Duration::from_secs(2),
        }
    }
}

/// A vfio-user server for any number of devices.
///
/// One thread accepts the clients of all devices; each attached client has a thread of its own, so
/// that one that stalls, or does not read its replies, holds up nobody else.
pub struct Server {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// Token of the eventfd that wakes the acceptor.
const WAKE: u64 = 0;

/// What the acceptor shares with everybody else.
struct Shared {
    config: Config,
    epoll: OwnedFd,
    wake: OwnedFd,
    is_shut_down: AtomicBool,
    next_token: AtomicU64,
    services: Mutex<HashMap<u64, Arc<Service>>>,
}

impl Server {
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
            .name("vfio-user".to_owned())
            .spawn(move || acceptor.run())
            .map_err(|source| Error::Start { what: "no thread", source })?;
        Ok(Self { shared, acceptor: Some(acceptor) })
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
        let path = path.as_ref();
        let listener = Listener::bind(path, self.shared.config.socket_mode)?;
        let token = self.shared.new_token();
        let shared = Arc::clone(&self.shared);
        let service = Arc::new(Service::new(shared, token, name, device, path, listener));
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

impl Drop for Server {
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

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

/// One device's socket. Dropping it closes it.
pub struct Endpoint {
    service: Arc<Service>,
}

impl Endpoint {
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

    /// Disconnects the client, if there is one, and waits until its `detached` has returned. The
    /// socket stays open for the next one.
    ///
    /// Called from inside a method of the device it does not wait; the connection ends after that
    /// method. The caller must not hold a lock that a method of the device takes.
    pub fn disconnect(&self) {
        self.service.disconnect();
    }

    /// Removes the socket, disconnects the client and waits until its `detached` has returned: no
    /// method of the device is called after this. Otherwise as [`disconnect`](Self::disconnect).
    pub fn close(self) {}
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.service.close();
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("name", &self.service.name())
            .field("path", &self.path())
            .field("peer", &self.peer())
            .finish()
    }
}

impl Shared {
    fn is_shut_down(&self) -> bool {
        self.is_shut_down.load(Ordering::Acquire)
    }

    fn new_token(&self) -> u64 {
        self.next_token.fetch_add(1, Ordering::Relaxed)
    }

    fn service(&self, token: u64) -> Option<Arc<Service>> {
        self.services.lock().get(&token).cloned()
    }

    fn forget(&self, token: u64) {
        self.services.lock().remove(&token);
    }

    fn watch(&self, fd: BorrowedFd<'_>, token: u64, flags: EventFlags) -> Result<(), Errno> {
        epoll::add(&self.epoll, fd, EventData::new_u64(token), flags)
    }

    fn unwatch(&self, fd: BorrowedFd<'_>) {
        // It fails only if the descriptor was never watched.
        let _ = epoll::delete(&self.epoll, fd);
    }

    fn wake(&self) {
        // It fails only if the acceptor has not seen 2^64 - 2 earlier calls.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn clear_wake(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }
}
