//! These tests have four guests with a VF each: machines and VFs that go away must not disturb
//! those that stay.

use std::time::Duration;

use anyhow::{Result, ensure};
use manifold_vm::{Adapter, Builder, Guest, Lab, boot_all};

use crate::{check_lspci, finish};

const NAMES: [&str; 4] = ["anna", "ben", "carl", "dina"];

fn address(index: usize) -> String {
    format!("10.0.0.{}", index + 1)
}

/// Boots a guest with a VF, configured and with an iperf3 server, for each of the first `N` names.
fn boot<'a, const N: usize>(lab: &'a Lab, adapter: &Adapter) -> Result<[Guest<'a>; N]> {
    let guests = boot_all(std::array::from_fn(|index| builder(lab, adapter, index)))?;
    for (index, guest) in guests.iter().enumerate() {
        configure(guest, index)?;
    }
    Ok(guests)
}

fn builder<'a>(lab: &'a Lab, adapter: &Adapter, index: usize) -> Builder<'a> {
    lab.guest(NAMES[index]).vfio_user(&adapter.socket(&format!("vf{index}")))
}

fn configure(guest: &Guest<'_>, index: usize) -> Result<()> {
    check_lspci(guest)?;
    guest.configure(&format!("{}/24", address(index)))?;
    guest.iperf_server()
}

#[test]
fn four_guests_reach_one_another() -> Result<()> {
    let lab = Lab::new("four_guests")?;
    let adapter = lab.adapter(&["--num-vfs", "4"])?;
    let guests: [_; 4] = boot(&lab, &adapter)?;
    for (from, guest) in guests.iter().enumerate() {
        for to in (0..guests.len()).filter(|to| *to != from) {
            guest.ping(&address(to), 3)?;
        }
    }
    // Each guest sends to the next one at once.
    let flows = [0, 1, 2, 3].map(|from| guests[from].start_iperf(&address((from + 1) % 4), "-t 4"));
    for flow in flows {
        let flow = flow?.finish()?;
        ensure!(flow.mbit_per_s > 0.5, "a flow starves: {flow:?}");
    }
    finish(adapter, guests)
}

#[test]
fn a_killed_guest_disturbs_nobody_and_is_replaced() -> Result<()> {
    let lab = Lab::new("four_killed")?;
    let adapter = lab.adapter(&["--num-vfs", "4"])?;
    let [anna, ben, carl, mut dina] = boot(&lab, &adapter)?;
    // One machine is killed in the middle of its traffic. The others' connections see nothing of
    // it.
    let steady = [anna.start_iperf(&address(1), "-t 15")?, ben.start_iperf(&address(2), "-t 15")?];
    let doomed = dina.spawn(&format!("iperf3 -c {} -t 60", address(0)))?;
    std::thread::sleep(Duration::from_secs(4));
    ensure!(!doomed.is_finished(), "the flow that was to be cut has ended by itself");
    dina.kill()?;
    adapter.wait_attached("vf3", false)?;
    for flow in steady {
        let flow = flow.finish()?;
        ensure!(flow.worst_second > 0, "a flow stood still for a second: {flow:?}");
    }

    // A new machine takes the same VF.
    dina = builder(&lab, &adapter, 3).boot()?;
    configure(&dina, 3)?;
    dina.ping(&address(0), 3)?;
    carl.iperf(&address(3), "-t 2")?;
    finish(adapter, [anna, ben, carl, dina])
}

#[test]
fn machines_outlive_vfs_that_are_disabled_under_them() -> Result<()> {
    let lab = Lab::new("four_disabled")?;
    let adapter = lab.adapter(&["--num-vfs", "4"])?;
    let guests: [_; 2] = boot(&lab, &adapter)?;
    guests[0].ping(&address(1), 2)?;
    let gone = adapter.json(&["vf", "disable"])?;
    ensure!(gone["disabled"] == 4, "{gone}");
    ensure!(gone["detached"].as_array().is_some_and(|detached| detached.len() == 2), "{gone}");
    for guest in &guests {
        guest.sh("uptime")?;
    }
    ensure!(guests[0].ping(&address(1), 2).is_err(), "frames still move between disabled VFs");
    ensure!(adapter.json(&["vf", "list"])?["num_vfs"] == 0, "VFs are still enabled");

    // VFs that are enabled again serve new machines; a machine that held one before does not get it
    // back.
    adapter.cli(&["vf", "enable", "2"])?;
    drop(guests);
    let guests: [_; 2] = boot(&lab, &adapter)?;
    guests[0].ping(&address(1), 5)?;
    guests[0].iperf(&address(1), "-t 2")?;
    finish(adapter, guests)
}
