//! This module runs the binary.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Returns the binary's command, without anything from the environment that changes what it does.
pub(crate) fn manifold() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_manifold"));
    command.env_remove("MANIFOLD_RUN_DIR").env_remove("MANIFOLD_LOG");
    command
}

/// Exit status and output of a command.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Returns standard output of a command that succeeded.
    #[track_caller]
    pub(crate) fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Returns standard error of a command that failed, which printed nothing else and did not
    /// panic.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        assert_eq!(self.stdout, "", "{}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self.stderr
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Sends a signal to a process.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Returns whether a process still runs; one that nobody has waited for yet does not.
pub(crate) fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !matches!(rest.trim().chars().next(), None | Some('Z')))
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(20), "still not: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Names of the files in a folder, sorted.
pub(crate) fn files(path: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A daemon. Dropping it kills it.
pub(crate) struct Daemon {
    child: Child,
    run_dir: PathBuf,
    /// Line that the daemon printed when it was ready.
    pub(crate) ready: String,
}

impl Daemon {
    /// Starts one in `run_dir` and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(run_dir: &Path, args: &[&str]) -> Self {
        let mut child = manifold()
            .arg("serve")
            .arg("--run-dir")
            .arg(run_dir)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        if !ready.starts_with("ready") {
            let mut stderr = String::new();
            child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
            panic!("the daemon did not become ready: {ready}{stderr}");
        }
        Self { child, run_dir: run_dir.to_owned(), ready }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs a command against it.
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        manifold().args(args).arg("--run-dir").arg(&self.run_dir).output().unwrap().into()
    }

    /// Runs a command against it and parses the JSON it prints.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.run(args).succeeded()).unwrap()
    }

    /// Signals it and returns its exit code.
    pub(crate) fn stop(mut self, with: Signal) -> Option<i32> {
        signal(self.pid(), with);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A machine that uses a function. Dropping it kills it.
pub(crate) struct Guest {
    child: Child,
    _stdin: ChildStdin,
}

impl Guest {
    /// Starts one and waits until its driver runs.
    #[track_caller]
    pub(crate) fn start(run_dir: &Path, function: &str) -> Self {
        let config = serde_json::json!({ "socket": run_dir.join(format!("{function}.sock")) });
        let mut child = manifold()
            .args(["guest", "agent", &config.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut event = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut event).unwrap();
        assert!(event.contains("\"ready\""), "{event}");
        let stdin = child.stdin.take().unwrap();
        Self { child, _stdin: stdin }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the process ends, and returns whether it ended well.
    pub(crate) fn wait(mut self) -> bool {
        eventually("the guest ends", || !runs(self.pid()));
        self.child.wait().unwrap().success()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
