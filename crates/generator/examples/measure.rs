//! This example measures the data path with this crate's guests, on an adapter in this process.
//!
//! Run it with `cargo run --release -p manifold-generator --example measure --` and one of these:
//!
//!     frames 60 1514
//!     frames 60 --protocol vhost-user --packed
//!     tcp 4
//!     idle 64

#![allow(clippy::unwrap_used, clippy::panic)] // a tool for developers

use manifold_adapter::{Adapter, Config as AdapterConfig};
use manifold_generator::config::{Config, Flow, Frames, Load, Mac, PortConfig, Protocol, Rings};
use manifold_guest::agent;
use manifold_guest::agent::process::GuestProcess;
use manifold_guest::protocol::{
    Command, Config as GuestConfig, Event, Incoming, Neighbour, Outgoing,
};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let flag = |name: &str| arguments.iter().position(|argument| argument == name);
    let protocol = flag("--protocol").and_then(|at| arguments.get(at + 1));
    let protocol = match protocol.map(String::as_str) {
        None | Some("vfio-user") => Protocol::VfioUser,
        Some("vhost-user") => Protocol::VhostUser,
        Some(other) => panic!("{other} is neither vfio-user nor vhost-user"),
    };
    let rings = Rings { packed: flag("--packed").is_some(), ..Rings::default() };
    let numbers: Vec<u16> = arguments.iter().skip(1).filter_map(|a| a.parse().ok()).collect();
    match arguments.first().map(String::as_str) {
        // The example started this process itself, as a guest.
        Some("guest") => {
            let config: GuestConfig = serde_json::from_str(&arguments[1]).unwrap();
            agent::run_stdio(&config).unwrap();
        }
        Some("frames") => numbers.iter().for_each(|size| frames(*size, protocol, rings)),
        Some("tcp") => numbers.iter().for_each(|guests| tcp(*guests)),
        Some("idle") => numbers.iter().for_each(|guests| idle(*guests)),
        _ => eprintln!(
            "measure frames SIZE.. [--protocol vfio-user|vhost-user] [--packed] | tcp GUESTS.. | \
             idle GUESTS.."
        ),
    }
}

fn adapter(dir: &Path, vfs: u16, mtu: u16) -> Adapter {
    let adapter = Adapter::start(AdapterConfig { mtu, ..AdapterConfig::new(dir) }).unwrap();
    adapter.enable_vfs(vfs).unwrap();
    adapter
}

/// Measures frames from VF 0 to VF 1 with one generator thread.
fn frames(size: u16, protocol: Protocol, rings: Rings) {
    let dir = tempfile::tempdir().unwrap();
    let adapter = adapter(dir.path(), 2, 9000);
    for load in [Load::Closed(64), Load::Closed(192), Load::Open] {
        let ports = (0..2).map(|vf| {
            let end = if protocol == Protocol::VhostUser { ".vhost.sock" } else { ".sock" };
            let socket = dir.path().join(format!("vf{vf}{end}"));
            PortConfig { mac: mac(&adapter, vf), ..PortConfig::new(socket, protocol) }
        });
        let flow = Flow { from: 0, to: 1, queue: 0, load };
        let config = Config {
            frames: Frames::Size(size.into()),
            rings,
            warm_up_ms: 300,
            duration_ms: 2000,
            ..Config::new(ports.collect(), vec![flow])
        };
        let cpu = Cpu::now();
        let report = manifold_generator::run(&config).unwrap();
        let (user, system) = cpu.since();
        println!(
            "{size} bytes, {load:?}: {:.3} M frames/s received, {:?}, CPU user {user:.2} s system \
             {system:.2} s",
            report.frames_per_s / 1e6,
            report.ports
        );
    }
}

/// Returns a VF's MAC address, which is not told over vhost-user.
fn mac(adapter: &Adapter, vf: usize) -> Option<Mac> {
    adapter.functions().get(vf + 1).map(|function| Mac(function.mac))
}

struct Guests {
    guests: Vec<GuestProcess>,
    events: Receiver<(usize, Option<Event>)>,
}

