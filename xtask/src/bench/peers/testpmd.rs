//! This peer is DPDK's testpmd: as a switch that does not switch (two vhost ports, io mode), and as
//! a generator (two virtio-user ports, io mode, closed loop).
//!
//! ```text
//!   generator's core            worker's core
//!   testpmd io                  testpmd io, Open vSwitch or manifold
//!   virtio_user0  ─── vhost-user socket ───  port 0 ─┐
//!   virtio_user1  ─── vhost-user socket ───  port 1 ─┘
//! ```
//!
//! Closed loop: the first frames, sent by `start tx_first`, go round for ever. A frame that arrives
//! at port 1 leaves by port 0 as it is, so one that was addressed from port 0 to port 1 still is; a
//! switch that judges addresses lets every round pass.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use manifold_generator::config::{PortConfig, Protocol};

use super::{Peers, Switch};
use crate::bench::bed::Bed;
use crate::bench::interrupt;
use crate::bench::process::text;
use crate::bench::terminal::Terminal;

const PROGRAM: &str = "usr/bin/dpdk-testpmd";
const PROMPT: &str = "testpmd> ";
const START_TIMEOUT: Duration = Duration::from_secs(30);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A testpmd that forwards between two vhost ports.
#[derive(Debug)]
pub(crate) struct TestpmdSwitch {
    terminal: Terminal,
    ports: Vec<PortConfig>,
}

impl TestpmdSwitch {
    pub(crate) fn start(bed: &Bed) -> Result<Self> {
        bed.reserve_hugepages()?;
        let dir = bed.folder("testpmd")?;
        let sockets = [dir.join("0.sock"), dir.join("1.sock")];
        let mut devices = Vec::new();
        for (index, socket) in sockets.iter().enumerate() {
            devices.push(format!("--vdev=net_vhost{index},iface={}", text(socket)?));
        }
        let settings = ["--forward-mode=io", "--txd=512", "--rxd=512", "--auto-start"];
        let terminal = start(bed, "testpmd", bed.cores.worker, &devices, &settings)?;
        let ports = sockets
            .map(|socket| PortConfig::new(socket, Protocol::VhostUser))
            .into_iter()
            .collect();
        Ok(Self { terminal, ports })
    }
}

impl Switch for TestpmdSwitch {
    fn name(&self) -> &'static str {
        "testpmd io"
    }

    fn pid(&self) -> u32 {
        self.terminal.pid()
    }

    fn ports(&self) -> &[PortConfig] {
        &self.ports
    }
}

/// The traffic of the generator, and its rings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Length of a frame in bytes without FCS.
    pub(crate) bytes: u32,
    pub(crate) packed: bool,
    pub(crate) queue_size: u16,
}

/// Returns the frames per second through `switch`, with testpmd as generator.
pub(crate) fn generate(bed: &Bed, switch: &mut dyn Switch, load: Load) -> Result<f64> {
    let mut generator = Generator::start(bed, switch.ports(), load)?;
    generator.set_going()?;
    interrupt::sleep(bed.pace.warm_up)?;
    switch.reset_cycles()?;
    let rate = generator.rate(bed.pace.sample)?;
    generator.stop();
    Ok(rate)
}

struct Generator {
    terminal: Terminal,
}

/// The frames received so far, by port.
struct Counters {
    at: Instant,
    received: Vec<u64>,
}

impl Generator {
    fn start(bed: &Bed, ports: &[PortConfig], load: Load) -> Result<Self> {
        let [first, second, ..] = ports else { bail!("the generator needs two ports") };
        let mut devices = Vec::new();
        let mut settings = vec![
            "--forward-mode=io".to_owned(),
            format!("--txpkts={}", load.bytes),
            format!("--txd={}", load.queue_size),
            format!("--rxd={}", load.queue_size),
        ];
        for (index, (port, other)) in [(first, second), (second, first)].into_iter().enumerate() {
            let mut device = format!(
                "--vdev=net_virtio_user{index},path={},queue_size={},packed_vq={}",
                text(&port.socket)?,
                load.queue_size,
                u8::from(load.packed)
            );
            if let (Some(mac), Some(other)) = (port.mac, other.mac) {
                device.push_str(&format!(",mac={mac}"));
                settings.push(format!("--eth-peer={index},{other}"));
            }
            devices.push(device);
        }
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let terminal = start(bed, "generator", bed.cores.generator, &devices, &settings)?;
        Ok(Self { terminal })
    }

    /// Starts forwarding, until frames go round in both directions: a switch may not be ready for
    /// the very first.
    fn set_going(&mut self) -> Result<()> {
        /// Number of bursts of 32 frames on each port.
        const BURSTS: u32 = 4;
        for _ in 0..5 {
            self.command(&format!("start tx_first {BURSTS}"))?;
            interrupt::sleep(Duration::from_millis(50))?;
            let before = self.counters()?;
            interrupt::sleep(Duration::from_millis(20))?;
            let after = self.counters()?;
            if before.received.iter().zip(&after.received).all(|(before, after)| after > before) {
                return Ok(());
            }
            self.command("stop")?;
            interrupt::sleep(Duration::from_millis(200))?;
        }
        bail!("no frames come back to the generator, or in one direction only");
    }

