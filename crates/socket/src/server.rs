//! This module is the server, with the endpoints that it listens on.

use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::epoll::EventFlags;

use crate::acceptor::Acceptor;
use crate::error::Error;
use crate::path::Listener;
use crate::poller::Poller;
use crate::protocol::Protocol;
use crate::service::{Service, Services};
use crate::socket::Peer;

/// The settings of a [`Server`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Permissions of the socket files. Whoever may write to a function's socket may attach to the
    /// function.
    pub socket_mode: u32,
    /// Time after connecting in which a client must send its first message. A client that the
    /// device refuses may be held as long.
    pub handshake_timeout: Duration,
}

impl Default for Config {
    /// Returns settings with sockets for the owner only, and a time-out of 5 s.
    fn default() -> Self {
        Self { socket_mode: 0o600, handshake_timeout: Duration::from_secs(5) }
    }
}

/// A server for any number of devices that speak one protocol.
///
/// One thread accepts the clients of all devices; each attached client has a thread of its own, so
/// that one that stalls, or does not read its replies, holds up nobody else.
pub struct Server<P: Protocol> {
    config: Config,
    protocol: Arc<P>,
    poller: Arc<Poller>,
    services: Arc<Services<P>>,
    acceptor: Option<JoinHandle<()>>,
}

impl<P: Protocol> Server<P> {
    /// Starts the thread that accepts clients.
    ///
    /// # Errors
    /// [`Error::Start`] when the system gives no thread or descriptor.
    pub fn start(config: Config, protocol: P) -> Result<Self, Error> {
        let (poller, services) = (Arc::new(Poller::new()?), Arc::default());
        let acceptor =
            Acceptor::new(Arc::clone(&poller), Arc::clone(&services), config.handshake_timeout);
        let acceptor = thread::Builder::new()
            .name(P::NAME.to_owned())
            .spawn(move || acceptor.run())
            .map_err(|source| Error::Start { what: "no thread", source })?;
        let protocol = Arc::new(protocol);
        Ok(Self { config, protocol, poller, services, acceptor: Some(acceptor) })
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
        device: Arc<P::Device>,
    ) -> Result<Endpoint<P>, Error> {
        let path = path.as_ref();
        let Config { socket_mode, handshake_timeout } = self.config;
        let listener = Listener::bind(path, socket_mode)?;
        let token = self.poller.new_token();
        let (poller, protocol) = (Arc::clone(&self.poller), Arc::clone(&self.protocol));
        let service =
            Arc::new(Service::new(poller, protocol, device, name, listener, handshake_timeout));
        // The socket goes with the endpoint from here on.
        let services = Arc::clone(&self.services);
        let endpoint = Endpoint { service: Arc::clone(&service), token, services };
        self.services.lock().insert(token, Arc::clone(&service));
        let watch =
            |listener: &Listener| self.poller.watch(listener.fd().as_fd(), token, EventFlags::IN);
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
        self.poller.shut_down();
        if let Some(acceptor) = self.acceptor.take() {
            // The thread has no way to panic, and nothing is left to do about it.
            let _ = acceptor.join();
        }
        let services = std::mem::take(&mut *self.services.lock());
        for service in services.values() {
            service.close();
        }
    }
}

impl<P: Protocol> fmt::Debug for Server<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The socket of one device, which is closed when this is dropped.
pub struct Endpoint<P: Protocol> {
    service: Arc<Service<P>>,
    token: u64,
    services: Arc<Services<P>>,
}

impl<P: Protocol> Endpoint<P> {
    /// Returns the path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.service.path()
    }

    /// Returns the client that is attached.
    #[must_use]
    pub fn peer(&self) -> Option<Peer> {
        self.service.peer()
    }

    /// Disconnects the client, if there is one, and waits until the device has let go of it. The
    /// socket stays open for the next one.
    ///
    /// If it is called from inside a method of the device, it does not wait; the connection ends
    /// after that method. The caller must not hold a lock that a method of the device takes.
    pub fn disconnect(&self) {
        self.service.disconnect();
    }

    /// Removes the socket, disconnects the client and waits until the device has let go of it. No
    /// method of the device is called after this. In all else it is like
    /// [`disconnect`](Self::disconnect).
    pub fn close(self) {}
}

impl<P: Protocol> Drop for Endpoint<P> {
    fn drop(&mut self) {
        self.services.lock().remove(&self.token);
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
