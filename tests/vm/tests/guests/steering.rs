//! These tests have many queue pairs and what chooses among them, with a stock driver: RSS, the
//! hashes it reports, statistics and interrupt moderation of each queue.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use manifold_testing::toeplitz::{self, KEY};
use manifold_vm::{Guest, Lab, boot_all};

use crate::finish;

const ROSA: &str = "10.0.0.1";
const SVEN: &str = "10.0.0.2";
const PAIRS: u32 = 16;
/// Number of entries of the device's indirection table.
const TABLE: u32 = 128;
/// Number of sven's calls, and the port of rosa's on which nobody listens.
const CALLS: usize = 32;
const CALLED: u16 = 7;
/// Ports of a flow of datagrams from sven.
const DATAGRAMS: (u16, u16) = (31_000, 5201);

/// Returns the hash of what sven sends rosa: over the addresses, and over the ports where there are
/// some.
fn hash(key: &[u8; 40], ports: Option<(u16, u16)>) -> u32 {
    let (from, to) = ports.unwrap_or_default();
    let [from, to] = [([10, 0, 0, 2], from), ([10, 0, 0, 1], to)].map(SocketAddr::from);
    toeplitz::hash(key, &toeplitz::input(from, to, ports.is_some()))
}

/// Returns the keys that a device may have got that was to get [`KEY`]: some kernels (Debian's
/// 6.12.107 for one) take the padding at the end of a structure for the key's first byte, and do
/// not send its last one.
fn keys() -> [[u8; 40]; 2] {
    let mut late = [0; 40];
    late[1..].copy_from_slice(&KEY[..39]);
    [KEY, late]
}

/// A received frame, as the driver gave it to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Received {
    hash: u32,
    with_ports: bool,
    queue: u32,
}

/// Returns what arrives at rosa while `script` runs in sven.
fn trace(rosa: &Guest<'_>, sven: &Guest<'_>, script: &str) -> Result<Vec<Received>> {
    const DIR: &str = "/sys/kernel/tracing";
    let event = format!("{DIR}/events/net/napi_gro_receive_entry");
    rosa.sh(&format!("echo >{DIR}/trace; echo 1 >{event}/enable"))?;
    sven.sh(script)?;
    let text = rosa.sh(&format!("echo 0 >{event}/enable; grep dev=eth0 {DIR}/trace"))?;
    let read = |line: &str| {
        let field = |name: &str| {
            line.split_whitespace().find_map(|word| word.strip_prefix(name)).context("no field")
        };
        let hash = field("hash=0x")?;
        anyhow::Ok(Received {
            hash: u32::from_str_radix(hash, 16)?,
            with_ports: field("l4_hash=")? == "1",
            // The kernel counts from one here.
            queue: field("queue_mapping=")?.parse::<u32>()?.wrapping_sub(1),
        })
    };
    text.lines().map(|line| read(line).with_context(|| line.to_owned())).collect()
}

/// Returns what the device counted on each receive queue from 0 on: "packets", "interrupts" ...
fn per_queue(guest: &Guest<'_>, counter: &str) -> Result<Vec<u64>> {
    let text = guest.sh(&format!("ethtool -S eth0 | grep 'rx.*_hw_{counter}'"))?;
    let values: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.trim().split_once(": ")).collect();
    let value = |queue| {
        // Queues that are not in use are left out.
        let value = values.get(format!("rx{queue}_hw_{counter}").as_str()).unwrap_or(&"0");
        value.parse().with_context(|| text.clone())
    };
    (0..PAIRS).map(value).collect()
}

