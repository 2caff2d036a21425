//! One client's thread: receives, hands over to the session, sends the answer.

use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use manifold_socket::{Received, Seat, Socket};

use super::Service;
use crate::assemble::Assembler;
use crate::session::{Answer, Session};
use crate::{Disconnect, Errno, Peer};

/// Serves a client whose first message is in `assembler`, until the connection ends.
pub(super) fn run(service: &Service, seat: &Seat, socket: &Arc<Socket>, assembler: &mut Assembler) {
    let config = &service.config;
    assembler.set_max_payload(Session::max_payload(config.max_data_xfer_size));
    let manifold_socket::Peer { pid, uid, gid } = socket.peer();
    // The version is not known yet.
    let peer = Peer { pid, uid, gid, version: (0, 0) };
    let mut session = Session::new(Arc::clone(&service.device), peer, config.max_data_xfer_size);

    // A bug in one function's device model costs that function its client, not the others theirs.
    let how =
        catch_unwind(AssertUnwindSafe(|| serve(service, seat, socket, assembler, &mut session)))
            .unwrap_or(Disconnect::DevicePanicked);
    let function = seat.name();
    match (&how, session.peer()) {
        (Disconnect::Closed | Disconnect::Server, Some(peer)) => {
            tracing::info!(function, pid = peer.pid, "client detached: {how}");
        }
        (_, Some(peer)) => tracing::warn!(function, pid = peer.pid, "client detached: {how}"),
        (_, None) => tracing::warn!(function, "client turned away: {how}"),
    }
    // Nobody at the other end waits for the device to clean up, and the next client knows that the
    // place is about to be free.
    socket.shut_down();
    service.detaching(seat);
    if catch_unwind(AssertUnwindSafe(|| session.end(&how))).is_err() {
        tracing::error!(function, "the device panicked when its client was detached");
    }
}

fn serve(
    service: &Service,
    seat: &Seat,
    socket: &Socket,
    assembler: &mut Assembler,
    session: &mut Session,
) -> Disconnect {
    let mut answer = Answer::default();
    let mut is_attached = false;
    loop {
        if let Some(message) = assembler.take() {
            session.receive(message, &mut answer);
            if let (false, Some(peer)) = (is_attached, session.peer()) {
                is_attached = true;
                tracing::info!(
                    function = seat.name(),
                    pid = peer.pid,
                    uid = peer.uid,
                    "client attached"
                );
                service.attached(seat, peer);
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
                if let Some(end) = deliver(socket, &mut answer) {
                    return end;
                }
            }
            Err(errno) => return Disconnect::Socket(errno),
        }
    }
}

/// Sends the answer, however long the client takes to make room. Says whether that was the last.
fn deliver(socket: &Socket, answer: &mut Answer) -> Option<Disconnect> {
    if !answer.bytes.is_empty() {
        let fds: Vec<_> = answer.fds.iter().map(|fd| fd.as_fd()).collect();
        if let Err(error) = socket.send(&answer.bytes, &fds, None) {
            return Some(match answer.end.take() {
                Some(end) => end,
                None if socket.is_ended() => Disconnect::Server,
                None => match error.raw_os_error().map(Errno::from_raw_os_error) {
                    Some(Errno::PIPE | Errno::CONNRESET) => Disconnect::Closed,
                    errno => Disconnect::Socket(errno.unwrap_or(Errno::IO)),
                },
            });
        }
    }
    answer.end.take()
}
