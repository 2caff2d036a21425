//! This module has what the tests of this crate share.
#![allow(dead_code, unreachable_pub, missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod dummy;
pub mod raw;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dummy::{Dummy, Options};
use manifold_vfio_user::{Config, Endpoint, Server, VfioUser};

/// A server with one dummy, in a directory of its own.
pub struct Fixture {
    // The fields are dropped in this order.
    pub endpoint: Endpoint,
    pub server: Server,
    pub dummy: Arc<Dummy>,
    pub directory: tempfile::TempDir,
}

impl Fixture {
    pub fn new(options: Options) -> Self {
        Self::with_protocol(options, VfioUser::default())
    }

    /// Makes a fixture with time-outs that a test can wait for.
    pub fn with_protocol(options: Options, protocol: VfioUser) -> Self {
        let config = Config { handshake_timeout: Duration::from_millis(500), ..Config::default() };
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start(config, protocol).unwrap();
        let dummy = Dummy::new(options);
        let endpoint =
            server.serve(directory.path().join("vf0.sock"), "vf0", dummy.clone()).unwrap();
        Self { endpoint, server, dummy, directory }
    }

    pub fn path(&self) -> &Path {
        self.endpoint.path()
    }

    /// Returns a path for another socket.
    pub fn other(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Default for Fixture {
    fn default() -> Self {
        Self::new(Options::default())
    }
}
