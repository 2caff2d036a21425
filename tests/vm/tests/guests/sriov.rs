//! One machine has a whole adapter: QEMU's composable SR-IOV in front of the adapter's functions,
//! enabled by the machine's own kernel.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use manifold_vm::{Guest, Lab};

/// Number of VFs that QEMU takes at most: with ARI a device has 256 functions, and one of them is
/// the PF.
const MOST_VFS: u16 = 255;

/// Path of the PF's folder in the guest's sysfs.
const PF: &str = "/sys/class/net/eth0/device/..";

/// Interfaces of the guest that virtio_net drives.
fn interfaces(guest: &Guest<'_>) -> Result<usize> {
    let list = guest.sh("ls -d /sys/class/net/*/device | wc -l")?;
    list.trim().parse().with_context(|| list)
}

fn set_vfs(guest: &Guest<'_>, count: u16) -> Result<()> {
    let job = guest.spawn(&format!("echo {count} >{PF}/sriov_numvfs"))?;
    let ended = job.wait(Duration::from_secs(450))?;
    ensure!(ended.status == 0, "sriov_numvfs {count}: {ended:?}");
    Ok(())
}

/// Returns what a VF's interface is called, by the routing ID that the PF's folder links to.
fn interface(guest: &Guest<'_>, vf: u16) -> Result<String> {
    Ok(guest.sh(&format!("ls {PF}/virtfn{vf}/virtio*/net"))?.trim().to_owned())
}

#[test]
fn four_vfs_of_a_guests_own() -> Result<()> {
    let lab = Lab::new("sriov")?;
    let adapter = lab.adapter(&["--num-vfs", "4"])?;
    let recipe = adapter.json(&["attach", "--sriov", "4", "--vmm", "qemu"])?;
    let guest = lab.guest("sri").attach(&recipe)?.boot()?;
    ensure!(interfaces(&guest)? == 1, "VFs before they are enabled");
    ensure!(guest.sh(&format!("cat {PF}/sriov_totalvfs"))?.trim() == "4", "TotalVFs");
    guest.configure("10.0.0.100/24")?;

    // This is done twice, as everything must be given back in between.
    for _ in 0..2 {
        set_vfs(&guest, 4)?;
        ensure!(interfaces(&guest)? == 5, "not an interface for each VF");
        for vf in 0..4 {
            let name = interface(&guest, vf)?;
            let mac = guest.sh(&format!("cat /sys/class/net/{name}/address"))?;
            ensure!(mac.trim() == adapter.vf(&format!("vf{vf}"))?["mac"], "vf{vf}: {mac}");
            // Each interface gets a network of its own, or the guest's kernel would deliver frames
            // itself.
            guest.sh(&format!(
                "ip netns add n{vf} && ip link set {name} netns n{vf} && \
                 ip -n n{vf} addr add 10.0.0.{}/24 dev {name} && ip -n n{vf} link set {name} up",
                vf + 1
            ))?;
            let state =
                guest.sh(&format!("ip netns exec n{vf} cat /sys/class/net/{name}/carrier"))?;
            ensure!(state.trim() == "1", "{name} has no link");
        }
        for (from, to) in [("n0", "10.0.0.2"), ("n3", "10.0.0.1"), ("n2", "10.0.0.100")] {
            guest.sh(&format!("ip netns exec {from} ping -n -q -c 3 -i 0.1 -W 5 {to}"))?;
        }
        guest.ping("10.0.0.4", 3)?;
        ensure!(adapter.vf("vf1")?["counters"]["rx_frames"].as_u64() > Some(0), "not through us");
        for vf in 0..4 {
            guest.sh(&format!("ip netns del n{vf}"))?;
        }
        // A namespace that ends gives its interface back, a little later.
        guest.sh("while [ $(ls -d /sys/class/net/*/device | wc -l) != 5 ]; do sleep 0.1; done")?;
        set_vfs(&guest, 0)?;
        ensure!(interfaces(&guest)? == 1, "VFs after they were disabled");
    }
    crate::check_no_faults(&adapter)?;
    guest.expect_quiet_kernel()?;
    drop(guest);
    adapter.stop()
}

#[test]
fn as_many_vfs_as_qemu_takes() -> Result<()> {
    let lab = Lab::new("sriov_most")?;
    let count = MOST_VFS.to_string();
    let adapter = lab.adapter(&["--num-vfs", &count, "--queue-pairs", "1"])?;
    let recipe = adapter.json(&["attach", "--sriov", &count, "--vmm", "qemu"])?;
    // Each function takes three interrupt vectors, of some 200 that Linux has on a processor.
    let guest = lab.guest("many").memory(1024).cpus(5).attach(&recipe)?.boot()?;
    println!("{MOST_VFS} VFs: up in {:?}", guest.boot_time());
    ensure!(guest.sh(&format!("cat {PF}/sriov_totalvfs"))?.trim() == count, "TotalVFs");
    guest.configure("10.0.0.1/24")?;
    let begin = std::time::Instant::now();
    set_vfs(&guest, MOST_VFS)?;
    println!("enabled in {:?}", begin.elapsed());
    ensure!(interfaces(&guest)? == usize::from(MOST_VFS) + 1, "not an interface for each VF");
    for vf in [0, MOST_VFS / 2, MOST_VFS - 1] {
        let name = interface(&guest, vf)?;
        guest.sh(&format!(
            "ip netns add n{vf} && ip link set {name} netns n{vf} && \
             ip -n n{vf} addr add 10.0.0.2/24 dev {name} && ip -n n{vf} link set {name} up"
        ))?;
        guest.sh("ip neigh flush dev eth0")?;
        guest.ping("10.0.0.2", 3)?;
        guest.sh(&format!("ip -n n{vf} link set {name} down"))?;
    }
    let fds = std::fs::read_dir(format!("/proc/{}/fd", guest.pid()))?.count();
    println!("{fds} file descriptors in QEMU");
    crate::check_no_faults(&adapter)?;
    drop(guest);
    adapter.stop()
}
