//! This module is the loop of one client's connection: it receives, hands over to the session and
//! sends the answer.

use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;

use crate::message::Assembler;
use crate::protocol::{Answer, Disconnect, Protocol, Session};
use crate::socket::{Peer, Received, Socket};

/// The name of a device, and the client that has been given it.
#[derive(Debug)]
pub(crate) struct ClientSlot {
    /// Name of the device, for log messages.
    pub(crate) name: String,
    /// The client, from attaching until it is about to be detached.
    pub(crate) peer: Mutex<Option<Peer>>,
}

/// Serves a client whose first message is in `assembler`, until the connection ends. A client that
/// the device refuses is held for `patience` if the protocol says so.
pub(crate) fn run<P: Protocol>(
    protocol: &P,
    device: Arc<P::Device>,
    slot: &ClientSlot,
    socket: &Socket,
    assembler: &mut Assembler<P::Header>,
    patience: Duration,
) {
    assembler.set_max_payload(protocol.max_payload());
    let peer = socket.peer();
    let mut session = protocol.open(device, peer);
    // A bug in one device costs that device its client, but not the other devices theirs.
    let serving = AssertUnwindSafe(|| serve::<P>(slot, peer, socket, assembler, &mut session));
    let how = catch_unwind(serving).unwrap_or(Disconnect::DevicePanicked);

    let (function, protocol, pid) = (&*slot.name, P::NAME, peer.pid);
    match &how {
        _ if !session.is_attached() => {
            tracing::warn!(function, protocol, pid, "client turned away: {how}");
        }
        Disconnect::Closed | Disconnect::Server => {
            tracing::info!(function, protocol, pid, "client detached: {how}");
        }
        _ => tracing::warn!(function, protocol, pid, "client detached: {how}"),
    }
    if P::HOLDS_REFUSED && matches!(how, Disconnect::Unavailable(_)) {
        socket.wait_for_end(patience);
    }
    // Nobody at the other end waits for the device to clean up, and the next client knows that the
    // device is about to be free.
    socket.shut_down();
    *slot.peer.lock() = None;
    if catch_unwind(AssertUnwindSafe(|| session.end(&how))).is_err() {
        tracing::error!(function, "the device panicked when its client was detached");
    }
}

fn serve<P: Protocol>(
    slot: &ClientSlot,
    peer: Peer,
    socket: &Socket,
    assembler: &mut Assembler<P::Header>,
    session: &mut P::Session,
) -> Disconnect {
    let (function, protocol, Peer { pid, uid, .. }) = (&*slot.name, P::NAME, peer);
    let mut answer = Answer::default();
    let mut is_attached = false;
    // A client can make as many mistakes as it likes; the log has the first.
    let mut is_refusal_logged = false;
    loop {
        if let Some(message) = assembler.take() {
            session.receive(message, &mut answer);
            if !is_attached && session.is_attached() {
                is_attached = true;
                *slot.peer.lock() = Some(peer);
                tracing::info!(function, protocol, pid, uid, "client attached");
            }
            if let Some(refusal) = &answer.refusal
                && !std::mem::replace(&mut is_refusal_logged, true)
            {
                tracing::warn!(function, protocol, pid, "request refused: {refusal}");
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
            Ok(Received::Broken(broken)) => {
                session.broken(broken, &mut answer);
                let end = deliver(socket, &mut answer);
                return end.unwrap_or(Disconnect::Protocol("an unreadable message"));
            }
            Err(errno) => return Disconnect::Socket(errno),
        }
    }
}

/// Sends the answer, however long the client takes to make room. Returns why the connection ends,
/// if it does.
fn deliver(socket: &Socket, answer: &mut Answer) -> Option<Disconnect> {
    let fds: Vec<_> = answer.fds.iter().map(|fd| fd.as_fd()).collect();
    let sent = socket.send(&answer.bytes, &fds, None);
    answer.end.take().or_else(|| {
        let error = sent.err()?;
        Some(match error.raw_os_error().map(Errno::from_raw_os_error) {
            _ if socket.is_ended() => Disconnect::Server,
            Some(Errno::PIPE | Errno::CONNRESET) => Disconnect::Closed,
            errno => Disconnect::Socket(errno.unwrap_or(Errno::IO)),
        })
    })
}
