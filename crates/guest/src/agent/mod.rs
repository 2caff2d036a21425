//! This module is the guest process: commands in, events out, a network stack between them.
//!
//! One thread does everything. While there is traffic it polls and asks for no interrupts. After a
//! few idle polls it asks for them and sleeps, so that 256 idle guests cost nothing.
//!
//! ```text
//!    ┌─► poll stack ── anything? ── yes ─┐
//!    │        ▲                │ no      │
//!    │        └── yield ◄── few times    │
//!    │                         │ too many
//!    │                    arm interrupts, sleep on: eventfds, commands, socket, timer
//!    └─────────────────────────┴─────────┘
//! ```

mod lines;
pub mod process;
mod rogue;

use crate::memory::Arena;
use crate::net::{PingOptions, Stack};
use crate::protocol::{Command, Config, Event};
use crate::vfio::Function;
use crate::virtio::{Counters, NetOptions, VirtioNet};
use crate::{Error, Result};
use lines::Lines;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Number of idle polls before the process sleeps. Each yields the CPU to whoever else wants it.
const IDLE_LOOKS: u32 = 8;
/// Time between two checks for commands by a busy process.
const COMMAND_INTERVAL: Duration = Duration::from_millis(5);
/// Largest MTU that guest memory is made for, in bytes. Memory that a smaller MTU leaves untouched
/// costs nothing.
const LARGEST_MTU: u16 = u16::MAX;

/// Brings the function up, reports [`Event::Ready`], and carries out commands until
/// [`Command::Stop`], the end of `input`, or a failure that leaves nothing to do.
///
/// `input` is polled and read without being set to non-blocking. An error is also reported as
/// [`Event::Fatal`].
pub fn run(config: &Config, input: impl AsFd, mut output: impl Write) -> Result<()> {
    let result = Agent::start(config, input.as_fd(), &mut output).and_then(Agent::run);
    if let Err(e) = &result {
        // Whoever ended this guest may not listen any more.
        let _ = emit(&mut output, &Event::Fatal { message: e.to_string() });
    }
    result
}

/// Calls [`run`] with standard input and output.
pub fn run_stdio(config: &Config) -> Result<()> {
    run(config, std::io::stdin(), std::io::stdout().lock())
}

fn emit(output: &mut impl Write, event: &Event) -> Result<()> {
    let mut line = serde_json::to_vec(event)
        .map_err(|e| Error::Command(format!("event cannot be encoded: {e}")))?;
    line.push(b'\n');
    output.write_all(&line).and_then(|()| output.flush()).map_err(|e| Error::io("reporting", e))
}

/// The next step of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Continue,
    Stop,
}

struct Agent<'a, W: Write> {
    stack: Stack,
    options: NetOptions,
    input: BorrowedFd<'a>,
    lines: Lines,
    output: &'a mut W,
    interrupts: u64,
    sleeps: u64,
}

impl<'a, W: Write> Agent<'a, W> {
    fn start(config: &Config, input: BorrowedFd<'a>, output: &'a mut W) -> Result<Self> {
        let options = NetOptions {
            queue_pairs: config.queue_pairs,
            queue_size: config.queue_size,
            rx_buffer: config.rx_buffer,
            indirect: config.indirect,
            refuse: config.refuse_features,
            ..NetOptions::default()
        };
        let arena = Arc::new(Arena::new(options.memory(LARGEST_MTU), config.iova)?);
        arena.seal()?;
        let function = Function::open(&config.socket, config.client, config.dma, arena)?;
        let net = VirtioNet::start(function, &options)?;
        let info = net.info();
        let seed = info.mac.iter().fold(0, |seed, b| seed << 8 | u64::from(*b));
        let agent = Self {
            stack: Stack::new(net, seed),
            options,
            input,
            lines: Lines::default(),
            output,
            interrupts: 0,
            sleeps: 0,
        };
        let (mac, mtu) = (info.mac, info.mtu);
        let (features, queue_pairs) = (info.features, info.queue_pairs);
        emit(agent.output, &Event::Ready { mac, mtu, features, queue_pairs })?;
        Ok(agent)
    }

