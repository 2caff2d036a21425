//! These tests do with two guests and a VF each everything that an unmodified driver does with a
//! NIC.

use anyhow::{Result, ensure};
use manifold_vm::{Adapter, Guest, Lab, boot_all};

use crate::{check_lspci, finish, mac, pci_address};

const ALICE: &str = "10.0.0.1";
const BOB: &str = "10.0.0.2";

/// Boots alice and bob with a VF each, runs `test` in them, and ends them.
fn alice_and_bob(
    name: &str,
    test: impl FnOnce(&Adapter, &mut Guest<'_>, &Guest<'_>) -> Result<()>,
) -> Result<()> {
    let lab = Lab::new(name)?;
    let adapter = lab.adapter(&["--num-vfs", "2", "--mtu", "9000"])?;
    let [mut alice, bob] = boot_all([
        lab.guest("alice").vfio_user(&adapter.socket("vf0")),
        lab.guest("bob").vfio_user(&adapter.socket("vf1")),
    ])?;
    println!("up in {:?} and {:?}", alice.boot_time(), bob.boot_time());
    for guest in [&alice, &bob] {
        // The driver begins with the adapter's largest MTU.
        guest.sh("ip link set eth0 mtu 1500")?;
        guest.iperf_server()?;
    }
    addresses(&alice, &bob)?;
    test(&adapter, &mut alice, &bob)?;
    finish(adapter, [alice, bob])
}

#[test]
fn a_driver_finds_its_function_and_reaches_the_other() -> Result<()> {
    alice_and_bob("two_ping", |adapter, alice, bob| {
        for (guest, vf) in [(&*alice, "vf0"), (bob, "vf1")] {
            check_lspci(guest)?;
            let name = guest.name();
            ensure!(mac(guest, "eth0")? == adapter.vf(vf)?["mac"], "{name} has another MAC");
        }
        alice.ping(BOB, 10)?;
        bob.ping(ALICE, 10)
    })
}

#[test]
fn a_guest_restarts_and_is_reset() -> Result<()> {
    alice_and_bob("two_restart", |adapter, alice, bob| {
        // The guest's kernel restarts the machine, then the machine is reset with no warning to it.
        alice.reboot()?;
        addresses(alice, bob)?;
        alice.ping(BOB, 3)?;
        alice.reset()?;
        addresses(alice, bob)?;
        check_lspci(alice)?;
        alice.ping(BOB, 3)?;
        alice.iperf(BOB, "-t 2")?;
        alice.kill()?;
        adapter.wait_attached("vf0", false)
    })
}

fn addresses(alice: &Guest<'_>, bob: &Guest<'_>) -> Result<()> {
    alice.configure(&format!("{ALICE}/24"))?;
    bob.configure(&format!("{BOB}/24"))
}

/// Sends TCP both ways and at once, and UDP at a rate that must get through.
#[test]
fn tcp_and_udp() -> Result<()> {
    alice_and_bob("two_flows", |_, alice, _| {
        for options in ["-t 3", "-t 3 -R", "-t 3 --bidir"] {
            let flow = alice.iperf(BOB, options)?;
            ensure!(flow.mbit_per_s > 1.0, "TCP {options} hardly moves: {flow:?}");
        }
        for options in
            ["-t 3 -u -b 5M -l 1400", "-t 3 -u -b 5M -l 1400 -R", "-t 2 -u -b 500K -l 16"]
        {
            let flow = alice.iperf(BOB, options)?;
            // An emulated receiver on a busy machine may overrun its own socket.
            ensure!(flow.lost_percent < 5.0, "UDP {options} loses datagrams: {flow:?}");
        }
        Ok(())
    })
}

/// Frames of 9000 bytes, whole; a byte more is refused by the guest itself.
#[test]
fn jumbo_frames() -> Result<()> {
    alice_and_bob("two_jumbo", |_, alice, bob| {
        for guest in [&*alice, bob] {
            guest.sh("ip link set eth0 mtu 9000")?;
            ensure!(
                guest.run("ip link set eth0 mtu 9001")?.status != 0,
                "an MTU above the adapter's is taken"
            );
        }
        alice.ping_with(BOB, 5, "-M do -s 8972")?;
        bob.ping_with(ALICE, 5, "-M do -s 8972")?;
        alice.iperf(BOB, "-t 2")?;
        // Only the receiver is changed: it takes more than it sends.
        bob.sh("ip link set eth0 mtu 1500")?;
        alice.iperf(BOB, "-t 2")?;
        alice.sh("ip link set eth0 mtu 1500")?;
        Ok(())
    })
}

