//! This module has the settings of `manifold serve`: flags take precedence over the configuration
//! file, and the file over the defaults.

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::Args;
use clap::builder::RangedI64ValueParser;
use manifold_api::types::{MacAddr, Uplink};
use manifold_datapath::MAX_WORKERS;
use manifold_pci::MAX_VFS;
use serde::Deserialize;

use crate::failure::advise;
use crate::run_dir::RunDirArg;

const TOTAL_VFS: RangeInclusive<u16> = 1..=MAX_VFS;
const NUM_VFS: RangeInclusive<u16> = 0..=MAX_VFS;
/// Range of the MTU in bytes; the device offers at least 68 (virtio 1.3, section 5.1.4.1).
const MTU: RangeInclusive<u16> = 68..=u16::MAX;
/// Range of queue pairs; the adapter refuses more than its device model can have.
const QUEUE_PAIRS: RangeInclusive<u16> = 1..=u16::MAX;
const QUEUE_SIZE: RangeInclusive<u16> = 2..=1024;
const WORKERS: RangeInclusive<u16> = 1..=MAX_WORKERS as u16;

/// Settings of an adapter, from flags or from the configuration file. `None` leaves a setting to
/// whatever has less precedence.
#[derive(Debug, Default, Clone, PartialEq, Eq, Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Settings {
    #[command(flatten)]
    pub(crate) run_dir: RunDirArg,

    /// TotalVFs: the most VFs that can be enabled [default: 256]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = within(TOTAL_VFS))]
    total_vfs: Option<u16>,

    /// VFs to enable at once, 0 to TotalVFs [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = within(NUM_VFS))]
    pub(crate) num_vfs: Option<u16>,

    /// What the port is connected to: `none`, or `tap:NAME` for a TAP interface [default: none]
    #[arg(long, value_name = "SPEC")]
    #[serde(deserialize_with = "from_text")]
    uplink: Option<Uplink>,

    /// Largest IP packet the functions carry, in bytes [default: 1500]
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = within(MTU))]
    mtu: Option<u16>,

    /// Receive/transmit queue pairs per function [default: 4]
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        value_parser = within(QUEUE_PAIRS))]
    queue_pairs: Option<u16>,

    /// Descriptors per queue at most: a power of two, 2 to 1024 [default: 256]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = within(QUEUE_SIZE))]
    queue_size: Option<u16>,

    /// Threads that move frames [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true, conflicts_with = "cores",
        value_parser = within(WORKERS))]
    workers: Option<u16>,

    /// Processors for workers, one each, to which they are pinned: 2,3 or 2-5
    #[arg(long, value_name = "LIST")]
    #[serde(deserialize_with = "from_text")]
    cores: Option<Cores>,

    /// The PF's MAC address; VF n has this one plus n + 1 [default: a local address]
    #[arg(long, value_name = "MAC")]
    #[serde(deserialize_with = "from_text")]
    base_mac: Option<MacAddr>,
}

impl Settings {
    /// Adds the settings of `file` that these flags leave open, and checks the result.
    ///
    /// # Errors
    /// Fails if the file cannot be read or understood, or if values do not fit each other.
    pub(crate) fn load(self, file: Option<&Path>) -> anyhow::Result<Self> {
        let settings = match file {
            None => self,
            Some(path) => {
                let text = fs::read_to_string(path)
                    .with_context(|| format!("cannot read the configuration {}", path.display()))?;
                let file: Self = toml::from_str(&text).with_context(|| {
                    format!("the configuration {} is not valid", path.display())
                })?;
                self.or(file)
            }
        };
        settings.check()?;
        Ok(settings)
    }

    fn or(self, file: Self) -> Self {
        // A flag for either overrides the file's choice of both.
        let placed = self.workers.is_some() || self.cores.is_some();
        let (workers, cores) =
            if placed { (self.workers, self.cores) } else { (file.workers, file.cores) };
        Self {
            run_dir: self.run_dir.or(file.run_dir),
            total_vfs: self.total_vfs.or(file.total_vfs),
            num_vfs: self.num_vfs.or(file.num_vfs),
            uplink: self.uplink.or(file.uplink),
            mtu: self.mtu.or(file.mtu),
            queue_pairs: self.queue_pairs.or(file.queue_pairs),
            queue_size: self.queue_size.or(file.queue_size),
            workers,
            cores,
            base_mac: self.base_mac.or(file.base_mac),
        }
    }

    /// Checks what a file may say and a flag cannot, and that values fit each other.
    fn check(&self) -> anyhow::Result<()> {
        for (key, value, range) in [
            ("total-vfs", self.total_vfs, TOTAL_VFS),
            ("mtu", self.mtu, MTU),
            ("queue-pairs", self.queue_pairs, QUEUE_PAIRS),
            ("queue-size", self.queue_size, QUEUE_SIZE),
            ("workers", self.workers, WORKERS),
        ] {
            if let Some(value) = value.filter(|value| !range.contains(value)) {
                bail!("{key} is {value}: it must be {} to {}", range.start(), range.end());
            }
        }
        if let Some(size) = self.queue_size.filter(|size| !size.is_power_of_two()) {
            bail!("queue-size is {size}: it must be a power of two");
        }
        let (num_vfs, total_vfs) =
            (self.num_vfs.unwrap_or_default(), self.total_vfs.unwrap_or(MAX_VFS));
        if num_vfs > total_vfs {
            return Err(advise(
                format!("num-vfs is {num_vfs}, but total-vfs is {total_vfs}"),
                "raise total-vfs or lower num-vfs",
            ));
        }
        Ok(())
    }

