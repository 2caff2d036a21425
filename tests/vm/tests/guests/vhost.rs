//! These tests use guests whose VMM brings its own virtio-net device and leaves the queues to the
//! adapter (vhost-user).

use anyhow::{Result, ensure};
use manifold_vm::{Adapter, Builder, Guest, Lab, boot_all};

use crate::{finish, mac};

/// Adds the arguments that `manifold attach` prints for a function over vhost-user.
fn vhost<'a>(adapter: &Adapter, guest: Builder<'a>, function: &str) -> Result<Builder<'a>> {
    vhost_with(adapter, guest, function, str::to_owned)
}

/// Adds the arguments for a function over vhost-user, each as `edit` changes it.
pub(crate) fn vhost_with<'a>(
    adapter: &Adapter,
    guest: Builder<'a>,
    function: &str,
    edit: impl Fn(&str) -> String,
) -> Result<Builder<'a>> {
    let command = ["attach", function, "--vmm", "qemu", "--protocol", "vhost-user"];
    let mut recipe = adapter.json(&command)?;
    for word in recipe["arguments"].as_array_mut().into_iter().flatten() {
        if let Some(text) = word.as_str() {
            *word = edit(text).into();
        }
    }
    guest.attach(&recipe)
}

/// Returns an argument of QEMU's with split rings in place of packed ones.
fn split(text: &str) -> String {
    text.replace("packed=on", "packed=off")
}

/// Checks that the guest drives the function, over packed rings or split ones.
fn check_driver(guest: &Guest<'_>, adapter: &Adapter, vf: &str, packed: bool) -> Result<()> {
    let info = adapter.vf(vf)?;
    let features = info["driver"]["features"].to_string();
    ensure!(features.contains("RING_PACKED") == packed, "packed={packed}: {features}");
    for feature in ["VERSION_1", "EVENT_IDX", "INDIRECT_DESC", "MRG_RXBUF", "HOST_TSO4"] {
        ensure!(features.contains(feature), "no {feature}: {features}");
    }
    ensure!(info["attached"]["protocol"] == "vhost-user", "{info}");
    ensure!(info["driver"]["state"] == "running", "{info}");
    ensure!(mac(guest, "eth0")? == info["mac"], "{} has another MAC than {vf}", guest.name());
    let driver = guest.sh("ethtool -i eth0")?;
    ensure!(driver.contains("driver: virtio_net\n"), "{driver}");
    Ok(())
}

/// Boots vera with packed rings and walt with split ones, both over vhost-user.
fn vera_and_walt<'a>(lab: &'a Lab, adapter: &Adapter) -> Result<[Guest<'a>; 2]> {
    let guests = boot_all([
        vhost(adapter, lab.guest("vera"), "vf0")?,
        vhost_with(adapter, lab.guest("walt"), "vf1", split)?,
    ])?;
    for (guest, address) in guests.iter().zip(["10.0.0.1/24", "10.0.0.2/24"]) {
        guest.configure(address)?;
        guest.iperf_server()?;
    }
    Ok(guests)
}

#[test]
fn guests_over_vhost_user_and_vfio_user_reach_one_another() -> Result<()> {
    let lab = Lab::new("vhost")?;
    let adapter = lab.adapter(&["--num-vfs", "3"])?;
    let [vera, walt] = vera_and_walt(&lab, &adapter)?;
    let xena = lab.guest("xena").vfio_user(&adapter.socket("vf2")).boot()?;
    xena.configure("10.0.0.3/24")?;
    check_driver(&vera, &adapter, "vf0", true)?;
    check_driver(&walt, &adapter, "vf1", false)?;
    let features = adapter.vf("vf2")?["driver"]["features"].to_string();
    ensure!(features.contains("RING_PACKED"), "split rings over vfio-user: {features}");

    vera.ping("10.0.0.2", 5)?;
    vera.ping("10.0.0.3", 5)?;
    xena.ping("10.0.0.2", 5)?;
    for options in ["-t 3", "-t 3 -R", "-t 2 -u -b 5M -l 1400"] {
        let flow = vera.iperf("10.0.0.2", options)?;
        ensure!(flow.mbit_per_s > 1.0, "{options}: {flow:?}");
    }
    let flow = xena.iperf("10.0.0.1", "-t 2")?;
    ensure!(flow.mbit_per_s > 1.0, "{flow:?}");
    drop(vera);
    adapter.wait_attached("vf0", false)?;
    finish(adapter, [walt, xena])
}

#[test]
fn more_and_fewer_queue_pairs_over_vhost_user() -> Result<()> {
    let lab = Lab::new("vhost_queues")?;
    let adapter = lab.adapter(&["--num-vfs", "2"])?;
    let [vera, walt] = vera_and_walt(&lab, &adapter)?;
    for pairs in [4, 1] {
        for guest in [&vera, &walt] {
            guest.sh(&format!("ethtool -L eth0 combined {pairs}"))?;
        }
        vera.ping("10.0.0.2", 3)?;
        vera.iperf("10.0.0.2", "-t 1 -P 4")?;
    }
    finish(adapter, [vera, walt])
}

#[test]
fn a_function_in_use_is_refused_over_the_other_protocol() -> Result<()> {
    let lab = Lab::new("vhost_in_use")?;
    let adapter = lab.adapter(&["--num-vfs", "2"])?;
    let guests = vera_and_walt(&lab, &adapter)?;
    // This is over vfio-user, because over vhost-user there is no way to tell the reason, and QEMU
    // tries for ever.
    let Err(error) = lab.guest("zoe").vfio_user(&adapter.socket("vf0")).boot() else {
        anyhow::bail!("two machines share a VF");
    };
    let text = format!("{error:#}");
    ensure!(text.contains("in use") || text.contains("busy"), "no reason given: {text}");
    adapter.wait_attached("vf0", true)?;
    guests[0].ping("10.0.0.2", 2)?;
    finish(adapter, guests)
}

#[test]
fn a_killed_guest_over_vhost_user_is_replaced_and_reboots() -> Result<()> {
    let lab = Lab::new("vhost_replaced")?;
    let adapter = lab.adapter(&["--num-vfs", "2"])?;
    let [vera, mut walt] = vera_and_walt(&lab, &adapter)?;
    walt.kill()?;
    adapter.wait_attached("vf1", false)?;
    // The other machine has packed rings.
    let mut walt = vhost(&adapter, lab.guest("walt"), "vf1")?.boot()?;
    walt.configure("10.0.0.2/24")?;
    walt.ping("10.0.0.1", 5)?;
    // The guest starts again in the same QEMU.
    walt.reboot()?;
    walt.configure("10.0.0.2/24")?;
    walt.ping("10.0.0.1", 5)?;
    check_driver(&walt, &adapter, "vf1", true)?;
    finish(adapter, [vera, walt])
}
