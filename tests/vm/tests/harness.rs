//! These tests check the harness itself, with QEMU's own virtio-net on both sides: what fails here
//! is not the adapter's fault.

use std::time::Duration;

use manifold_vm::{Lab, boot_all};

type Result<T> = anyhow::Result<T>;

#[test]
fn scripts_and_jobs_run_in_a_guest() -> Result<()> {
    let lab = Lab::new("harness_scripts")?;
    let alice = lab.guest("alice").boot()?;
    println!("alice up in {:?}", alice.boot_time());
    // Output and status come back as they are, however odd.
    let odd = alice.run("printf 'a\\tb\\\\\\n%s' \"$(hostname)\"; echo oops >&2\nexit 7")?;
    assert_eq!(
        (odd.status, odd.stdout.as_str(), odd.stderr.as_str()),
        (7, "a\tb\\\nalice", "oops\n")
    );
    assert_eq!(alice.sh("seq 20000")?.lines().count(), 20_000);
    // A job ends with all the processes that it started.
    let job = alice.spawn("sleep 1000; true")?;
    job.terminate()?;
    assert_eq!(job.wait(Duration::from_secs(20))?.status, 128 + 15);
    alice.sh("! pidof sleep")?;
    alice.expect_quiet_kernel()
}

#[test]
fn two_guests_with_nics_of_qemu_reach_each_other() -> Result<()> {
    let lab = Lab::new("harness")?;
    let wire = lab.sockets().join("wire");
    // The listener must be there first.
    let alice = lab.guest("alice").qemu_nic("02:00:00:00:00:01", true, &wire).boot()?;
    let bob = lab.guest("bob").qemu_nic("02:00:00:00:00:02", false, &wire).boot()?;
    for (guest, address) in [(&alice, "10.0.0.1/24"), (&bob, "10.0.0.2/24")] {
        guest.configure(address)?;
        assert!(guest.sh("ethtool -i eth0")?.contains("driver: virtio_net"));
    }
    alice.sh("ping -c 3 -i 0.2 -w 20 10.0.0.2")?;
    bob.iperf_server()?;
    alice.sh("iperf3 -c 10.0.0.2 -t 2 -J")?;
    alice.expect_quiet_kernel()?;
    bob.expect_quiet_kernel()
}

#[test]
fn a_guest_reboots_is_reset_and_killed() -> Result<()> {
    const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";
    let lab = Lab::new("harness_reboot")?;
    let mut bob = lab.guest("bob").boot()?;
    let before = bob.sh(BOOT_ID)?;
    bob.reboot()?;
    println!("bob rebooted in {:?}", bob.boot_time());
    let after = bob.sh(BOOT_ID)?;
    assert_ne!(before, after);
    bob.reset()?;
    assert_ne!(after, bob.sh(BOOT_ID)?);
    bob.expect_quiet_kernel()?;
    bob.kill()?;
    assert!(bob.run("true").is_err());
    Ok(())
}

#[test]
fn a_guest_that_cannot_boot_says_why() -> Result<()> {
    let lab = Lab::new("harness_failure")?;
    let nowhere = lab.sockets().join("nowhere.sock");
    let Err(error) = lab.guest("carol").vfio_user(&nowhere).boot() else {
        anyhow::bail!("a guest booted with a device that is not there");
    };
    let text = format!("{error:#}");
    assert!(text.contains("nowhere.sock"), "{text}");
    Ok(())
}

#[test]
fn virtual_iommu_is_in_charge() -> Result<()> {
    let lab = Lab::new("harness_viommu")?;
    let wire = lab.sockets().join("wire");
    let [guest] =
        boot_all([lab.guest("dora").viommu().qemu_nic("02:00:00:00:00:03", true, &wire)])?;
    println!("dora up in {:?}", guest.boot_time());
    let device = guest.sh("readlink -f /sys/class/net/eth0/device/..")?;
    let kind = guest.sh(&format!("cat {}/iommu_group/type", device.trim()))?;
    assert_eq!(kind.trim(), "DMA");
    Ok(())
}
