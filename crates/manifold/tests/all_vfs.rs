//! This test runs a guest process on each of 256 VFs at once: everyone to one, then around in a
//! ring; and what the adapter has given back when the VFs are disabled.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail so")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command as Process;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use manifold_adapter::{Adapter, Config as AdapterConfig};
use manifold_guest::agent::process::GuestProcess;
use manifold_guest::protocol::{Command, Config, Event, Incoming, Neighbour, Outgoing};
use rustix::process::{Resource, getrlimit, setrlimit};

const VFS: u16 = 256;

fn ip(n: u16) -> Ipv4Addr {
    let [high, low] = (n + 1).to_be_bytes();
    Ipv4Addr::new(10, 88, high, low)
}

struct Guests {
    guests: Vec<GuestProcess>,
    events: Receiver<(usize, Option<Event>)>,
}

impl Guests {
    fn start(folder: &Path) -> Self {
        let (sender, events) = channel();
        let guests = (0..VFS).map(|vf| {
            let config = Config::new(folder.join(format!("vf{vf}.sock")));
            let mut process = Process::new(env!("CARGO_BIN_EXE_manifold"));
            process.args(["guest", "agent"]).arg(serde_json::to_string(&config).unwrap());
            GuestProcess::spawn(process, vf.into(), sender.clone()).unwrap()
        });
        let mut guests = Guests { guests: guests.collect(), events };
        let ready = guests.collect(VFS.into(), |event| matches!(event, Event::Ready { .. }));
        let neighbours: Vec<Neighbour> = ready
            .iter()
            .filter_map(|(n, event)| match event {
                Event::Ready { mac, .. } => Some(Neighbour { address: ip(*n as u16), mac: *mac }),
                _ => None,
            })
            .collect();
        for (n, guest) in (0..).zip(&mut guests.guests) {
            let neighbours = neighbours.clone();
            guest.send(&Command::Configure { address: ip(n), prefix: 16, neighbours }).unwrap();
        }
        guests.collect(VFS.into(), |event| matches!(event, Event::Configured { .. }));
        guests
    }

    /// Waits for a number of events of one kind from any guests; any other event fails the test.
    fn collect(&self, count: usize, want: impl Fn(&Event) -> bool) -> Vec<(usize, Event)> {
        let mut found = Vec::new();
        while found.len() < count {
            match self.events.recv_timeout(Duration::from_secs(60)).expect("a guest's answer") {
                (_, Some(Event::Progress { .. })) => {}
                (n, Some(event)) if want(&event) => found.push((n, event)),
                other => panic!("guest {}: {:?}", other.0, other.1),
            }
        }
        found
    }

    /// Moves `bytes` from and to each pair given, all at once, and compares the digests of both
    /// ends.
    fn transfer(&mut self, pairs: &[(u16, u16)], bytes: u64) {
        let id = |from: u16, to: u16| u32::from(from) << 16 | u32::from(to);
        let mut receivers = 0;
        for (n, guest) in (0..).zip(&mut self.guests) {
            let to_me = pairs.iter().filter(|(_, to)| *to == n);
            let transfers: Vec<_> = to_me
                .map(|(from, to)| Incoming { id: id(*from, *to), port: 5000 + from })
                .collect();
            if !transfers.is_empty() {
                receivers += 1;
                guest.send(&Command::Receive { transfers }).unwrap();
            }
        }
        self.collect(receivers, |event| matches!(event, Event::Listening { .. }));
        for (from, to) in pairs {
            let (seed, port) = (u64::from(id(*from, *to)), 5000 + from);
            let transfer = Outgoing { id: id(*from, *to), to: ip(*to), port, bytes, seed };
            let guest = &mut self.guests[usize::from(*from)];
            guest.send(&Command::Send { transfers: vec![transfer] }).unwrap();
        }
        let ended = |event: &Event| matches!(event, Event::Sent { .. } | Event::Received { .. });
        let mut digests: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for (_, event) in self.collect(2 * pairs.len(), ended) {
            if let Event::Sent { id, digest, .. } | Event::Received { id, digest, .. } = event {
                digests.entry(id).or_default().push(digest);
            }
        }
        assert_eq!(digests.len(), pairs.len());
        assert!(digests.values().all(|both| both.len() == 2 && both[0] == both[1]));
    }
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Returns the number of mappings of guest memory in this process.
fn guest_mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("/memfd:")).count()
}

/// Returns the memory of this process's own, in KiB.
fn own_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_guest_on_each_of_256_vfs() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let mtu = 9000;
    let adapter =
        Adapter::start(AdapterConfig { mtu, ..AdapterConfig::new(folder.path()) }).unwrap();
    let (files, memory) = (open_files(), own_memory());

    adapter.enable_vfs(VFS).unwrap();
    let enabled = own_memory();
    let mut guests = Guests::start(folder.path());
    assert_eq!(adapter.functions().iter().filter(|f| f.attached.is_some()).count(), 256);
    assert_eq!(guest_mappings(), 256);
    let (attached, attached_files) = (own_memory(), open_files());

    let all_to_one: Vec<_> = (1..VFS).map(|n| (n, 0)).collect();
    guests.transfer(&all_to_one, 256 << 10);
    let ring: Vec<_> = (0..VFS).map(|n| (n, (n + 1) % VFS)).collect();
    guests.transfer(&ring, 1 << 20);
    // vf0 received all of both transfers, and no DMA faulted.
    let functions = adapter.functions();
    assert!(functions[1].counters.rx.bytes > 255 * (256 << 10) + (1 << 20));
    assert!(functions.iter().all(|function| function.dma.faults.count == 0));

    // Half of the guests still hold their VFs.
    guests.guests.truncate(128);
    let (vfs, held) = adapter.disable_vfs();
    assert_eq!(vfs, 256);
    assert!(held >= 128, "{held} were attached");
    drop(guests);
    assert_eq!(guest_mappings(), 0);
    assert_eq!(open_files(), files);
    let left = own_memory();
    println!(
        "own memory in KiB: {memory} before, {enabled} with 256 VFs enabled, {attached} attached, \
         {left} after disable; descriptors: {files}, {attached_files} attached, {files} after"
    );
    // The allocator keeps some memory, far less than what 256 VFs take.
    assert!(left < memory + (32 << 10), "{memory} KiB before, {left} KiB after");
    adapter.shutdown();
}
