//! Transfers move bulk data over TCP: the sender makes random bytes from a seed, and both ends hash
//! them.

use crate::protocol::{Event, Incoming, Outgoing};
use crate::{Error, Result};
use blake3::Hasher;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use smoltcp::iface::{Context, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Time without movement after which a connection is dead.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Time that a finished connection is kept for its last packets.
const LINGER: Duration = Duration::from_secs(1);
/// Time to wait for the receiver's MAC address.
const RESOLVE: Duration = Duration::from_secs(5);
/// Size of all send buffers of a guest together, in bytes.
const SEND_BUFFERS: usize = 1 << 20;
/// Size of one send buffer, in bytes.
const SEND_BUFFER: std::ops::RangeInclusive<usize> = 32 << 10..=256 << 10;
/// Size of a receive window, in bytes.
const WINDOW: std::ops::RangeInclusive<usize> = 18 << 10..=512 << 10;

/// Returns the receive window for each of `transfers`, if the RX rings take `capacity` bytes of
/// full segments. All windows together do not overrun the rings even if this guest sleeps.
pub(super) fn window(capacity: usize, transfers: usize) -> usize {
    (capacity / 4 * 3 / transfers.max(1)).clamp(*WINDOW.start(), *WINDOW.end())
}

/// Returns the bytes of the send buffer for each of `transfers`.
pub(super) fn send_buffer(transfers: usize) -> usize {
    (SEND_BUFFERS / transfers.max(1)).clamp(*SEND_BUFFER.start(), *SEND_BUFFER.end())
}

/// One end of a transfer.
#[derive(Debug)]
pub(super) struct Transfer {
    id: u32,
    handle: SocketHandle,
    hasher: Box<Hasher>,
    /// Bytes that passed the hasher.
    bytes: u64,
    /// Bytes that the other end has acknowledged; for a receiver, all bytes.
    acknowledged: u64,
    begun: Instant,
    sender: bool,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// The receiver waits for a connection.
    Listening,
    /// The receiver takes bytes.
    Receiving,
    /// The sender waits for the receiver's MAC address.
    Resolving { transfer: Outgoing, local_port: u16 },
    /// The sender connects, or sends bytes.
    Sending { rng: Xoshiro256PlusPlus, remaining: u64 },
    /// The end of the transfer was reported at this time.
    Ended(Instant),
}

fn socket(rx: usize, tx: usize) -> Socket<'static> {
    let mut socket = Socket::new(SocketBuffer::new(vec![0; rx]), SocketBuffer::new(vec![0; tx]));
    socket.set_timeout(Some(TIMEOUT.into()));
    socket
}

impl Transfer {
    pub(super) fn listen(
        sockets: &mut SocketSet<'static>,
        incoming: &Incoming,
        window: usize,
    ) -> Result<Self> {
        let mut socket = socket(window, 64);
        socket
            .listen(incoming.port)
            .map_err(|e| Error::Command(format!("listening on port {}: {e}", incoming.port)))?;
        Ok(Self::new(incoming.id, sockets.add(socket), Phase::Listening))
    }

    pub(super) fn send(
        sockets: &mut SocketSet<'static>,
        outgoing: &Outgoing,
        local_port: u16,
        buffer: usize,
    ) -> Self {
        let handle = sockets.add(socket(64, buffer));
        let phase = Phase::Resolving { transfer: *outgoing, local_port };
        Self { sender: true, ..Self::new(outgoing.id, handle, phase) }
    }

    fn new(id: u32, handle: SocketHandle, phase: Phase) -> Self {
        let (hasher, begun) = (Box::new(Hasher::new()), Instant::now());
        Self { id, handle, hasher, bytes: 0, acknowledged: 0, begun, sender: false, phase }
    }

    /// Moves what can be moved. Returns true if anything happened.
    pub(super) fn poll(
        &mut self,
        sockets: &mut SocketSet<'static>,
        context: &mut Context,
        neighbours: &HashMap<Ipv4Addr, [u8; 6]>,
        now: Instant,
        events: &mut Vec<Event>,
    ) -> bool {
        let socket = sockets.get_mut::<Socket<'_>>(self.handle);
        match &mut self.phase {
            Phase::Listening | Phase::Receiving => self.poll_receive(socket, now, events),
            Phase::Resolving { transfer, local_port } => {
                if !neighbours.contains_key(&transfer.to) {
                    if now > self.begun + RESOLVE {
                        let message = format!("{} does not answer ARP", transfer.to);
                        self.fail(socket, now, message, events);
                    }
                    return false;
                }
                let (to, port) = (transfer.to, transfer.port);
                let rng = Xoshiro256PlusPlus::seed_from_u64(transfer.seed);
                let remaining = transfer.bytes;
                if let Err(e) = socket.connect(context, (to, port), *local_port) {
                    self.fail(socket, now, format!("connecting to {to}:{port}: {e}"), events);
                    return false;
                }
                self.begun = now;
                self.phase = Phase::Sending { rng, remaining };
                true
            }
            Phase::Sending { .. } => self.poll_send(socket, now, events),
            Phase::Ended(_) => false,
        }
    }

