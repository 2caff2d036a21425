//! A real adapter in this process, and guests in threads.
#![allow(dead_code, unreachable_pub)]

pub mod innocents;

use manifold_adapter::{Adapter, Config as AdapterConfig};
use manifold_guest::agent::{self, Command, Config, Event};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(60);

/// An adapter with VFs and its folder of sockets.
pub struct Bed {
    pub adapter: Adapter,
    pub dir: tempfile::TempDir,
}

impl Bed {
    pub fn new(vfs: u16, mtu: u16) -> Self {
        if std::env::var_os("RUST_LOG").is_some() {
            let _ = tracing_subscriber::fmt()
                .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
                .with_writer(std::io::stderr)
                .try_init();
        }
        let dir = tempfile::tempdir().unwrap();
        let adapter =
            Adapter::start(AdapterConfig { mtu, ..AdapterConfig::new(dir.path()) }).unwrap();
        adapter.enable_vfs(vfs).unwrap();
        Self { adapter, dir }
    }

    pub fn socket(&self, vf: u16) -> PathBuf {
        self.dir.path().join(format!("vf{vf}.sock"))
    }

    pub fn guest(&self, vf: u16) -> Guest {
        Guest::start(Config::new(self.socket(vf)))
    }
}

/// An agent in a thread of its own, told and asked through pipes as a process would be.
pub struct Guest {
    commands: Option<std::fs::File>,
    events: Receiver<Event>,
    thread: Option<JoinHandle<manifold_guest::Result<()>>>,
    pub mac: [u8; 6],
    pub mtu: u16,
}

struct Lines {
    buffer: Vec<u8>,
    events: std::sync::mpsc::Sender<Event>,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        while let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let _ = self.events.send(serde_json::from_slice(&line).unwrap());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Guest {
    pub fn start(config: Config) -> Self {
        let (input, commands) = rustix::pipe::pipe().unwrap();
        let (sender, events) = channel();
        let thread = std::thread::spawn(move || {
            let input: OwnedFd = input;
            agent::run(&config, input, Lines { buffer: Vec::new(), events: sender })
        });
        let mut guest = Self {
            commands: Some(commands.into()),
            events,
            thread: Some(thread),
            mac: [0; 6],
            mtu: 0,
        };
        match guest.next() {
            Event::Ready { mac, mtu, .. } => (guest.mac, guest.mtu) = (mac, mtu),
            other => panic!("{other:?}"),
        }
        guest
    }

    pub fn tell(&mut self, command: &Command) {
        self.tell_line(&serde_json::to_string(command).unwrap());
    }

    /// Whatever it is.
    pub fn tell_line(&mut self, line: &str) {
        writeln!(self.commands.as_mut().unwrap(), "{line}").unwrap();
    }

    /// The next event that is not progress.
    pub fn next(&mut self) -> Event {
        let begin = Instant::now();
        loop {
            match self.events.recv_timeout(LONG) {
                Ok(Event::Progress { .. }) if begin.elapsed() < LONG => {}
                Ok(event) => return event,
                Err(RecvTimeoutError::Timeout) => panic!("the guest says nothing"),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the guest ended: {:?}", self.thread.take().map(JoinHandle::join))
                }
            }
        }
    }

    pub fn configure(&mut self, address: Ipv4Addr) {
        self.tell(&Command::Configure { address, prefix: 16, neighbours: Vec::new() });
        assert_eq!(self.next(), Event::Configured { address });
    }

    pub fn ping(&mut self, targets: &[Ipv4Addr], count: u32) -> Vec<Event> {
        self.tell(&Command::Ping {
            targets: targets.to_vec(),
            count,
            interval_ms: 2,
            timeout_ms: 5000,
            payload: 56,
        });
        targets.iter().map(|_| self.next()).collect()
    }

    pub fn stop(mut self) {
        self.tell(&Command::Stop);
        loop {
            match self.next() {
                Event::Stopped => break,
                Event::Fatal { message } => panic!("{message}"),
                _ => {}
            }
        }
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // The end of its commands ends it.
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The address of guest `n`.
pub fn ip(n: u16) -> Ipv4Addr {
    let [high, low] = (n + 1).to_be_bytes();
    Ipv4Addr::new(10, 77, high, low)
}
