//! Sockets and threads: devices on the sockets of `manifold-socket`.

use std::fmt;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use manifold_socket::{Assembler, Protocol, Received, Seat, Socket};
use rustix::io::Errno;

use crate::codec::Header;
use crate::device::Device;
use crate::lines::DeviceStatus;
use crate::session::{Answer, Disconnect, Session};
use crate::{Error, Peer};

/// Settings of a [`Server`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Permissions of the socket files. Whoever may write to a function's socket may attach to it.
    pub socket_mode: u32,
    /// How long a client may be silent after it connected before it is dropped. Meanwhile others can have the device.
    /// And how long one that cannot have it is kept waiting: QEMU tries again at once.
    pub handshake_timeout: Duration,
}

impl Default for Config {
    /// Sockets for the owner only, 5 s.
    fn default() -> Self {
        Self { socket_mode: 0o600, handshake_timeout: Duration::from_secs(5) }
    }
}

/// A vhost-user server for any number of devices.
///
/// One thread hears out the clients of all devices; each attached client has a thread of its own.
#[derive(Debug)]
pub struct Server {
    sockets: manifold_socket::Server<Service>,
    patience: Duration,
}

impl Server {
    /// Starts the thread that accepts clients.
    ///
    /// # Errors
    /// [`Error::Start`] when the system gives no thread or descriptor.
    pub fn start(config: &Config) -> Result<Self, Error> {
        let Config { socket_mode, handshake_timeout } = *config;
        let config = manifold_socket::Config { socket_mode, handshake_timeout };
        Ok(Self { sockets: manifold_socket::Server::start(config)?, patience: handshake_timeout })
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
        let service = Service { device, patience: self.patience };
        Ok(Endpoint { socket: self.sockets.serve(path, name, service)? })
    }
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
        self.socket.peer()
    }

    /// Disconnects the client, if there is one, and waits until its `detached` has returned. The socket stays open for
    /// the next one. The caller must not hold a lock that a method of the device takes.
    pub fn disconnect(&self) {
        self.socket.disconnect();
    }

    /// Removes the socket, disconnects the client and waits until its `detached` has returned: no method of the device is
    /// called after this. Otherwise as [`disconnect`](Self::disconnect).
    pub fn close(self) {}
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoint").field(&self.socket).finish()
    }
}

/// A device as it is spoken to over vhost-user.
struct Service {
    device: Arc<dyn Device>,
    /// How long a client that cannot have the device waits for nothing.
    patience: Duration,
}

impl Protocol for Service {
    type Header = Header;
    const NAME: &'static str = "vhost-user";
    const THREAD: &'static str = "vh";

    fn max_first_payload(&self) -> usize {
        Session::MAX_PAYLOAD
    }

    fn serve(&self, seat: &Seat, socket: &Arc<Socket>, assembler: &mut Assembler<Header>) {
        let (function, peer) = (seat.name(), socket.peer());
        let pid = peer.pid;
        let status = Arc::new(DeviceStatus::default());
        if let Err(failure) = self.device.attached(&peer, Arc::clone(&status)) {
            let reason = Disconnect::Unavailable(failure.to_string());
            tracing::warn!(function, pid, "vhost-user client turned away: {reason}");
            // The protocol has no way to say so. QEMU connects again at once, for as long as it takes, so it is kept
            // waiting.
            socket.wait_for_end(self.patience);
            socket.shut_down();
            return;
        }
        seat.attached(peer);
        tracing::info!(function, pid, uid = peer.uid, "vhost-user client attached");
        let mut session = Session::new(Arc::clone(&self.device), status);
        // A bug in one device costs that device its client, not the others theirs.
        let run = || run(function, socket, assembler, &mut session);
        let how = catch_unwind(AssertUnwindSafe(run)).unwrap_or(Disconnect::DevicePanicked);
        match &how {
            Disconnect::Closed | Disconnect::Server => {
                tracing::info!(function, pid, "vhost-user client detached: {how}");
            }
            _ => tracing::warn!(function, pid, "vhost-user client detached: {how}"),
        }
        // Nobody at the other end waits for the device to clean up, and the next client knows that the place is about to
        // be free.
        socket.shut_down();
        seat.detaching();
        if catch_unwind(AssertUnwindSafe(|| session.end(&how))).is_err() {
            tracing::error!(function, "the device panicked when its client was detached");
        }
    }
}

fn run(
    function: &str,
    socket: &Socket,
    assembler: &mut Assembler<Header>,
    session: &mut Session,
) -> Disconnect {
    let mut answer = Answer::default();
    // Whether this client's first mistake has been told. It can make as many as it likes.
    let mut told = false;
    loop {
        if let Some(message) = assembler.take() {
            session.receive(message.header, message.payload, message.fds, &mut answer);
            if let Some(refusal) = &answer.refusal
                && !std::mem::replace(&mut told, true)
            {
                let request = crate::spec::name(message.header.code);
                tracing::warn!(function, request, "vhost-user request refused: {refusal}");
            }
            if let Some(end) = deliver(socket, &mut answer) {
                return end;
            }
        }
        match socket.receive(assembler, true) {
            Ok(Received::Message | Received::Part | Received::Nothing) => {}
            Ok(Received::End) if socket.is_ended() => return Disconnect::Server,
            Ok(Received::End) if assembler.is_inside_message() => return Disconnect::MidMessage,
            Ok(Received::End) => return Disconnect::Closed,
            Ok(Received::Broken(_)) => return Disconnect::Protocol("a message too large"),
            Err(errno) => return Disconnect::Socket(errno),
        }
    }
}

/// Sends the answer, however long the client takes to make room. Says whether that was the last.
fn deliver(socket: &Socket, answer: &mut Answer) -> Option<Disconnect> {
    if !answer.bytes.is_empty() {
        let fds: Vec<_> = answer.fd.iter().map(|fd| fd.as_fd()).collect();
        if let Err(error) = socket.send(&answer.bytes, &fds, None) {
            return Some(match error.raw_os_error().map(Errno::from_raw_os_error) {
                _ if socket.is_ended() => Disconnect::Server,
                Some(Errno::PIPE | Errno::CONNRESET) => Disconnect::Closed,
                errno => Disconnect::Socket(errno.unwrap_or(Errno::IO)),
            });
        }
    }
    answer.end.take()
}
