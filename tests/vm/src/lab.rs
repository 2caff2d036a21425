//! A lab holds one test's guests and adapter, with a folder for sockets and one for logs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow};

use crate::adapter::{self, Adapter};
use crate::guest::{Builder, Guest};
use crate::namespace::Namespace;
use crate::scratch;
use crate::setup::Setup;

/// The place of a test's machines. Sockets go with it; logs stay until the test runs again.
#[derive(Debug)]
pub struct Lab {
    setup: &'static Setup,
    logs: PathBuf,
    sockets: PathBuf,
}

impl Lab {
    /// Makes a lab for the test `name`.
    ///
    /// # Errors
    /// Fails with what could not be prepared.
    pub fn new(name: &str) -> Result<Self> {
        let setup = Setup::get()?;
        let logs = setup.logs(name);
        if logs.exists() {
            fs::remove_dir_all(&logs)
                .with_context(|| format!("cannot clear {}", logs.display()))?;
        }
        fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
        Ok(Self { setup, logs, sockets: scratch::folder(name)? })
    }

    /// Returns a guest to be configured and booted.
    #[must_use]
    pub fn guest(&self, name: &str) -> Builder<'_> {
        self.setup.builder(name, &self.logs, &self.sockets)
    }

    /// Starts a `manifold serve` with a run directory of its own and `arguments`.
    ///
    /// # Errors
    /// When it does not become ready; the error quotes its log.
    pub fn adapter(&self, arguments: &[&str]) -> Result<Adapter> {
        self.start_adapter(arguments, None)
    }

    /// Starts a `manifold serve` in a network namespace, which is where its uplink is.
    ///
    /// # Errors
    /// Fails as [`Lab::adapter`] does.
    pub fn adapter_in(&self, namespace: &Namespace, arguments: &[&str]) -> Result<Adapter> {
        self.start_adapter(arguments, Some(namespace.name()))
    }

    fn start_adapter(&self, arguments: &[&str], namespace: Option<&str>) -> Result<Adapter> {
        let (run_dir, log) = (self.sockets.join("run"), self.logs.join("manifold.log"));
        Adapter::start_in(namespace, adapter::binary()?, run_dir, log, arguments)
    }

    /// Returns a program of the guests', such as "usr/bin/iperf3", to be run on the machine itself.
    ///
    /// # Errors
    /// Fails as [`crate::Programs::command`] does.
    pub fn program(&self, name: &str) -> Result<Command> {
        self.setup.image().programs.command(name)
    }

    /// Returns what machines are made from.
    #[must_use]
    pub fn setup(&self) -> &'static Setup {
        self.setup
    }

    /// Returns the folder for sockets.
    #[must_use]
    pub fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// Returns the folder for logs.
    #[must_use]
    pub fn logs(&self) -> &Path {
        &self.logs
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Left-over sockets in the temporary folder do no harm.
        let _ = fs::remove_dir_all(&self.sockets);
    }
}

/// Boots several guests at once.
///
/// # Errors
/// Fails with the first guest's error, after all have been tried.
pub fn boot_all<'a, const N: usize>(builders: [Builder<'a>; N]) -> Result<[Guest<'a>; N]> {
    let guests: Vec<Guest<'a>> = thread::scope(|scope| {
        let booting = builders.map(|builder| scope.spawn(move || builder.boot()));
        let results = booting.map(|thread| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("a guest's thread panicked")))
        });
        results.into_iter().collect::<Result<_>>()
    })?;
    guests.try_into().map_err(|_| anyhow!("guests got lost"))
}
