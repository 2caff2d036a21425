//! The adapter under test is a `manifold serve` of its own, reached through its command line only.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::namespace::inside;
use crate::run::{output, tail};

/// Name of the variable that names the binary under test; `cargo build` makes one where it is not
/// set.
const BINARY_VARIABLE: &str = "MANIFOLD_BIN";
const START_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A running daemon. [`crate::Lab::adapter`] makes one for a test; dropping it kills it.
#[derive(Debug)]
pub struct Adapter {
    start: Start,
    child: Child,
}

/// The arguments and environment of the daemon.
#[derive(Debug)]
struct Start {
    binary: PathBuf,
    run_dir: PathBuf,
    log: PathBuf,
    arguments: Vec<String>,
    namespace: Option<String>,
}

impl Adapter {
    /// Starts `binary serve` with `arguments` and waits until it is ready. It makes the run
    /// directory and writes the log.
    ///
    /// # Errors
    /// When it does not become ready; the error quotes the log.
    pub fn start(
        binary: PathBuf,
        run_dir: PathBuf,
        log: PathBuf,
        arguments: &[&str],
    ) -> Result<Self> {
        Self::start_in(None, binary, run_dir, log, arguments)
    }

    /// Starts the daemon in the network namespace of this name, or in the machine's own.
    pub(crate) fn start_in(
        namespace: Option<&str>,
        binary: PathBuf,
        run_dir: PathBuf,
        log: PathBuf,
        arguments: &[&str],
    ) -> Result<Self> {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let namespace = namespace.map(str::to_owned);
        let start = Start { binary, run_dir, log, arguments, namespace };
        let child = start.spawn()?;
        Ok(Self { start, child })
    }

    /// Ends the daemon with a signal and starts it again as it was started.
    ///
    /// # Errors
    /// When it does not end, or does not become ready again.
    pub fn restart(&mut self, signal: Signal) -> Result<()> {
        self.end(signal)?;
        self.child = self.start.spawn()?;
        Ok(())
    }

    /// Returns the daemon's process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the vfio-user socket of a function: "pf", "vf0", "vf1", ...
    #[must_use]
    pub fn socket(&self, function: &str) -> PathBuf {
        self.start.run_dir.join(format!("{function}.sock"))
    }

    /// Runs a `manifold` command against this daemon, which must succeed, and returns what it
    /// printed.
    ///
    /// # Errors
    /// Fails with what the command complained about.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        output(
            Command::new(&self.start.binary)
                .env("MANIFOLD_RUN_DIR", &self.start.run_dir)
                .args(arguments),
        )
        .with_context(|| format!("manifold {}\n{}", arguments.join(" "), self.last_words()))
    }

    /// Returns what `manifold vf show FUNCTION --json` knows about a VF.
    ///
    /// # Errors
    /// Fails as [`Adapter::cli`] does.
    pub fn vf(&self, function: &str) -> Result<Value> {
        self.json(&["vf", "show", function])
    }

    /// Runs a `manifold` command with `--json`.
    ///
    /// # Errors
    /// Fails as [`Adapter::cli`] does.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.cli(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
    }

    /// Waits until a VMM is attached to the VF, or none is.
    ///
    /// # Errors
    /// When that does not happen within ten seconds.
    pub fn wait_attached(&self, function: &str, attached: bool) -> Result<()> {
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.vf(function)?["attached"].is_null() == attached {
            if Instant::now() > deadline {
                bail!("{function} does not become {}", if attached { "attached" } else { "free" });
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Asks the daemon to stop (SIGTERM); it must do so in order and leave no socket behind.
    ///
    /// # Errors
    /// When it does not, or has panicked anywhere on the way.
    pub fn stop(mut self) -> Result<()> {
        let status = self.end(Signal::TERM)?;
        let log = self.log()?;
        if !status.success() || log.contains("panicked") {
            bail!("manifold serve ended with {status}\n{}", self.last_words());
        }
        for entry in self.start.run_dir.read_dir().into_iter().flatten() {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "sock") {
                bail!("manifold serve left {} behind", path.display());
            }
        }
        Ok(())
    }

    fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        end_process(self.child.id(), signal).context("cannot stop the daemon")?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for the daemon")? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("manifold serve does not stop\n{}", self.last_words());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> Result<String> {
        self.start.log()
    }

    fn last_words(&self) -> String {
        self.start.last_words()
    }
}

impl Start {
    fn spawn(&self) -> Result<Child> {
        let stderr = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot create {}", self.log.display()))?;
        let mut stdout_log = stderr.try_clone()?;
        let mut command = Command::new(&self.binary);
        command.arg("serve").arg("--run-dir").arg(&self.run_dir).args(&self.arguments);
        if let Some(namespace) = &self.namespace {
            // `ip netns exec` becomes the program that it runs, so the process is the daemon.
            command = inside(namespace, &command);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("cannot start {}", self.binary.display()))?;
        let stdout = child.stdout.take().context("no standard output")?;
        let (ready, is_ready) = mpsc::channel();
        // The thread ends with the daemon.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The log and the waiting test may be gone; the pipe must still be emptied.
                let _ = writeln!(stdout_log, "{line}");
                if line.starts_with("ready") {
                    let _ = ready.send(());
                }
            }
        });
        if let Err(error) = is_ready.recv_timeout(START_TIMEOUT) {
            // The daemon may have ended already.
            let _ = child.kill();
            let _ = child.wait();
            let error = anyhow::Error::new(error);
            return Err(
                error.context(format!("manifold serve is not ready\n{}", self.last_words()))
            );
        }
        Ok(child)
    }

    fn log(&self) -> Result<String> {
        std::fs::read_to_string(&self.log)
            .with_context(|| format!("cannot read {}", self.log.display()))
    }

    fn last_words(&self) -> String {
        format!("--- end of manifold's log ---\n{}", tail(&self.log().unwrap_or_default(), 20))
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        // The daemon may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process.
///
/// # Errors
/// When there is none of that number.
pub fn end_process(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process ID")?;
    kill_process(pid, signal).with_context(|| format!("cannot send {signal:?} to process {pid:?}"))
}

/// Returns the binary under test, built from what is there now unless it is named.
pub(crate) fn binary() -> Result<PathBuf> {
    if let Some(binary) = std::env::var_os(BINARY_VARIABLE) {
        return Ok(binary.into());
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace).args(["build", "--quiet", "--package", "manifold"]);
    let messages = output(cargo.args(["--message-format", "json"]))?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "manifold")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo build says not where manifold is")
}
