//! These tests run stock Debian kernels in QEMU machines, each with a function of the adapter.
//!
//! A test checks one behaviour and boots machines of its own, which takes a few seconds. Tests that
//! need the same machines share the function that boots them, runs the test and ends them.

use anyhow::{Context, Result, ensure};
use manifold_vm::{Adapter, Guest};

mod four;
mod libvirt;
mod pf;
mod reconnect;
mod refused;
mod sriov;
mod steering;
mod two;
mod uplink;
mod vhost;
mod viommu;

/// Returns the PCI address of the guest's first Ethernet interface, as in "0000:01:00.0".
fn pci_address(guest: &Guest<'_>) -> Result<String> {
    let path = guest.sh("readlink -f /sys/class/net/eth0/device/..")?;
    Ok(path.trim().rsplit('/').next().unwrap_or_default().to_owned())
}

/// Checks that the guest's own lspci shows a virtio network function with its own BARs, MSI-X in
/// use and function-level reset.
fn check_lspci(guest: &Guest<'_>) -> Result<()> {
    let address = pci_address(guest)?;
    let text = guest.sh(&format!("lspci -n -vvv -s {address}"))?;
    for expected in [
        "0200: 1af4:1041 (rev 01)",
        "Region 0: Memory at ",
        "Region 2: Memory at ",
        "(64-bit, prefetchable) [size=",
        "BusMaster+",
        "MSI-X: Enable+ ",
        "Express (v2) Endpoint",
        "FLReset+",
        "Kernel driver in use: virtio-pci",
        "VirtIO: CommonCfg",
    ] {
        ensure!(text.contains(expected), "no \"{expected}\" in {}:\n{text}", guest.name());
    }
    for unexpected in
        ["[disabled]", "<unassigned>", "<ignored>", "!!!", "chain broken", "Unknown", "SR-IOV"]
    {
        ensure!(!text.contains(unexpected), "\"{unexpected}\" in {}:\n{text}", guest.name());
    }
    let driver = guest.sh("ethtool -i eth0")?;
    ensure!(driver.contains("driver: virtio_net\n"), "{driver}");
    ensure!(driver.contains(&format!("bus-info: {address}\n")), "{driver}");
    Ok(())
}

/// Returns the MAC address of an interface of the guest.
fn mac(guest: &Guest<'_>, interface: &str) -> Result<String> {
    Ok(guest.sh(&format!("cat /sys/class/net/{interface}/address"))?.trim().to_owned())
}

/// Ends a test: no function has faults, no guest's kernel complains, and machines and adapter end
/// in order.
fn finish<const N: usize>(adapter: Adapter, guests: [Guest<'_>; N]) -> Result<()> {
    check_no_faults(&adapter)?;
    for guest in &guests {
        guest.expect_quiet_kernel()?;
    }
    drop(guests);
    adapter.stop()
}

/// Checks that no function has seen a DMA fault: what a correct driver in a correct machine asks
/// for is always mapped.
fn check_no_faults(adapter: &Adapter) -> Result<()> {
    let list = adapter.json(&["function", "list"])?;
    let functions = list.as_array().or_else(|| list["functions"].as_array());
    for function in functions.with_context(|| format!("no functions in {list}"))? {
        ensure!(function["dma"]["faults"] == 0, "DMA faults: {function}");
        ensure!(function["driver"]["state"] != "needs_reset", "a device needs reset: {function}");
    }
    Ok(())
}
