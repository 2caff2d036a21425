//! `cargo xtask bench` measures this adapter and what others have in one run on the same
//! processors.
//!
//! ```text
//!   case ── starts ──► switches: manifold, testpmd, Open vSwitch  one runs, the others are halted
//!     │                     ▲ vhost-user, vfio-user
//!     │  round by round     │
//!     └── generator: ours or testpmd ── samples ──► rows ──► JSON, table in docs/benchmarks.md
//! ```
//!
//! A case is a file of `cases/`, a peer one of `peers/`. Every program started here ends with the
//! run; huge pages, namespaces and sockets are put away, also after an error or Ctrl-C.
//! docs/benchmarks.md says what the figures mean.

mod bed;
mod cases;
mod cores;
mod hugepages;
mod interrupt;
mod machine;
mod peers;
mod precedence;
mod process;
mod quiet;
mod raw;
mod report;
mod row;
mod stats;
mod table;
mod terminal;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use self::bed::{Bed, Pace};
use self::cases::Case;
use self::cores::Cores;
use self::machine::{Machine, Versions};
use self::precedence::Precedence;
use self::report::{Failure, Report};

/// Thoroughness of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Take seven samples of a second each: under thirty minutes.
    Full,
}

/// Arguments of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Run everything; this is also the default.
    #[arg(value_name = "full", conflicts_with = "quick")]
    mode: Option<Mode>,
    /// Take three samples of a third of a second without the slowest cases: under two minutes.
    #[arg(long)]
    quick: bool,
    /// Run only these cases, and leave the table in docs/benchmarks.md as it is.
    #[arg(long, value_name = "CASE", num_args = 1..)]
    only: Vec<Case>,
    /// Write the result to FILE [default: target/bench.json]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fail if a row misses its bound or a case cannot be measured.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    let cases = if args.only.is_empty() { Case::all(args.quick) } else { args.only.clone() };
    let cores = Cores::choose()?;
    let precedence = Precedence::take();
    // The machine is looked at before the build, which is a load itself.
    let machine = Machine::look(cores)?;
    let binaries = bed::build()?;
    interrupt::watch()?;
    let bed = Bed::new(cores, Pace::new(args.quick), binaries, bed::logs())?;
    prepare(&bed, &cases)?;

    let started = machine::now()?;
    let begin = Instant::now();
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for case in &cases {
        println!("==> {}", case.name());
        let begin = Instant::now();
        match case.run(&bed) {
            Ok(new) => rows.extend(new),
            Err(error) => {
                // An interrupted case does not count as failed.
                interrupt::check()?;
                eprintln!("xtask: {}: {error:#}", case.name());
                failed.push(Failure { group: case.name(), reason: format!("{error:#}") });
            }
        }
        println!("    {}: {:.1} s", case.name(), begin.elapsed().as_secs_f32());
    }
    let report = Report {
        mode: if args.quick { "quick" } else { "full" },
        started,
        seconds: begin.elapsed().as_secs_f64(),
        machine,
        versions: versions(&bed, &cases)?,
        rows,
        failed,
    };
    // Processes and huge pages are put away before anything else can go wrong.
    drop(bed);
    drop(precedence);
    println!("\n{}", table::tables(&report));
    let json = args.json.clone().unwrap_or_else(|| crate::run::target_dir().join("bench.json"));
    report.write(&json)?;
    println!("{}", json.display());
    if args.only.is_empty() {
        let page = crate::run::workspace().join("docs/benchmarks.md");
        table::write_into(&page, &report)?;
        println!("{}", page.display());
    }
    if args.check && !report.all_ok() {
        bail!("not everything is reached: see the rows marked \"no\" and what was not measured");
    }
    Ok(())
}

/// Gets and unpacks what the cases need, so that no case's time has it.
fn prepare(bed: &Bed, cases: &[Case]) -> Result<()> {
    if cases.iter().any(|case| case.needs_peers()) {
        bed.peers()?;
    }
    if cases.iter().any(|case| case.needs_guests()) {
        crate::setup::guests()?;
    }
    if cases.contains(&Case::Sriov) {
        println!("==> Debian's kernel for all hardware (the first time downloads 110 MB)");
        manifold_vm::Setup::get()?.generic_image()?;
    }
    Ok(())
}

fn versions(bed: &Bed, cases: &[Case]) -> Result<Versions> {
    let mut versions = Versions { manifold: machine::commit(), ..Versions::default() };
    if cases.iter().any(|case| case.needs_peers()) {
        let peers = bed.peers()?;
        versions.dpdk = Some(peers.dpdk.clone());
        versions.ovs = Some(peers.ovs.clone());
    }
    if cases.iter().any(|case| case.needs_guests()) {
        let setup = manifold_vm::Setup::get()?;
        versions.qemu = Some(setup.qemu().version().to_owned());
        let kernel = setup.image().kernel.file_name().unwrap_or_default().to_string_lossy();
        versions.guest_kernel = Some(kernel.trim_start_matches("vmlinuz-").to_owned());
    }
    Ok(versions)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn parse(line: &str) -> Result<BenchArgs, clap::Error> {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        Command::try_parse_from(words).map(|command| command.bench)
    }

    #[test]
    fn arguments() {
        assert!(!parse("").unwrap().quick);
        assert_eq!(parse("full").unwrap().mode, Some(Mode::Full));
        let args = parse("--quick --only raw64 tso --json a.json --check").unwrap();
        assert!(args.quick && args.check);
        assert_eq!(args.only, [Case::Raw64, Case::Tso]);
        assert_eq!(args.json, Some(PathBuf::from("a.json")));
        assert_eq!(parse("--only raw64 --only tso").unwrap().only.len(), 2);
    }

    #[test]
    fn wrong_arguments_are_refused_with_what_there_is() {
        let error = parse("--only raw65").unwrap_err().to_string();
        assert!(error.contains("raw65") && error.contains("raw64"), "{error}");
        for line in ["--only", "--json", "--quick full", "fast", "--rounds 3"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_quick_run_leaves_out_the_slowest_only() {
        let (quick, full) = (Case::all(true), Case::all(false));
        assert!(quick.len() + 1 == full.len() && !quick.contains(&Case::Sriov));
    }

    #[test]
    fn the_page_has_a_place_for_the_table() {
        let page = crate::run::workspace().join("docs/benchmarks.md");
        let copy = std::env::temp_dir().join(format!("manifold-page-{}.md", std::process::id()));
        std::fs::copy(&page, &copy).unwrap();
        table::write_into(&copy, &report::tests::sample()).unwrap();
        assert!(std::fs::read_to_string(&copy).unwrap().contains("testpmd io"));
        std::fs::remove_file(copy).unwrap();
    }
}
