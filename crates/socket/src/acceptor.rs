//! This module is the thread that accepts the clients of all devices and hears them out until their
//! first message has arrived. Only then is a client given the device, so one that connects and says
//! nothing keeps nobody away.
//!
//! ```text
//!   listener ─► Handshake ─► complete ─┬─ free ───────► connection thread
//!                  │                   ├─ soon free ──► parked until it is
//!               deadline ─► dropped    └─ busy ───────► told so (Protocol::busy), then dropped
//! ```

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use crate::message::{Assembler, Broken};
use crate::path::accept;
use crate::poller::{Poller, WAKE};
use crate::protocol::Protocol;
use crate::service::{Availability, Service, Services};
use crate::socket::{Received, Socket, timespec};

/// Number of clients of one device that can be in their handshake at one time.
const MAX_HANDSHAKES: usize = 8;

/// Number of events that are taken at a time.
const EVENTS: usize = 64;

pub(crate) struct Acceptor<P: Protocol> {
    poller: Arc<Poller>,
    services: Arc<Services<P>>,
    /// Time in which a client must send its first message.
    handshake_timeout: Duration,
    handshakes: HashMap<u64, Handshake<P>>,
}

/// A client that the device has not been given to.
struct Handshake<P: Protocol> {
    service: Arc<Service<P>>,
    socket: Arc<Socket>,
    assembler: Assembler<P::Header>,
    deadline: Instant,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// The client was told that it cannot have the device, and has yet to close its end. If this
    /// side closed first, QEMU would report that before the reason (over vfio-user).
    Refused,
    /// The client has yet to send its first message.
    Reading,
    /// The client waits for its predecessor to be cleaned up.
    Parked,
}

/// The next step of a handshake.
enum Next {
    Continue,
    Drop,
}

impl<P: Protocol> Acceptor<P> {
    pub(crate) fn new(
        poller: Arc<Poller>,
        services: Arc<Services<P>>,
        handshake_timeout: Duration,
    ) -> Self {
        Self { poller, services, handshake_timeout, handshakes: HashMap::new() }
    }

