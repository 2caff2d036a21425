//! This module has guests in threads, and the adapter that they attach to.
#![allow(dead_code, unreachable_pub)]

mod bed;

pub use bed::{Bed, LONG};

use manifold_guest::agent;
use manifold_guest::protocol::{Command, Config, Event};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Instant;

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
    pub fn attach(bed: &Bed, vf: u16) -> Self {
        Self::start(Config::new(bed.socket(vf)))
    }

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

    /// Sends a line to the agent, whatever it is.
    pub fn tell_line(&mut self, line: &str) {
        writeln!(self.commands.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Returns the next event that is not progress.
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
        // The agent ends at the end of its commands.
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Returns the address of guest `n`.
pub fn ip(n: u16) -> Ipv4Addr {
    let [high, low] = (n + 1).to_be_bytes();
    Ipv4Addr::new(10, 77, high, low)
}
