//! This module holds what all measurements share: processors, folders, binaries, huge pages, pace.

use std::cell::OnceCell;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::cores::Cores;
use super::hugepages::HugePages;
use super::interrupt;
use super::peers::{Peers, Switch, halt, resume};

/// The length and number of samples.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) quick: bool,
    /// Number of samples of each quantity.
    pub(crate) rounds: usize,
    /// Time before a sample's counting starts.
    pub(crate) warm_up: Duration,
    /// Time of a sample.
    pub(crate) sample: Duration,
}

impl Pace {
    pub(crate) fn new(quick: bool) -> Self {
        let (rounds, warm_up, sample) = if quick { (3, 150, 300) } else { (7, 250, 1000) };
        let [warm_up, sample] = [warm_up, sample].map(Duration::from_millis);
        Self { quick, rounds, warm_up, sample }
    }
}

/// The place of all measurements. Dropping it removes its folder of sockets and gives huge pages
/// back.
#[derive(Debug)]
pub(crate) struct Bed {
    pub(crate) cores: Cores,
    pub(crate) pace: Pace,
    /// Path of the manifold binary, a release build.
    pub(crate) binary: PathBuf,
    /// Path of the traffic generator's binary, a release build.
    pub(crate) generator: PathBuf,
    dir: tempfile::TempDir,
    logs: PathBuf,
    peers: OnceCell<Peers>,
    hugepages: OnceCell<HugePages>,
}

impl Bed {
    pub(crate) fn new(cores: Cores, pace: Pace, binaries: Binaries, logs: PathBuf) -> Result<Self> {
        fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
        // Paths of sockets must be short.
        let dir = tempfile::Builder::new()
            .prefix("manifold-bench-")
            .tempdir()
            .context("cannot create a folder for sockets")?;
        Ok(Self {
            cores,
            pace,
            binary: binaries.manifold,
            generator: binaries.generator,
            dir,
            logs,
            peers: OnceCell::new(),
            hugepages: OnceCell::new(),
        })
    }

    /// Makes a fresh folder for sockets.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.path().join(name);
        if path.exists() {
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot clear {}", path.display()))?;
        }
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(path)
    }

    /// Returns the path for a program's output.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// Returns DPDK and Open vSwitch, unpacked at the first call.
    pub(crate) fn peers(&self) -> Result<&Peers> {
        if self.peers.get().is_none() {
            // Another value cannot have come in between: this is one thread's.
            let _ = self.peers.set(Peers::prepare()?);
        }
        self.peers.get().context("the peers are not prepared")
    }

    /// Sets huge pages aside at the first call, for the whole run.
    pub(crate) fn reserve_hugepages(&self) -> Result<()> {
        /// Number of huge pages for DPDK's generator and switch or Open vSwitch, and the memory of
        /// 256 functions: 3 GiB.
        const PAGES: u64 = 1536;
        if self.hugepages.get().is_none() {
            let _ = self.hugepages.set(HugePages::reserve(PAGES)?);
        }
        Ok(())
    }

    /// Measures each switch once per round, in turn; while one is measured, the others are halted.
    /// Returns, for each switch, its rounds' results.
    pub(crate) fn interleave<T>(
        &self,
        switches: &mut [&mut dyn Switch],
        mut measure: impl FnMut(&mut dyn Switch) -> Result<T>,
    ) -> Result<Vec<Vec<T>>> {
        let mut results: Vec<Vec<T>> = switches.iter().map(|_| Vec::new()).collect();
        for switch in switches.iter() {
            halt(&**switch)?;
        }
        let mut rounds = || {
            for _ in 0..self.pace.rounds {
                for (switch, results) in switches.iter_mut().zip(&mut results) {
                    interrupt::check()?;
                    resume(&**switch)?;
                    let result = measure(&mut **switch)
                        .with_context(|| format!("measuring {}", switch.name()));
                    halt(&**switch)?;
                    results.push(result?);
                }
            }
            Ok(())
        };
        let outcome = rounds();
        for switch in switches.iter() {
            resume(&**switch)?;
        }
        outcome.map(|()| results)
    }
}

/// The release builds of what is measured and of what measures.
#[derive(Debug)]
pub(crate) struct Binaries {
    manifold: PathBuf,
    generator: PathBuf,
}

/// Builds both. `MANIFOLD_BIN` may name another `manifold` instead, as for the VM tests.
pub(crate) fn build() -> Result<Binaries> {
    let named = std::env::var_os("MANIFOLD_BIN");
    let mut arguments = vec!["build", "--release", "--package", "manifold-generator"];
    if named.is_none() {
        arguments.extend(["--package", "manifold"]);
    }
    crate::run::step("cargo build --release", &mut crate::run::cargo(&arguments))?;
    let built = |name: &str| {
        let path = crate::run::target_dir().join("release").join(name);
        fs::canonicalize(&path).with_context(|| format!("no {} after the build", path.display()))
    };
    let manifold = match named {
        Some(path) => std::path::absolute(&path)
            .with_context(|| format!("cannot resolve {}", path.display()))?,
        None => built("manifold")?,
    };
    Ok(Binaries { manifold, generator: built("manifold-generator")? })
}

/// Returns the folder of logs of the last run.
pub(crate) fn logs() -> PathBuf {
    crate::run::target_dir().join("bench/logs")
}
