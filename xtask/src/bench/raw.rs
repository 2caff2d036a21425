//! This module runs our own generator, `manifold-generator`. It speaks vhost-user and vfio-user, so
//! everybody is measured with it.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use manifold_generator::config::{Config, Flow, Frames, Load, Memory, PortConfig, Rings, Work};
use manifold_generator::report::{Latency, Report};

use super::bed::Bed;
use super::process::output;

/// Number of frames on their way to one receiver at a time: less than a queue, so that none is
/// lost.
const WINDOW: u32 = 192;

/// The work of the generator on the ports of a switch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traffic {
    pub(crate) frames: Frames,
    pub(crate) packed: bool,
    /// Number of ports that send to their neighbours: the first to the second and back, and so on.
    pub(crate) senders: usize,
    pub(crate) window: u32,
}

impl Traffic {
    /// Sends frames of `bytes` between ports 0 and 1, both ways.
    pub(crate) fn size(bytes: u32) -> Self {
        Self { frames: Frames::Size(bytes), packed: false, senders: 2, window: WINDOW }
    }

    fn flows(&self) -> Vec<Flow> {
        (0..self.senders)
            .map(|from| Flow { from, to: from ^ 1, queue: 0, load: Load::Closed(self.window) })
            .collect()
    }
}

/// Sends `traffic` through `ports`.
pub(crate) fn run(bed: &Bed, ports: &[PortConfig], traffic: Traffic) -> Result<Report> {
    // The neighbour of the last sender takes part even where it does not send.
    let count = traffic.senders.next_multiple_of(2);
    let ports = ports.get(..count).context("the switch has too few ports")?;
    let mut config = config(bed, ports);
    config.flows = traffic.flows();
    config.frames = traffic.frames;
    config.rings.packed = traffic.packed;
    // The generator has waited until the switch lets frames through, so that nothing need be tried
    // again.
    let report = generate(bed, &config)?;
    let receivers = config.flows.iter().map(|flow| flow.to);
    let idle: Vec<usize> = receivers
        .filter(|port| report.ports.get(*port).is_none_or(|port| port.received == 0))
        .collect();
    ensure!(idle.is_empty(), "nothing arrives at ports {idle:?}: {report:?}");
    Ok(report)
}

/// Sends one frame from port 0 to port 1 and back, again and again.
pub(crate) fn round_trips(bed: &Bed, ports: &[PortConfig], work: Work) -> Result<Latency> {
    let mut config = config(bed, ports.get(..2).context("the switch has too few ports")?);
    config.work = work;
    let report = generate(bed, &config)?;
    match report.latency {
        Some(latency) if latency.count > 0 => Ok(latency),
        _ => bail!("no round trip succeeded: {report:?}"),
    }
}

fn config(bed: &Bed, ports: &[PortConfig]) -> Config {
    let mut config = Config::new(ports.to_vec(), Vec::new());
    config.rings = Rings { memory: Memory::HugePages, ..Rings::default() };
    config.cpu = Some(bed.cores.generator);
    config.warm_up_ms = u64::try_from(bed.pace.warm_up.as_millis()).unwrap_or(u64::MAX);
    config.duration_ms = u64::try_from(bed.pace.sample.as_millis()).unwrap_or(u64::MAX);
    config
}

fn generate(bed: &Bed, config: &Config) -> Result<Report> {
    bed.reserve_hugepages()?;
    let mut command = Command::new(&bed.generator);
    command.arg(serde_json::to_string(config)?);
    let text = output(&mut command).context("the generator failed")?;
    serde_json::from_str(&text).with_context(|| format!("the generator printed no report: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_sends_to_its_neighbour_and_hears_from_it() {
        let flows = Traffic { senders: 4, ..Traffic::size(60) }.flows();
        let pairs: Vec<_> = flows.iter().map(|flow| (flow.from, flow.to)).collect();
        assert_eq!(pairs, [(0, 1), (1, 0), (2, 3), (3, 2)]);
        assert!(flows.iter().all(|flow| flow.load == Load::Closed(WINDOW)));
        let one = Traffic { senders: 1, ..Traffic::size(60) }.flows();
        assert_eq!((one.len(), one[0].from, one[0].to), (1, 0, 1));
    }
}
