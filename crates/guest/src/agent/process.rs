//! This module starts guest processes and talks to them.

use crate::protocol::{Command, Event};
use crate::{Error, Result};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::Sender;

/// A guest in a process of its own. Dropping it kills the process and waits for it.
#[derive(Debug)]
pub struct GuestProcess {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl GuestProcess {
    /// Starts `command`, which must end up in [`super::run_stdio`], and forwards every event to
    /// `events` as `(tag, event)`, from a thread that ends with the process. Lines that are no
    /// event become [`Event::Failed`]. The process' end is reported as `(tag, None)`.
    pub fn spawn(
        mut command: std::process::Command,
        tag: usize,
        events: Sender<(usize, Option<Event>)>,
    ) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| Error::io("starting a guest process", e))?;
        let stdin = child.stdin.take();
        if let Some(stdout) = child.stdout.take() {
            std::thread::Builder::new()
                .name(format!("guest-{tag}"))
                .spawn(move || {
                    for line in BufReader::new(stdout).lines() {
                        let Ok(line) = line else { break };
                        let event = serde_json::from_str(&line).unwrap_or_else(|e| Event::Failed {
                            id: None,
                            message: format!("not an event ({e}): {line}"),
                        });
                        if events.send((tag, Some(event))).is_err() {
                            return;
                        }
                    }
                    // It is no failure if nobody listens any more.
                    let _ = events.send((tag, None));
                })
                .map_err(|e| Error::io("starting a thread", e))?;
        }
        Ok(Self { child, stdin })
    }

    /// Sends one command.
    pub fn send(&mut self, command: &Command) -> Result<()> {
        let mut line = serde_json::to_vec(command)
            .map_err(|e| Error::Command(format!("command cannot be encoded: {e}")))?;
        line.push(b'\n');
        match &mut self.stdin {
            Some(stdin) => {
                stdin.write_all(&line).map_err(|e| Error::io("writing to a guest process", e))
            }
            None => Err(Error::Disconnected { command: "guest process" }),
        }
    }

    /// Returns the process' ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills the process at once, as a VMM dies by SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.stdin = None;
        self.child.kill().map_err(|e| Error::io("killing a guest process", e))?;
        self.child.wait().map_err(|e| Error::io("waiting for a guest process", e))?;
        Ok(())
    }

    /// Closes the command stream and waits for the process to end by itself.
    pub fn wait(mut self) -> Result<std::process::ExitStatus> {
        self.stdin = None;
        self.child.wait().map_err(|e| Error::io("waiting for a guest process", e))
    }
}

impl Drop for GuestProcess {
    fn drop(&mut self) {
        self.stdin = None;
        // The process may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn shell(script: &str) -> std::process::Command {
        let mut command = std::process::Command::new("sh");
        command.arg("-c").arg(script);
        command
    }

    #[test]
    fn events_come_tagged_and_so_does_the_end() {
        let (sender, events) = channel();
        let script = r#"read command; echo "$command" >&2; echo '{"event":"stopped"}'; echo what"#;
        let mut guest = GuestProcess::spawn(shell(script), 7, sender).unwrap();
        guest.send(&Command::Stop).unwrap();
        assert_eq!(events.recv().unwrap(), (7, Some(Event::Stopped)));
        assert!(matches!(events.recv().unwrap(), (7, Some(Event::Failed { id: None, .. }))));
        assert_eq!(events.recv().unwrap(), (7, None));
        assert!(guest.wait().unwrap().success());
    }

    #[test]
    fn a_guest_is_killed_and_does_not_outlive_its_handle() {
        let (sender, events) = channel();
        let mut guest = GuestProcess::spawn(shell("exec sleep 60"), 1, sender.clone()).unwrap();
        guest.kill().unwrap();
        assert_eq!(events.recv().unwrap(), (1, None));
        assert!(guest.send(&Command::Stats).is_err());
        drop(GuestProcess::spawn(shell("exec sleep 60"), 2, sender).unwrap());
        assert_eq!(events.recv().unwrap(), (2, None));
    }
}
