//! This module provides what tests need beyond Rust: packages, and a QEMU and kernel in the build
//! tree.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use manifold_vm::Setup;

use crate::part::Part;
use crate::run::{answers, step};

/// A program that a part of the tests needs, and the package of Debian 12 and 13 that has it.
struct Requirement {
    part: Part,
    package: &'static str,
    present: fn() -> bool,
}

const REQUIREMENTS: [Requirement; 7] = [
    Requirement {
        part: Part::Unit,
        package: "pciutils",
        present: || answers("lspci", "--version"),
    },
    Requirement { part: Part::Unit, package: "iproute2", present: || answers("ip", "-Version") },
    Requirement { part: Part::Vm, package: "iproute2", present: || answers("ip", "-Version") },
    Requirement { part: Part::Unit, package: "procps", present: || answers("ps", "--version") },
    Requirement { part: Part::Vm, package: "apt", present: || answers("apt-get", "--version") },
    Requirement {
        part: Part::Vm,
        package: "debian-archive-keyring",
        present: || Path::new("/usr/share/keyrings/debian-archive-keyring.gpg").exists(),
    },
    Requirement { part: Part::Fuzz, package: "g++", present: || answers("c++", "--version") },
];

/// Provides everything that any part needs.
pub(crate) fn everything() -> Result<()> {
    packages(&Part::ALL)?;
    guests()
}

/// Installs the packages that are missing for `parts`, or says which they are.
pub(crate) fn packages(parts: &[Part]) -> Result<()> {
    let missing: Vec<&str> = REQUIREMENTS
        .iter()
        .filter(|requirement| parts.contains(&requirement.part) && !(requirement.present)())
        .map(|requirement| requirement.package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install --no-install-recommends {}", missing.join(" "));
    if !is_root() || !answers("apt-get", "--version") {
        bail!("missing packages (names of Debian): as root, {install}");
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    // Without lists no package is found, and with old ones downloads fail; a source that is out of
    // order is no reason to stop.
    let _ = apt().args(["-q", "update"]).status();
    step(&install, apt().args(["-q", "-y", "install", "--no-install-recommends"]).args(&missing))?;
    let still: Vec<&str> = REQUIREMENTS
        .iter()
        .filter(|requirement| missing.contains(&requirement.package) && !(requirement.present)())
        .map(|requirement| requirement.package)
        .collect();
    if !still.is_empty() {
        bail!("installed, but still not usable: {}", still.join(", "));
    }
    Ok(())
}

/// Prepares QEMU, kernel and initramfs, which the first time downloads about 130 MB.
pub(crate) fn guests() -> Result<()> {
    println!("==> QEMU, kernel and initramfs for guests");
    let begin = Instant::now();
    let setup = Setup::get().context("cannot prepare virtual machines")?;
    println!(
        "    QEMU {}, {}, {:?}: {:.1} s",
        setup.qemu().version(),
        setup.image().kernel.file_name().unwrap_or_default().display(),
        setup.acceleration(),
        begin.elapsed().as_secs_f32()
    );
    Ok(())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}