    fn poll_receive(
        &mut self,
        socket: &mut Socket<'static>,
        now: Instant,
        events: &mut Vec<Event>,
    ) -> bool {
        let before = self.bytes;
        while socket.can_recv() {
            let hasher = &mut self.hasher;
            let took = socket.recv(|data| {
                hasher.update(data);
                (data.len(), data.len())
            });
            self.bytes += took.unwrap_or(0) as u64;
        }
        self.acknowledged = self.bytes;
        if matches!(self.phase, Phase::Listening) && socket.is_active() {
            self.begun = now;
            self.phase = Phase::Receiving;
        }
        if matches!(self.phase, Phase::Receiving) {
            match socket.state() {
                // The sender has closed, and everything before that was received.
                State::CloseWait => {
                    socket.close();
                    events.push(self.finish(now));
                    return true;
                }
                State::Closed | State::Listen => {
                    let message = format!("the connection broke after {} bytes", self.bytes);
                    self.fail(socket, now, message, events);
                }
                _ => {}
            }
        }
        self.bytes != before
    }

    fn poll_send(
        &mut self,
        socket: &mut Socket<'static>,
        now: Instant,
        events: &mut Vec<Event>,
    ) -> bool {
        let Phase::Sending { rng, remaining } = &mut self.phase else { return false };
        let before = (self.bytes, self.acknowledged);
        while *remaining > 0 && socket.can_send() {
            let hasher = &mut self.hasher;
            let put = socket.send(|buffer| {
                let want = usize::try_from(*remaining).unwrap_or(usize::MAX);
                let len = buffer.len().min(want);
                let (data, _) = buffer.split_at_mut(len);
                rng.fill_bytes(data);
                hasher.update(data);
                (len, len as u64)
            });
            let Ok(put) = put else { break };
            *remaining -= put;
            self.bytes += put;
        }
        self.acknowledged = self.bytes.saturating_sub(socket.send_queue() as u64);
        match socket.state() {
            State::Established if *remaining == 0 => socket.close(),
            // Everything was acknowledged, including the end.
            State::FinWait2 | State::TimeWait => {
                events.push(self.finish(now));
                return true;
            }
            State::Closed => {
                let message = format!(
                    "the connection was refused or broke after {} bytes",
                    self.acknowledged
                );
                self.fail(socket, now, message, events);
            }
            _ => {}
        }
        before != (self.bytes, self.acknowledged)
    }

    /// Ends the transfer and reports that all of it has passed.
    fn finish(&mut self, now: Instant) -> Event {
        self.phase = Phase::Ended(now);
        let (id, bytes) = (self.id, self.bytes);
        let digest = self.hasher.finalize().to_hex().to_string();
        let seconds = now.saturating_duration_since(self.begun).as_secs_f64();
        if self.sender {
            Event::Sent { id, bytes, digest, seconds }
        } else {
            Event::Received { id, bytes, digest, seconds }
        }
    }

    fn fail(
        &mut self,
        socket: &mut Socket<'static>,
        now: Instant,
        message: String,
        events: &mut Vec<Event>,
    ) {
        socket.abort();
        events.push(Event::Failed { id: Some(self.id), message });
        self.phase = Phase::Ended(now);
    }

    /// Returns the bytes received, and the bytes sent and acknowledged.
    pub(super) fn progress(&self) -> (u64, u64) {
        if self.sender { (0, self.acknowledged) } else { (self.acknowledged, 0) }
    }

    /// Returns true while bytes may move.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Receiving | Phase::Sending { .. })
    }

    /// Returns true once the socket is not needed any more.
    pub(super) fn is_gone(&self, sockets: &SocketSet<'static>, now: Instant) -> bool {
        let Phase::Ended(ended) = self.phase else { return false };
        let state = sockets.get::<Socket<'_>>(self.handle).state();
        matches!(state, State::Closed | State::TimeWait) || now > ended + LINGER
    }

    /// Gives the socket back.
    pub(super) fn close(&self, sockets: &mut SocketSet<'static>) {
        sockets.remove(self.handle);
    }

    pub(super) fn next_deadline(&self, now: Instant) -> Option<Duration> {
        let due = match self.phase {
            Phase::Resolving { .. } => self.begun + RESOLVE,
            Phase::Ended(ended) => ended + LINGER,
            _ => return None,
        };
        Some(due.saturating_duration_since(now) + Duration::from_millis(1))
    }
}
