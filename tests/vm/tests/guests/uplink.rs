//! These tests connect guests to a TAP of the machine's: frames cross it unfinished and unsegmented
//! where both sides agreed on that, and finished where a guest did not.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use manifold_vm::{Adapter, Guest, Lab, Namespace, boot_all};

use crate::finish;
use crate::vhost::vhost_with;

const TAP: &str = "mf0";
const HOST: &str = "10.0.0.254";
/// Length in bytes of the largest Ethernet frame with an MTU of 1500.
const WHOLE_FRAME: u64 = 1514;

/// The machine's end of the TAP.
struct Host<'a> {
    lab: &'a Lab,
    namespace: &'a Namespace,
}

/// The counts of the kernel on the TAP: what it received is from the adapter.
#[derive(Clone, Copy, Debug)]
struct Traffic {
    frames: u64,
    bytes: u64,
}

impl Traffic {
    fn since(self, before: Self) -> Self {
        Self { frames: self.frames - before.frames, bytes: self.bytes - before.bytes }
    }

    /// Bytes of a frame on average, where there were some.
    fn size(self) -> u64 {
        self.bytes / self.frames.max(1)
    }
}

impl Host<'_> {
    /// Returns what came from the adapter and what went to it.
    fn traffic(&self) -> Result<[Traffic; 2]> {
        let text = self.namespace.ip(&format!("-s -j link show dev {TAP}"))?;
        let links: serde_json::Value = serde_json::from_str(&text)?;
        let way = |name: &str| {
            let counters = &links[0]["stats64"][name];
            let number = |name: &str| counters[name].as_u64().with_context(|| text.clone());
            anyhow::Ok(Traffic { frames: number("packets")?, bytes: number("bytes")? })
        };
        Ok([way("rx")?, way("tx")?])
    }

    fn busybox(&self, applet: &[&str]) -> Result<Command> {
        let mut command = self.lab.program("usr/bin/busybox")?;
        command.args(applet);
        Ok(self.namespace.command(&command))
    }

    /// Sends random bytes from the guest, which must arrive here as they were, and others there.
    fn exchange(&self, guest: &Guest<'_>) -> Result<()> {
        const MAKE: &str = "head -c 8000000 /dev/urandom >/tmp/data; md5sum </tmp/data";
        let sum = guest.sh(MAKE)?;
        let received = self.lab.sockets().join("received");
        // The listener has nothing to say, but must not say that it is finished.
        let mut listener = self
            .busybox(&["nc", "-l", "-p", "7000"])?
            .stdin(Stdio::piped())
            .stdout(std::fs::File::create(&received)?)
            .spawn()?;
        guest.sh(&format!("sleep 0.5; nc {HOST} 7000 </tmp/data"))?;
        let silent = listener.stdin.take();
        let ended = listener.wait()?;
        drop(silent);
        ensure!(ended.success(), "nothing came from {}", guest.name());
        let arrived = self.sum(&received)?;
        ensure!(arrived == sum, "{}'s bytes changed on the way out", guest.name());

        let job = guest.spawn(
            "rm -f /tmp/silent; mkfifo /tmp/silent; exec 9<>/tmp/silent; nc -l -p 7000 <&9 | \
             md5sum",
        )?;
        let address = guest.sh("ip -4 -o addr show eth0 | sed 's/.*inet \\([^/]*\\).*/\\1/'")?;
        guest.sh("until netstat -ltn | grep -q :7000; do sleep 0.1; done")?;
        let mut sender = self
            .busybox(&["nc", address.trim(), "7000"])?
            .stdin(std::fs::File::open(&received)?)
            .spawn()?;
        let arrived = job.success(Duration::from_secs(60))?;
        ensure!(sender.wait()?.success(), "{} did not listen", guest.name());
        ensure!(arrived == sum, "{}'s bytes changed on the way in", guest.name());
        Ok(())
    }

    /// Starts an iperf3 server, which serves one client after the other.
    fn iperf_server(&self) -> Result<Server> {
        let mut command = self.lab.program("usr/bin/iperf3")?;
        command.arg("-s");
        let mut command = self.namespace.command(&command);
        Ok(Server(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?))
    }

    fn sum(&self, file: &std::path::Path) -> Result<String> {
        let mut command = self.busybox(&["md5sum"])?;
        let output = command.stdin(std::fs::File::open(file)?).output()?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Returns the number of TCP segments that arrived with a wrong checksum.
    fn bad_checksums(&self) -> Result<u64> {
        bad_checksums(&self.namespace.run(Command::new("cat").arg("/proc/net/snmp"))?)
    }
}

/// A process that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns `InCsumErrors` of TCP in /proc/net/snmp.
fn bad_checksums(snmp: &str) -> Result<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().context("no names")?, lines.next().context("no values")?);
    let mut columns = names.split(' ').zip(values.split(' '));
    let errors = columns.find(|(name, _)| *name == "InCsumErrors").context("no InCsumErrors")?.1;
    Ok(errors.parse()?)
}

/// Returns the numbers of unsegmented frames that a VF's guest sent and received.
fn unsegmented(adapter: &Adapter, vf: &str) -> Result<[u64; 2]> {
    let counters = adapter.vf(vf)?["counters"].clone();
    let count = |name: &str| counters[name].as_u64().with_context(|| counters.to_string());
    Ok([count("tx_gso_frames")?, count("rx_gso_frames")?])
}

