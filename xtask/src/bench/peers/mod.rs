//! The peers that we are compared with each have a file; this one has what they have in common with
//! us.

pub(crate) mod bridge;
pub(crate) mod manifold;
pub(crate) mod memcpy;
pub(crate) mod ovs;
pub(crate) mod testpmd;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use manifold_generator::config::PortConfig;
use manifold_vm::Programs;
use rustix::process::Signal;

use super::process::{output, signal, text};

const VSWITCHD: &str = "usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";

/// A program that moves frames between its ports, in a process of its own.
pub(crate) trait Switch {
    /// Returns the name for tables.
    fn name(&self) -> &'static str;

    /// Returns the ID of its process.
    fn pid(&self) -> u32;

    /// Returns what a generator attaches to.
    fn ports(&self) -> &[PortConfig];

    /// Begins to count the worker's cycles from zero.
    fn reset_cycles(&mut self) -> Result<()> {
        Ok(())
    }

    /// Returns the cycles per frame that the worker has spent since then, if it tells.
    fn cycles_per_frame(&mut self) -> Result<Option<f64>> {
        Ok(None)
    }
}

/// Halts a switch: it takes no processor time until [`resume`].
pub(crate) fn halt(switch: &dyn Switch) -> Result<()> {
    signal(switch.pid(), Signal::STOP).with_context(|| format!("{} is gone", switch.name()))
}

/// Lets a halted switch go on.
pub(crate) fn resume(switch: &dyn Switch) -> Result<()> {
    signal(switch.pid(), Signal::CONT).with_context(|| format!("{} is gone", switch.name()))
}

/// The programs of DPDK and Open vSwitch of Debian, unpacked.
#[derive(Debug)]
pub(crate) struct Peers {
    programs: Programs,
    pub(crate) dpdk: String,
    pub(crate) ovs: String,
}

impl Peers {
    /// Names of the peers' packages; testpmd is in the one of DPDK's developer tools.
    const PACKAGES: [&str; 3] = ["dpdk-dev", "openvswitch-switch", "openvswitch-switch-dpdk"];

    pub(crate) fn prepare() -> Result<Self> {
        println!("==> DPDK and Open vSwitch of Debian (the first time downloads 80 MB)");
        let programs = Programs::prepare("bench-peers", &Self::PACKAGES)
            .with_context(|| format!("cannot get {}", Self::PACKAGES.join(", ")))?;
        let said = output(programs.command(VSWITCHD)?.arg("--version"))?;
        let (ovs, dpdk) =
            versions(&said).with_context(|| format!("what version is \"{said}\"?"))?;
        println!("    DPDK {dpdk}, Open vSwitch {ovs}");
        Ok(Self { dpdk, ovs, programs })
    }

    /// Returns the command of a program, named as installed.
    pub(crate) fn command(&self, program: &str) -> Result<Command> {
        self.programs.command(program)
    }

    /// Returns the path of a file, named as installed.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.programs.path(file)
    }

    /// Returns DPDK's `-d` arguments for drivers that are not where it would look.
    fn drivers(&self, names: &[&str]) -> Result<Vec<String>> {
        let dpdk = self.programs.libraries().join("dpdk");
        let pmds = std::fs::read_dir(&dpdk)
            .with_context(|| format!("cannot read {}", dpdk.display()))?
            .next()
            .with_context(|| format!("no drivers in {}", dpdk.display()))??
            .path();
        let mut arguments = Vec::new();
        for name in names {
            arguments.push("-d".to_owned());
            arguments.push(text(&pmds.join(format!("librte_{name}.so")))?.to_owned());
        }
        Ok(arguments)
    }
}

/// Reads versions of Open vSwitch and DPDK: "ovs-vswitchd (Open vSwitch) 3.5.0\nDPDK 24.11.4".
fn versions(said: &str) -> Option<(String, String)> {
    let after = |word: &str| {
        let rest = said.split_once(word)?.1;
        Some(rest.split_whitespace().next()?.to_owned())
    };
    Some((after("(Open vSwitch) ")?, after("DPDK ")?))
}

#[cfg(test)]
mod tests {
    use super::versions;

    #[test]
    fn versions_are_found() {
        let said = "ovs-vswitchd (Open vSwitch) 3.5.0\nDPDK 24.11.4\n";
        assert_eq!(versions(said), Some(("3.5.0".to_owned(), "24.11.4".to_owned())));
        assert_eq!(versions("ovs-vswitchd (Open vSwitch) 3.5.0\n"), None);
        assert_eq!(versions(""), None);
    }
}
