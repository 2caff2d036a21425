//! Manifold is a software SR-IOV network adapter. This is the binary: daemon and command line.
//!
//! It is *not* where the adapter lives; it starts one (`serve`, `demo`) or talks to one that runs
//! (everything else), reads what people write and writes what people read.
//!
//! ```text
//!   manifold serve ──► run_dir (lock) ──► Adapter ◄── api::Software ◄── api::serve ── api.sock
//!                                            ▲                                           ▲
//!   manifold demo ───────────────────────────┘                                           │
//!      └─► manifold guest ... (a process per VM) ──► vfN.sock                            │
//!   manifold vf | function | worker | attach ──► api::Client ────────────────────────────┘
//! ```

#![forbid(unsafe_code)]

mod attach;
mod cli;
mod config;
mod daemon;
mod demo;
mod failure;
mod function;
mod guest;
mod limits;
mod listing;
mod output;
mod run_dir;
mod serve;
mod vf;
mod worker;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    output::log(&cli.command);
    let result = match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Serve(args) => serve::run(args),
        Command::Vf(args) => vf::run(args),
        Command::Function(args) => function::run(args),
        Command::Worker(args) => worker::run(&args),
        Command::Attach(args) => attach::run(&args),
        Command::Guest(args) => guest::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) => failure::report(&error),
    }
}
