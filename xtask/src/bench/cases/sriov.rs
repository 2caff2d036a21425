//! This case measures the SR-IOV devices that QEMU emulates by itself, on TAP interfaces of a Linux
//! bridge: what one had before.

use anyhow::{Context, Result};
use manifold_generator::config::Protocol;
use manifold_vm::{Builder, Guest, Lab, Setup, boot_all};

use super::case::Case;
use super::guests::{address, configure, iperf_and_ping, rounds};
use crate::bench::bed::Bed;
use crate::bench::peers::bridge::Bridge;
use crate::bench::peers::manifold::Manifold;
use crate::bench::row::Row;
use crate::bench::stats::Samples;

/// A peer, with the name, the kernel that has its driver, and the device for guest `index`.
struct Peer {
    name: &'static str,
    taps: &'static [&'static str],
    generic_kernel: bool,
    attach: for<'a> fn(Builder<'a>, u8) -> Builder<'a>,
}

const PEERS: [Peer; 2] = [
    Peer {
        name: "QEMU virtio-net VFs, TAP, bridge",
        taps: &["pf0", "pf1", "vf0", "vf1"],
        generic_kernel: false,
        attach: |guest, index| {
            guest.sriov_nic(
                (&format!("02:00:00:00:02:0{index}"), &format!("pf{index}")),
                (&format!("02:00:00:00:03:0{index}"), &format!("vf{index}")),
            )
        },
    },
    Peer {
        // Debian's kernel for virtual machines lacks the driver igbvf.
        name: "QEMU igb VFs, TAP, bridge",
        taps: &["pf0", "pf1"],
        generic_kernel: true,
        attach: |guest, index| {
            guest.igb_nic(&format!("02:00:00:00:02:0{index}"), &format!("pf{index}"))
        },
    },
];

pub(super) fn run(bed: &Bed) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for peer in &PEERS {
        rows.extend(compare(bed, peer).with_context(|| peer.name)?);
    }
    Ok(rows)
}

fn compare(bed: &Bed, peer: &Peer) -> Result<[Row; 2]> {
    let setup = Setup::get()?;
    let image = if peer.generic_kernel { setup.generic_image()? } else { setup.image().clone() };
    let lab = Lab::new("bench-sriov")?;
    let bridge = Bridge::new(peer.taps)?;
    let ours = Manifold::start(bed, 2, Protocol::VfioUser)?;
    let guest = |index: u8| {
        let guest = lab
            .guest(&format!("sriov{index}"))
            .image(&image)
            .netns(bridge.namespace())
            .vfio_user(&ours.adapter().socket(&format!("vf{index}")));
        (peer.attach)(guest, index)
    };
    let guests = boot_all([guest(0), guest(1)])?;
    for (index, guest) in guests.iter().enumerate() {
        configure(guest, "eth0", 2, index)?;
        let vf = enable_vf(guest)?;
        configure(guest, &vf, 3, index)?;
    }
    let [client, server] = &guests;
    server.iperf_server()?;
    let mut samples: [[Samples; 2]; 2] = Default::default();
    for _ in 0..rounds(bed) {
        for ([rates, pings], network) in samples.iter_mut().zip([2, 3]) {
            let (rate, ping) = iperf_and_ping(bed, client, &address(network, 1))?;
            rates.push(rate);
            pings.push(ping.median());
        }
    }
    let group = Case::Sriov.name();
    let [[our_rates, our_pings], [their_rates, their_pings]] = samples;
    Ok([
        Row::new(group, "two QEMU guests, iperf3 TCP, VFs", "Gbit/s", our_rates)
            .against(peer.name, their_rates),
        Row::new(group, "two QEMU guests, ping, VFs: median", "us", our_pings)
            .against(peer.name, their_pings),
    ])
}

/// Has the guest's kernel enable the VF of the PF that is eth1, and returns the name of its
/// interface.
fn enable_vf(guest: &Guest<'_>) -> Result<String> {
    // A virtio interface belongs to a device of its own below the PCIe function.
    let script = "ip link set eth1 up
        cd -P /sys/class/net/eth1/device
        [ -e sriov_numvfs ] || cd -P ..
        echo 1 >sriov_numvfs || exit
        until ls -d virtfn0/net/* virtfn0/virtio*/net/* 2>/dev/null | grep /; do sleep 0.2; done";
    let path = guest.sh(script).context("the VF gets no interface")?;
    path.trim().rsplit('/').next().map(str::to_owned).context("the interface has no name")
}