    /// Runs until the server is shut down.
    pub(crate) fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        while !self.poller.is_shut_down() {
            let deadline = self.handshakes.values().map(|handshake| handshake.deadline).min();
            let timeout = deadline.map(|at| timespec(at.saturating_duration_since(Instant::now())));
            events.clear();
            let buffer = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.poller.epoll, buffer, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => {
                    tracing::error!(%errno, "no more clients can be accepted");
                    return;
                }
            }
            for event in &events {
                self.event(event.data.u64());
            }
            self.expire();
        }
    }

    fn event(&mut self, token: u64) {
        if token == WAKE {
            self.poller.clear_wake();
            self.retry_parked();
        } else if self.handshakes.contains_key(&token) {
            self.step(token);
        } else {
            let service = self.services.lock().get(&token).cloned();
            // The service may have been closed after the event was taken.
            if let Some(service) = service {
                self.accept(&service);
            }
        }
    }

    fn accept(&mut self, service: &Arc<Service<P>>) {
        let fd = match service.with_listener(accept) {
            Some(Ok(Some(fd))) => fd,
            Some(Ok(None)) | None => return,
            Some(Err(error)) => {
                tracing::warn!(function = service.name(), %error, "cannot accept a client");
                // The client stays in the queue; without a pause this would spin.
                std::thread::sleep(Duration::from_millis(50));
                return;
            }
        };
        self.make_room(service);
        let token = self.poller.new_token();
        let handshake = Handshake {
            service: Arc::clone(service),
            socket: Arc::new(Socket::new(fd)),
            assembler: Assembler::new(P::MAX_FIRST_PAYLOAD),
            deadline: Instant::now() + self.handshake_timeout,
            stage: Stage::Reading,
        };
        if let Err(errno) = self.poller.watch(handshake.socket.as_fd(), token, EventFlags::IN) {
            tracing::warn!(function = service.name(), %errno, "cannot watch a client");
            return;
        }
        self.handshakes.insert(token, handshake);
    }

    /// Drops the client that has been silent longest if there are too many. Dropping the new one
    /// instead would let silent ones keep it away.
    fn make_room(&mut self, service: &Arc<Service<P>>) {
        let others = || {
            let all = self.handshakes.iter();
            all.filter(|(_, other)| Arc::ptr_eq(&other.service, service))
        };
        if others().count() < MAX_HANDSHAKES {
            return;
        }
        let oldest = others().min_by_key(|(_, other)| (other.stage, other.deadline));
        if let Some(token) = oldest.map(|(&token, _)| token) {
            tracing::warn!(function = service.name(), "too many clients at once, one is dropped");
            self.handshakes.remove(&token);
        }
    }

    fn step(&mut self, token: u64) {
        let Some(handshake) = self.handshakes.get_mut(&token) else { return };
        let next = match handshake.stage {
            Stage::Reading => handshake.receive(),
            // Parked and refused clients are watched for their end only.
            Stage::Parked | Stage::Refused => Next::Drop,
        };
        match next {
            Next::Drop => drop(self.handshakes.remove(&token)),
            Next::Continue if handshake.assembler.is_complete() => self.claim(token),
            Next::Continue => {}
        }
    }

    /// Gives the device to a client whose first message has arrived, or tells it why not.
    fn claim(&mut self, token: u64) {
        let Some(mut handshake) = self.handshakes.remove(&token) else { return };
        let service = Arc::clone(&handshake.service);
        match service.availability() {
            Availability::Free => {
                self.poller.unwatch(handshake.socket.as_fd());
                service.start(handshake.socket, handshake.assembler);
            }
            Availability::SoonFree => self.keep(token, handshake, Stage::Parked),
            Availability::Busy(pid) => {
                handshake.refuse(pid);
                self.keep(token, handshake, Stage::Refused);
            }
            Availability::Closed => {}
        }
    }

    /// Keeps a client that has said all it has to say.
    fn keep(&mut self, token: u64, mut handshake: Handshake<P>, stage: Stage) {
        handshake.stage = stage;
        let (socket, data) = (handshake.socket.as_fd(), EventData::new_u64(token));
        let _ = epoll::modify(&self.poller.epoll, socket, data, EventFlags::RDHUP);
        self.handshakes.insert(token, handshake);
    }

    /// Looks again at clients that wait, as a device may have become free or was closed.
    fn retry_parked(&mut self) {
        self.handshakes.retain(|_, handshake| {
            !matches!(handshake.service.availability(), Availability::Closed)
        });
        let parked: Vec<u64> = self
            .handshakes
            .iter()
            .filter_map(|(&token, handshake)| (handshake.stage == Stage::Parked).then_some(token))
            .collect();
        for token in parked {
            self.claim(token);
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        let late = self.handshakes.extract_if(|_, handshake| handshake.deadline <= now);
        for (_, mut handshake) in late {
            let function = handshake.service.name();
            match handshake.stage {
                Stage::Refused => {}
                Stage::Reading => {
                    tracing::warn!(function, protocol = P::NAME, "a client said nothing in time");
                }
                Stage::Parked => handshake.refuse(0),
            }
        }
    }
}

impl<P: Protocol> Handshake<P> {
    /// Receives what there is, up to the end of the first message.
    fn receive(&mut self) -> Next {
        loop {
            let broken = match self.socket.receive(&mut self.assembler, false) {
                Ok(Received::Part) => continue,
                Ok(Received::Nothing | Received::Message) => return Next::Continue,
                Ok(Received::End) | Err(_) => return Next::Drop,
                Ok(Received::Broken(broken)) => broken,
            };
            let function = self.service.name();
            tracing::warn!(function, ?broken, "not a {} client", P::NAME);
            if let Broken::Undersized(header) | Broken::Oversized(header) = broken {
                let _ = self.socket.try_send(&self.service.protocol().malformed(&header));
            }
            return Next::Drop;
        }
    }

    /// Tells the client that another one has the device, if the protocol has a way to say so.
    fn refuse(&mut self, holder: i32) {
        let Some(message) = self.assembler.take() else { return };
        tracing::warn!(
            function = self.service.name(),
            protocol = P::NAME,
            client = self.socket.peer().pid,
            holder,
            "a second client is refused: a function has one client at a time"
        );
        // A client whose empty socket has no room for a few bytes is gone.
        let _ = self.socket.try_send(&self.service.protocol().busy(&message.header));
    }
}
