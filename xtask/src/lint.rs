//! Checks what needs no run: import circles, formatting, lints, documentation, licences.

use anyhow::Result;

use crate::circles;
use crate::run::{answers, cargo, step};

pub(crate) fn run() -> Result<()> {
    println!("==> import circles");
    circles::check()?;
    step("formatting", &mut cargo(&["fmt", "--all", "--check"]))?;
    step(
        "formatting of the fuzz targets",
        &mut cargo(&["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]),
    )?;
    step(
        "clippy",
        &mut cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--keep-going",
            "--",
            "-D",
            "warnings",
        ]),
    )?;
    step(
        "documentation",
        cargo(&["doc", "--workspace", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    dependencies()
}

/// Licences and sources of what is depended on. Advisories need the network's database and are not checked here.
fn dependencies() -> Result<()> {
    if !answers("cargo-deny", "--version") {
        step(
            "installing cargo-deny",
            &mut cargo(&["install", "--locked", "--debug", "cargo-deny"]),
        )?;
    }
    step(
        "licences and sources of dependencies",
        &mut cargo(&[
            "deny",
            "--locked",
            "--log-level",
            "error",
            "check",
            "bans",
            "licenses",
            "sources",
        ]),
    )
}