impl Guests {
    fn start(dir: &Path, count: u16) -> Self {
        let (sender, events) = channel();
        let guests = (0..count)
            .map(|vf| {
                let config = GuestConfig::new(dir.join(format!("vf{vf}.sock")));
                let mut command = std::process::Command::new(std::env::current_exe().unwrap());
                command.arg("guest").arg(serde_json::to_string(&config).unwrap());
                GuestProcess::spawn(command, vf.into(), sender.clone()).unwrap()
            })
            .collect();
        let mut guests = Self { guests, events };
        let ready = guests.collect(count.into(), |event| matches!(event, Event::Ready { .. }));
        let mut neighbours: Vec<Neighbour> = ready
            .iter()
            .filter_map(|(n, event)| match event {
                Event::Ready { mac, .. } => Some(Neighbour { address: ip(*n as u16), mac: *mac }),
                _ => None,
            })
            .collect();
        if count <= 16 {
            neighbours.clear();
        }
        for (n, guest) in (0..).zip(&mut guests.guests) {
            let neighbours = neighbours.clone();
            guest.send(&Command::Configure { address: ip(n), prefix: 16, neighbours }).unwrap();
        }
        guests.collect(count.into(), |event| matches!(event, Event::Configured { .. }));
        guests
    }

    fn collect(&mut self, count: usize, want: impl Fn(&Event) -> bool) -> Vec<(usize, Event)> {
        let mut found = Vec::new();
        while found.len() < count {
            match self.events.recv_timeout(Duration::from_secs(60)).unwrap() {
                (_, Some(Event::Progress { .. })) => {}
                (n, Some(event)) if want(&event) => found.push((n, event)),
                other => panic!("{other:?}"),
            }
        }
        found
    }
}

fn ip(n: u16) -> Ipv4Addr {
    let [high, low] = (n + 1).to_be_bytes();
    Ipv4Addr::new(10, 77, high, low)
}

/// Measures transfers of 64 MiB between every pair at once (a ring of neighbours beyond four
/// guests).
fn tcp(count: u16) {
    let dir = tempfile::tempdir().unwrap();
    for mtu in [1500, 9000] {
        let adapter = adapter(dir.path(), count, mtu);
        let begin = Instant::now();
        let mut guests = Guests::start(dir.path(), count);
        println!("{count} guests up in {:?}", begin.elapsed());
        let peers = |n: u16| -> Vec<u16> {
            if count <= 4 {
                (0..count).filter(|m| *m != n).collect()
            } else {
                vec![(n + 1) % count]
            }
        };
        let bytes = if count <= 4 { 64 << 20 } else { (1u64 << 30) / u64::from(count) };
        for (n, guest) in (0..).zip(&mut guests.guests) {
            let targets = if count <= 4 {
                peers(n).into_iter().map(ip).collect()
            } else {
                (1..=16.min(count - 1)).map(|d| ip((n + d) % count)).collect()
            };
            guest
                .send(&Command::Ping {
                    targets,
                    count: 5,
                    interval_ms: 10,
                    timeout_ms: 3000,
                    payload: 56,
                })
                .unwrap();
        }
        let pings = usize::from(count)
            * if count <= 4 { usize::from(count) - 1 } else { 16.min(usize::from(count) - 1) };
        let pinged = guests.collect(pings, |event| matches!(event, Event::Pinged { .. }));
        for (n, event) in &pinged {
            if !matches!(event, Event::Pinged { received: 5, .. }) {
                println!("  LOST: guest {n}: {event:?}");
            }
        }
        if pinged.iter().any(|(_, event)| !matches!(event, Event::Pinged { received: 5, .. })) {
            for guest in &mut guests.guests {
                guest.send(&Command::Stats).unwrap();
            }
            let mut stats =
                guests.collect(count.into(), |event| matches!(event, Event::Stats { .. }));
            stats.sort_by_key(|(n, _)| *n);
            for (n, event) in stats {
                println!("  {n}: {event:?}");
                println!("     {:?}", adapter.functions()[n + 1].counters);
            }
        }
        for function in adapter.functions().iter().filter(|f| !f.counters.drops.is_empty()) {
            println!("  drops of {}: {:?}", function.id, function.counters.drops);
        }
        let mut rtts: Vec<f64> = pinged
            .iter()
            .filter_map(|(_, event)| match event {
                Event::Pinged { rtt_us: Some(rtt), .. } => Some(rtt.median),
                _ => None,
            })
            .collect();
        rtts.sort_by(f64::total_cmp);
        println!(
            "  {pings} pings done at {:?}, median RTT {} us",
            begin.elapsed(),
            rtts[pings / 2]
        );
        for (n, guest) in (0..).zip(&mut guests.guests) {
            let transfers = (0..count)
                .filter(|m| peers(*m).contains(&n))
                .map(|m| Incoming { id: u32::from(m) << 16 | u32::from(n), port: 5000 + m })
                .collect();
            guest.send(&Command::Receive { transfers }).unwrap();
        }
        guests.collect(count.into(), |event| matches!(event, Event::Listening { .. }));
        let transfers_begin = Instant::now();
        let cpu = Cpu::now();
        let mut transfers = 0;
        for (n, guest) in (0..).zip(&mut guests.guests) {
            let outgoing = |m: u16| Outgoing {
                id: u32::from(n) << 16 | u32::from(m),
                to: ip(m),
                port: 5000 + n,
                bytes,
                seed: u64::from(n) << 16 | u64::from(m),
            };
            let list: Vec<_> = peers(n).into_iter().map(outgoing).collect();
            transfers += list.len();
            guest.send(&Command::Send { transfers: list }).unwrap();
        }
        let mut digests: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for (_, event) in guests.collect(2 * transfers, |event| {
            matches!(event, Event::Sent { .. } | Event::Received { .. })
        }) {
            if let Event::Sent { id, digest, .. } | Event::Received { id, digest, .. } = event {
                digests.entry(id).or_default().push(digest);
            }
        }
        assert!(digests.values().all(|d| d.len() == 2 && d[0] == d[1]));
        let seconds = transfers_begin.elapsed().as_secs_f64();
        let total = bytes * transfers as u64;
        let (user, system) = cpu.since();
        println!(
            "  MTU {mtu}: {transfers} transfers, {} MiB in {seconds:.2} s: {:.2} Gbit/s; adapter \
             CPU {user:.2} + {system:.2} s",
            total >> 20,
            total as f64 * 8e-9 / seconds
        );
        for guest in &mut guests.guests {
            guest.send(&Command::Stats).unwrap();
        }
        let stats = guests.collect(count.into(), |event| matches!(event, Event::Stats { .. }));
        for (n, event) in stats.iter().take(2) {
            println!("  guest {n}: {event:?} {}", status(guests.guests[*n].id()));
        }
        for function in adapter.functions().iter().take(3) {
            println!("  {}: {:?}", function.id, function.counters);
        }
        drop(guests);
        adapter.shutdown();
    }
}