/// Tries each combination of who cuts segments and who sums: one side may not know the other's.
#[test]
fn offloads_of_either_side() -> Result<()> {
    alice_and_bob("two_offloads", |_, alice, bob| {
        for (ours, theirs) in [
            ("tx off tso off gso off", "gro off"),
            ("tx on tso off gso off", "gro off"),
            ("tx on tso on gso on", "rx off gro off lro off"),
            ("tx on tso on gso on", "rx on gro on"),
        ] {
            // Features the driver cannot switch are left as they are.
            alice.run(&format!("ethtool -K eth0 {ours}"))?;
            bob.run(&format!("ethtool -K eth0 {theirs}"))?;
            let flow = alice.iperf(BOB, "-t 1")?;
            ensure!(flow.mbit_per_s > 1.0, "{ours} / {theirs}: {flow:?}");
        }
        // Fragments of one big datagram need every one of them.
        alice.ping_with(BOB, 3, "-s 20000")
    })
}

/// Takes more queue pairs than one, and goes back to one.
#[test]
fn more_and_fewer_queue_pairs() -> Result<()> {
    alice_and_bob("two_queues", |_, alice, bob| {
        for pairs in [4, 2, 1] {
            for guest in [&*alice, bob] {
                guest.sh(&format!("ethtool -L eth0 combined {pairs}"))?;
            }
            alice.ping(BOB, 3)?;
            alice.iperf(BOB, "-t 1 -P 4")?;
        }
        Ok(())
    })
}

#[test]
fn a_second_mac_address_on_a_vf() -> Result<()> {
    alice_and_bob("two_mac", |_, alice, bob| {
        // Each interface speaks for its own address only, so that the second MAC is the one that is
        // used.
        alice.sh("echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore")?;
        alice
            .sh("ip link add second link eth0 type macvlan mode bridge && ip link set second up")?;
        alice.sh("ip addr add 10.1.0.1/24 dev second")?;
        bob.sh("ip addr add 10.1.0.2/24 dev eth0")?;
        bob.ping("10.1.0.1", 3)?;
        ensure!(mac(alice, "second")? != mac(alice, "eth0")?, "macvlan has no MAC of its own");
        let learned = bob.sh("ip neigh show 10.1.0.1")?;
        ensure!(learned.contains(&mac(alice, "second")?), "{learned}");
        Ok(())
    })
}

#[test]
fn vlan_interfaces() -> Result<()> {
    alice_and_bob("two_vlan", |_, alice, bob| {
        for (guest, address) in [(&*alice, "10.2.0.1/24"), (bob, "10.2.0.2/24")] {
            guest
                .sh("ip link add link eth0 name eth0.5 type vlan id 5 && ip link set eth0.5 up")?;
            guest.sh(&format!("ip addr add {address} dev eth0.5"))?;
        }
        alice.ping("10.2.0.2", 3)?;
        alice.ping_with("10.2.0.2", 3, "-M do -s 1472")?;
        Ok(())
    })
}

#[test]
fn multicast_and_a_new_mac_address() -> Result<()> {
    alice_and_bob("two_multicast", |_, alice, bob| {
        // Solicited-node multicast finds the neighbour.
        for (guest, address) in [(&*alice, "fd00::1/64"), (bob, "fd00::2/64")] {
            guest.sh(&format!("ip addr add {address} dev eth0 nodad"))?;
        }
        alice.ping("fd00::2", 3)?;
        alice.sh("ip link set eth0 promisc on && ip link set eth0 promisc off")?;
        alice.sh("ip link set eth0 address 02:aa:bb:cc:dd:01")?;
        alice.ping(BOB, 3)
    })
}

/// The driver lets go of the function and takes it again, before and after the function is reset
/// through sysfs.
#[test]
fn a_driver_is_unbound_and_its_function_reset() -> Result<()> {
    alice_and_bob("two_rebind", |_, alice, bob| {
        let address = pci_address(alice)?;
        let driver = "/sys/bus/pci/drivers/virtio-pci";
        let device = format!("/sys/bus/pci/devices/{address}");
        ensure!(alice.sh(&format!("cat {device}/reset_method"))?.contains("flr"), "no FLR");
        let unbind = format!("echo {address} >{driver}/unbind && ! ip link show eth0");
        let bind = format!("echo {address} >{driver}/bind && ip link show eth0");
        let reset = format!("echo flr >{device}/reset_method && echo 1 >{device}/reset");

        // The driver lets go and takes again; the function is reset while free; it is reset under
        // the driver, which starts again.
        for script in [
            format!("{unbind} && {bind}"),
            format!("{unbind} && {reset} && {bind}"),
            format!("ip link set eth0 down && {reset} && {unbind} && {bind}"),
        ] {
            alice.sh(&script)?;
            addresses(alice, bob)?;
            check_lspci(alice)?;
            alice.ping(BOB, 3)?;
        }
        bob.iperf(ALICE, "-t 2").map(drop)
    })
}
