//! This crate is a traffic generator and sink for measurements: raw Ethernet frames, no network
//! stack, one thread, a few nanoseconds per frame.
//!
//! A frame is written once, and so is its descriptor: sending it again is one index (split rings)
//! or one descriptor (packed). A received frame is counted, unread, and its buffer posted again. So
//! the device limits the frames per second, whichever it is: a function of the adapter over
//! vfio-user or vhost-user, or a vhost-user backend of others. [`report::Cost`] says what the
//! generator itself took, and [`config::Protocol::Loopback`] measures it without a device.
//!
//! It is not a guest: it answers no ARP and takes no commands while it runs. Registers, control
//! queue and messages are those of `manifold-guest`; only the rings are its own.
//!
//! ```text
//!   port a ── TX ring ──►  device  ──► RX ring ── port b     flow a -> b
//!     ▲                                               │
//!     └───────── window: sent − received ◄────────────┘      closed loop
//! ```
//!
//! `manifold-generator CONFIG` takes a [`config::Config`] as JSON and prints a [`report::Report`]
//! as JSON. Two ports, 60-byte frames one way, at most 256 on their way, for two seconds:
//!
//! ```json
//! { "ports": [
//!     { "socket": "/run/manifold/vf0.vhost.sock", "protocol": "vhost-user",
//!       "mac": "02:4d:00:00:00:01" },
//!     { "socket": "/run/manifold/vf1.vhost.sock", "protocol": "vhost-user",
//!       "mac": "02:4d:00:00:00:02" } ],
//!   "flows": [ { "from": 0, "to": 1, "load": { "closed": 256 } } ],
//!   "frames": { "size": 60 },
//!   "rings": { "size": 1024, "packed": false, "memory": "pages" },
//!   "burst": 32, "warm_up_ms": 200, "duration_ms": 2000, "cpu": 1 }
//! ```
//!
//! Variations, each a key of the above:
//!
//! | what | JSON |
//! |---|---|
//! | both ways | two flows |
//! | as fast as possible, at a rate | `"load": "open"`, `"load": { "rate": 1000000 }` |
//! | IMIX | `"frames": "imix"` |
//! | large TCP frames | `"frames": { "tso": { "bytes": 65536, "mss": 1448 } }` |
//! | the same into small buffers | and `"rings": { "mergeable": true, "rx_buffer": 4096 }` |
//! | several queues | `"rings": { "pairs": 2 }`, and flows with `"queue": 0`, `"queue": 1` |
//! | round trips, polled | `"work": "ping_pong"`, two ports, no flows |
//! | round trips with pauses | `"work": { "sleeping": { "pause_us": 1000, "interrupts": true } }` |
//! | the generator's own cost | every port's `"protocol": "loopback"` |
//! | every byte checked | `"verify": true` |
//!
//! The report's `frames_per_s` counts received frames. `generator.ns_per_frame` is per frame sent
//! or received. `generator.busy` is the part of the time in which the generator had something to
//! do: where it is far from 1, the device was the limit.
#![forbid(unsafe_code)]

mod attach;
mod clock;
pub mod config;
mod frame;
mod loopback;
mod port;
pub mod report;
mod ring;
mod round_trips;
#[cfg(test)]
mod tests;
mod throughput;

use attach::{Attached, attach};
use clock::Clock;
use config::{Config, Mac, Protocol, Work};
use frame::Template;
use loopback::Loopback;
use manifold_guest::{Error, Result};
use port::{Port, Verify, memory};
use report::{Cost, Latency, PortReport, Report};
use round_trips::RoundTrips;
use rustix::process::{Resource, Rlimit};
use rustix::thread::CpuSet;
use std::rc::Rc;
use throughput::Throughput;

/// Largest number of flows; each number fits into 16 bits of a frame.
const FLOWS: usize = 4096;
/// Largest number of ports, as many as an adapter has VFs.
const PORTS: usize = 256;
/// Largest number of entries per queue.
const QUEUE: u16 = 1024;

/// Runs the generator. It takes a processor for as long as it runs, but for pauses that it was told
/// to make.
///
/// Fails where the configuration makes no sense, a device cannot be attached to, lacks a feature or
/// breaks the rules of its rings, and with [`Config::verify`] where a frame is not what was sent.
pub fn run(config: &Config) -> Result<Report> {
    check(config)?;
    raise_file_limit();
    if let Some(cpu) = config.cpu {
        pin(cpu)?;
    }
    let clock = Clock::new();
    let bytes = memory(config)?;
    let attached = (0..)
        .zip(&config.ports)
        .map(|(index, port)| attach(config, index, port, bytes))
        .collect::<Result<Vec<Attached>>>()?;
    let templates = templates(config, &attached)?;
    let arenas: Vec<_> = attached.iter().map(|port| port.arena.clone()).collect();
    let devices: Vec<_> =
        attached.iter().map(|port| (port.arena.clone(), port.layouts.clone())).collect();
    let all: Rc<[Template]> = templates.iter().map(|(_, _, template)| *template).collect();
    let mut ports = Vec::new();
    for (index, (attached, arena)) in attached.into_iter().zip(&arenas).enumerate() {
        let pair = |pair: u16| {
            let of = |(from, queue, _): &&(usize, u16, Template)| (*from, *queue) == (index, pair);
            templates.iter().find(of).map(|(_, _, template)| *template)
        };
        let mine: Vec<_> = (0..config.rings.pairs.max(1)).map(pair).collect();
        let verify =
            config.verify.then(|| Verify { frames: config.frames, templates: all.clone() });
        ports.push(Port::start(attached, arena, config, &mine, verify)?);
    }
    let (warm_up, duration) = (clock.cycles(config.warm_up_ms), clock.cycles(config.duration_ms));
    let (before, cycles, cost, latency);
    if config.work == Work::Flows {
        let mut loopback = None;
        if config.ports.iter().any(|port| port.protocol == Protocol::Loopback) {
            let packed = config.rings.packed;
            loopback = Some(Loopback::new(&config.flows, &devices, packed, config.verify)?);
        }
        let mut flows = Throughput::new(config, &clock, loopback);
        flows.wait_ready(&mut ports, clock.cycles(config.ready_ms))?;
        flows.run(&mut ports, warm_up)?;
        before = counts(&ports);
        (cycles, cost) = flows.run(&mut ports, duration)?;
        latency = None;
    } else {
        let round_trips = RoundTrips::new(config.work, &ports, &clock)?;
        round_trips.run(&mut ports, warm_up)?;
        before = counts(&ports);
        let (all, found) = round_trips.run(&mut ports, duration)?;
        (cycles, cost, latency) = (all, Cost::default(), Some(found));
    }
    let after = counts(&ports);
    let counted = after.into_iter().zip(before).map(|(after, before)| after - before).collect();
    let features = ports.first().map_or(0, Port::features);
    Ok(report(config, &clock, cycles, counted, cost, latency, features))
}

