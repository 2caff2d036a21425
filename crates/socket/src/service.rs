//! One device on its socket: who listens, who is attached.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle, ThreadId};

use parking_lot::{Condvar, Mutex};

use crate::assemble::Assembler;
use crate::path::Listener;
use crate::server::{Protocol, Shared};
use crate::socket::{Peer, Socket};

/// Where a device's one client sits.
#[derive(Debug)]
pub struct Seat {
    name: String,
    holder: Mutex<Option<Peer>>,
}

impl Seat {
    /// The device's name, for log messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client has been given the device.
    pub fn attached(&self, peer: Peer) {
        *self.holder.lock() = Some(peer);
    }

    /// The client is about to be detached: it counts as gone from here on.
    pub fn detaching(&self) {
        *self.holder.lock() = None;
    }

    fn holder(&self) -> Option<Peer> {
        *self.holder.lock()
    }
}

/// What an [`Endpoint`](crate::Endpoint) stands for.
pub(crate) struct Service<P: Protocol> {
    seat: Seat,
    path: PathBuf,
    token: u64,
    protocol: P,
    shared: Arc<Shared<P>>,
    slot: Mutex<Slot>,
    /// Signalled when the client's place becomes free.
    released: Condvar,
}

struct Slot {
    /// `None` once the service is closed.
    listener: Option<Listener>,
    client: Option<Client>,
    /// The previous client's thread, which has nothing left to do but end.
    ending: Option<JoinHandle<()>>,
}

/// The one client that has claimed the device.
struct Client {
    socket: Arc<Socket>,
    thread: Option<JoinHandle<()>>,
    thread_id: ThreadId,
}

/// Whether a new client can have the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    /// It can.
    Free,
    /// Soon: the present client is gone, and the device is about to be told.
    SoonFree,
    /// It cannot: the process with this ID has it.
    Busy(i32),
    /// Never again.
    Closed,
}

impl<P: Protocol> Service<P> {
    pub(crate) fn new(
        shared: Arc<Shared<P>>,
        token: u64,
        name: &str,
        protocol: P,
        path: &Path,
        listener: Listener,
    ) -> Self {
        Self {
            seat: Seat { name: name.to_owned(), holder: Mutex::new(None) },
            path: path.into(),
            token,
            protocol,
            shared,
            slot: Mutex::new(Slot { listener: Some(listener), client: None, ending: None }),
            released: Condvar::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.seat.name()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn protocol(&self) -> &P {
        &self.protocol
    }

    /// The client, once it is attached.
    pub(crate) fn peer(&self) -> Option<Peer> {
        self.seat.holder()
    }

    /// Does something with the listening socket, unless the service is closed.
    pub(crate) fn with_listener<T>(&self, f: impl FnOnce(&Listener) -> T) -> Option<T> {
        self.slot.lock().listener.as_ref().map(f)
    }

    pub(crate) fn availability(&self) -> Availability {
        let slot = self.slot.lock();
        match &slot.client {
            _ if slot.listener.is_none() => Availability::Closed,
            None => Availability::Free,
            Some(client) if client.socket.is_ended() || client.socket.is_peer_gone() => {
                Availability::SoonFree
            }
            Some(_) => Availability::Busy(self.seat.holder().map_or(0, |peer| peer.pid)),
        }
    }

    /// Gives the device, which is free, to the client whose first message is in `assembler`.
    pub(crate) fn start(
        self: &Arc<Self>,
        socket: Arc<Socket>,
        mut assembler: Assembler<P::Header>,
    ) {
        let mut slot = self.slot.lock();
        if slot.listener.is_none() || slot.client.is_some() {
            return;
        }
        join(slot.ending.take());
        let (service, connection) = (Arc::clone(self), Arc::clone(&socket));
        // Linux shows 15 bytes of it.
        let thread = thread::Builder::new().name(format!("{}-{}", P::THREAD, self.name())).spawn(
            move || {
                service.protocol.serve(&service.seat, &connection, &mut assembler);
                // However that ended, the place is free from here on.
                service.seat.detaching();
                drop(connection);
                service.release();
            },
        );
        match thread {
            Ok(thread) => {
                let thread_id = thread.thread().id();
                slot.client = Some(Client { socket, thread: Some(thread), thread_id });
            }
            Err(error) => {
                tracing::warn!(function = self.name(), %error, "no thread for a client");
            }
        }
    }

    /// The last thing a client's thread does.
    fn release(&self) {
        let mut slot = self.slot.lock();
        slot.ending = slot.client.take().and_then(|client| client.thread);
        drop(slot);
        self.released.notify_all();
        // A client may be waiting for the place.
        self.shared.wake();
    }

    /// Ends the connection, if there is one, and waits for its thread unless that is this one.
    pub(crate) fn disconnect(&self) {
        let mut slot = self.slot.lock();
        let Some(client) = &mut slot.client else { return };
        client.socket.end();
        if client.thread_id == thread::current().id() {
            return;
        }
        let thread_id = client.thread_id;
        if let Some(thread) = client.thread.take() {
            drop(slot);
            return join(Some(thread));
        }
        // Somebody else joins it.
        while slot.client.as_ref().is_some_and(|client| client.thread_id == thread_id) {
            self.released.wait(&mut slot);
        }
    }

    /// Stops listening, removes the socket file, disconnects the client.
    pub(crate) fn close(&self) {
        self.shared.forget(self.token);
        let listener = self.slot.lock().listener.take();
        if let Some(listener) = listener {
            self.shared.unwatch(listener.fd().as_fd());
            drop(listener);
            // Clients in their handshake are let go of.
            self.shared.wake();
        }
        self.disconnect();
        // With the thread goes what it holds of the device.
        let ending = self.slot.lock().ending.take();
        join(ending);
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if let Some(thread) = thread {
        // Panics are reported by the thread itself.
        let _ = thread.join();
    }
}
