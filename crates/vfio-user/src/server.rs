//! Sockets, threads and their life cycle.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::{Device, Error, Peer};

/// Settings of a [`Server`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Permissions of the socket files. Whoever may write to a function's socket may attach to the function.
    pub socket_mode: u32,
    /// Largest data transfer a client may ask for, in bytes.
    pub max_data_xfer_size: u32,
    /// How long a client has to send its version after it connected.
    pub handshake_timeout: Duration,
    /// How long a client has to answer a request for its memory.
    pub dma_timeout: Duration,
}

impl Default for Config {
    /// Sockets for the owner only, 1 MiB, 5 s, 2 s.
    fn default() -> Self {
        Self {
            socket_mode: 0o600,
            max_data_xfer_size: 1 << 20,
            handshake_timeout: Duration::from_secs(5),
            dma_timeout: Duration::from_secs(2),
        }
    }
}

/// A vfio-user server for any number of devices.
#[derive(Debug)]
pub struct Server {}

impl Server {
    /// Starts the thread that accepts clients.
    ///
    /// # Errors
    /// [`Error::Start`] when the system gives no thread or descriptor.
    pub fn start(config: Config) -> Result<Self, Error> {
        let _ = config;
        Ok(Self {})
    }

    /// Listens on `path` for clients of `device`. `name` is for log messages ("vf3").
    ///
    /// # Errors
    /// When `path` is in use, is no socket, is too long or cannot be made.
    pub fn serve(
        &self,
        path: impl AsRef<Path>,
        name: &str,
        device: Arc<dyn Device>,
    ) -> Result<Endpoint, Error> {
        let _ = (path.as_ref(), name, device);
        Err(Error::ShutDown)
    }

    /// Closes all endpoints and ends all threads. Dropping the server does the same.
    pub fn shutdown(self) {}
}

/// One device's socket. Dropping it is [`close`](Self::close).
#[derive(Debug)]
pub struct Endpoint {
    path: PathBuf,
}

impl Endpoint {
    /// The socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The client that is attached.
    #[must_use]
    pub fn peer(&self) -> Option<Peer> {
        None
    }

    /// Disconnects the client, if there is one, and waits until its `detached` has returned. The socket stays open for
    /// the next one.
    pub fn disconnect(&self) {}

    /// Removes the socket, disconnects the client and waits until its `detached` has returned: no method of the device is
    /// called after this. (From inside a method of the device it cannot wait; the connection ends after that method.)
    pub fn close(self) {}
}