fn counts(ports: &[Port<'_>]) -> Vec<PortReport> {
    ports.iter().map(Port::count).collect()
}

fn report(
    config: &Config,
    clock: &Clock,
    cycles: u64,
    ports: Vec<PortReport>,
    generator: Cost,
    latency: Option<Latency>,
    features: u64,
) -> Report {
    let seconds = clock.ns(cycles) * 1e-9;
    let sum = |of: fn(&PortReport) -> u64| ports.iter().map(of).sum::<u64>();
    let (sent, received) = (sum(|port| port.sent), sum(|port| port.received));
    let frames_per_s = received as f64 / seconds.max(f64::MIN_POSITIVE);
    let bytes_per_frame = config.frames.mean(config.rings.size);
    Report {
        seconds,
        frames_per_s,
        ns_per_frame: if received == 0 { 0.0 } else { 1e9 / frames_per_s },
        bits_per_s: frames_per_s * bytes_per_frame * 8.0,
        bytes_per_frame,
        sent,
        received,
        missing: sent as i64 - received as i64,
        lost: sum(|port| port.lost) + latency.map_or(0, |latency| latency.lost),
        ports,
        generator,
        tsc_hz: clock.hz(),
        latency,
        features: format!("{features:#x}"),
    }
}

/// Returns every flow's sender, queue pair and template. Round trips are two flows.
fn templates(config: &Config, attached: &[Attached]) -> Result<Vec<(usize, u16, Template)>> {
    let mac = |port: usize| -> Result<Mac> {
        let port = attached.get(port).map(|port| port.device.mac);
        port.ok_or_else(|| Error::Command("a flow's port does not exist".into()))
    };
    let ends: Vec<_> = match config.work {
        Work::Flows => config.flows.iter().map(|flow| (flow.from, flow.to, flow.queue)).collect(),
        Work::PingPong | Work::Sleeping { .. } => vec![(0, 1, 0), (1, 0, 0)],
    };
    let template = |(number, (from, to, queue))| {
        let template = Template { flow: number, queue, from: mac(from)?, to: mac(to)? };
        Ok((from, queue, template))
    };
    (0..).zip(ends).map(template).collect()
}

/// Refuses what makes no sense before anything is attached to.
fn check(config: &Config) -> Result<()> {
    let refuse = |what: String| Err(Error::Command(what));
    config.frames.check()?;
    if config.ports.is_empty() || config.ports.len() > PORTS {
        return refuse(format!("{} ports; 1 to {PORTS} are possible", config.ports.len()));
    }
    if config.flows.len() > FLOWS {
        return refuse(format!("{} flows; {FLOWS} are possible", config.flows.len()));
    }
    let size = config.rings.size;
    if !size.is_power_of_two() || size > QUEUE {
        return refuse(format!("queues of {size} entries; a power of two up to {QUEUE} is wanted"));
    }
    let pairs = config.rings.pairs.max(1);
    let (ports, round_trips) = (config.ports.len(), config.work != Work::Flows);
    if round_trips && (ports != 2 || !config.flows.is_empty()) {
        return refuse("round trips take two ports and no flows".into());
    }
    if !round_trips && config.flows.is_empty() {
        return refuse("there are no flows".into());
    }
    let loops = config.ports.iter().filter(|port| port.protocol == Protocol::Loopback).count();
    if loops > 0 && (loops < ports || round_trips) {
        return refuse("loopback is for flows, and for all ports or none".into());
    }
    for (n, flow) in config.flows.iter().enumerate() {
        let others = config.flows.get(..n).unwrap_or_default();
        if flow.from >= ports || flow.to >= ports || flow.queue >= pairs {
            return refuse(format!("flow {flow:?}: no such port or queue"));
        }
        if others.iter().any(|other| (other.from, other.queue) == (flow.from, flow.queue)) {
            return refuse(format!("flow {flow:?}: its queue sends another flow"));
        }
    }
    Ok(())
}

/// Raises the limit of open files, because hundreds of ports take more descriptors than processes
/// have by default.
fn raise_file_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // If this is refused, the call that needs more will say so.
    let _ = rustix::process::setrlimit(Resource::Nofile, all);
}

fn pin(cpu: usize) -> Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(Error::Command(format!("there is no processor {cpu}")));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set)
        .map_err(|e| Error::io("keeping to one processor", e))
}
