//! This module runs ourselves as everybody sees us: `manifold serve` and its command line.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use manifold_generator::config::{PortConfig, Protocol};
use manifold_vm::Adapter;
use serde_json::Value;

use super::Switch;
use crate::bench::bed::Bed;

/// A running adapter with VFs.
#[derive(Debug)]
pub(crate) struct Manifold {
    adapter: Adapter,
    name: &'static str,
    ports: Vec<PortConfig>,
    /// Work of the worker when counting began.
    before: Work,
}

/// The work of a worker so far, in cycles of the time stamp counter.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Work {
    pub(crate) frames: f64,
    pub(crate) busy: f64,
    /// Number of frames of the bursts that were timed by stage.
    sampled: f64,
    /// Number of cycles by stage, of those frames.
    stages: Vec<(String, f64)>,
}

impl Manifold {
    /// Starts an adapter with `vfs` VFs and one worker, on the worker's core, to be attached to by
    /// `protocol`.
    pub(crate) fn start(bed: &Bed, vfs: usize, protocol: Protocol) -> Result<Self> {
        Self::with_arguments(bed, vfs, protocol, &[])
    }

    pub(crate) fn with_arguments(
        bed: &Bed,
        vfs: usize,
        protocol: Protocol,
        more: &[&str],
    ) -> Result<Self> {
        let core = bed.cores.worker.to_string();
        let mut arguments = vec!["--cores", &core];
        arguments.extend(more);
        Self::serve(bed, vfs, protocol, &arguments)
    }

    /// Starts an adapter whose worker runs where the scheduler wants it: beside virtual machines
    /// that are not pinned either, a pinned worker waits for the one virtual processor that is on
    /// its core, however idle the others are.
    pub(crate) fn unpinned(bed: &Bed, vfs: usize, protocol: Protocol) -> Result<Self> {
        Self::serve(bed, vfs, protocol, &[])
    }

    fn serve(bed: &Bed, vfs: usize, protocol: Protocol, more: &[&str]) -> Result<Self> {
        let name = match protocol {
            Protocol::VhostUser => "manifold",
            _ => "manifold, vfio-user",
        };
        let run_dir = bed.folder(&format!("manifold-{vfs}-{protocol:?}"))?;
        let count = vfs.to_string();
        let mut arguments = vec!["--num-vfs", &count];
        arguments.extend(more);
        let log = bed.log(&format!("manifold-{vfs}-{protocol:?}"));
        let adapter = Adapter::start(bed.binary.clone(), run_dir.clone(), log, &arguments)?;
        let ports = addresses(&adapter.json(&["vf", "list"])?)?
            .into_iter()
            .enumerate()
            .map(|(index, mac)| {
                let socket = match protocol {
                    Protocol::VhostUser => run_dir.join(format!("vf{index}.vhost.sock")),
                    _ => run_dir.join(format!("vf{index}.sock")),
                };
                Ok(PortConfig { socket, protocol, mac: Some(mac.parse()?) })
            })
            .collect::<Result<Vec<_>>>()?;
        ensure!(ports.len() == vfs, "{} VFs instead of {vfs}", ports.len());
        Ok(Self { adapter, name, ports, before: Work::default() })
    }

    /// Returns what the workers have done since [`Switch::reset_cycles`].
    pub(crate) fn work(&self) -> Result<Work> {
        Ok(self.total()?.since(&self.before))
    }

    fn total(&self) -> Result<Work> {
        let list = self.adapter.json(&["worker", "list"])?;
        Work::read(&list).with_context(|| format!("what is {list}?"))
    }

    /// Returns the processor time of the whole daemon so far, in ticks of the kernel's clock, which
    /// is what `ps` and `top` show.
    pub(crate) fn cpu_ticks(&self) -> Result<u64> {
        let path = PathBuf::from(format!("/proc/{}/stat", self.pid()));
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        cpu_ticks(&text).with_context(|| format!("what is \"{}\"?", text.trim()))
    }

    pub(crate) fn adapter(&self) -> &Adapter {
        &self.adapter
    }
}

