//! This module starts processes of the benchmark's own: they end with it, and can be halted while
//! another has the core.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::interrupt;

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, what it prints going to `log`. It gets a group of its own, so that a
    /// Ctrl-C reaches it through us only.
    pub(crate) fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let out = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Returns how it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))
    }

    /// Waits until `ready`, and fails with its last words where it ends before.
    pub(crate) fn wait_until(
        &mut self,
        what: &str,
        timeout: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let name = self.name.clone();
        let result = interrupt::wait(what, timeout, || {
            if let Some(status) = self.ended()? {
                bail!("{name} ended with {status}");
            }
            Ok(ready())
        });
        result.with_context(|| format!("{name} said:\n{}", self.last_words()))
    }

    fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        tail(&String::from_utf8_lossy(&text), 15)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process that this one has started and not yet waited for.
pub(crate) fn signal(pid: u32, signal: Signal) -> Result<()> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process ID")?;
    kill_process(raw, signal).with_context(|| format!("cannot signal process {pid}"))
}

/// Runs `command` to its end and returns what it printed; one that fails is an error with its last
/// words.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{name}: {}\n{}", output.status, tail(&String::from_utf8_lossy(&said), 15));
    }
    String::from_utf8(output.stdout).with_context(|| format!("{name} printed no UTF-8"))
}

/// Returns the last `lines` lines of `text`.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

/// Returns a path as programs' arguments need it.
pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("the path {} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("manifold-process-{}-{name}", std::process::id()))
    }

    #[test]
    fn what_ends_early_is_quoted() {
        let log = log("early");
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such thing; exit 3"]);
        let mut process = Process::spawn("it", &mut command, &log).unwrap();
        let error = process.wait_until("never", Duration::from_secs(5), || false).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("no such thing") && text.contains("exit status: 3"), "{text}");
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let log = log("dropped");
        let process = Process::spawn("it", Command::new("sleep").arg("60"), &log).unwrap();
        let path = PathBuf::from(format!("/proc/{}", process.pid()));
        assert!(path.exists());
        drop(process);
        assert!(!path.exists());
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn programs_that_fail_or_are_missing_are_errors() {
        assert_eq!(output(Command::new("echo").arg("x")).unwrap(), "x\n");
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 1"])).unwrap_err();
        assert!(format!("{error:#}").contains("why"));
        assert!(output(&mut Command::new("manifold-no-such-program")).is_err());
    }
}
