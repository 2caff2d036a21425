//! This module runs programs in the workspace, and tells what runs and how long it took.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Returns the workspace's folder.
pub(crate) fn workspace() -> PathBuf {
    // The workspace is the folder above xtask.
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
}

/// Returns Cargo's folder of this workspace's build products.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => workspace().join(dir),
        None => workspace().join("target"),
    }
}

/// Returns a command in the workspace, without what the outer cargo has put into the environment
/// for xtask itself.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace());
    let of_xtask = std::env::vars_os().map(|(name, _)| name).filter(|name| {
        name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        })
    });
    for name in of_xtask {
        command.env_remove(name);
    }
    command
}

/// Returns cargo's command in the workspace.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = command("cargo");
    command.args(arguments);
    command
}

/// Says what runs, runs it, and fails where it fails.
pub(crate) fn step(title: &str, command: &mut Command) -> Result<()> {
    println!("==> {title}");
    let begin = Instant::now();
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot run {program}"))?;
    if !status.success() {
        bail!("{title}: {program} ended with {status}");
    }
    println!("    {title}: {:.1} s", begin.elapsed().as_secs_f32());
    Ok(())
}

/// Returns whether a program is there and answers to `argument`.
pub(crate) fn answers(program: &str, argument: &str) -> bool {
    Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
