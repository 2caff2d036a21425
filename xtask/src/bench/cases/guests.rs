//! This case measures ways between two QEMU guests: VFs of ours, attached by vhost-user and by
//! vfio-user, and QEMU's virtio-net on TAP interfaces of a Linux bridge. The guests are the same,
//! each has all of them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use manifold_generator::config::Protocol;
use manifold_vm::{Guest, Lab, boot_all};

use super::case::Case;
use crate::bench::bed::Bed;
use crate::bench::interrupt;
use crate::bench::peers::Switch;
use crate::bench::peers::bridge::Bridge;
use crate::bench::peers::manifold::Manifold;
use crate::bench::row::{Reach, Row};
use crate::bench::stats::Samples;

const PEER: &str = "virtio-net, TAP, bridge";
/// Time that all pings may take.
const PING_TIMEOUT: Duration = Duration::from_secs(60);

/// The results of one round over one way.
struct Sample {
    gbit_per_s: f64,
    /// Round-trip times in microseconds.
    ping: Samples,
}

pub(super) fn run(bed: &Bed) -> Result<Vec<Row>> {
    let lab = Lab::new("bench-guests")?;
    let bridge = Bridge::new(&["tap0", "tap1"])?;
    let ours = Manifold::unpinned(bed, 4, Protocol::VhostUser)?;
    let guest = |index: u8| {
        // These are the arguments that a user is told to give QEMU.
        let vhost = format!("vf{index}");
        let command = ["attach", &vhost, "--vmm", "qemu", "--protocol", "vhost-user"];
        lab.guest(&format!("bench{index}"))
            .kernel_argument("mitigations=off")
            .netns(bridge.namespace())
            .tap_nic(&tap_mac(index), &format!("tap{index}"))
            .vfio_user(&ours.adapter().socket(&format!("vf{}", index + 2)))
            .attach(&ours.adapter().json(&command)?)
    };
    let guests = boot_all([guest(0)?, guest(1)?])?;
    for (index, guest) in guests.iter().enumerate() {
        // Both VFs of a guest hear each other's ARP requests, so each is set to answer for itself.
        guest.sh("echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore")?;
        let vf = |number: usize| {
            let port = ours.ports().get(number).context("too few VFs")?;
            port.mac.map(|mac| mac.to_string()).context("a VF without address")
        };
        let tap = tap_mac(u8::try_from(index)?);
        for (network, mac) in [(1, tap), (2, vf(index)?), (3, vf(index + 2)?)] {
            configure(guest, &interface(guest, &mac)?, network, index)?;
        }
    }
    let [client, server] = &guests;
    server.iperf_server()?;
    let [mut vhost, mut vfio, mut taps] = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..rounds(bed) {
        vhost.push(measure(bed, client, &address(2, 1))?);
        taps.push(measure(bed, client, &address(1, 1))?);
        vfio.push(measure(bed, client, &address(3, 1))?);
    }
    for guest in &guests {
        guest.expect_quiet_kernel()?;
    }
    let group = Case::Guests.name();
    let rate = |samples: &[Sample]| samples.iter().map(|sample| sample.gbit_per_s).collect();
    let ping = |samples: &[Sample]| samples.iter().map(|sample| sample.ping.median()).collect();
    Ok(vec![
        Row::new(group, "two QEMU guests, iperf3 TCP, VFs", "Gbit/s", rate(&vhost))
            .against(PEER, rate(&taps))
            .reach(Reach::AtLeast(2.0)),
        Row::new(group, "two QEMU guests, ping, VFs: median", "us", ping(&vhost))
            .against(PEER, ping(&taps))
            .reach(Reach::AtMost(0.7)),
        Row::new(group, "two QEMU guests, iperf3 TCP, VFs by vfio-user", "Gbit/s", rate(&vfio))
            .against(PEER, rate(&taps)),
        Row::new(group, "two QEMU guests, ping, VFs by vfio-user: median", "us", ping(&vfio))
            .against(PEER, ping(&taps)),
    ])
}

fn tap_mac(index: u8) -> String {
    format!("02:00:00:00:01:0{index}")
}

/// Returns the guest's name for the interface with this address.
fn interface(guest: &Guest<'_>, mac: &str) -> Result<String> {
    let name = guest.sh(&format!("grep -lx {mac} /sys/class/net/*/address | cut -d/ -f5"))?;
    ensure!(!name.trim().is_empty(), "{} has no interface {mac}", guest.name());
    Ok(name.trim().to_owned())
}

/// Returns the number of rounds, fewer than of other cases, as each takes seconds.
pub(super) fn rounds(bed: &Bed) -> usize {
    if bed.pace.quick { 2 } else { 5 }
}

/// Returns the address of guest `index` on network `network`.
pub(super) fn address(network: u8, index: usize) -> String {
    format!("10.77.{network}.{}", index + 1)
}

pub(super) fn configure(guest: &Guest<'_>, device: &str, network: u8, index: usize) -> Result<()> {
    let address = address(network, index);
    guest.sh(&format!("ip addr add {address}/24 dev {device} && ip link set {device} up"))?;
    Ok(())
}

/// Runs iperf3 and ping from `client` to `address`: Gbit/s, and round trips in microseconds.
pub(super) fn iperf_and_ping(
    bed: &Bed,
    client: &Guest<'_>,
    address: &str,
) -> Result<(f64, Samples)> {
    let (seconds, pings) = if bed.pace.quick { (2, 100) } else { (5, 300) };
    interrupt::check()?;
    // The first ping waits for ARP and for the interface to come up.
    client.ping(address, 2)?;
    let script = format!("ping -n -c {pings} -i 0.01 -W 2 {address}");
    let text = client.spawn(&script)?.success(PING_TIMEOUT)?;
    let ping = ping_times(&text);
    ensure!(ping.len() * 10 > pings * 9, "more than a tenth of the pings is lost: {text}");
    let flow = client.iperf(address, &format!("-t {seconds} -O 1"))?;
    Ok((flow.mbit_per_s / 1e3, ping.into_iter().collect()))
}

fn measure(bed: &Bed, client: &Guest<'_>, address: &str) -> Result<Sample> {
    let (gbit_per_s, ping) = iperf_and_ping(bed, client, address)
        .with_context(|| format!("traffic from {} to {address}", client.name()))?;
    Ok(Sample { gbit_per_s, ping })
}

/// Returns every `time=0.321 ms` in ping's output, in microseconds.
fn ping_times(text: &str) -> Vec<f64> {
    text.lines()
        .filter_map(|line| {
            let (time, unit) = line.split_once("time=")?.1.split_once(' ')?;
            (unit.trim() == "ms").then_some(time.parse::<f64>().ok()? * 1e3)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::ping_times;

    #[test]
    fn ping_prints_milliseconds() {
        let text = "64 bytes from 10.77.1.2: icmp_seq=1 ttl=64 time=0.5 ms\n\
                    64 bytes from 10.77.1.2: icmp_seq=2 ttl=64 time=12 ms\n\
                    --- 10.77.1.2 ping statistics ---\n\
                    2 packets transmitted, 2 received, 0% packet loss, time 1002ms\n";
        assert_eq!(ping_times(text), [500.0, 12_000.0]);
        assert!(ping_times("From 10.77.1.1 Destination Host Unreachable\n").is_empty());
    }
}