/// Returns the argument for QEMU's device, without every offload there is.
fn finishing(text: &str) -> String {
    const OFFLOADS: [&str; 15] = [
        "csum",
        "gso",
        "host_tso4",
        "host_tso6",
        "host_ecn",
        "host_ufo",
        "host_uso",
        "guest_csum",
        "guest_tso4",
        "guest_tso6",
        "guest_ecn",
        "guest_ufo",
        "guest_uso4",
        "guest_uso6",
        "mrg_rxbuf",
    ];
    if text.starts_with("virtio-net-pci,") {
        format!("{text}{}", OFFLOADS.map(|offload| format!(",{offload}=off")).concat())
    } else {
        text.to_owned()
    }
}

/// Boots uma, whose driver takes and gives everything unfinished, and paul, whose driver finishes
/// all and takes nothing else; runs `test` with them and the machine's end of the TAP, and ends
/// them.
fn uma_and_paul(
    name: &str,
    test: impl FnOnce(&Adapter, &Host<'_>, &Guest<'_>, &Guest<'_>) -> Result<()>,
) -> Result<()> {
    let lab = Lab::new(name)?;
    let namespace = Namespace::new(name)?;
    let arguments = ["--num-vfs", "2", "--uplink", &format!("tap:{TAP}")];
    let adapter = lab.adapter_in(&namespace, &arguments)?;
    namespace.ip(&format!("addr add {HOST}/24 dev {TAP}"))?;
    namespace.ip(&format!("link set {TAP} up"))?;
    let host = Host { lab: &lab, namespace: &namespace };
    let _server = host.iperf_server()?;
    let [uma, paul] = boot_all([
        lab.guest("uma").vfio_user(&adapter.socket("vf0")),
        vhost_with(&adapter, lab.guest("paul"), "vf1", finishing)?,
    ])?;
    for (guest, address) in [(&uma, "10.0.0.1/24"), (&paul, "10.0.0.2/24")] {
        guest.configure(address)?;
        guest.iperf_server()?;
        guest.ping(HOST, 3)?;
    }
    test(&adapter, &host, &uma, &paul)?;
    ensure!(host.bad_checksums()? == 0, "wrong checksums at the machine");
    for guest in [&uma, &paul] {
        let snmp = guest.sh("cat /proc/net/snmp")?;
        ensure!(bad_checksums(&snmp)? == 0, "wrong checksums at {}", guest.name());
    }
    let drops = adapter.vf("vf0")?["counters"]["drops"].to_string();
    ensure!(!drops.contains("bad_net_header"), "{drops}");
    finish(adapter, [uma, paul])
}

/// Checks TCP between the TAP and a guest: frames are `whole`, or cross the TAP unsegmented.
fn cross(
    adapter: &Adapter,
    host: &Host<'_>,
    (guest, vf): (&Guest<'_>, &str),
    whole: bool,
) -> Result<()> {
    let (before, [from, to]) = (unsegmented(adapter, vf)?, host.traffic()?);
    for options in ["-t 1", "-t 1 -R"] {
        guest.iperf(HOST, options)?;
    }
    let (after, [from_now, to_now]) = (unsegmented(adapter, vf)?, host.traffic()?);
    let [sent, received] = [0, 1].map(|way: usize| after[way] - before[way]);
    let (from, to) = (from_now.since(from), to_now.since(to));
    println!("{sent} sent, {received} received unsegmented; TAP {from:?}, {to:?}");
    // The machine's kernel hands over what it has whatever the guest takes: the adapter segments.
    ensure!(to.size() > 2 * WHOLE_FRAME, "the TAP gives segments only: {to:?}");
    if whole {
        ensure!((sent, received) == (0, 0), "{vf}: {sent} and {received} unsegmented frames");
        ensure!(from.size() <= WHOLE_FRAME, "unsegmented frames went out: {from:?}");
    } else {
        ensure!(sent > 100 && received > 100, "{vf}: {sent} and {received} unsegmented");
        ensure!(from.size() > 2 * WHOLE_FRAME, "only segments went out: {from:?}");
    }
    host.exchange(guest)
}

#[test]
fn unfinished_frames_cross_the_tap() -> Result<()> {
    uma_and_paul("uplink", |adapter, host, uma, _| cross(adapter, host, (uma, "vf0"), false))
}

#[test]
fn frames_are_finished_where_the_driver_took_its_offloads_back() -> Result<()> {
    uma_and_paul("uplink_off", |adapter, host, uma, _| {
        uma.sh("ethtool -K eth0 tx off tso off gso off && ethtool -K eth0 rx-gro-hw off")?;
        cross(adapter, host, (uma, "vf0"), true)
    })
}

#[test]
fn frames_are_finished_for_a_guest_without_offloads() -> Result<()> {
    uma_and_paul("uplink_none", |adapter, host, _, paul| {
        let features = adapter.vf("vf1")?["driver"]["features"].to_string();
        ensure!(!features.contains("CSUM"), "paul has offloads: {features}");
        cross(adapter, host, (paul, "vf1"), true)
    })
}

#[test]
fn unsegmented_frames_for_a_guest_without_offloads_are_segmented() -> Result<()> {
    // No kernel helps between the two guests.
    uma_and_paul("uplink_segments", |adapter, _, uma, _| {
        let before = unsegmented(adapter, "vf0")?;
        let flow = uma.iperf("10.0.0.2", "-t 2")?;
        ensure!(flow.mbit_per_s > 1.0, "{flow:?}");
        uma.iperf("10.0.0.2", "-t 2 -R")?;
        let (uma, paul) = (unsegmented(adapter, "vf0")?, unsegmented(adapter, "vf1")?);
        ensure!(uma[0] > before[0] + 100, "uma sends segments: {before:?} {uma:?}");
        ensure!(paul == [0, 0], "paul got unsegmented frames: {paul:?}");
        Ok(())
    })
}
