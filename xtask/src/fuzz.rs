//! This module builds and runs the fuzz targets of fuzz/ with stable Rust: fuzz/.cargo/config.toml
//! instruments the build, and libFuzzer is linked in.
//!
//! fuzz/seeds/TARGET holds inputs that once found something; it is committed and only read.
//! fuzz/corpus/TARGET grows with every run. fuzz/artifacts/TARGET-... are findings.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::run::{command, step, target_dir, workspace};

/// Number of targets that run at a time: the smallest machine they are run on has two processors.
const AT_A_TIME: usize = 2;

/// Builds all targets, then runs each for `seconds`.
pub(crate) fn all(seconds: u32) -> Result<()> {
    build(&[])?;
    let targets = targets()?;
    for pair in targets.chunks(AT_A_TIME) {
        println!("==> fuzzing {} for {seconds} s", pair.join(", "));
        thread::scope(|scope| {
            let running: Vec<_> =
                pair.iter().map(|target| scope.spawn(|| quietly(target, seconds))).collect();
            running.into_iter().try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(_) => bail!("a thread that watched a fuzz target panicked"),
            })
        })?;
    }
    Ok(())
}

/// Runs one target with its output on the terminal.
pub(crate) fn one(target: &str, seconds: u32) -> Result<()> {
    let known = targets()?;
    if !known.iter().any(|name| name == target) {
        bail!("there is no fuzz target {target}: say one of {}", known.join(", "));
    }
    build(&["--bin", target])?;
    step(&format!("fuzzing {target}"), &mut fuzzer(target, seconds)?)
}

fn quietly(target: &str, seconds: u32) -> Result<()> {
    let log = build_dir().join(format!("{target}.log"));
    let file = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
    let mut command = fuzzer(target, seconds)?;
    command.arg("-print_final_stats=1").stdin(Stdio::null());
    command.stdout(file.try_clone()?).stderr(file);
    let status = command.status().with_context(|| format!("cannot start {target}"))?;
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if !status.success() {
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n");
        bail!("{target} found something ({status}):\n{tail}\nAll of it: {}", log.display());
    }
    let stat = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name))
            .map_or("?", |value| value.trim_start_matches(':').trim())
    };
    println!(
        "    {target}: {} executions, {} a second, no finding",
        stat("number_of_executed_units"),
        stat("average_exec_per_sec")
    );
    Ok(())
}

/// Returns the command that runs `target` over its corpora.
fn fuzzer(target: &str, seconds: u32) -> Result<Command> {
    let fuzz = workspace().join("fuzz");
    let (corpus, seeds) = (fuzz.join("corpus").join(target), fuzz.join("seeds").join(target));
    let artifacts = fuzz.join("artifacts");
    for dir in [&corpus, &artifacts] {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let triple_dirs = fs::read_dir(build_dir()).context("the fuzz targets are not built")?;
    let binary = triple_dirs
        .filter_map(|entry| Some(entry.ok()?.path().join("debug").join(target)))
        .find(|path| path.is_file())
        .with_context(|| format!("{target} is not built"))?;
    let mut fuzzer = command(&binary.to_string_lossy());
    fuzzer.arg(&corpus);
    if seeds.is_dir() {
        fuzzer.arg(&seeds);
    }
    fuzzer.arg(format!("-max_total_time={seconds}"));
    fuzzer.arg("-timeout=10");
    fuzzer.arg(format!("-artifact_prefix={}/{target}-", artifacts.display()));
    Ok(fuzzer)
}

fn build(extra: &[&str]) -> Result<()> {
    let mut cargo = command("cargo");
    cargo.current_dir(workspace().join("fuzz")).env("CARGO_TARGET_DIR", build_dir());
    step("fuzz targets", cargo.args(["build", "--locked"]).args(extra))
}

/// Returns the folder of these builds, apart from the others because their flags differ.
fn build_dir() -> PathBuf {
    target_dir().join("fuzz")
}

/// Returns the help of the argument that names a target.
pub(crate) fn help() -> String {
    format!("One of {}", targets().unwrap_or_default().join(", "))
}

/// Returns the targets' names in order: those of the files in fuzz/targets/.
fn targets() -> Result<Vec<String>> {
    let dir = workspace().join("fuzz/targets");
    let mut names: Vec<String> = fs::read_dir(&dir)
        .with_context(|| format!("cannot read {}", dir.display()))?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            // Only files are targets: what they share is in folders.
            Some(path.is_file().then(|| path.file_stem())??.to_str()?.to_owned())
        })
        .collect();
    names.sort();
    Ok(names)
}
