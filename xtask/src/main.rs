//! This program has the developer commands: `cargo xtask setup`, `test`, `bench`, `fuzz`, `vm`.
//!
//! Each command runs plain programs one after the other, and installs or names what they need.
//! xtask is not part of what is shipped, and nothing else depends on it.
//!
//! ```text
//!   cargo xtask test = setup (what is missing: apt, QEMU and kernel for guests)
//!                        -> lint   import circles, fmt, clippy, doc, licences
//!                        -> unit   nextest (or cargo test) of the workspace
//!                        -> vm     tests/vm against the manifold binary
//!                        -> fuzz   every target of fuzz/ for a while
//! ```

#![forbid(unsafe_code)]

mod bench;
mod circles;
mod fuzz;
mod lint;
mod part;
mod run;
mod setup;
mod test;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::part::Part;

/// Developer commands of Manifold.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Get what `test` needs: Debian packages, QEMU and a kernel for guests.
    ///
    /// Packages are installed as root; otherwise the command says which are missing.
    Setup,
    /// Run everything that must pass before a change lands.
    Test {
        /// Run only this part; may be given several times.
        #[arg(long, value_name = "PART")]
        only: Vec<Part>,
        /// How many seconds each fuzz target runs; two run at a time.
        #[arg(long, value_name = "N", default_value_t = 20)]
        fuzz_seconds: u32,
    },
    /// Measure the adapter and its peers in one run. Needs root.
    ///
    /// The peers are DPDK's testpmd, Open vSwitch, and QEMU's own devices on TAP and bridge.
    Bench(bench::BenchArgs),
    /// Run one fuzz target until it finds something or its time is up.
    ///
    /// New inputs stay in fuzz/corpus/, findings in fuzz/artifacts/.
    Fuzz {
        #[arg(help = fuzz::help())]
        target: String,
        /// Stop after N seconds; with 0 it runs until interrupted.
        #[arg(long, value_name = "N", default_value_t = 0)]
        seconds: u32,
    },
    /// Run a virtual machine like those of the tests.
    Vm {
        #[command(subcommand)]
        command: VmCommand,
    },
}

#[derive(Debug, Subcommand)]
enum VmCommand {
    /// Boot a guest with a shell on this terminal. `poweroff -f` or Ctrl-A X ends it.
    Shell {
        /// A function's vfio-user socket, such as RUN_DIR/vf0.sock; may be given several times.
        #[arg(long, value_name = "SOCKET")]
        attach: Vec<PathBuf>,
        /// Put the functions behind an Intel IOMMU.
        #[arg(long)]
        viommu: bool,
        /// Memory in MiB.
        #[arg(long, value_name = "MIB", default_value_t = 256)]
        memory: u32,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup => setup::everything(),
        Command::Test { only, fuzz_seconds } => test::run(&only, fuzz_seconds),
        Command::Bench(args) => bench::run(&args),
        Command::Fuzz { target, seconds } => fuzz::one(&target, seconds),
        Command::Vm { command: VmCommand::Shell { attach, viommu, memory } } => {
            vm::shell(&attach, viommu, memory)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
