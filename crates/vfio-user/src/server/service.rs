//! One device on its socket: who listens, who is attached.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle, ThreadId};

use parking_lot::{Condvar, Mutex};

use super::path::Listener;
use super::socket::Socket;
use super::{Config, Shared, connection};
use crate::assemble::Assembler;
use crate::{Device, Peer};

/// What an [`Endpoint`](super::Endpoint) stands for.
pub(super) struct Service {
    name: String,
    path: PathBuf,
    token: u64,
    device: Arc<dyn Device>,
    shared: Arc<Shared>,
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
    peer: Option<Peer>,
}

/// Whether a new client can have the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Availability {
    /// It can.
    Free,
    /// Soon: the present client is gone, and the device is about to be told.
    SoonFree,
    /// It cannot: the process with this ID has it.
    Busy(i32),
    /// Never again.
    Closed,
}

impl Service {
    pub(super) fn new(
        shared: Arc<Shared>,
        token: u64,
        name: &str,
        device: Arc<dyn Device>,
        path: &Path,
        listener: Listener,
    ) -> Self {
        Self {
            name: name.to_owned(),
            path: path.into(),
            token,
            device,
            shared,
            slot: Mutex::new(Slot { listener: Some(listener), client: None, ending: None }),
            released: Condvar::new(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    pub(super) fn config(&self) -> &Config {
        &self.shared.config
    }

    /// The client, once it is attached.
    pub(super) fn peer(&self) -> Option<Peer> {
        self.slot.lock().client.as_ref()?.peer.clone()
    }

    /// Does something with the listening socket, unless the service is closed.
    pub(super) fn with_listener<T>(&self, f: impl FnOnce(&Listener) -> T) -> Option<T> {
        self.slot.lock().listener.as_ref().map(f)
    }

    pub(super) fn availability(&self) -> Availability {
        let slot = self.slot.lock();
        match &slot.client {
            _ if slot.listener.is_none() => Availability::Closed,
            None => Availability::Free,
            Some(client) if client.socket.is_ended() || client.socket.is_peer_gone() => {
                Availability::SoonFree
            }
            Some(client) => Availability::Busy(client.peer.as_ref().map_or(0, |peer| peer.pid)),
        }
    }

    /// Gives the device, which is free, to the client whose first message is in `assembler`.
    pub(super) fn start(self: &Arc<Self>, socket: Arc<Socket>, mut assembler: Assembler) {
        let mut slot = self.slot.lock();
        if slot.listener.is_none() || slot.client.is_some() {
            return;
        }
        join(slot.ending.take());
        let (service, connection) = (Arc::clone(self), Arc::clone(&socket));
        // Linux shows 15 bytes of it.
        let thread = thread::Builder::new().name(format!("vu-{}", self.name)).spawn(move || {
            connection::run(&service, &connection, &mut assembler);
            drop(connection);
            service.release();
        });
        match thread {
            Ok(thread) => {
                let (thread_id, peer) = (thread.thread().id(), None);
                slot.client = Some(Client { socket, thread: Some(thread), thread_id, peer });
            }
            Err(error) => {
                tracing::warn!(function = self.name, %error, "no thread for a client");
            }
        }
    }

    /// The client's version was agreed on.
    pub(super) fn attached(&self, peer: &Peer) {
        if let Some(client) = &mut self.slot.lock().client {
            client.peer = Some(peer.clone());
        }
    }

    /// The client is about to be detached: it counts as gone from here on.
    pub(super) fn detaching(&self) {
        if let Some(client) = &mut self.slot.lock().client {
            client.peer = None;
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
    pub(super) fn disconnect(&self) {
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
    pub(super) fn close(&self) {
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