    /// Returns the adapter's configuration, with its sockets in `run_dir`.
    pub(crate) fn adapter(&self, run_dir: &Path) -> manifold_adapter::Config {
        let default = manifold_adapter::Config::new(run_dir);
        manifold_adapter::Config {
            total_vfs: self.total_vfs.unwrap_or(default.total_vfs),
            mtu: self.mtu.unwrap_or(default.mtu),
            queue_pairs: self.queue_pairs.unwrap_or(default.queue_pairs),
            queue_size: self.queue_size.unwrap_or(default.queue_size),
            workers: match (&self.cores, self.workers) {
                (Some(Cores(cores)), _) => cores.iter().copied().map(Some).collect(),
                (None, Some(count)) => vec![None; count.into()],
                (None, None) => default.workers,
            },
            base_mac: self.base_mac.map(|mac| mac.0),
            uplink: self.uplink.clone().unwrap_or_default(),
            ..default
        }
    }
}

/// Returns a parser of flags for numbers in `range`.
fn within(range: RangeInclusive<u16>) -> RangedI64ValueParser<u16> {
    RangedI64ValueParser::new().range(i64::from(*range.start())..=i64::from(*range.end()))
}

/// Reads a setting that the file writes as a flag does, in a string.
fn from_text<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
    D: serde::Deserializer<'de>,
{
    let text = String::deserialize(from)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

/// Processors by number, one for each worker: `2,3`, `2-5`, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cores(Vec<usize>);

impl std::str::FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("{text:?} is not a list of processors like 2,3 or 2-5");
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.trim().parse::<usize>().map_err(|_| invalid());
            let (first, last) = (number(first)?, number(last)?);
            if first > last || last - first >= MAX_WORKERS {
                return Err(invalid());
            }
            cores.extend(first..=last);
        }
        if cores.len() > MAX_WORKERS {
            return Err(format!(
                "{} processors: there are at most {MAX_WORKERS} workers",
                cores.len()
            ));
        }
        Ok(Cores(cores))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str, flags: Settings) -> anyhow::Result<Settings> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), text)?;
        flags.load(Some(file.path()))
    }

    #[test]
    fn without_anything_the_defaults_hold() {
        for settings in [Settings::default().load(None), load_text("", Settings::default())] {
            let settings = settings.unwrap();
            assert_eq!(settings, Settings::default());
            let run_dir = Path::new("/run/x");
            assert_eq!(settings.adapter(run_dir), manifold_adapter::Config::new(run_dir));
        }
    }

    #[test]
    fn flags_override_the_file() {
        let text = "
            run-dir = '/run/x'
            total-vfs = 16
            num-vfs = 4
            uplink = 'tap:tap0'
            mtu = 9000
            queue-pairs = 2
            queue-size = 64
            cores = '1,4-5'
            base-mac = '02:00:00:00:01:00'
        ";
        let from_file = load_text(text, Settings::default()).unwrap();
        assert_eq!(from_file.run_dir.clone().path().unwrap(), Path::new("/run/x"));
        assert_eq!(from_file.num_vfs, Some(4));
        let folder = Path::new("/run/y");
        let adapter = manifold_adapter::Config {
            total_vfs: 16,
            mtu: 9000,
            queue_pairs: 2,
            queue_size: 64,
            base_mac: Some([2, 0, 0, 0, 1, 0]),
            uplink: Uplink::Tap("tap0".into()),
            workers: vec![Some(1), Some(4), Some(5)],
            run_dir: folder.into(),
        };
        assert_eq!(from_file.adapter(folder), adapter);

        let flags = Settings {
            num_vfs: Some(0),
            uplink: Some(Uplink::None),
            workers: Some(2),
            ..Settings::default()
        };
        let both = load_text(text, flags).unwrap();
        assert_eq!(both.num_vfs, Some(0));
        let uplink = manifold_adapter::Uplink::None;
        let expected = manifold_adapter::Config { uplink, workers: vec![None, None], ..adapter };
        assert_eq!(both.adapter(folder), expected);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (text, part) in [
            ("total-vfs = 0", "1 to 256"),
            ("total-vfs = 257", "1 to 256"),
            ("total-vfs = 65536", "total-vfs"),
            ("total-vfs = -1", "total-vfs"),
            ("total_vfs = 4", "total_vfs"),
            ("num-vfs = 257", "num-vfs is 257"),
            ("total-vfs = 4\nnum-vfs = 5", "num-vfs is 5"),
            ("uplink = 'eth0'", "unknown uplink"),
            ("uplink = 'tap:'", "interface name"),
            ("mtu = 67", "68"),
            ("queue-pairs = 0", "1 to 65535"),
            ("queue-size = 100", "power of two"),
            ("queue-size = 2048", "2 to 1024"),
            ("workers = 0", "1 to 64"),
            ("workers = 65", "1 to 64"),
            ("cores = '3-2'", "list of processors"),
            ("cores = ''", "list of processors"),
            ("cores = '0-99999999'", "list of processors"),
            ("cores = 'x'", "list of processors"),
            ("base-mac = 'x'", "MAC address"),
            ("mtu = '1500'", "mtu"),
            ("mtu", "mtu"),
        ] {
            let error = format!("{:#}", load_text(text, Settings::default()).unwrap_err());
            assert!(error.contains(part), "{text}: {error}");
        }
        let error = Settings::default().load(Some(Path::new("/nonexistent"))).unwrap_err();
        assert!(format!("{error:#}").contains("/nonexistent"), "{error:#}");
    }
}
