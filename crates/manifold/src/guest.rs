//! `manifold guest`: the process that stands for a virtual machine, or for a traffic generator. Hidden:
//! the demo, the tests and the benchmarks start it.

use std::process::ExitCode;

use anyhow::Context as _;
use manifold_guest::agent::{self, Config};
use manifold_guest::rawgen;
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::cli::{GuestArgs, GuestCommand};

/// Runs the command.
pub(crate) fn run(args: GuestArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        GuestCommand::Agent { config } => {
            // A machine does not outlive who started it. Should that have ended before this line,
            // the end of standard input says so.
            set_parent_process_death_signal(Some(Signal::KILL))
                .context("cannot tie this process to its parent")?;
            let config: Config =
                serde_json::from_str(&config).context("the configuration is not valid")?;
            agent::run_stdio(&config)?;
        }
        GuestCommand::Generate { config } => {
            let config = serde_json::from_str(&config).context("the configuration is not valid")?;
            let report = rawgen::run(&config)?;
            println!("{}", serde_json::to_string(&report)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}
