//! This module tells what the demo does while it runs: steps, and how far a step has come.

use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// Shortest time between two changes of a terminal's progress line.
const ON_TERMINAL: Duration = Duration::from_millis(100);
/// Time between progress lines where every line stays.
const IN_FILE: Duration = Duration::from_secs(2);

/// Writes to standard output, or to standard error where JSON has the former.
pub(super) struct Narrator {
    out: Box<dyn Write>,
    terminal: bool,
    step: usize,
    steps: usize,
    begun: Instant,
    progress: Instant,
    /// True if a progress line is on the terminal and not ended yet.
    open: bool,
}

impl Narrator {
    /// Returns a narrator of a demo with this many steps.
    pub(super) fn new(steps: usize, json: bool) -> Self {
        let terminal = if json { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        let out: Box<dyn Write> =
            if json { Box::new(io::stderr()) } else { Box::new(io::stdout()) };
        let now = Instant::now();
        Self { out, terminal, step: 0, steps, begun: now, progress: now, open: false }
    }

    /// Begins the next step.
    pub(super) fn step(&mut self, what: &str) -> anyhow::Result<()> {
        self.step += 1;
        self.begun = Instant::now();
        self.progress = self.begun;
        self.write(&format!("\n[{}/{}] {what}\n", self.step, self.steps))
    }

    /// Says something within the step; each line is indented.
    pub(super) fn say(&mut self, text: &str) -> anyhow::Result<()> {
        let indented: String = text.lines().map(|line| format!("      {line}\n")).collect();
        self.write(&indented)
    }

    /// Says how the step went, with the time it took.
    pub(super) fn done(&mut self, what: &str) -> anyhow::Result<()> {
        let took = self.begun.elapsed().as_secs_f64();
        self.say(&format!("{what} ({took:.1} s)"))
    }

    /// Says how far the step has come, now and then: most calls write nothing.
    pub(super) fn progress(&mut self, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let every = if self.terminal { ON_TERMINAL } else { IN_FILE };
        if self.progress.elapsed() < every {
            return Ok(());
        }
        self.progress = Instant::now();
        if !self.terminal {
            return self.say(&text());
        }
        self.open = true;
        let line = format!("\r      {}\x1b[K", text());
        self.put(&line)
    }

    /// Writes `text` as it is, at the beginning of a line.
    pub(super) fn write(&mut self, text: &str) -> anyhow::Result<()> {
        if std::mem::take(&mut self.open) {
            self.put("\r\x1b[K")?;
        }
        self.put(text)
    }

    fn put(&mut self, text: &str) -> anyhow::Result<()> {
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        written.context("writing what the demo says")
    }
}

impl Drop for Narrator {
    fn drop(&mut self) {
        // The terminal is left at the beginning of a line; nobody is left to hear of a failure.
        let _ = self.write("");
    }
}