/// Measures the CPU time of guests and adapter that do nothing.
fn idle(count: u16) {
    let dir = tempfile::tempdir().unwrap();
    let _adapter = adapter(dir.path(), count, 9000);
    let begin = Instant::now();
    let guests = Guests::start(dir.path(), count);
    println!("{count} guests up in {:?}", begin.elapsed());
    std::thread::sleep(Duration::from_secs(1));
    let ticks =
        |guests: &Guests| -> u64 { guests.guests.iter().map(|guest| cpu_ticks(guest.id())).sum() };
    let (cpu, before) = (Cpu::now(), ticks(&guests));
    std::thread::sleep(Duration::from_secs(5));
    let (user, system) = cpu.since();
    println!(
        "5 s idle: guests {} ticks in all, this process with the adapter {user:.3} + {system:.3} \
         s; a guest: {}",
        ticks(&guests) - before,
        status(guests.guests[0].id())
    );
}

/// Returns the memory of a process, from its status.
fn status(pid: u32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    text.lines()
        .filter(|line| line.starts_with("Vm") || line.starts_with("Rss"))
        .filter(|line| {
            line.contains("VmRSS") || line.contains("RssAnon") || line.contains("RssShmem")
        })
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join(", ")
}

fn cpu_ticks(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<_> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields.iter().skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum()
}

/// CPU time of this process.
struct Cpu(f64, f64);

impl Cpu {
    fn now() -> Self {
        let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let fields: Vec<_> =
            text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |i: usize| {
            fields.get(i).and_then(|f: &&str| f.parse::<f64>().ok()).unwrap_or_default() / 100.0
        };
        Self(ticks(11), ticks(12))
    }

    fn since(&self) -> (f64, f64) {
        let now = Self::now();
        (now.0 - self.0, now.1 - self.1)
    }
}
