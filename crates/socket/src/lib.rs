//! This crate serves devices on Unix sockets: one socket per device, one client at a time.
//!
//! It is what vfio-user and vhost-user have in common: socket files (stale ones replaced, live ones
//! left alone), clients heard out until their first message, a thread per attached client, and
//! messages of a header, a payload and descriptors, whatever pieces they arrive in.
//!
//! It is no protocol itself: what messages mean, and how a client is told no, is up to the
//! [`Protocol`] and its [`Session`]s. Clients are not trusted: memory follows what arrived,
//! descriptors are bounded, and a client that stalls holds up nobody else.
//!
//! ```text
//!   Server ─ acceptor thread ─ epoll over all listeners and handshakes
//!     │                            │ first message complete, device free
//!     └─ Endpoint (one per device) ─ connection thread, until the client goes
//!                                          │ Protocol::open ─► Session
//!                                          │ Socket::receive ─► Assembler ─► Session::receive
//!                                          │ Socket::send ◄──────────────────── Answer
//!                                          └ Session::end
//! ```

#![forbid(unsafe_code)]

mod acceptor;
mod connection;
mod error;
mod eventfd;
mod message;
mod path;
mod poller;
mod protocol;
mod server;
mod service;
mod socket;

pub use error::Error;
pub use eventfd::EventFd;
pub use message::{Assembler, Broken, Header, MAX_HEADER, Message, SCM_MAX_FDS};
pub use protocol::{Answer, Disconnect, Protocol, Session};
pub use rustix::io::Errno;
pub use server::{Config, Endpoint, Server};
pub use socket::{Peer, Received, Socket};
