//! `manifold demo` makes one adapter several Ethernet connections that carry real traffic.
//!
//! The adapter runs in this process, each machine in one of its own (`manifold guest agent`). What
//! is found goes into a [`Report`]; how it is told is the [`Narrator`]'s.
//!
//! ```text
//!   Stage ──► Software ──► Adapter ── vf0.sock, vf1.sock ... ──┐
//!     │                                                        │ vfio-user
//!     └─────► Machines ◄── JSON lines on stdin/stdout ──► manifold guest agent (one per VF)
//! ```

mod folder;
mod interrupt;
mod isolation;
mod machines;
mod narrator;
mod ping;
mod plan;
mod report;
mod stage;
mod transfer;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use self::interrupt::{Interrupt, Interrupted};
use self::narrator::Narrator;
use self::report::Report;
use self::stage::Stage;
use crate::cli::DemoArgs;
use crate::output::{print, print_json};
use crate::{failure, limits};

/// Number of steps of the demo.
const STEPS: usize = 6;

/// Runs the command.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let json = args.json.json;
    limits::raise_open_files();
    let interrupt = Interrupt::register().context("cannot handle signals")?;
    let mut narrator = Narrator::new(STEPS, json);
    let mut report = Report::default();
    // Whatever happens in `perform`, machines, adapter and folder are gone when it returns.
    let result = perform(args.vms, &interrupt, &mut narrator, &mut report);
    drop(narrator);

    let transferring = match result {
        Ok(seconds) => seconds,
        Err(error) if error.is::<Interrupted>() => {
            failure::report(&error);
            return Ok(ExitCode::from(failure::INTERRUPTED));
        }
        Err(error) => {
            report.fail(failure::text(&error));
            Duration::ZERO
        }
    };
    report.judge();
    if json {
        for failure in &report.failures {
            eprintln!("FAILED: {failure}");
        }
        print_json(&report)?;
    } else {
        print(&format!("\n{}", report.text(transferring.as_secs_f64())))?;
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Performs the steps and returns how long the transfers took together.
fn perform(
    vms: u16,
    interrupt: &Interrupt,
    narrator: &mut Narrator,
    report: &mut Report,
) -> anyhow::Result<Duration> {
    let mut stage = Stage::new(vms, interrupt, narrator, report)?;
    stage.show_pf()?;
    stage.enable_vfs()?;
    stage.start_machines()?;
    stage.ping()?;
    let transferring = stage.transfer()?;
    isolation::check(&mut stage)?;
    stage.strike()?;
    Ok(transferring)
}