    fn rate(&mut self, time: Duration) -> Result<f64> {
        let before = self.counters()?;
        interrupt::sleep(time)?;
        let after = self.counters()?;
        let frames: u64 =
            after.received.iter().zip(&before.received).map(|(a, b)| a.saturating_sub(*b)).sum();
        ensure!(frames > 0, "the frames are lost");
        Ok(frames as f64 / (after.at - before.at).as_secs_f64())
    }

    fn counters(&mut self) -> Result<Counters> {
        /// Longest time of an answer from which it is known well enough when the counters were
        /// read: testpmd's terminal has to wait for a processor where both poll.
        const PROMPT_ANSWER: Duration = Duration::from_millis(5);
        const ATTEMPTS: u32 = 50;
        for attempt in 1.. {
            let begin = Instant::now();
            let text = self.command("show port stats all")?;
            let at = Instant::now();
            if at - begin <= PROMPT_ANSWER || attempt == ATTEMPTS {
                let received = received(&text);
                ensure!(received.len() == 2, "testpmd printed no counters of two ports:\n{text}");
                return Ok(Counters { at, received });
            }
        }
        bail!("testpmd never answered")
    }

    fn command(&mut self, line: &str) -> Result<String> {
        /// Time to wait for the echo of a command, which the first time may have to wait for a
        /// processor, or lose what was typed while it set its terminal up.
        const ECHO_TIMEOUT: Duration = Duration::from_secs(2);
        self.terminal.send(line)?;
        if self.terminal.expect(line, ECHO_TIMEOUT).is_err() {
            self.terminal.send(line)?;
            self.terminal.expect(line, COMMAND_TIMEOUT)?;
        }
        self.terminal.expect(PROMPT, COMMAND_TIMEOUT)
    }

    fn stop(mut self) {
        // A testpmd that is dropped is killed, which is as good but that its device would see no
        // goodbye.
        if self.terminal.send("quit").is_ok() {
            self.terminal.wait_end(STOP_TIMEOUT);
        }
    }
}

/// Starts testpmd with one forwarding core, and waits for its prompt.
fn start(
    bed: &Bed,
    name: &str,
    core: usize,
    devices: &[String],
    settings: &[&str],
) -> Result<Terminal> {
    let peers = bed.peers()?;
    let mut command = peers.command(PROGRAM)?;
    // DPDK makes a folder there even where it puts nothing into it.
    command.env("RUNTIME_DIRECTORY", bed.folder(&format!("{name}-run"))?);
    command.args(common(peers)?).args(["--no-telemetry", "--file-prefix", name, "-m", "256"]);
    // The first thread is for the terminal and floats; the second forwards.
    let (one, other) = (bed.cores.worker, bed.cores.generator);
    command.arg(format!("--lcores=0@({one},{other}),1@{core}"));
    command.args(devices);
    command.args(["--", "--interactive", "--nb-cores=1", "--total-num-mbufs=16384"]);
    command.args(settings);
    let mut terminal = Terminal::spawn(name, command)?;
    terminal.expect(PROMPT, START_TIMEOUT).context("testpmd does not start")?;
    Ok(terminal)
}

/// Returns arguments for DPDK that every user of it here has.
pub(super) fn common(peers: &Peers) -> Result<Vec<String>> {
    // These arguments keep DPDK off the file system: no lock, no huge page file, no socket.
    let mut arguments = ["--in-memory", "--no-pci", "--iova-mode=va"].map(str::to_owned).to_vec();
    // Without this argument guest memory is more pieces than vhost-user takes.
    arguments.push("--single-file-segments".to_owned());
    arguments.extend(peers.drivers(&["bus_vdev", "mempool_ring", "net_vhost", "net_virtio"])?);
    Ok(arguments)
}

/// Returns every port's `RX-packets` in the output of `show port stats all`.
fn received(text: &str) -> Vec<u64> {
    text.split("RX-packets:")
        .skip(1)
        .filter_map(|rest| rest.split_whitespace().next()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::received;

    #[test]
    fn counters_are_read() {
        let text = "  \
            ######################## NIC statistics for port 0  ########################\r\n  \
                    RX-packets: 4230461    RX-missed: 0          RX-bytes:  253827660\r\n  \
                    TX-packets: 12         TX-errors: 0\r\n  RX-packets: 7 RX-missed: 0\r\n";
        assert_eq!(received(text), [4_230_461, 7]);
        assert!(received("Command not found\r\n").is_empty());
    }
}
