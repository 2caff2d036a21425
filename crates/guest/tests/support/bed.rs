//! This module runs a real adapter in this process: the device side of the tests of `guest`,
//! `generator` and `hostile`, which include this file.
#![allow(dead_code, unreachable_pub)]

use manifold_adapter::{Adapter, Config};
use std::path::PathBuf;
use std::time::Duration;

/// Time that is longer than anything here takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(60);

/// An adapter with VFs and its folder of sockets.
pub struct Bed {
    pub adapter: Adapter,
    pub dir: tempfile::TempDir,
}

impl Bed {
    pub fn new(vfs: u16, mtu: u16) -> Self {
        if std::env::var_os("RUST_LOG").is_some() {
            let _ = tracing_subscriber::fmt()
                .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
                .with_writer(std::io::stderr)
                .try_init();
        }
        let dir = tempfile::tempdir().unwrap();
        let adapter = Adapter::start(Config { mtu, ..Config::new(dir.path()) }).unwrap();
        adapter.enable_vfs(vfs).unwrap();
        Self { adapter, dir }
    }

    pub fn socket(&self, vf: u16) -> PathBuf {
        self.dir.path().join(format!("vf{vf}.sock"))
    }
}
