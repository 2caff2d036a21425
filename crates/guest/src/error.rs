//! This module has the crate's one error type.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// An error of a guest, or of the generator and the attacks that build on it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The function's socket could not be connected to.
    #[error(
        "cannot connect to {}: {source}; check that the adapter runs and that the VF is enabled",
        path.display()
    )]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// Operation that failed.
        what: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// The server answered a command with an error.
    #[error("{command} refused: {}", io::Error::from_raw_os_error(*errno))]
    Refused {
        /// The command, in the specification's spelling.
        command: &'static str,
        /// The `errno` of the reply; 0 where the server gave none.
        errno: i32,
    },
    /// The server sent something that the protocol does not allow.
    #[error("{command}: protocol violation by the server: {reason}")]
    Protocol {
        /// The command that was being answered.
        command: &'static str,
        /// The violation.
        reason: String,
    },
    /// The server did not answer in time.
    #[error("{command}: no answer within {after:?}")]
    Timeout {
        /// The command that was not answered.
        command: &'static str,
        /// Time that the guest waited.
        after: Duration,
    },
    /// The server closed the connection.
    #[error("{command}: the server closed the connection")]
    Disconnected {
        /// The command that was being sent or answered.
        command: &'static str,
    },
    /// The independent client failed.
    #[error("{command}: {source}")]
    Independent {
        /// The operation that failed.
        command: &'static str,
        /// The client's error.
        source: vfio_user::Error,
    },
    /// A vhost-user backend could not be talked to.
    #[error("vhost-user, {what}: {source}")]
    VhostUser {
        /// The operation that failed.
        what: &'static str,
        /// The frontend's error.
        source: vhost::Error,
    },
    /// The transport cannot do this.
    #[error("this vfio-user client does not support {0}")]
    Unsupported(&'static str),
    /// The guest's own memory was accessed out of bounds or could not be made.
    #[error("guest memory: {0}")]
    Memory(String),
    /// The arena has no room left.
    #[error("guest memory: {want} bytes wanted, {left} left; give the guest more memory")]
    OutOfMemory {
        /// Bytes wanted, with their alignment.
        want: usize,
        /// Bytes left.
        left: usize,
    },
    /// The device is not what a virtio-net driver can drive.
    #[error("device: {0}")]
    Device(String),
    /// The device did not accept the features that the driver chose.
    #[error("the device refused FEATURES_OK for features {features:#x} (it offered {offered:#x})")]
    Features {
        /// The features that the driver chose.
        features: u64,
        /// The features that the device offers.
        offered: u64,
    },
    /// The device set DEVICE_NEEDS_RESET.
    #[error("the device set DEVICE_NEEDS_RESET")]
    NeedsReset,
    /// The agent cannot carry out a command.
    #[error("{0}")]
    Command(String),
}

impl Error {
    /// Makes an [`Error::Io`] from whatever the operating system returned.
    pub fn io(what: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Io { what, source: source.into() }
    }

    /// Returns true if the connection to the function is gone, whatever was being done.
    pub fn is_disconnect(&self) -> bool {
        let gone = |e: &io::Error| {
            matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        };
        match self {
            Self::Disconnected { .. } => true,
            Self::Io { source, .. } => gone(source),
            _ => false,
        }
    }
}

/// A result with [`Error`] by default.
pub type Result<T, E = Error> = std::result::Result<T, E>;
