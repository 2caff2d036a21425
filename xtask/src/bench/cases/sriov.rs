//! The SR-IOV devices that QEMU emulates by itself, on TAP interfaces of a Linux bridge: what one had before.

use anyhow::{Context, Result};
use manifold_guest::rawgen::config::Protocol;
use manifold_vm::{Guest, Lab, boot_all};

use super::Case;
use super::guests::{address, configure, iperf_and_ping, rounds};
use crate::bench::bed::Bed;
use crate::bench::peers::bridge::Bridge;
use crate::bench::peers::manifold::Manifold;
use crate::bench::row::Row;
use crate::bench::stats::Samples;

const PEER: &str = "QEMU virtio-net VFs, TAP, bridge";

pub(super) fn run(bed: &Bed) -> Result<Vec<Row>> {
    let lab = Lab::new("bench-sriov")?;
    let bridge = Bridge::new(&["pf0", "pf1", "vf0", "vf1"])?;
    let ours = Manifold::start(bed, 2, Protocol::VfioUser)?;
    let guest = |index: u8| {
        lab.guest(&format!("sriov{index}"))
            .netns(bridge.namespace())
            .vfio_user(&ours.adapter().socket(&format!("vf{index}")))
            .sriov_nic(
                (&format!("02:00:00:00:02:0{index}"), &format!("pf{index}")),
                (&format!("02:00:00:00:03:0{index}"), &format!("vf{index}")),
            )
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
    Ok(vec![
        Row::new(group, "two QEMU guests, iperf3 TCP, VFs", "Gbit/s", our_rates)
            .against(PEER, their_rates),
        Row::new(group, "two QEMU guests, ping, VFs: median", "us", our_pings)
            .against(PEER, their_pings),
    ])
}

/// Has the guest's kernel enable the VF of the PF that is eth1, and returns the name of its interface.
fn enable_vf(guest: &Guest<'_>) -> Result<String> {
    guest.sh("ip link set eth1 up && echo 1 >/sys/class/net/eth1/device/../sriov_numvfs")?;
    // The interface belongs to the virtio device below the VF.
    let find = "until ls -d /sys/class/net/eth1/device/../virtfn0/virtio*/net/* 2>/dev/null; do sleep 0.2; done";
    let path = guest.sh(find).context("the VF gets no interface")?;
    path.trim().rsplit('/').next().map(str::to_owned).context("the interface has no name")
}
