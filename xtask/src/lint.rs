//! This module checks what needs no run: import circles, formatting, lints, documentation,
//! licences.

use anyhow::Result;

use crate::circles;
use crate::run::{answers, cargo, step};

/// Runs all checks, the quickest first.
pub(crate) fn run() -> Result<()> {
    println!("==> import circles");
    circles::check()?;
    check("formatting", "fmt --all --check")?;
    check("formatting of the fuzz targets", "fmt --manifest-path fuzz/Cargo.toml --check")?;
    // The fuzz targets are a workspace of their own, whose lock file is easily forgotten.
    check(
        "lock file of the fuzz targets",
        "fetch --quiet --locked --manifest-path fuzz/Cargo.toml",
    )?;
    check("clippy", "clippy --workspace --all-targets --locked --keep-going -- -D warnings")?;
    step(
        "documentation",
        cargo(&["doc", "--workspace", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    if !answers("cargo-deny", "--version") {
        check("installing cargo-deny", "install --locked --debug cargo-deny")?;
    }
    // Advisories need a database from the network and are not checked here.
    let deny = "deny --locked --log-level error check bans licenses sources";
    check("licences and sources of dependencies", deny)
}

fn check(title: &str, arguments: &str) -> Result<()> {
    step(title, &mut cargo(&arguments.split(' ').collect::<Vec<_>>()))
}
