//! A raw generator and sink of Ethernet frames, for measurements: the same driver, no stack, one thread.
//!
//! A frame costs a few nanoseconds here: it was written once, its descriptor too, so that sending it again
//! is one entry in the available ring; a received frame is counted and its buffer offered again, unread.
//!
//! ```text
//!   port a ── TX ring ──►  adapter  ──► RX ring ── port b     flow a -> b
//!     ▲                                              │
//!     └───────── window: sent − received ◄───────────┘        closed loop
//! ```

pub mod config;
pub mod report;

use crate::memory::Arena;
use crate::vfio::{ClientKind, DmaMode, Function};
use crate::virtio::{NetOptions, VirtioNet};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where ports keep their memory; each in a DMA domain of its own.
const IOVA: u64 = 0x1_0000_0000;
/// Rounds between two looks at the clock.
const ROUNDS_PER_LOOK: u32 = 32;
/// A closed loop in which nothing moves for this long has lost what was in flight.
const LOST_AFTER: Duration = Duration::from_millis(50);

/// How much a flow sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// As fast as the ring takes frames, whatever arrives.
    Open,
    /// At most this many frames a second.
    Rate(u64),
    /// Only while fewer than this many frames to the same receiver are on their way. Not more than the queue
    /// size, and nothing is lost to overload.
    Closed(u32),
}

/// A stream of frames from one port to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Index into [`Config::ports`] of the sender, which sends no other flow.
    pub from: usize,
    /// Index into [`Config::ports`] of the receiver.
    pub to: usize,
    /// How much.
    pub load: Load,
}

/// What to generate. One thread drives all ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The functions' vfio-user sockets.
    pub ports: Vec<PathBuf>,
    /// Who sends to whom.
    pub flows: Vec<Flow>,
    /// Bytes per frame without FCS: 60 to the MTU plus 14. A frame of 64 bytes on a real wire is 60 here.
    pub frame_size: u16,
    /// Entries per virtqueue.
    pub queue_size: u16,
    /// Frames per burst.
    pub burst: u16,
    /// Time before counting starts.
    pub warm_up: Duration,
    /// Time counted.
    pub duration: Duration,
}

/// What one port did while it was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PortReport {
    /// Frames given to the device.
    pub sent: u64,
    /// Frames received.
    pub received: u64,
    /// Doorbells rung.
    pub kicks: u64,
    /// Frames of closed loops given up as lost.
    pub lost: u64,
}

/// What the generator counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Each port, in the order of [`Config::ports`].
    pub ports: Vec<PortReport>,
    /// Frames received per second, all ports.
    pub frames_per_s: f64,
    /// Seconds counted.
    pub seconds: f64,
}

/// A function with its counters.
struct Port {
    net: VirtioNet,
    counted: PortReport,
    /// Frames on their way here, by closed loops.
    outstanding: u64,
    last_arrival: Instant,
}

/// A flow at work.
struct Sender {
    flow: Flow,
    begun: Instant,
    sent: u64,
}

/// Runs the generator. It does not sleep: it takes a core for as long as it runs.
pub fn run(config: &Config) -> Result<Report> {
    let mut ports =
        config.ports.iter().map(|path| Port::open(path, config)).collect::<Result<Vec<_>>>()?;
    let mut senders = start_flows(config, &mut ports)?;
    let begin = Instant::now();
    generate(config, &mut ports, &mut senders, begin + config.warm_up)?;
    let before: Vec<_> = ports.iter().map(Port::count).collect();
    let begin = Instant::now();
    generate(config, &mut ports, &mut senders, begin + config.duration)?;
    let seconds = begin.elapsed().as_secs_f64();
    let reports: Vec<_> =
        ports.iter().map(Port::count).zip(before).map(|(after, before)| after - before).collect();
    let received: u64 = reports.iter().map(|port| port.received).sum();
    Ok(Report { ports: reports, frames_per_s: received as f64 / seconds, seconds })
}

/// Writes every flow's frame into its sender's memory.
fn start_flows(config: &Config, ports: &mut [Port]) -> Result<Vec<Sender>> {
    let now = Instant::now();
    let mut senders: Vec<Sender> = Vec::new();
    for flow in &config.flows {
        let bad = |what: &str| Error::Command(format!("flow {flow:?}: {what}"));
        if senders.iter().any(|sender| sender.flow.from == flow.from) {
            return Err(bad("its sender sends another flow"));
        }
        let to = ports.get(flow.to).ok_or_else(|| bad("no such receiver"))?.net.info().mac;
        let from = ports.get_mut(flow.from).ok_or_else(|| bad("no such sender"))?;
        let mut frame = vec![0; config.frame_size.max(60).into()];
        frame[0..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&from.net.info().mac);
        // IEEE Std 802 Local Experimental Ethertype 1.
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        let (_, _, tx) = from.net.parts();
        tx.iter_mut().try_for_each(|queue| queue.prefill(&frame))?;
        senders.push(Sender { flow: *flow, begun: now, sent: 0 });
    }
    Ok(senders)
}