/// Boots rosa and sven with 16 queue pairs each, runs `test` in them, and ends them.
fn rosa_and_sven(
    name: &str,
    test: impl FnOnce(&Guest<'_>, &Guest<'_>) -> Result<()>,
) -> Result<()> {
    let lab = Lab::new(name)?;
    let adapter = lab.adapter(&["--num-vfs", "2", "--queue-pairs", "16", "--workers", "2"])?;
    let [rosa, sven] = boot_all([
        lab.guest("rosa").cpus(2).memory(384).vfio_user(&adapter.socket("vf0")),
        lab.guest("sven").memory(384).vfio_user(&adapter.socket("vf1")),
    ])?;
    for (guest, address) in [(&rosa, ROSA), (&sven, SVEN)] {
        guest.configure(&format!("{address}/24"))?;
        guest.iperf_server()?;
    }
    rosa.sh("mount -t tracefs tracefs /sys/kernel/tracing")?;
    let features = adapter.vf("vf0")?["driver"]["features"].to_string();
    for feature in ["\"RSS\"", "HASH_REPORT", "VQ_NOTF_COAL", "DEVICE_STATS"] {
        ensure!(features.contains(feature), "no {feature}: {features}");
    }
    test(&rosa, &sven)?;
    finish(adapter, [rosa, sven])
}

#[test]
fn flows_go_where_key_and_table_say() -> Result<()> {
    rosa_and_sven("steering", spread)
}

#[test]
fn interrupts_are_moderated() -> Result<()> {
    rosa_and_sven("moderation", moderate)
}

/// Flows go where the driver's key and table say, and carry their hash.
fn spread(rosa: &Guest<'_>, sven: &Guest<'_>) -> Result<()> {
    let key = KEY.map(|byte| format!("{byte:02x}")).join(":");
    rosa.sh(&format!("ethtool -L eth0 combined {PAIRS}"))?;
    rosa.sh(&format!("ethtool -X eth0 hkey {key} equal {PAIRS}"))?;
    rosa.sh("ethtool -K eth0 receive-hashing on")?;
    let shown = rosa.sh("ethtool -x eth0")?;
    ensure!(shown.contains(&key), "{shown}");
    rosa.ping(SVEN, 2)?;

    // Frames without ports are spread by addresses alone.
    let seen = trace(rosa, sven, &format!("ping -c 3 -i 0.1 {ROSA}"))?;
    let echo = |key: &[u8; 40]| {
        let hash = hash(key, None);
        Received { hash, with_ports: false, queue: hash % TABLE % PAIRS }
    };
    let key = keys().into_iter().find(|key| seen.contains(&echo(key)));
    let key =
        key.with_context(|| format!("{:x?} is not in {seen:x?}", keys().map(|key| echo(&key))))?;

    // The calls go to a closed port, from any port: one frame here, one back.
    let flows: HashMap<u32, u16> =
        (0..=u16::MAX).map(|from| (hash(&key, Some((from, CALLED))), from)).collect();
    let calls = format!("for call in $(seq {CALLS}); do nc -w 1 {ROSA} {CALLED}; done; true");
    for queues in [PAIRS, 3] {
        rosa.sh(&format!("ethtool -X eth0 equal {queues}"))?;
        let before = per_queue(rosa, "packets")?;
        let seen = trace(rosa, sven, &calls)?;
        let after = per_queue(rosa, "packets")?;
        let arrived: Vec<u64> = after.iter().zip(&before).map(|(now, then)| now - then).collect();
        println!("{queues} queues: {arrived:?}");
        let mut expected = vec![0; PAIRS as usize];
        let mut ports = HashSet::new();
        for frame in seen.iter().filter(|frame| frame.with_ports) {
            let port = flows.get(&frame.hash);
            ports.insert(port.with_context(|| format!("no port gives {frame:x?}"))?);
            ensure!(frame.queue == frame.hash % TABLE % queues, "{frame:x?} of {queues} queues");
            expected[frame.queue as usize] += 1;
        }
        ensure!(ports.len() == CALLS, "{} flows: {seen:x?}", ports.len());
        for (queue, expected) in expected.iter().enumerate() {
            ensure!(arrived[queue] >= *expected, "queue {queue} of {queues}: {arrived:?}");
        }
        let used = expected.iter().filter(|frames| **frames > 0).count();
        ensure!(used > queues as usize / 2, "{used} of {queues} queues are used: {arrived:?}");
        ensure!(arrived[queues as usize..].iter().all(|frames| *frames == 0), "{arrived:?}");
    }
    // The device counts as the driver does.
    let statistics = "cat /sys/class/net/eth0/statistics/rx_packets";
    let (counted, received) = (per_queue(rosa, "packets")?, rosa.sh(statistics)?);
    ensure!(
        counted.iter().sum::<u64>() == received.trim().parse::<u64>()?,
        "{counted:?} {received}"
    );

    // The driver chooses the fields that are hashed.
    for (fields, ports) in [("sd", None), ("sdfn", Some(DATAGRAMS))] {
        rosa.sh(&format!("ethtool -N eth0 rx-flow-hash udp4 {fields}"))?;
        let script = format!("iperf3 -c {ROSA} -u -n 20K --cport {}", DATAGRAMS.0);
        let seen = trace(rosa, sven, &script)?;
        let expected = hash(&key, ports);
        let count = seen.iter().filter(|frame| frame.hash == expected).count();
        ensure!(count >= 10, "{fields}: {expected:x} is in {count} of {seen:x?}");
    }
    rosa.sh("ethtool -X eth0 default && ethtool -L eth0 combined 5")?;
    let flow = sven.iperf(ROSA, "-t 1 -P 8")?;
    ensure!(flow.mbit_per_s > 1.0, "{flow:?}");
    Ok(())
}

