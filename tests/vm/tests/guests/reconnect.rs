//! The daemon ends and comes back under machines that go on: QEMU connects its queues again by
//! itself.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use manifold_vm::{Adapter, Guest, Lab, Signal, boot_all};

use crate::vhost::vhost_with;
use crate::{finish, pci_address};

const NINA: &str = "10.0.0.1";
const OSKAR: &str = "10.0.0.2";
const PIA: &str = "10.0.0.3";

/// Returns an argument of QEMU's with a socket that is connected again.
fn reconnecting(text: &str) -> String {
    let again = if text.starts_with("socket,") { ",reconnect-ms=100" } else { "" };
    format!("{text}{again}")
}

/// Returns an argument of QEMU's with a socket that is connected again, and split rings: of a
/// packed one QEMU does not know how far the device was.
fn reconnecting_split(text: &str) -> String {
    reconnecting(text).replace("packed=on", "packed=off")
}

fn wait_running(adapter: &Adapter, vf: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while adapter.vf(vf)?["driver"]["state"] != "running" {
        ensure!(Instant::now() < deadline, "{vf} does not come back: {}", adapter.vf(vf)?);
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The sums of a ping.
#[derive(Debug)]
struct Pings {
    sent: u32,
    received: u32,
    duplicates: u32,
}

fn pings(text: &str) -> Result<Pings> {
    let line = text.lines().find(|line| line.contains("packets transmitted")).context("no sum")?;
    let number = |suffix: &str| {
        line.split(", ")
            .find_map(|part| part.strip_suffix(suffix)?.trim_start_matches('+').parse().ok())
    };
    Ok(Pings {
        sent: number(" packets transmitted").context("none sent")?,
        received: number(" received").context("none received")?,
        duplicates: number(" duplicates").unwrap_or(0),
    })
}

/// Returns oskar's end of a flow of numbered datagrams, as iperf3 has it: those that came, that did
/// not, and that came late or twice.
fn datagrams(report: &str) -> Result<[u64; 3]> {
    let report: serde_json::Value = serde_json::from_str(report)?;
    let stream = &report["end"]["streams"][0]["udp"];
    let number = |name: &str| stream[name].as_u64().with_context(|| report["end"].to_string());
    Ok([number("packets")?, number("lost_packets")?, number("out_of_order")?])
}

/// Configures a guest so that an address it learned stays known, however long nobody answers.
fn configure(guest: &Guest<'_>, address: &str) -> Result<()> {
    guest.configure(&format!("{address}/24"))?;
    guest.sh("echo 600000 >/proc/sys/net/ipv4/neigh/eth0/base_reachable_time_ms")?;
    Ok(())
}

/// Restarts the daemon by `signal` under three flows, of which nina and oskar may have at most
/// `repeated` frames twice.
fn restart(name: &str, signal: Signal, repeated: u64) -> Result<()> {
    let lab = Lab::new(name)?;
    let mut adapter = lab.adapter(&["--num-vfs", "2"])?;
    let [nina, oskar] = boot_all([
        vhost_with(&adapter, lab.guest("nina"), "vf0", reconnecting_split)?,
        vhost_with(&adapter, lab.guest("oskar"), "vf1", reconnecting_split)?,
    ])?;
    configure(&nina, NINA)?;
    configure(&oskar, OSKAR)?;
    oskar.sh("iperf3 -s -D; iperf3 -s -D -p 5202")?;
    nina.ping(OSKAR, 3)?;

    let tcp = nina.start_iperf(OSKAR, "-t 8")?;
    let udp = nina.spawn(&format!("iperf3 -J -c {OSKAR} -p 5202 -u -b 8M -l 1000 -t 8"))?;
    let ping = oskar.spawn(&format!("ping -n -q -i 0.02 -w 8 {NINA}"))?;
    thread::sleep(Duration::from_secs(3));
    adapter.restart(signal)?;
    let begin = Instant::now();
    for vf in ["vf0", "vf1"] {
        wait_running(&adapter, vf)?;
    }
    println!("both are back after {:?}", begin.elapsed());
    let flow = tcp.finish()?;
    let [came, lost, again] = datagrams(&udp.success(Duration::from_secs(30))?)?;
    let pings = pings(&ping.wait(Duration::from_secs(30))?.stdout)?;
    println!("{flow:?}, {came} datagrams, {lost} lost, {again} again, {pings:?}");
    // More than half of the time was after the restart. (Linux looks at its links once a second,
    // and a busy emulator may be late.)
    ensure!(flow.mbit_per_s > 1.0 && pings.received > pings.sent / 2, "{flow:?}, {pings:?}");
    ensure!(lost < came / 4 * 3, "{lost} of {came} datagrams are lost");
    ensure!(again <= repeated && u64::from(pings.duplicates) <= repeated, "{again}, {pings:?}");
    ensure!(carrier(&nina)? && carrier(&oskar)?, "no link");

    // A second restart finds what the first one left behind.
    adapter.restart(signal)?;
    for vf in ["vf0", "vf1"] {
        wait_running(&adapter, vf)?;
    }
    nina.ping(OSKAR, 3)?;
    finish(adapter, [nina, oskar])
}

#[test]
fn after_an_orderly_restart_of_the_daemon_nothing_is_sent_twice() -> Result<()> {
    restart("reconnect_term", Signal::TERM, 0)
}

#[test]
fn after_the_daemon_was_killed_little_is_sent_twice() -> Result<()> {
    // Frames that were under way and not yet given back may be sent again.
    restart("reconnect_kill", Signal::KILL, 64)
}

#[test]
fn a_packed_ring_that_was_under_way_needs_a_new_start() -> Result<()> {
    let lab = Lab::new("reconnect_packed")?;
    let mut adapter = lab.adapter(&["--num-vfs", "2"])?;
    let [oskar, pia] = boot_all([
        vhost_with(&adapter, lab.guest("oskar"), "vf0", reconnecting_split)?,
        vhost_with(&adapter, lab.guest("pia"), "vf1", reconnecting)?,
    ])?;
    configure(&oskar, OSKAR)?;
    configure(&pia, PIA)?;
    pia.ping(OSKAR, 3)?;
    adapter.restart(Signal::TERM)?;
    wait_running(&adapter, "vf0")?;
    adapter.wait_attached("vf1", true)?;
    let _ = pia.ping(OSKAR, 1);

    // No old frame is sent for pia, and her driver has to start again.
    let driver = adapter.vf("vf1")?["driver"].clone();
    let failure = driver["failure"].as_str().unwrap_or_default();
    ensure!(driver["state"] == "needs_reset" && failure.contains("packed=off"), "{driver}");
    ensure!(adapter.vf("vf1")?["counters"]["tx_frames"] == 0, "old frames are sent");
    let address = pci_address(&pia)?;
    for file in ["unbind", "bind"] {
        pia.sh(&format!("echo {address} >/sys/bus/pci/drivers/virtio-pci/{file}"))?;
    }
    pia.configure(&format!("{PIA}/24"))?;
    pia.ping(OSKAR, 3)?;
    // Pia's kernel may have complained of a transmit queue that stood still.
    drop(pia);
    finish(adapter, [oskar])
}

fn carrier(guest: &Guest<'_>) -> Result<bool> {
    Ok(guest.sh("cat /sys/class/net/eth0/carrier")?.trim() == "1")
}
