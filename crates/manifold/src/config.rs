//! What `serve` is told: flags, then the configuration file, then the defaults.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use manifold_api::types::{MacAddr, Uplink};
use manifold_pci::MAX_VFS;
use serde::Deserialize;

use crate::cli::SettingsArgs;
use crate::failure::advise;

/// The configuration file: every key may be left out.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    run_dir: Option<PathBuf>,
    total_vfs: Option<u16>,
    num_vfs: Option<u16>,
    #[serde(default, deserialize_with = "from_text")]
    uplink: Option<Uplink>,
    mtu: Option<u16>,
    queue_pairs: Option<u16>,
    queue_size: Option<u16>,
    workers: Option<u16>,
    #[serde(default, deserialize_with = "from_text")]
    cores: Option<Cores>,
    #[serde(default, deserialize_with = "from_text")]
    base_mac: Option<MacAddr>,
}

/// The most workers an adapter has.
const MAX_WORKERS: usize = 64;

/// Processors by number, one for each worker: `2,3`, `2-5`, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cores(pub(crate) Vec<usize>);

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

fn from_text<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
    D: serde::Deserializer<'de>,
{
    let text = String::deserialize(from)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

/// What the daemon is to run. What is `None` is left to the adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) total_vfs: u16,
    pub(crate) num_vfs: u16,
    pub(crate) uplink: Uplink,
    pub(crate) mtu: Option<u16>,
    pub(crate) queue_pairs: Option<u16>,
    pub(crate) queue_size: Option<u16>,
    /// The workers: pinned, or not.
    pub(crate) workers: Option<Vec<Option<usize>>>,
    pub(crate) base_mac: Option<MacAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            total_vfs: MAX_VFS,
            num_vfs: 0,
            uplink: Uplink::None,
            mtu: None,
            queue_pairs: None,
            queue_size: None,
            workers: None,
            base_mac: None,
        }
    }
}

impl Settings {
    /// What the adapter is told, with its sockets in `run_dir`.
    pub(crate) fn adapter(&self, run_dir: &Path) -> manifold_adapter::Config {
        let default = manifold_adapter::Config::new(run_dir);
        manifold_adapter::Config {
            total_vfs: self.total_vfs,
            mtu: self.mtu.unwrap_or(default.mtu),
            queue_pairs: self.queue_pairs.unwrap_or(default.queue_pairs),
            queue_size: self.queue_size.unwrap_or(default.queue_size),
            workers: self.workers.clone().unwrap_or(default.workers),
            base_mac: self.base_mac.map(|mac| mac.0),
            uplink: self.uplink.clone(),
            ..default
        }
    }
}

/// Settings of `flags` over those of `file`, and the run directory the file names.
///
/// # Errors
/// Where the file cannot be read or understood, or values do not fit each other.
pub(crate) fn load(
    file: Option<&Path>,
    flags: SettingsArgs,
) -> anyhow::Result<(Settings, Option<PathBuf>)> {
    let file = match file {
        None => File::default(),
        Some(path) => {
            let text = fs::read_to_string(path)
                .with_context(|| format!("cannot read the configuration {}", path.display()))?;
            toml::from_str(&text)
                .with_context(|| format!("the configuration {} is not valid", path.display()))?
        }
    };
    let default = Settings::default();
    let settings = Settings {
        total_vfs: flags.total_vfs.or(file.total_vfs).unwrap_or(default.total_vfs),
        num_vfs: flags.num_vfs.or(file.num_vfs).unwrap_or(default.num_vfs),
        uplink: flags.uplink.or(file.uplink).unwrap_or(default.uplink),
        mtu: flags.mtu.or(file.mtu),
        queue_pairs: flags.queue_pairs.or(file.queue_pairs),
        queue_size: flags.queue_size.or(file.queue_size),
        // A flag for either overrides the file's choice of both.
        workers: workers(flags.workers, flags.cores).or_else(|| workers(file.workers, file.cores)),
        base_mac: flags.base_mac.or(file.base_mac),
    };
    check(&settings)?;
    Ok((settings, file.run_dir))
}

/// The workers that were asked for.
fn workers(count: Option<u16>, cores: Option<Cores>) -> Option<Vec<Option<usize>>> {
    match cores {
        Some(Cores(cores)) => Some(cores.into_iter().map(Some).collect()),
        None => count.map(|count| vec![None; count.into()]),
    }
}

fn check(settings: &Settings) -> anyhow::Result<()> {
    let Settings { total_vfs, num_vfs, mtu, .. } = *settings;
    if !(1..=MAX_VFS).contains(&total_vfs) {
        bail!("total-vfs is {total_vfs}: it must be 1 to {MAX_VFS}");
    }
    if num_vfs > total_vfs {
        return Err(advise(
            format!("num-vfs is {num_vfs}, but total-vfs is {total_vfs}"),
            "raise total-vfs or lower num-vfs",
        ));
    }
    // Virtual I/O Device 1.3, section 5.1.4.1: the device offers an MTU of at least 68.
    if mtu.is_some_and(|mtu| mtu < 68) {
        bail!("mtu is {}: it must be 68 to 65535 bytes", mtu.unwrap_or_default());
    }
    if settings.queue_pairs == Some(0) {
        bail!("queue-pairs is 0: a function needs at least 1");
    }
    if let Some(size) = settings.queue_size
        && (!size.is_power_of_two() || !(2..=1024).contains(&size))
    {
        bail!("queue-size is {size}: it must be a power of two from 2 to 1024");
    }
    if let Some(workers) = settings.workers.as_ref().map(Vec::len)
        && !(1..=MAX_WORKERS).contains(&workers)
    {
        bail!("workers is {workers}: it must be 1 to {MAX_WORKERS}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str, flags: SettingsArgs) -> anyhow::Result<(Settings, Option<PathBuf>)> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), text)?;
        load(Some(file.path()), flags)
    }

    #[test]
    fn without_anything_the_defaults_hold() {
        let (settings, run_dir) = load(None, SettingsArgs::default()).unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!(run_dir, None);
        assert_eq!(load_text("", SettingsArgs::default()).unwrap(), (settings, None));
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
        let (settings, run_dir) = load_text(text, SettingsArgs::default()).unwrap();
        assert_eq!(run_dir, Some("/run/x".into()));
        let from_file = Settings {
            total_vfs: 16,
            num_vfs: 4,
            uplink: Uplink::Tap("tap0".into()),
            mtu: Some(9000),
            queue_pairs: Some(2),
            queue_size: Some(64),
            workers: Some(vec![Some(1), Some(4), Some(5)]),
            base_mac: Some(MacAddr([2, 0, 0, 0, 1, 0])),
        };
        assert_eq!(settings, from_file);
        let flags = SettingsArgs {
            num_vfs: Some(0),
            uplink: Some(Uplink::None),
            workers: Some(2),
            ..SettingsArgs::default()
        };
        let (settings, _) = load_text(text, flags).unwrap();
        let workers = Some(vec![None, None]);
        assert_eq!(settings, Settings { num_vfs: 0, uplink: Uplink::None, workers, ..from_file });
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
            ("queue-pairs = 0", "at least 1"),
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
            let error = format!("{:#}", load_text(text, SettingsArgs::default()).unwrap_err());
            assert!(error.contains(part), "{text}: {error}");
        }
        let error = load(Some(Path::new("/nonexistent")), SettingsArgs::default()).unwrap_err();
        assert!(format!("{error:#}").contains("/nonexistent"), "{error:#}");
    }
}
