//! This module has programs of Debian's packages, unpacked below the build tree and run from there:
//! nothing is installed, no service is started, and the machine's own packages may be of another
//! release.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::debian::{Archive, RELEASE};

/// A folder of unpacked packages, with everything they depend on.
#[derive(Debug, Clone)]
pub struct Programs {
    root: PathBuf,
}

impl Programs {
    /// Makes sure that `packages` of the release that guests run are unpacked under `name`; the
    /// first time in a build tree downloads them.
    ///
    /// # Errors
    /// Fails with what apt or dpkg-deb complain about.
    pub fn prepare(name: &str, packages: &[&str]) -> Result<Self> {
        let cache = Cache::open()?;
        let root = cache.entry(name, &(RELEASE, packages), |dir| {
            Archive::open(&cache.dir().join("apt"))?.unpack(packages, None, dir)
        })?;
        Ok(Self { root })
    }

    /// Returns the programs unpacked at `root`.
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Returns the path of a file of the packages, named as installed: "usr/share/openvswitch".
    #[must_use]
    pub fn path(&self, file: impl AsRef<Path>) -> PathBuf {
        self.root.join(file)
    }

    /// Returns the folder of the shared libraries.
    #[must_use]
    pub fn libraries(&self) -> PathBuf {
        self.path("usr/lib/x86_64-linux-gnu")
    }

    /// Returns the command that runs a program, named as installed: "usr/bin/iperf3". It goes
    /// through the loader and libraries of the packages and sees the machine's own file system, so
    /// that paths mean the same to it.
    ///
    /// # Errors
    /// When the folder of libraries cannot be read.
    pub fn command(&self, program: &str) -> Result<Command> {
        let (loader, arguments) = self.invocation(program)?;
        let mut command = Command::new(loader);
        command.args(arguments);
        Ok(command)
    }

    /// Returns the loader, and its arguments up to and with the program.
    pub(crate) fn invocation(&self, program: &str) -> Result<(PathBuf, Vec<OsString>)> {
        let libraries = self.libraries();
        // Some libraries live in folders of their own, which the system's loader configuration
        // would name.
        let mut search = OsString::from(&libraries);
        let entries = fs::read_dir(&libraries)
            .with_context(|| format!("cannot read {}", libraries.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                search.push(":");
                search.push(path);
            }
        }
        let program: &OsStr = program.as_ref();
        let arguments = vec!["--library-path".into(), search, self.path(program).into()];
        Ok((self.path("usr/lib64/ld-linux-x86-64.so.2"), arguments))
    }
}
