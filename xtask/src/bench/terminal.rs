//! This module runs a program that only talks to a terminal, such as testpmd: it gets one, and we
//! read and type at the other end.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::interrupt;
use super::process::tail;

/// Time between two checks for a signal while waiting.
const LOOK: Duration = Duration::from_millis(50);

/// A program at a terminal. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Terminal {
    name: String,
    child: Child,
    keyboard: File,
    screen: Arc<Screen>,
}

#[derive(Debug, Default)]
struct Screen {
    text: Mutex<Text>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Text {
    all: String,
    /// Position up to which output has been dealt with.
    read: usize,
    ended: bool,
}

impl Terminal {
    pub(crate) fn spawn(name: &str, mut command: Command) -> Result<Self> {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .context("cannot open a terminal")?;
        grantpt(&keyboard)?;
        unlockpt(&keyboard)?;
        let path = ptsname(&keyboard, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let theirs = open(path.as_c_str(), flags, Mode::empty())?;
        let mut settings = tcgetattr(&theirs)?;
        settings.make_raw();
        tcsetattr(&theirs, OptionalActions::Now, &settings)?;
        command.stdin(theirs.try_clone()?).stdout(theirs.try_clone()?).stderr(theirs);
        command.process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        // The command holds the program's end, which must close for the reader to see the end.
        drop(command);
        let keyboard = File::from(keyboard);
        let screen = Arc::new(Screen::default());
        let (mut from, of_reader) = (keyboard.try_clone()?, Arc::clone(&screen));
        // The thread ends with the program.
        thread::spawn(move || of_reader.fill(&mut from));
        Ok(Self { name: name.to_owned(), child, keyboard, screen })
    }

    /// Types a line.
    pub(crate) fn send(&mut self, line: &str) -> Result<()> {
        self.keyboard
            .write_all(format!("{line}\n").as_bytes())
            .with_context(|| format!("cannot type \"{line}\" to {}", self.name))
    }

    /// Waits for `text` on the screen, and returns what came before it and has not been returned
    /// yet.
    pub(crate) fn expect(&mut self, text: &str, timeout: Duration) -> Result<String> {
        let end = Instant::now() + timeout;
        let mut screen = self.screen.lock();
        loop {
            let new = screen.all.get(screen.read..).unwrap_or_default();
            if let Some((before, _)) = new.split_once(text) {
                let before = before.to_owned();
                screen.read += before.len() + text.len();
                return Ok(before);
            }
            let why = if screen.ended {
                "it has ended"
            } else if Instant::now() > end {
                "it has not come in time"
            } else {
                interrupt::check()?;
                let waited = self.screen.changed.wait_timeout(screen, LOOK);
                screen = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            };
            bail!("{}: no \"{text}\", {why}:\n{}", self.name, tail(&screen.all, 15));
        }
    }

    /// Waits for the program's end; one that does not end is killed by the drop.
    pub(crate) fn wait_end(&mut self, timeout: Duration) {
        let end = Instant::now() + timeout;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The program may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Screen {
    fn lock(&self) -> MutexGuard<'_, Text> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, from: &mut File) {
        let mut bytes = [0; 4096];
        loop {
            let count = match from.read(&mut bytes) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // Linux returns this once nobody has the other end open.
                Err(_) => 0,
            };
            let mut text = self.lock();
            text.ended |= count == 0;
            text.all.push_str(&String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()));
            let ended = text.ended;
            drop(text);
            self.changed.notify_all();
            if ended {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn a_program_is_typed_to_and_read() {
        let mut command = Command::new("sh");
        command.args(["-c", "test -t 1 && echo ready; read x; echo \"got $x.\"; read x"]);
        let mut terminal = Terminal::spawn("sh", command).unwrap();
        terminal.expect("ready\n", SOON).unwrap();
        terminal.send("this").unwrap();
        assert_eq!(terminal.expect(".", SOON).unwrap(), "got this");
        let error = terminal.expect("more", Duration::from_millis(30)).unwrap_err();
        assert!(error.to_string().contains("not come in time"), "{error}");
    }

    #[test]
    fn the_end_of_a_program_is_noticed_and_its_words_quoted() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo bad argument"]);
        let mut terminal = Terminal::spawn("sh", command).unwrap();
        let error = terminal.expect("prompt", SOON).unwrap_err().to_string();
        assert!(error.contains("ended") && error.contains("bad argument"), "{error}");
        terminal.wait_end(SOON);
    }
}
