//! `cargo xtask test` runs the parts, in the order in which they are likely to fail quickly.

use std::time::Instant;

use anyhow::Result;

use crate::part::Part;
use crate::run::{answers, cargo, step, target_dir};
use crate::{fuzz, lint, setup};

/// Runs `only`, or all parts where it is empty. A part whose requirements cannot be met fails; none
/// is skipped.
pub(crate) fn run(only: &[Part], fuzz_seconds: u32) -> Result<()> {
    let begin = Instant::now();
    let parts: Vec<Part> =
        Part::ALL.into_iter().filter(|part| only.is_empty() || only.contains(part)).collect();
    setup::packages(&parts)?;
    for part in &parts {
        match part {
            Part::Lint => lint::run()?,
            Part::Unit => unit()?,
            Part::Models => models()?,
            Part::Vm => vm()?,
            Part::Fuzz => fuzz::all(fuzz_seconds)?,
        }
    }
    println!("==> all passed in {:.0} s: {parts:?}", begin.elapsed().as_secs_f32());
    Ok(())
}

fn unit() -> Result<()> {
    if has_nextest() {
        step("unit tests", &mut cargo(&["nextest", "run", "--workspace", "--locked"]))?;
        // nextest does not run the documentation tests.
        step("documentation tests", &mut cargo(&["test", "--workspace", "--doc", "--locked"]))
    } else {
        step(
            "unit tests",
            &mut cargo(&["test", "--workspace", "--exclude", "manifold-vm", "--locked"]),
        )
    }
}

/// Runs the models in a build of their own, because loom replaces the atomics of what is built for
/// it.
fn models() -> Result<()> {
    let arguments = ["test", "--package", "manifold-datapath", "--package", "manifold-dma"];
    let mut command = cargo(&arguments);
    command.args(["--lib", "--locked", "models"]).env("RUSTFLAGS", "--cfg loom");
    step("models", command.env("CARGO_TARGET_DIR", target_dir().join("loom")))
}

fn vm() -> Result<()> {
    // This is the development build: it has all checks on, and the unit tests have built most of
    // it.
    step("manifold", &mut cargo(&["build", "--package", "manifold", "--locked"]))?;
    setup::guests()?;
    let arguments: &[&str] = if has_nextest() {
        &["nextest", "run", "--profile", "vm", "--package", "manifold-vm", "--locked"]
    } else {
        &["test", "--package", "manifold-vm", "--locked", "--", "--test-threads", "1"]
    };
    let binary = target_dir().join("debug/manifold");
    step("virtual machines", cargo(arguments).env("MANIFOLD_BIN", binary))
}

/// Returns whether there is cargo-nextest, which shows more and ends tests that hang; plain `cargo
/// test` runs the same tests.
fn has_nextest() -> bool {
    answers("cargo-nextest", "--version")
}
