//! This module finds a QEMU that speaks vfio-user (10.1 or newer): the machine's own, or one
//! prepared in the build tree.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::cache::Cache;
use crate::debian::{Archive, RELEASE};
use crate::programs::Programs;
use crate::run::output;

const BINARY: &str = "qemu-system-x86_64";
/// Name of the device that makes a QEMU new enough.
const NEEDED_DEVICE: &str = "vfio-user-pci";

/// A QEMU, and how to start it.
#[derive(Debug, Clone)]
pub struct Qemu {
    program: PathBuf,
    arguments: Vec<OsString>,
    version: String,
}

impl Qemu {
    pub(crate) fn prepare(
        cache: &Cache,
        archive: impl FnOnce() -> Result<Archive>,
    ) -> Result<Self> {
        let own = Self { program: BINARY.into(), arguments: Vec::new(), version: String::new() };
        if own.speaks_vfio_user() {
            return own.with_version();
        }
        let packages = ["qemu-system-x86"];
        let suite = format!("{RELEASE}-backports");
        let root = cache.entry("qemu", &(&suite, packages), |dir| {
            archive()?.unpack(&packages, Some(&suite), dir)
        })?;
        let prepared = Self::unpacked(&root)?;
        if !prepared.speaks_vfio_user() {
            bail!(
                "the QEMU in {} knows no {NEEDED_DEVICE}; remove the folder and try again",
                root.display()
            );
        }
        prepared.with_version()
    }

    /// Returns the QEMU of an unpacked package.
    fn unpacked(root: &Path) -> Result<Self> {
        let programs = Programs::at(root.to_owned());
        let (program, mut arguments) = programs.invocation(&format!("usr/bin/{BINARY}"))?;
        for data in ["usr/share/qemu", "usr/share/seabios"] {
            arguments.extend(["-L".into(), programs.path(data).into()]);
        }
        Ok(Self { program, arguments, version: String::new() })
    }

    /// Returns the command that runs it, without arguments for a machine.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command
    }

    /// Returns what `--version` says, for example "11.1.3".
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    fn speaks_vfio_user(&self) -> bool {
        let status = self
            .command()
            .args(["-M", "none", "-device", &format!("{NEEDED_DEVICE},help")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    }

    fn with_version(mut self) -> Result<Self> {
        let text = output(self.command().arg("--version"))?;
        let word = text.split(' ').nth(3).unwrap_or_default();
        word.clone_into(&mut self.version);
        Ok(self)
    }
}
