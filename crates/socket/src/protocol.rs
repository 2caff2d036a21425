//! This module defines what a protocol supplies: how a client's session begins, and what it makes
//! of messages.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use crate::message::{Broken, Header, Message};
use crate::socket::Peer;

/// A protocol that devices are served over.
pub trait Protocol: Send + Sync + 'static {
    /// The header of every message.
    type Header: Header;
    /// The device behind a socket.
    type Device: ?Sized + Send + Sync + 'static;
    /// One client's side of a connection.
    type Session: Session<Header = Self::Header>;
    /// Name of the protocol, for log messages.
    const NAME: &'static str;
    /// Prefix of the names of connection threads. Linux shows 15 bytes of them.
    const THREAD: &'static str;
    /// Largest payload of a client's first message in bytes.
    const MAX_FIRST_PAYLOAD: usize;
    /// True if the connection of a client that the device refuses is kept open for the handshake's
    /// time. It is for clients that cannot be told, and would connect again at once.
    const HOLDS_REFUSED: bool = false;

    /// Returns the largest payload of any later message in bytes.
    fn max_payload(&self) -> usize {
        Self::MAX_FIRST_PAYLOAD
    }

    /// Begins a session for a client that the device is free for, without calling a method of the
    /// device.
    fn open(&self, device: Arc<Self::Device>, peer: Peer) -> Self::Session;

    /// Returns the answer to a first message whose header makes no sense. Without one the client is
    /// dropped.
    fn malformed(&self, header: &Self::Header) -> Vec<u8> {
        let _ = header;
        Vec::new()
    }

    /// Returns the answer to the first message of a client that cannot have the device, because
    /// another one has it.
    fn busy(&self, header: &Self::Header) -> Vec<u8> {
        let _ = header;
        Vec::new()
    }
}

/// One client's side of a connection: a state machine without I/O.
pub trait Session {
    /// The header of every message.
    type Header: Header;

    /// Reports whether the device has been given to the client.
    fn is_attached(&self) -> bool;

    /// Carries out a message and overwrites `answer`.
    fn receive(&mut self, message: Message<'_, Self::Header>, answer: &mut Answer);

    /// Answers a header after which the stream cannot be read any further. The answer's `end` is
    /// set.
    fn broken(&mut self, broken: Broken<Self::Header>, answer: &mut Answer);

    /// Ends the session: the device lets go of what it holds of the client's. This is called once,
    /// last, also after a panic of another method.
    fn end(&mut self, how: &Disconnect);
}

/// The answer that goes back to a client for one message.
#[derive(Debug, Default)]
pub struct Answer {
    /// The bytes of one message, or none.
    pub bytes: Vec<u8>,
    /// The descriptors that go with it.
    pub fds: Vec<Arc<OwnedFd>>,
    /// The reason why the connection ends after this, if it does.
    pub end: Option<Disconnect>,
    /// The request that was refused and the reason, if the log is to say so. The first of a
    /// connection is logged.
    pub refusal: Option<String>,
}

impl Answer {
    /// Empties the answer. Memory that one large transfer needed is given back.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(64 << 10);
        self.fds.clear();
        self.end = None;
        self.refusal = None;
    }
}

/// The reason why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disconnect {
    /// The client closed the connection between two messages.
    Closed,
    /// The client closed the connection, or died, in the middle of a message.
    MidMessage,
    /// The client broke the protocol in a way that leaves the byte stream meaningless.
    Protocol(&'static str),
    /// A request was refused, and the protocol has no way to tell the client.
    Refused {
        /// Name of the request.
        request: &'static str,
        /// The reason why it was refused.
        reason: String,
    },
    /// The device refused the client, for this reason. A device never sees this one.
    Unavailable(String),
    /// The socket failed.
    Socket(Errno),
    /// The server ended the connection.
    Server,
    /// A method of the device panicked.
    DevicePanicked,
}

impl fmt::Display for Disconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the client closed the connection"),
            Self::MidMessage => f.write_str("the client went away in the middle of a message"),
            Self::Protocol(what) => write!(f, "protocol error: {what}"),
            Self::Refused { request, reason } => write!(f, "{request} was refused: {reason}"),
            Self::Unavailable(reason) => write!(f, "the device refused the client: {reason}"),
            Self::Socket(errno) => write!(f, "the socket failed: {errno}"),
            Self::Server => f.write_str("this side closed the connection"),
            Self::DevicePanicked => f.write_str("the device panicked"),
        }
    }
}
