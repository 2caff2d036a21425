//! `manifold guest` is the process that stands for a virtual machine. It is hidden: the demo, the
//! tests and the benchmarks start it.

use std::process::ExitCode;

use anyhow::Context as _;
use manifold_guest::agent;
use manifold_guest::protocol::Config;
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::cli::{GuestArgs, GuestCommand};

/// Runs the command.
pub(crate) fn run(args: GuestArgs) -> anyhow::Result<ExitCode> {
    let GuestCommand::Agent { config } = args.command;
    // A machine does not outlive the process that started it. Should that have ended before this
    // line, the end of standard input says so.
    set_parent_process_death_signal(Some(Signal::KILL))
        .context("cannot tie this process to its parent")?;
    let config: Config = serde_json::from_str(&config).context("the configuration is not valid")?;
    agent::run_stdio(&config)?;
    Ok(ExitCode::SUCCESS)
}
