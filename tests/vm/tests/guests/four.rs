//! Four guests with a VF each: machines and VFs that go away must not disturb those that stay.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use manifold_vm::{Guest, Lab, boot_all};

use crate::{check_lspci, check_no_faults};

const NAMES: [&str; 4] = ["anna", "ben", "carl", "dina"];

fn address(index: usize) -> String {
    format!("10.0.0.{}", index + 1)
}

fn configure(guest: &Guest<'_>, index: usize) -> Result<()> {
    guest.configure(&format!("{}/24", address(index)))?;
    guest.iperf_server()
}

#[test]
fn four_guests() -> Result<()> {
    let lab = Lab::new("four_guests")?;
    let adapter = lab.adapter(&["--num-vfs", "4"])?;
    let builder =
        |index: usize| lab.guest(NAMES[index]).vfio_user(&adapter.socket(&format!("vf{index}")));
    let mut guests = boot_all([builder(0), builder(1), builder(2), builder(3)])?;
    for (index, guest) in guests.iter().enumerate() {
        check_lspci(guest)?;
        configure(guest, index)?;
    }
    for (from, guest) in guests.iter().enumerate() {
        for to in (0..guests.len()).filter(|to| *to != from) {
            guest.ping(&address(to), 3)?;
        }
    }

    // Everybody to the next one at once.
    let flows = [0, 1, 2, 3].map(|from| guests[from].start_iperf(&address((from + 1) % 4), "-t 4"));
    for flow in flows {
        let flow = flow?.finish()?;
        ensure!(flow.mbit_per_s > 0.5, "a flow starves: {flow:?}");
    }
    check_no_faults(&adapter)?;

    // One machine is killed in the middle of its traffic. The others' connections see nothing of it.
    let [anna, ben, carl, dina] = &mut guests;
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

    // The same VF in a new machine.
    *dina = builder(3).boot()?;
    configure(dina, 3)?;
    check_lspci(dina)?;
    dina.ping(&address(0), 3)?;
    carl.iperf(&address(3), "-t 2")?;
    check_no_faults(&adapter)?;
    for guest in [&*anna, ben, carl, dina] {
        guest.expect_quiet_kernel()?;
    }

    // VFs disabled while machines hold them: the cards are pulled out, the machines live on.
    let begin = Instant::now();
    let gone = adapter.json(&["vf", "disable"])?;
    println!("4 VFs disabled in {:?}", begin.elapsed());
    ensure!(gone["disabled"] == 4, "{gone}");
    ensure!(gone["detached"].as_array().is_some_and(|detached| detached.len() == 4), "{gone}");
    for guest in [&*anna, ben, carl, dina] {
        guest.sh("uptime")?;
    }
    ensure!(anna.ping(&address(1), 2).is_err(), "frames still move between disabled VFs");
    ensure!(adapter.json(&["vf", "list"])?["num_vfs"] == 0, "VFs are still enabled");

    // Enabled again, they serve new machines; who held one before does not come back by itself.
    adapter.cli(&["vf", "enable", "2"])?;
    drop(guests);
    let guests = boot_all([builder(0), builder(1)])?;
    for (index, guest) in guests.iter().enumerate() {
        configure(guest, index)?;
    }
    guests[0].ping(&address(1), 5)?;
    guests[0].iperf(&address(1), "-t 2")?;
    drop(guests);
    adapter.stop()
}
