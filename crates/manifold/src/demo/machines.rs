//! The demo's machines are one guest process each, commanded and heard together.

use std::os::unix::process::CommandExt as _;
use std::process::Command as Process;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use manifold_guest::agent::process::GuestProcess;
use manifold_guest::protocol::{Command, Config, Event};

use super::interrupt::Interrupt;

/// Time between two checks whether the demo was interrupted, during a wait.
const LOOK: Duration = Duration::from_millis(50);

/// Several processes, each standing for a virtual machine. Dropping them kills them.
pub(super) struct Machines<'a> {
    processes: Vec<GuestProcess>,
    events: Receiver<(usize, Option<Event>)>,
    // This keeps the channel open while there are no machines.
    sender: Sender<(usize, Option<Event>)>,
    interrupt: &'a Interrupt,
}

impl<'a> Machines<'a> {
    /// Returns an empty set of machines.
    pub(super) fn new(interrupt: &'a Interrupt) -> Self {
        let (sender, events) = mpsc::channel();
        Self { processes: Vec::new(), events, sender, interrupt }
    }

    /// Starts one more, and does not wait until it is up.
    pub(super) fn start(&mut self, config: &Config) -> anyhow::Result<()> {
        let itself = std::env::current_exe().context("cannot tell where this program is")?;
        let config = serde_json::to_string(config).context("writing a guest's configuration")?;
        let mut process = Process::new(itself);
        // The process has a group of its own, because Ctrl-C on the terminal is for the demo, which
        // ends its guests.
        process.args(["guest", "agent", &config]).process_group(0);
        let tag = self.processes.len();
        let process = GuestProcess::spawn(process, tag, self.sender.clone())
            .with_context(|| format!("cannot start VM {tag}"))?;
        self.processes.push(process);
        Ok(())
    }

    /// Tells one machine something.
    pub(super) fn tell(&mut self, vm: u16, command: &Command) -> anyhow::Result<()> {
        let process = self.processes.get_mut(usize::from(vm));
        let process = process.with_context(|| format!("there is no VM {vm}"))?;
        process.send(command).with_context(|| format!("cannot command VM {vm}"))
    }

    /// Returns the next event of any machine.
    ///
    /// # Errors
    /// Fails if the demo is interrupted, a machine fails or ends, or `deadline` passes; `what`
    /// names what was waited for.
    pub(super) fn next(&mut self, deadline: Instant, what: &str) -> anyhow::Result<(u16, Event)> {
        loop {
            self.interrupt.check()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("gave up waiting for {what}");
            }
            let (tag, event) = match self.events.recv_timeout(left.min(LOOK)) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => bail!("the machines are gone"),
            };
            // The signal that ended a machine may be on its way to the demo as well.
            self.interrupt.check()?;
            match event {
                Some(Event::Fatal { message }) => bail!("VM {tag} failed: {message}"),
                None => bail!("the process of VM {tag} ended"),
                Some(event) => return Ok((tag as u16, event)),
            }
        }
    }

    /// Stops all machines in order and waits for their processes; one that does not end in time is
    /// killed.
    pub(super) fn stop(mut self, deadline: Instant) -> anyhow::Result<()> {
        for process in &mut self.processes {
            process.send(&Command::Stop).context("cannot stop a VM")?;
        }
        let mut left = self.processes.len();
        while left > 0 {
            self.interrupt.check()?;
            match self.events.recv_timeout(LOOK) {
                Ok((_, None)) => left -= 1,
                Ok((tag, Some(Event::Fatal { message } | Event::Failed { message, .. }))) => {
                    bail!("VM {tag} failed: {message}");
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                    bail!("{left} VMs did not stop when told to");
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        for (vm, process) in self.processes.into_iter().enumerate() {
            let status = process.wait().with_context(|| format!("waiting for VM {vm}"))?;
            if !status.success() {
                bail!("the process of VM {vm} ended with {status}");
            }
        }
        Ok(())
    }
}
