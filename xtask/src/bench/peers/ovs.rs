//! This peer is Open vSwitch with DPDK: a bridge in userspace, two vhost-user ports, one flow per
//! direction, one core.
//!
//! Its database, sockets and network namespace are its own; a system's Open vSwitch is not touched.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use manifold_generator::config::{PortConfig, Protocol};

use super::{Peers, Switch, VSWITCHD, testpmd};
use crate::bench::bed::Bed;
use crate::bench::process::{Process, output, text};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const BRIDGE: &str = "bench";

/// A running Open vSwitch.
#[derive(Debug)]
pub(crate) struct OpenVswitch<'a> {
    peers: &'a Peers,
    dir: PathBuf,
    // The switch ends before its database.
    switch: Process,
    _database: Process,
    ports: Vec<PortConfig>,
}

impl<'a> OpenVswitch<'a> {
    pub(crate) fn start(bed: &'a Bed) -> Result<Self> {
        bed.reserve_hugepages()?;
        let peers = bed.peers()?;
        let dir = bed.folder("ovs")?;
        let (file, socket) = (dir.join("conf.db"), dir.join("db.sock"));
        let schema = peers.path("usr/share/openvswitch/vswitch.ovsschema");
        output(program(peers, &dir, "usr/bin/ovsdb-tool")?.arg("create").arg(&file).arg(schema))?;
        let mut command = program(peers, &dir, "usr/sbin/ovsdb-server")?;
        command.arg(&file).arg(format!("--remote=punix:{}", text(&socket)?));
        command.arg(format!("--unixctl={}", text(&dir.join("db.ctl"))?));
        let mut database = Process::spawn("ovsdb-server", &mut command, &bed.log("ovsdb-server"))?;
        database.wait_until("its socket", START_TIMEOUT, || socket.exists())?;

        let vsctl = |arguments: &[String]| -> Result<()> {
            let mut command = program(peers, &dir, "usr/bin/ovs-vsctl")?;
            command.arg(format!("--db=unix:{}", text(&socket)?)).args(arguments);
            output(&mut command).map(drop)
        };
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        vsctl(&words("--no-wait init"))?;
        let both = (1_u64 << bed.cores.worker) | (1_u64 << bed.cores.generator);
        let mut settings = words("--no-wait set Open_vSwitch . other_config:dpdk-init=true");
        settings.extend([
            format!("other_config:dpdk-lcore-mask={both:#x}"),
            format!("other_config:pmd-cpu-mask={:#x}", 1_u64 << bed.cores.worker),
            "other_config:dpdk-socket-mem=512".to_owned(),
            format!("other_config:dpdk-extra=\"{}\"", testpmd::common(peers)?.join(" ")),
        ]);
        vsctl(&settings)?;

        let control = dir.join("vs.ctl");
        let mut command = Command::new("unshare");
        command.arg("--net");
        let inner = program(peers, &dir, VSWITCHD)?;
        command.arg(inner.get_program()).args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.arg(format!("unix:{}", text(&socket)?));
        command.arg(format!("--unixctl={}", text(&control)?));
        let mut switch = Process::spawn("ovs-vswitchd", &mut command, &bed.log("ovs-vswitchd"))?;
        switch.wait_until("its control socket", START_TIMEOUT, || control.exists())?;

        vsctl(&words(&format!(
            "--timeout=30 add-br {BRIDGE} -- set bridge {BRIDGE} datapath_type=netdev \
             fail_mode=secure"
        )))?;
        let mut ports = Vec::new();
        for number in [1, 2] {
            vsctl(&words(&format!(
                "--timeout=30 add-port {BRIDGE} port{number} -- \
                 set Interface port{number} type=dpdkvhostuser ofport_request={number}"
            )))?;
            let socket = dir.join(format!("port{number}"));
            switch.wait_until("a port's socket", START_TIMEOUT, || socket.exists())?;
            ports.push(PortConfig::new(socket, Protocol::VhostUser));
        }
        for (from, to) in [(1, 2), (2, 1)] {
            let mut ofctl = program(peers, &dir, "usr/bin/ovs-ofctl")?;
            ofctl.arg("add-flow").arg(format!("unix:{}/{BRIDGE}.mgmt", text(&dir)?));
            output(ofctl.arg(format!("in_port={from},actions=output:{to}")))?;
        }
        Ok(Self { peers, dir, switch, _database: database, ports })
    }

    fn control(&self, command: &str) -> Result<String> {
        let mut appctl = program(self.peers, &self.dir, "usr/bin/ovs-appctl")?;
        output(appctl.arg("-t").arg(self.dir.join("vs.ctl")).arg(command))
    }
}

impl Switch for OpenVswitch<'_> {
    fn name(&self) -> &'static str {
        "OVS-DPDK"
    }

    fn pid(&self) -> u32 {
        self.switch.pid()
    }

    fn ports(&self) -> &[PortConfig] {
        &self.ports
    }

    fn reset_cycles(&mut self) -> Result<()> {
        self.control("dpif-netdev/pmd-stats-clear").map(drop)
    }

    fn cycles_per_frame(&mut self) -> Result<Option<f64>> {
        let text = self.control("dpif-netdev/pmd-stats-show")?;
        let cycles = processing_cycles(&text);
        cycles.with_context(|| format!("no processing cycles in\n{text}")).map(Some)
    }
}

/// Returns a command for a program of Open vSwitch that keeps to `dir`.
fn program(peers: &Peers, dir: &Path, name: &str) -> Result<Command> {
    let mut command = peers.command(name)?;
    // The last variable is DPDK's.
    for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR", "RUNTIME_DIRECTORY"]
    {
        command.env(variable, dir);
    }
    command.env("OVS_PKGDATADIR", peers.path("usr/share/openvswitch"));
    Ok(command)
}

/// Returns the first thread's figure: there is one that polls.
fn processing_cycles(text: &str) -> Option<f64> {
    let rest = text.split_once("avg processing cycles per packet:")?.1;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::processing_cycles;

    #[test]
    fn cycles_are_read() {
        let text = "pmd thread numa_id 0 core_id 0:\n  packets received: 12372896\n  \
                    avg cycles per packet: 572.69 (7085784652/12372896)\n  \
                    avg processing cycles per packet: 444.70 (5502186482/12372896)\nmain thread:\n";
        assert_eq!(processing_cycles(text), Some(444.7));
        assert_eq!(processing_cycles("pmd thread:\n  packets received: 0\n"), None);
    }
}
