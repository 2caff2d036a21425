//! These tests check that what cannot work says so, to the people who can change it.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use manifold_vm::Lab;

#[test]
fn a_second_vmm() -> Result<()> {
    let lab = Lab::new("refused_second")?;
    let adapter = lab.adapter(&["--num-vfs", "1"])?;
    let socket = adapter.socket("vf0");
    let nora = lab.guest("nora").vfio_user(&socket).boot()?;
    // A function has one VMM: the other one's QEMU ends with a reason.
    let Err(error) = lab.guest("otto").vfio_user(&socket).boot() else {
        anyhow::bail!("two machines share a VF");
    };
    let text = format!("{error:#}");
    ensure!(text.contains("in use") || text.contains("busy"), "no reason given: {text}");
    adapter.wait_attached("vf0", true)?;
    crate::finish(adapter, [nora])
}

#[test]
fn private_memory() -> Result<()> {
    let lab = Lab::new("refused_memory")?;
    let adapter = lab.adapter(&["--num-vfs", "1"])?;
    let socket = adapter.socket("vf0");
    let nora = lab.guest("nora").private_memory().without_drivers().vfio_user(&socket).boot()?;

    // Rings in memory that QEMU does not share cannot be served; the VF's state says what to do.
    // The guest's driver waits for an answer that does not come, and no longer than the machine
    // runs.
    let driver =
        nora.spawn("for module in $(cat /modules/order); do insmod /modules/$module; done")?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while adapter.vf("vf0")?["dma"]["faults"] == 0 {
        ensure!(Instant::now() < deadline, "no DMA fault: {}", adapter.vf("vf0")?);
        thread::sleep(Duration::from_millis(200));
    }
    let vf = adapter.vf("vf0")?;
    ensure!(vf["driver"]["state"] == "needs_reset", "{vf}");
    let failure = vf["driver"]["failure"].as_str().unwrap_or_default();
    ensure!(failure.starts_with("queue "), "no reason for a reset: {vf}");
    let shown = adapter.cli(&["vf", "show", "vf0"])?;
    ensure!(shown.contains(failure), "{failure} is not in {shown}");
    ensure!(adapter.cli(&["vf", "show", "vf0"])?.contains("share=on"), "{vf}");
    ensure!(!driver.is_finished(), "the driver works without its memory");
    drop(nora);
    adapter.wait_attached("vf0", false)?;
    adapter.stop()
}
