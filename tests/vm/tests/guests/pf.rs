//! These tests give the PF to a guest of its own: a plain NIC, whose guest neither sees nor
//! controls the VFs.

use anyhow::{Result, ensure};
use manifold_vm::{Adapter, Guest, Lab};

use crate::{check_lspci, finish, mac, pci_address};

/// Boots a guest with the function, ready to be pinged.
fn boot<'a>(lab: &'a Lab, adapter: &Adapter, name: &str, function: &str) -> Result<Guest<'a>> {
    let guest = lab.guest(name).vfio_user(&adapter.socket(function)).boot()?;
    check_lspci(&guest)?;
    guest.configure(if function == "pf" { "10.0.0.1/24" } else { "10.0.0.2/24" })?;
    guest.iperf_server()?;
    Ok(guest)
}

#[test]
fn pf_talks_to_a_vf() -> Result<()> {
    let lab = Lab::new("pf")?;
    let adapter = lab.adapter(&["--num-vfs", "1"])?;
    let gina = boot(&lab, &adapter, "gina", "pf")?;
    let hugo = boot(&lab, &adapter, "hugo", "vf0")?;
    ensure!(mac(&gina, "eth0")? != mac(&hugo, "eth0")?, "PF and VF share a MAC");
    let files = gina.sh(&format!("ls /sys/bus/pci/devices/{}", pci_address(&gina)?))?;
    ensure!(!files.contains("sriov_numvfs"), "the PF's guest could enable VFs");

    gina.ping("10.0.0.2", 5)?;
    hugo.ping("10.0.0.1", 5)?;
    gina.iperf("10.0.0.2", "-t 3")?;
    gina.iperf("10.0.0.2", "-t 3 -R")?;
    finish(adapter, [gina, hugo])
}

#[test]
fn vfs_come_and_go_without_the_pfs_guest() -> Result<()> {
    let lab = Lab::new("pf_vfs")?;
    let adapter = lab.adapter(&["--num-vfs", "1"])?;
    let gina = boot(&lab, &adapter, "gina", "pf")?;
    adapter.cli(&["vf", "disable"])?;
    adapter.cli(&["vf", "enable", "2"])?;
    // The new VF is plugged into a machine that runs.
    let ida = lab.guest("ida").spare_port().boot()?;
    ida.plug(&adapter.socket("vf1"))?;
    check_lspci(&ida)?;
    ida.configure("10.0.0.3/24")?;
    ida.iperf_server()?;
    ida.ping("10.0.0.1", 5)?;
    gina.ping("10.0.0.3", 5)?;
    gina.iperf("10.0.0.3", "-t 1")?;
    finish(adapter, [gina, ida])
}
