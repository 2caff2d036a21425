//! This module is a service: one device on its socket, with its listener and its client.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle, ThreadId};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::connection::{self, ClientSlot};
use crate::message::Assembler;
use crate::path::Listener;
use crate::poller::Poller;
use crate::protocol::Protocol;
use crate::socket::{Peer, Socket};

/// All services of a server by the token of their listener.
pub(crate) type Services<P> = Mutex<HashMap<u64, Arc<Service<P>>>>;

/// One device on its socket; an [`Endpoint`](crate::Endpoint) stands for it.
pub(crate) struct Service<P: Protocol> {
    slot: ClientSlot,
    path: PathBuf,
    protocol: Arc<P>,
    device: Arc<P::Device>,
    poller: Arc<Poller>,
    /// Time for which a client that the device refuses is held, if the protocol holds it.
    patience: Duration,
    state: Mutex<State>,
    /// A condition that is signalled when the device becomes free.
    released: Condvar,
}

struct State {
    /// The listening socket; `None` once the service is closed.
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

/// The answer that a new client is given about the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    /// The client can have the device.
    Free,
    /// The client can have the device soon: the present client is gone, and the device is about to
    /// be told.
    SoonFree,
    /// The process with this ID has the device.
    Busy(i32),
    /// The device is not served any more.
    Closed,
}

impl<P: Protocol> Service<P> {
    pub(crate) fn new(
        poller: Arc<Poller>,
        protocol: Arc<P>,
        device: Arc<P::Device>,
        name: &str,
        listener: Listener,
        patience: Duration,
    ) -> Self {
        Self {
            slot: ClientSlot { name: name.to_owned(), peer: Mutex::new(None) },
            path: listener.path().into(),
            protocol,
            device,
            poller,
            patience,
            state: Mutex::new(State { listener: Some(listener), client: None, ending: None }),
            released: Condvar::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.slot.name
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn protocol(&self) -> &P {
        &self.protocol
    }

    /// Returns the client, once it is attached.
    pub(crate) fn peer(&self) -> Option<Peer> {
        *self.slot.peer.lock()
    }

    /// Calls `f` with the listening socket, unless the service is closed.
    pub(crate) fn with_listener<T>(&self, f: impl FnOnce(&Listener) -> T) -> Option<T> {
        self.state.lock().listener.as_ref().map(f)
    }

    pub(crate) fn availability(&self) -> Availability {
        let state = self.state.lock();
        match &state.client {
            _ if state.listener.is_none() => Availability::Closed,
            None => Availability::Free,
            Some(client) if client.socket.is_ended() || client.socket.is_peer_gone() => {
                Availability::SoonFree
            }
            Some(_) => Availability::Busy(self.peer().map_or(0, |peer| peer.pid)),
        }
    }

    /// Gives the device, which is free, to the client whose first message is in `assembler`.
    pub(crate) fn start(
        self: &Arc<Self>,
        socket: Arc<Socket>,
        mut assembler: Assembler<P::Header>,
    ) {
        let mut state = self.state.lock();
        if state.listener.is_none() || state.client.is_some() {
            return;
        }
        join(state.ending.take());
        let (service, connection) = (Arc::clone(self), Arc::clone(&socket));
        // Linux shows 15 bytes of a thread's name.
        let thread = thread::Builder::new().name(format!("{}-{}", P::THREAD, self.name())).spawn(
            move || {
                let Service { protocol, slot, patience, .. } = &*service;
                let device = Arc::clone(&service.device);
                connection::run(&**protocol, device, slot, &connection, &mut assembler, *patience);
                drop(connection);
                service.release();
            },
        );
        match thread {
            Ok(thread) => {
                let thread_id = thread.thread().id();
                state.client = Some(Client { socket, thread: Some(thread), thread_id });
            }
            Err(error) => {
                tracing::warn!(function = self.name(), %error, "no thread for a client");
            }
        }
    }

    /// Makes the device free. A client's thread does this last.
    fn release(&self) {
        let mut state = self.state.lock();
        state.ending = state.client.take().and_then(|client| client.thread);
        drop(state);
        self.released.notify_all();
        // A client may be waiting for the place.
        self.poller.wake();
    }

    /// Ends the connection, if there is one, and waits for its thread unless that is this one.
    pub(crate) fn disconnect(&self) {
        let mut state = self.state.lock();
        let Some(client) = &mut state.client else { return };
        client.socket.end();
        if client.thread_id == thread::current().id() {
            return;
        }
        let thread_id = client.thread_id;
        if let Some(thread) = client.thread.take() {
            drop(state);
            return join(Some(thread));
        }
        // Another thread joins this one.
        while state.client.as_ref().is_some_and(|client| client.thread_id == thread_id) {
            self.released.wait(&mut state);
        }
    }

    /// Stops listening, removes the socket file, disconnects the client.
    pub(crate) fn close(&self) {
        let listener = self.state.lock().listener.take();
        if let Some(listener) = listener {
            self.poller.unwatch(listener.fd().as_fd());
            drop(listener);
            // Clients in their handshake are let go of.
            self.poller.wake();
        }
        self.disconnect();
        // The thread takes with it what it holds of the device.
        let ending = self.state.lock().ending.take();
        join(ending);
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if let Some(thread) = thread {
        // Panics are reported by the thread itself.
        let _ = thread.join();
    }
}
