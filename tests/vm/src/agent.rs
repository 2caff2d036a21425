//! This module is the harness's end of the wire to a guest's agent (`guest/agent`), on the guest's
//! second serial port.
//!
//! Lines to the guest, `SCRIPT` on one line as `printf %b` reads it:
//!
//! ```text
//! run ID SCRIPT        start a shell script
//! kill ID              SIGTERM to the script and all it started
//! ```
//!
//! The guest sends these, where `exit` is followed by the two outputs as they are:
//!
//! ```text
//! ready BOOT UPTIME                      the agent listens; again after every boot
//! exit ID STATUS OUTLEN ERRLEN           a script ended
//! ```

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

/// The result of a script in a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit status; 128 + N where signal N ended it.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The wire to one guest.
#[derive(Debug)]
pub(crate) struct Agent {
    writer: Mutex<UnixStream>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Number of times that the guest has come up.
    boots: u32,
    last_job: u64,
    finished: HashMap<u64, Output>,
    closed: bool,
}

/// A script running in a guest.
#[derive(Debug)]
pub(crate) struct JobId {
    id: u64,
    boot: u32,
}

impl Agent {
    pub(crate) fn new(stream: UnixStream) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let reader = stream.try_clone().context("cannot share the agent's socket")?;
        let of_reader = Arc::clone(&shared);
        // The thread ends with the stream, that is with QEMU.
        thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            while let Ok(Some(message)) = read_message(&mut reader) {
                let mut state = of_reader.lock();
                match message {
                    Message::Ready => state.boots += 1,
                    Message::Exit(id, output) => {
                        state.finished.insert(id, output);
                    }
                }
                drop(state);
                of_reader.changed.notify_all();
            }
            of_reader.lock().closed = true;
            of_reader.changed.notify_all();
        });
        Ok(Self { writer: Mutex::new(stream), shared })
    }

    /// Returns how often the guest has come up so far.
    pub(crate) fn boots(&self) -> u32 {
        self.shared.lock().boots
    }

    /// Waits until the guest has come up more than `boots` times; false if it has not in time.
    pub(crate) fn wait_boot(&self, boots: u32, timeout: Duration) -> Result<bool> {
        let up = self.shared.wait(timeout, |state| (state.boots > boots).then_some(()))?;
        Ok(up.is_some())
    }

    pub(crate) fn start(&self, script: &str) -> Result<JobId> {
        let job = {
            let mut state = self.shared.lock();
            state.last_job += 1;
            JobId { id: state.last_job, boot: state.boots }
        };
        self.send(&format!("run {} {}\n", job.id, escape(script)))?;
        Ok(job)
    }

    pub(crate) fn wait(&self, job: &JobId, timeout: Duration) -> Result<Output> {
        let (id, boot) = (job.id, job.boot);
        let ended = self.shared.wait(timeout, |state| match state.finished.remove(&id) {
            Some(output) => Some(Ok(output)),
            None if state.boots != boot => Some(Err(anyhow!("the guest rebooted meanwhile"))),
            None => None,
        })?;
        ended.unwrap_or_else(|| bail!("no answer from the guest in {} s", timeout.as_secs()))
    }

    pub(crate) fn is_finished(&self, job: &JobId) -> bool {
        self.shared.lock().finished.contains_key(&job.id)
    }

    pub(crate) fn kill(&self, job: &JobId) -> Result<()> {
        self.send(&format!("kill {}\n", job.id))
    }

    fn send(&self, line: &str) -> Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.write_all(line.as_bytes()).context("cannot talk to the guest's agent")
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<T>(
        &self,
        timeout: Duration,
        mut ask: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<Option<T>> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if let Some(answer) = ask(&mut state) {
                return Ok(Some(answer));
            }
            if state.closed {
                bail!("QEMU has ended");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            state =
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Message {
    Ready,
    Exit(u64, Output),
}

/// Returns the next message; lines that are none (a port being probed prints stray bytes) are
/// passed over.
fn read_message(reader: &mut impl BufRead) -> Result<Option<Message>> {
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&line);
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["ready", ..] => return Ok(Some(Message::Ready)),
            ["exit", id, status, out, err] => {
                let mut text = |len: &str| -> Result<String> {
                    let mut bytes = Vec::new();
                    let len: u64 = len.parse()?;
                    reader.take(len).read_to_end(&mut bytes)?;
                    Ok(String::from_utf8_lossy(&bytes).into_owned())
                };
                let output =
                    Output { status: status.parse()?, stdout: text(out)?, stderr: text(err)? };
                return Ok(Some(Message::Exit(id.parse()?, output)));
            }
            _ => {}
        }
    }
}

/// Returns a line that `printf %b` turns back into `script`. The shell's `read` would lose spaces.
fn escape(script: &str) -> String {
    script.trim().replace('\\', "\\\\").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::{Message, Output, escape, read_message};

    #[test]
    fn messages_are_found_between_noise_and_carry_raw_output() {
        let mut wire: &[u8] =
            b"\x00\xffnoise\n\nready 1234 2.5\nexit 7 3 13 2\nexit 8 0 0 0\n\xe9!exit 9 0 0 0\n";
        assert_eq!(read_message(&mut wire).unwrap(), Some(Message::Ready));
        let output = Output {
            status: 3,
            stdout: "exit 8 0 0 0\n".to_owned(),
            stderr: "\u{fffd}!".to_owned(),
        };
        assert_eq!(read_message(&mut wire).unwrap(), Some(Message::Exit(7, output)));
        let empty = Output { status: 0, stdout: String::new(), stderr: String::new() };
        assert_eq!(read_message(&mut wire).unwrap(), Some(Message::Exit(9, empty)));
        assert_eq!(read_message(&mut wire).unwrap(), None);
        assert!(read_message(&mut &b"exit x 0 0 0\n"[..]).is_err());
    }

    #[test]
    fn scripts_become_one_line() {
        assert_eq!(escape("  printf 'a\\n'\necho b\n"), r"printf 'a\\n'\necho b");
    }
}
