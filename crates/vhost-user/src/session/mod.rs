//! This module is a session, the protocol as a state machine without I/O: a message comes in, an
//! answer goes out.
//!
//! ```text
//!   Message ─► Request ─► Session ─► Answer { bytes, descriptors, whether that was the last }
//!                            │
//!              Memory, Ring × n ─► Device: map, unmap, start and stop rings
//! ```
//!
//! A ring is served while the client has started it (a kick), enabled it and said all there is to
//! say of it. Whatever changes that goes through [`Session::settle`].

mod requests;
mod rings;
mod state;

use manifold_socket::{Answer, Broken, Disconnect, Message};

use crate::codec::{Header, Malformed, Payload, reply};
use crate::refusal::Refusal;
use crate::spec::protocol_feature;
use requests::Row;
pub use state::Session;

impl manifold_socket::Session for Session {
    type Header = Header;

    fn is_attached(&self) -> bool {
        self.is_attached
    }

    fn receive(&mut self, message: Message<'_, Header>, answer: &mut Answer) {
        answer.clear();
        if !self.is_attached
            && let Err(end) = self.attach()
        {
            answer.end = Some(end);
            return;
        }
        let Message { header, payload, fds } = message;
        let row = Row::find(header.code);
        let result = match row {
            _ if !header.is_request() => Err(Refusal::Header(header.flags)),
            None => Err(Malformed::Unknown(header.code).into()),
            Some(row) => row.carry_out(self, Payload::new(payload, fds), answer),
        };
        let acknowledge = header.needs_reply() && self.has(protocol_feature::REPLY_ACK);
        let request = row.map_or("an unknown request", |row| row.name);
        match result {
            Ok(()) if answer.bytes.is_empty() && acknowledge => {
                answer.bytes = reply(header.code, &0_u64.to_ne_bytes());
            }
            Ok(()) => {}
            Err(refusal) if acknowledge && !row.is_some_and(Row::has_reply) => {
                answer.bytes = reply(header.code, &1_u64.to_ne_bytes());
                answer.refusal = Some(format!("{request}: {refusal}"));
            }
            Err(refusal) => {
                answer.clear();
                answer.end = Some(Disconnect::Refused { request, reason: refusal.to_string() });
            }
        }
    }

    fn broken(&mut self, broken: Broken<Header>, answer: &mut Answer) {
        answer.clear();
        answer.end = Some(Disconnect::Protocol(match broken {
            Broken::Undersized(_) => "a size below the header's",
            Broken::Oversized(_) => "a message too large",
            Broken::TooManyFds => "too many descriptors in a message",
        }));
    }

    fn end(&mut self, how: &Disconnect) {
        if std::mem::replace(&mut self.is_attached, false) {
            self.stop_all();
            self.forget_memory();
            self.device.detached(how);
        }
    }
}