/// Interrupts wait where the driver asks for it, and a small ring does not make a flow wait for
/// them.
fn moderate(rosa: &Guest<'_>, sven: &Guest<'_>) -> Result<()> {
    rosa.sh("ethtool -L eth0 combined 2")?;
    for guest in [rosa, sven] {
        guest.sh("ethtool -G eth0 rx 64 tx 64")?;
    }
    // There is a frame every half millisecond or so; the last setting that is asked for stays for
    // the rest.
    let per_frame = |coalescing: &str| {
        for guest in [rosa, sven] {
            guest.sh(&format!("ethtool -C eth0 {coalescing}"))?;
        }
        let total = |counter| anyhow::Ok(per_queue(rosa, counter)?.iter().sum::<u64>());
        let before = (total("interrupts")?, total("packets")?);
        sven.iperf(ROSA, "-u -b 2M -l 125 -t 1")?;
        let (interrupts, frames) = (total("interrupts")? - before.0, total("packets")? - before.1);
        ensure!(frames > 1000, "{frames} frames");
        anyhow::Ok(interrupts as f64 / frames as f64)
    };
    let at_once = per_frame("rx-usecs 0 rx-frames 0")?;
    let plain = sven.iperf(ROSA, "-t 1")?;
    let moderated = per_frame("rx-usecs 5000 rx-frames 32")?;
    println!("interrupts a frame: {at_once:.3}, moderated {moderated:.3}");
    ensure!(moderated < at_once / 2.0, "interrupts a frame: {at_once}, moderated {moderated}");
    per_frame("rx-usecs 100 rx-frames 64")?;
    let slow = sven.iperf(ROSA, "-t 1")?;
    ensure!(
        slow.mbit_per_s > plain.mbit_per_s / 3.0,
        "moderation of a small ring: {plain:?} becomes {slow:?}"
    );
    expect_shown(rosa, "-c eth0", &["rx-usecs: 100", "rx-frames: 64"])?;
    // One queue can differ, and the driver can adapt from moment to moment.
    rosa.sh("ethtool --per-queue eth0 queue_mask 0x2 --coalesce rx-usecs 20 rx-frames 8")?;
    let both = "--per-queue eth0 queue_mask 0x3 --show-coalesce";
    expect_shown(rosa, both, &["rx-usecs: 100", "rx-usecs: 20", "rx-frames: 8"])?;
    rosa.ping(SVEN, 3)?;
    rosa.sh("ethtool -C eth0 adaptive-rx on")?;
    let flow = sven.iperf(ROSA, "-t 1 -P 2")?;
    ensure!(flow.mbit_per_s > 1.0, "{flow:?}");
    Ok(())
}

/// Checks that ethtool shows these values, however it sets them apart.
fn expect_shown(guest: &Guest<'_>, options: &str, values: &[&str]) -> Result<()> {
    let shown = guest.sh(&format!("ethtool {options}"))?.replace('\t', " ");
    for value in values {
        ensure!(shown.lines().any(|line| line.trim() == *value), "no {value}: {shown}");
    }
    Ok(())
}