/// Sends and receives until `end`.
fn generate(
    config: &Config,
    ports: &mut [Port],
    senders: &mut [Sender],
    end: Instant,
) -> Result<()> {
    let (burst, len) = (usize::from(config.burst.max(1)), usize::from(config.frame_size.max(60)));
    let mut now = Instant::now();
    while now < end {
        let mut moved = 0;
        for _ in 0..ROUNDS_PER_LOOK {
            for sender in senders.iter_mut() {
                moved += sender.send(ports, burst, len, now)?;
            }
            for port in ports.iter_mut() {
                moved += port.receive(burst)?;
            }
        }
        now = Instant::now();
        if moved == 0 {
            // Whoever is to move the frames may need this very core.
            rustix::thread::sched_yield();
            give_up_lost(ports, now);
        }
    }
    Ok(())
}

fn give_up_lost(ports: &mut [Port], now: Instant) {
    for port in ports {
        if port.outstanding > 0 && now > port.last_arrival + LOST_AFTER {
            port.counted.lost += port.outstanding;
            port.outstanding = 0;
            port.last_arrival = now;
        }
    }
}

impl Sender {
    /// Sends at most a burst, as the load allows.
    fn send(
        &mut self,
        ports: &mut [Port],
        burst: usize,
        len: usize,
        now: Instant,
    ) -> Result<usize> {
        let Some(receiver) = ports.get(self.flow.to) else { return Ok(0) };
        let allowed = match self.flow.load {
            Load::Open => burst,
            Load::Rate(rate) => {
                let due = now.saturating_duration_since(self.begun).as_secs_f64() * rate as f64;
                (due as u64).saturating_sub(self.sent).min(burst as u64) as usize
            }
            Load::Closed(window) => {
                u64::from(window).saturating_sub(receiver.outstanding).min(burst as u64) as usize
            }
        };
        if allowed == 0 {
            return Ok(0);
        }
        let Some(sender) = ports.get_mut(self.flow.from) else { return Ok(0) };
        let (device, _, tx) = sender.net.parts();
        let Some(tx) = tx.first_mut() else { return Ok(0) };
        let sent = tx.resend(allowed, len)?;
        if sent == 0 {
            return Ok(0);
        }
        tx.flush(device)?;
        self.sent += sent as u64;
        sender.counted.sent += sent as u64;
        if matches!(self.flow.load, Load::Closed(_))
            && let Some(receiver) = ports.get_mut(self.flow.to)
        {
            if receiver.outstanding == 0 {
                receiver.last_arrival = now;
            }
            receiver.outstanding += sent as u64;
        }
        Ok(sent)
    }
}

impl Port {
    fn open(path: &Path, config: &Config) -> Result<Self> {
        let options = NetOptions {
            queue_size: config.queue_size,
            rx_buffer: u32::from(config.frame_size.max(60)) + 12,
            tx_slots: config.queue_size,
            ..NetOptions::default()
        };
        let arena = Arc::new(Arena::new(options.memory(u16::MAX), IOVA)?);
        let function = Function::open(path, ClientKind::Own, DmaMode::Shared, arena)?;
        let net = VirtioNet::start(function, &options)?;
        if config.frame_size > net.info().mtu.saturating_add(14) {
            return Err(Error::Command(format!(
                "frames of {} bytes do not fit an MTU of {}",
                config.frame_size,
                net.info().mtu
            )));
        }
        Ok(Self {
            net,
            counted: PortReport::default(),
            outstanding: 0,
            last_arrival: Instant::now(),
        })
    }

    /// Counts at most a burst of received frames and gives their buffers back.
    fn receive(&mut self, burst: usize) -> Result<usize> {
        let (device, rx, _) = self.net.parts();
        let Some(rx) = rx.first_mut() else { return Ok(0) };
        let received = rx.discard(burst)?;
        if received > 0 {
            rx.flush_if_many(device)?;
            self.counted.received += received as u64;
            self.outstanding = self.outstanding.saturating_sub(received as u64);
            if self.outstanding > 0 {
                self.last_arrival = Instant::now();
            }
        } else {
            // What is left over while nothing arrives.
            rx.flush(device)?;
        }
        Ok(received)
    }

    fn count(&self) -> PortReport {
        PortReport { kicks: self.net.device_ref().kicks(), ..self.counted }
    }
}

impl std::ops::Sub for PortReport {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            sent: self.sent - before.sent,
            received: self.received - before.received,
            kicks: self.kicks - before.kicks,
            lost: self.lost - before.lost,
        }
    }
}
