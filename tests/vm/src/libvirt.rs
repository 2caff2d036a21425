//! This module runs libvirt without its daemon: the driver for QEMU within virsh itself, with
//! everything it keeps in one folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::programs::Programs;
use crate::qemu::Qemu;
use crate::run::output;

const PACKAGES: [&str; 3] = ["libvirt-clients", "libvirt-daemon-driver-qemu", "libxml2-utils"];
/// Configuration that puts logs into files, because libvirt's own log daemon is one process more.
const QEMU_CONF: &str = "stdio_handler = \"file\"\n";

/// A libvirt that keeps its state in a folder.
#[derive(Debug)]
pub struct Libvirt {
    programs: Programs,
    dir: PathBuf,
}

impl Libvirt {
    /// Makes sure that there is one; the first time in a build tree downloads about 50 MB. `dir` is
    /// made for what it keeps; its path should be short.
    ///
    /// # Errors
    /// Fails with what could not be prepared.
    pub fn prepare(dir: PathBuf) -> Result<Self> {
        let programs = Programs::prepare("libvirt", &PACKAGES)?;
        let etc = dir.join("etc");
        fs::create_dir_all(&etc).with_context(|| format!("cannot create {}", etc.display()))?;
        fs::write(etc.join("qemu.conf"), QEMU_CONF)?;
        Ok(Self { programs, dir })
    }

    /// Checks that a domain's description follows libvirt's schema.
    ///
    /// # Errors
    /// Fails if it does not.
    pub fn validate(&self, domain: &Path) -> Result<()> {
        let schema = self.programs.path("usr/share/libvirt/schemas/domain.rng");
        let mut xmllint = self.programs.command("usr/bin/xmllint")?;
        output(xmllint.args(["--noout", "--relaxng"]).arg(schema).arg(domain)).map(drop)
    }

    /// Runs a command of virsh's and returns what it printed. QEMU outlives it.
    ///
    /// # Errors
    /// Fails with what libvirt complains about.
    pub fn virsh(&self, words: &[&str]) -> Result<String> {
        // libvirt looks for data in the machine's folders, so this process sees the packages'
        // there. A libvirt for a user that is not root needs none of the machine's users and
        // groups.
        const SCRIPT: &str = "mount --bind \"$0\" /usr/share && \
                              exec unshare --user --map-user=1000 --map-group=1000 \"$@\"";
        let (loader, arguments) = self.programs.invocation("usr/bin/virsh")?;
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT]);
        command.arg(self.programs.path("usr/share")).arg(loader).args(arguments);
        command.arg("-c").arg(format!("qemu:///embed?root={}", self.dir.display())).args(words);
        let drivers = self.programs.libraries().join("libvirt/connection-driver");
        command.env("LIBVIRT_DRIVER_DIR", drivers).env("XDG_RUNTIME_DIR", self.dir.join("run"));
        output(&mut command).with_context(|| format!("virsh {}", words.join(" ")))
    }

    /// Makes a program that is QEMU, as libvirt wants one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn emulator(&self, qemu: &Qemu) -> Result<PathBuf> {
        let path = self.dir.join("qemu");
        let command = qemu.command();
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<String> = words.map(|word| format!("'{}'", word.display())).collect();
        fs::write(&path, format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }
}