    fn run(mut self) -> Result<()> {
        let mut idle = 0;
        let mut commands_at = Instant::now();
        loop {
            let busy = self.stack.poll()?;
            for event in self.stack.take_events() {
                emit(self.output, &event)?;
            }
            let mut next = Next::Continue;
            if busy {
                idle = 0;
                if commands_at.elapsed() > COMMAND_INTERVAL {
                    commands_at = Instant::now();
                    next = self.wait(Some(Duration::ZERO))?;
                }
            } else if idle < IDLE_LOOKS {
                idle += 1;
                rustix::thread::sched_yield();
            } else {
                idle = 0;
                if !self.stack.arm()? {
                    let deadline = self.stack.next_deadline();
                    self.sleeps += 1;
                    next = self.wait(deadline)?;
                }
                self.stack.disarm()?;
            }
            if next == Next::Stop {
                self.stack.net().device().reset()?;
                return emit(self.output, &Event::Stopped);
            }
        }
    }

    /// Waits for an interrupt, a command, the server, or the end of `timeout`, and handles what
    /// came.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<Next> {
        let net = self.stack.net_ref();
        let watch = net.device_ref().function_ref().watch();
        let mut fds = vec![PollFd::from_borrowed_fd(self.input, PollFlags::IN)];
        fds.extend(watch.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        fds.extend(net.interrupts().iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let timeout = timeout.map(|t| Timespec {
            tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: t.subsec_nanos().into(),
        });
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Next::Continue),
            Ok(_) => {}
            Err(e) => return Err(Error::io("sleeping", e)),
        }
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let has_command = fds.first().is_some_and(ready);
        let has_message = watch.is_some() && fds.get(1).is_some_and(ready);
        let vectors = fds.get(1 + usize::from(watch.is_some())..).unwrap_or_default();
        let mut changed = false;
        for (vector, (fd, interrupt)) in vectors.iter().zip(net.interrupts()).enumerate() {
            if ready(fd) {
                self.interrupts += 1;
                changed |= vector == 0;
                // Reading arms the eventfd again; the count means nothing.
                let _ = rustix::io::read(interrupt, &mut [0; 8]);
            }
        }
        drop(fds);
        if has_message {
            self.stack.net().device().function().transport().service()?;
        }
        if changed {
            self.stack.net().check()?;
        }
        if has_command { self.take_commands() } else { Ok(Next::Continue) }
    }

    fn take_commands(&mut self) -> Result<Next> {
        if !self.lines.fill(self.input)? {
            return Ok(Next::Stop);
        }
        while let Some(line) = self.lines.next() {
            let failed = match serde_json::from_slice::<Command>(&line) {
                Ok(Command::Stop) => return Ok(Next::Stop),
                Ok(command) => self.carry_out(command),
                Err(e) => Err(Error::Command(format!(
                    "not a command ({e}): {}",
                    String::from_utf8_lossy(&line)
                ))),
            };
            match failed {
                Ok(()) => {}
                Err(Error::Command(message)) => {
                    emit(self.output, &Event::Failed { id: None, message })?;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(Next::Continue)
    }

    fn carry_out(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Configure { address, prefix, neighbours } => {
                self.stack.configure(address, prefix, &neighbours)
            }
            Command::Ping { targets, count, interval_ms, timeout_ms, payload } => {
                let options = PingOptions {
                    count,
                    interval: Duration::from_millis(interval_ms),
                    timeout: Duration::from_millis(timeout_ms),
                    payload,
                };
                self.stack.ping(&targets, &options)
            }
            Command::Receive { transfers } => self.stack.receive(&transfers),
            Command::Send { transfers } => self.stack.send(&transfers),
            Command::RogueDma { iova, direction } => {
                let event = rogue::attempt(&mut self.stack, &self.options, iova, direction)?;
                emit(self.output, &event)
            }
            Command::Stats => {
                let (interrupts, sleeps) = (self.interrupts, self.sleeps);
                let counters = Counters { interrupts, sleeps, ..self.stack.net_ref().counters() };
                emit(self.output, &Event::Stats { counters })
            }
            // The caller has handled this.
            Command::Stop => Ok(()),
        }
    }
}
