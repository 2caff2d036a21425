//! This module describes what the figures were measured on and with.

use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

use super::cores::{Cores, field, read};
use super::process::output;
use super::quiet::Quiet;
use crate::run::workspace;

/// The description of the machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) worker_core: usize,
    pub(crate) generator_core: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    /// Number of cycles of the time stamp counter per microsecond.
    pub(crate) tsc_mhz: f64,
    /// Load average of the last minute before the run: above 0.2 or so, others were at work too.
    pub(crate) load_average: f64,
    #[serde(flatten)]
    pub(crate) quiet: Quiet,
}

/// The versions of the programs; `None` if a run did not need one.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Versions {
    /// Commit, followed by "-dirty" where files differ from it.
    pub(crate) manifold: String,
    pub(crate) dpdk: Option<String>,
    pub(crate) ovs: Option<String>,
    pub(crate) qemu: Option<String>,
    pub(crate) guest_kernel: Option<String>,
}

impl Machine {
    pub(crate) fn look(cores: Cores) -> Result<Self> {
        let cpuinfo = read("/proc/cpuinfo")?;
        let load = read("/proc/loadavg")?;
        Ok(Self {
            cpu: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            worker_core: cores.worker,
            generator_core: cores.generator,
            memory_mib: memory_kib(&read("/proc/meminfo")?).context("no MemTotal")? / 1024,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            tsc_mhz: tsc_mhz(&cpuinfo).context("no bogomips in /proc/cpuinfo")?,
            load_average: load
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .context("cannot read /proc/loadavg")?,
            quiet: Quiet::look(cores)?,
        })
    }
}

/// Returns the commit that is measured.
pub(crate) fn commit() -> String {
    let mut git = Command::new("git");
    git.current_dir(workspace()).args(["describe", "--always", "--dirty", "--abbrev=12"]);
    output(&mut git).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Returns the time in UTC, in the form of ISO 8601.
pub(crate) fn now() -> Result<String> {
    Ok(output(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]))?.trim().to_owned())
}

fn memory_kib(meminfo: &str) -> Option<u64> {
    field(meminfo, "MemTotal")?.strip_suffix(" kB")?.trim().parse().ok()
}

/// Returns the TSC's MHz: Linux takes the loops per jiffy from it, so bogomips are twice that.
fn tsc_mhz(cpuinfo: &str) -> Option<f64> {
    let bogomips: f64 = field(cpuinfo, "bogomips")?.parse().ok()?;
    Some(bogomips / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A CPU: fast\nbogomips\t: 4599.99\n";
        assert_eq!(field(cpuinfo, "model name"), Some("A CPU: fast"));
        assert_eq!(tsc_mhz(cpuinfo), Some(2299.995));
        assert_eq!(field(cpuinfo, "flags"), None);
        assert_eq!(memory_kib("MemTotal:       2048 kB\n"), Some(2048));
        assert_eq!(memory_kib("MemTotal: much\n"), None);
    }

    #[test]
    fn this_machine_can_be_described() {
        let Ok(cores) = Cores::choose() else { return };
        let machine = Machine::look(cores).unwrap();
        assert!(machine.memory_mib > 0 && machine.tsc_mhz > 0.0 && machine.cores > 0);
        assert!(machine.quiet.core_to_core_ns > 0.0 && machine.quiet.lost_percent <= 100.0);
        assert_eq!(now().unwrap().len(), "2026-01-02T03:04:05Z".len());
    }
}
