//! This module is what virtual machines are usually connected by: a TAP interface each, on a Linux
//! bridge, in a network namespace that goes with it.

use std::process::Command;

use anyhow::{Context, Result};

use crate::bench::process::output;

/// A bridge with TAP interfaces. Dropping it removes the namespace and all in it.
#[derive(Debug)]
pub(crate) struct Bridge {
    namespace: String,
}

impl Bridge {
    pub(crate) fn new(taps: &[&str]) -> Result<Self> {
        let namespace = format!("manifold-bench-{}", std::process::id());
        output(Command::new("ip").args(["netns", "add", &namespace]))
            .context("cannot make a network namespace (that takes root)")?;
        let bridge = Self { namespace };
        bridge.ip("link add bridge0 type bridge")?;
        bridge.ip("link set bridge0 up")?;
        for tap in taps {
            bridge.ip(&format!("tuntap add dev {tap} mode tap"))?;
            bridge.ip(&format!("link set {tap} master bridge0 up"))?;
        }
        Ok(bridge)
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    fn ip(&self, words: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.namespace]).args(words.split(' '));
        output(&mut command).with_context(|| format!("ip {words}")).map(drop)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Err(error) = output(Command::new("ip").args(["netns", "delete", &self.namespace])) {
            eprintln!("xtask: cannot remove the namespace {}: {error:#}", self.namespace);
        }
    }
}
