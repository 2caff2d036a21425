//! This module has a network namespace of the machine's, for what an uplink is connected to.

use std::process::Command;

use anyhow::{Context, Result};

use crate::run::output;

/// A network namespace. Dropping it removes it, and the interfaces in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one, named after `name` and this process; needs root.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        let name = format!("manifold-{name}-{}", std::process::id());
        output(Command::new("ip").args(["netns", "add", &name]))
            .context("cannot make a network namespace (that takes root)")?;
        let namespace = Self { name };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Returns the name, as `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` with these words in it and returns what it printed.
    ///
    /// # Errors
    /// Fails with what `ip` complains about.
    pub fn ip(&self, words: &str) -> Result<String> {
        let mut command = Command::new("ip");
        output(command.args(["-n", &self.name]).args(words.split_whitespace()))
            .with_context(|| format!("ip {words}"))
    }

    /// Returns `command` as it must be to run in this namespace.
    #[must_use]
    pub fn command(&self, command: &Command) -> Command {
        inside(&self.name, command)
    }

    /// Runs `command` in it and returns what it printed.
    ///
    /// # Errors
    /// When it fails; the error has its last words.
    pub fn run(&self, command: &Command) -> Result<String> {
        output(&mut self.command(command))
    }
}

/// Returns `command` as it must be to run in the namespace of this name.
pub(crate) fn inside(namespace: &str, command: &Command) -> Command {
    let mut outer = Command::new("ip");
    outer.args(["netns", "exec", namespace]).arg(command.get_program()).args(command.get_args());
    outer
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = output(Command::new("ip").args(["netns", "delete", &self.name])) {
            eprintln!("cannot remove the namespace {}: {error:#}", self.name);
        }
    }
}
