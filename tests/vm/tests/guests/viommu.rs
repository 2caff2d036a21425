//! These tests have a guest that keeps an IOMMU of its own between the VF and its memory: every
//! buffer is mapped for one transfer.

use anyhow::{Result, ensure};
use manifold_vm::{Adapter, Guest, Lab, boot_all};

use crate::{check_lspci, finish, pci_address};

/// Boots erin, whose VF is behind an IOMMU, and fred without one, runs `test` in them, and ends
/// them.
fn erin_and_fred(
    name: &str,
    test: impl FnOnce(&Adapter, &mut Guest<'_>) -> Result<()>,
) -> Result<()> {
    let lab = Lab::new(name)?;
    let adapter = lab.adapter(&["--num-vfs", "2"])?;
    let [mut erin, fred] = boot_all([
        lab.guest("erin").viommu().vfio_user(&adapter.socket("vf0")),
        lab.guest("fred").vfio_user(&adapter.socket("vf1")),
    ])?;
    println!("up in {:?} with an IOMMU, in {:?} without", erin.boot_time(), fred.boot_time());
    for (guest, address) in [(&erin, "10.0.0.1/24"), (&fred, "10.0.0.2/24")] {
        check_lspci(guest)?;
        guest.configure(address)?;
        guest.iperf_server()?;
    }
    test(&adapter, &mut erin)?;
    finish(adapter, [erin, fred])
}

#[test]
fn a_strict_virtual_iommu_maps_each_buffer_for_one_transfer() -> Result<()> {
    erin_and_fred("viommu", |adapter, erin| {
        let address = pci_address(erin)?;
        let domain = erin.sh(&format!("cat /sys/bus/pci/devices/{address}/iommu_group/type"))?;
        ensure!(domain.trim() == "DMA", "erin's VF is not translated strictly: {domain}");

        erin.ping("10.0.0.2", 10)?;
        for options in ["-t 4", "-t 4 -R", "-t 3 -u -b 2M -l 1400"] {
            let flow = erin.iperf("10.0.0.2", options)?;
            ensure!(flow.mbit_per_s > 0.5, "{options}: {flow:?}");
        }
        // Mappings are made and gone with the transfers; none may be left that a plain guest's
        // memory would explain.
        let dma = adapter.vf("vf0")?["dma"].clone();
        println!("erin's DMA domain: {} mappings, {} bytes", dma["mappings"], dma["bytes"]);
        ensure!(
            dma["bytes"].as_u64().is_some_and(|bytes| bytes < 64 << 20),
            "erin's memory is mapped whole: {dma}"
        );
        Ok(())
    })
}

#[test]
fn a_guest_with_a_virtual_iommu_reboots() -> Result<()> {
    erin_and_fred("viommu_reboot", |_, erin| {
        erin.ping("10.0.0.2", 3)?;
        erin.reboot()?;
        erin.configure("10.0.0.1/24")?;
        erin.ping("10.0.0.2", 3)
    })
}
