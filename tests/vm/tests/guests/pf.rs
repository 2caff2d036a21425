//! The PF in a guest of its own: a plain NIC, whose guest neither sees nor controls the VFs.

use anyhow::{Result, ensure};
use manifold_vm::{Lab, boot_all};

use crate::{check_lspci, check_no_faults, mac, pci_address};

#[test]
fn pf_talks_to_a_vf() -> Result<()> {
    let lab = Lab::new("pf")?;
    let adapter = lab.adapter(&["--num-vfs", "1"])?;
    let [gina, hugo] = boot_all([
        lab.guest("gina").vfio_user(&adapter.socket("pf")),
        lab.guest("hugo").vfio_user(&adapter.socket("vf0")),
    ])?;
    for (guest, address) in [(&gina, "10.0.0.1/24"), (&hugo, "10.0.0.2/24")] {
        check_lspci(guest)?;
        guest.configure(address)?;
        guest.iperf_server()?;
    }
    ensure!(mac(&gina, "eth0")? != mac(&hugo, "eth0")?, "PF and VF share a MAC");
    let files = gina.sh(&format!("ls /sys/bus/pci/devices/{}", pci_address(&gina)?))?;
    ensure!(!files.contains("sriov_numvfs"), "the PF's guest could enable VFs");

    gina.ping("10.0.0.2", 5)?;
    hugo.ping("10.0.0.1", 5)?;
    gina.iperf("10.0.0.2", "-t 3")?;
    gina.iperf("10.0.0.2", "-t 3 -R")?;

    // The VFs come and go without the PF's guest.
    adapter.cli(&["vf", "disable"])?;
    drop(hugo);
    adapter.cli(&["vf", "enable", "2"])?;
    // Plugged into a machine that runs.
    let ida = lab.guest("ida").spare_port().boot()?;
    ida.plug(&adapter.socket("vf1"))?;
    check_lspci(&ida)?;
    ida.configure("10.0.0.3/24")?;
    ida.iperf_server()?;
    ida.ping("10.0.0.1", 5)?;
    gina.ping("10.0.0.3", 5)?;
    gina.iperf("10.0.0.3", "-t 1")?;
    check_no_faults(&adapter)?;
    gina.expect_quiet_kernel()?;
    ida.expect_quiet_kernel()?;
    drop((gina, ida));
    adapter.stop()
}