impl Switch for Manifold {
    fn name(&self) -> &'static str {
        self.name
    }

    fn pid(&self) -> u32 {
        self.adapter.pid()
    }

    fn ports(&self) -> &[PortConfig] {
        &self.ports
    }

    fn reset_cycles(&mut self) -> Result<()> {
        self.before = self.total()?;
        Ok(())
    }

    fn cycles_per_frame(&mut self) -> Result<Option<f64>> {
        let work = self.work()?;
        Ok((work.frames > 0.0).then(|| work.busy / work.frames))
    }
}

impl Work {
    /// Returns the sum over all workers of what `manifold worker list --json` prints.
    fn read(list: &Value) -> Result<Self> {
        let Some(workers) = list.as_array().or_else(|| list["workers"].as_array()) else {
            bail!("no list of workers");
        };
        let mut work = Self::default();
        for worker in workers {
            let number = |name: &str| {
                worker[name].as_f64().with_context(|| format!("a worker without \"{name}\""))
            };
            work.frames += number("frames")?;
            work.busy += number("busy_cycles")?;
            work.sampled += number("sampled_frames")?;
            for (name, cycles) in worker["stages"].as_object().into_iter().flatten() {
                let cycles = cycles.as_f64().unwrap_or(0.0);
                match work.stages.iter_mut().find(|(known, _)| known == name) {
                    Some((_, sum)) => *sum += cycles,
                    None => work.stages.push((name.clone(), cycles)),
                }
            }
        }
        Ok(work)
    }

    fn since(&self, before: &Self) -> Self {
        let earlier = |name: &str| {
            before.stages.iter().find(|(known, _)| known == name).map_or(0.0, |(_, cycles)| *cycles)
        };
        Self {
            frames: self.frames - before.frames,
            busy: self.busy - before.busy,
            sampled: self.sampled - before.sampled,
            stages: self
                .stages
                .iter()
                .map(|(name, cycles)| (name.clone(), cycles - earlier(name)))
                .collect(),
        }
    }

    /// Returns the cycles per frame by stage.
    pub(crate) fn stages(&self) -> Vec<(String, f64)> {
        let frames = self.sampled.max(1.0);
        self.stages.iter().map(|(name, cycles)| (name.clone(), cycles / frames)).collect()
    }
}

/// Returns utime and stime, fields 14 and 15 of /proc/PID/stat; the name, field 2, may have spaces.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// Returns the VFs' addresses in the output of `manifold vf list --json`.
fn addresses(list: &Value) -> Result<Vec<String>> {
    let vfs = list.as_array().or_else(|| list["vfs"].as_array());
    vfs.with_context(|| format!("no list of VFs: {list}"))?
        .iter()
        .map(|vf| {
            let mac = vf["mac"].as_str().with_context(|| format!("a VF without address: {vf}"))?;
            Ok(mac.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn workers_are_summed_and_differences_taken() {
        let list = |frames: u64| {
            json!([
                { "worker": 0, "frames": frames, "busy_cycles": 1000 * frames,
                  "sampled_frames": frames / 2,
                  "stages": { "take": 10 * frames, "copy": 20 * frames } },
                { "worker": 1, "frames": 0, "busy_cycles": 0, "sampled_frames": 0, "stages": {} },
            ])
        };
        let (before, after) = (Work::read(&list(10)).unwrap(), Work::read(&list(30)).unwrap());
        let work = after.since(&before);
        assert_eq!((work.frames, work.busy), (20.0, 20_000.0));
        assert_eq!(work.stages(), [("copy".to_owned(), 40.0), ("take".to_owned(), 20.0)]);
    }

    #[test]
    fn processor_time_is_read() {
        let stat = "77 (a (b) c) S 1 77 77 0 -1 4194560 1 2 3 4 150 25 0 0 20 0 9 0 100 1 2";
        assert_eq!(cpu_ticks(stat), Some(175));
        assert_eq!(cpu_ticks("77 (a) S 1 77"), None);
        assert_eq!(cpu_ticks(""), None);
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        assert!(Work::read(&json!({})).is_err());
        assert!(Work::read(&json!([{ "worker": 0 }])).is_err());
        assert!(addresses(&json!(null)).is_err());
        assert!(addresses(&json!([{ "vf": 0 }])).is_err());
        let macs = addresses(&json!([{ "mac": "02:00:00:00:00:01" }])).unwrap();
        assert_eq!(macs, ["02:00:00:00:00:01"]);
    }
}
