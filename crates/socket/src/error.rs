//! This module lists the reasons why a socket could not be served.

use std::io;
use std::path::PathBuf;

/// The errors of [`Server`](crate::Server).
///
/// What a client does wrong is none of these: it loses its connection, or is told by its protocol.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process (or this one) answers on the socket.
    #[error(
        "{} is in use: another server is listening on it; stop that one or choose another \
         directory",
        path.display()
    )]
    InUse {
        /// Path of the socket.
        path: PathBuf,
    },
    /// Something else is where the socket should be.
    #[error("{} exists and is not a socket; remove it or choose another directory", path.display())]
    NotASocket {
        /// Path of what is in the way.
        path: PathBuf,
    },
    /// The path does not fit a socket address.
    #[error(
        "the socket path {} has {length} bytes and at most {} fit; choose a shorter directory",
        path.display(),
        Self::MAX_PATH
    )]
    PathTooLong {
        /// The path that does not fit.
        path: PathBuf,
        /// Length of the path in bytes.
        length: usize,
    },
    /// The socket could not be made.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// Path of the socket.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// A thread, an epoll instance or an eventfd could not be made.
    #[error("cannot start serving sockets: {what}")]
    Start {
        /// Name of what could not be made.
        what: &'static str,
        /// Error of the system.
        source: io::Error,
    },
}

impl Error {
    /// Longest path of a socket in bytes (`sun_path` less its terminating zero).
    pub const MAX_PATH: usize = 107;
}
