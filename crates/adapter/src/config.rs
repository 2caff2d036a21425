//! This module holds the settings that an adapter is started with.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::str::FromStr;

use manifold_eswitch::MacAddr;
use manifold_pci::{FunctionId, MAX_VFS};

use crate::error::Error;

/// The interface that the adapter's port is connected to. Its text form is `none` or `tap:NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Uplink {
    /// The port is not connected; frames for nobody known are dropped.
    #[default]
    None,
    /// A TAP interface of this name, made if it does not exist.
    Tap(String),
}

impl fmt::Display for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Tap(name) => write!(f, "tap:{name}"),
        }
    }
}

impl FromStr for Uplink {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            Some(("tap", name)) if is_interface_name(name) => Ok(Self::Tap(name.to_owned())),
            Some(("tap", name)) => Err(Error::InterfaceName(name.to_owned())),
            _ => Err(Error::UnknownUplink(text.to_owned())),
        }
    }
}

/// Returns `true` for a name that Linux's dev_valid_name() takes; IFNAMSIZ is 16 with the final
/// NUL.
fn is_interface_name(name: &str) -> bool {
    let bad = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
    (1..=15).contains(&name.len()) && name != "." && name != ".." && !name.contains(bad)
}

/// The settings of an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// TotalVFs, 1 to 256.
    pub total_vfs: u16,
    /// MTU offered to every function's driver, 68 to 65,535 bytes.
    pub mtu: u16,
    /// Queue pairs offered to every function's driver, 1 to 16.
    pub queue_pairs: u16,
    /// Largest queue offered, in descriptors: a power of two, 2 to 1,024.
    pub queue_size: u16,
    /// MAC address of the PF; VF n has it plus n + 1. `None` stands for a locally administered
    /// address that stays the same for the same machine and folder.
    pub base_mac: Option<[u8; 6]>,
    /// Folder for the sockets; it must exist.
    pub run_dir: PathBuf,
    /// Interface that the port is connected to.
    pub uplink: Uplink,
    /// The threads that move frames, 1 to 64, one element each. Each is pinned to the processor of
    /// this number, or left to the system.
    pub workers: Vec<Option<usize>>,
}

impl Config {
    /// Returns the usual settings: 256 VFs, MTU 1500, four queue pairs of 256 descriptors, no
    /// uplink, one worker.
    pub fn new(run_dir: impl Into<PathBuf>) -> Self {
        Config {
            total_vfs: MAX_VFS,
            mtu: 1500,
            queue_pairs: 4,
            queue_size: 256,
            base_mac: None,
            run_dir: run_dir.into(),
            uplink: Uplink::None,
            workers: vec![None],
        }
    }

    /// Checks the settings that no lower layer checks.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !(1..=MAX_VFS).contains(&self.total_vfs) {
            return Err(Error::TotalVfs(self.total_vfs));
        }
        if let Some(mac) = self.base_mac
            && (!MacAddr(mac).is_station() || mac_plus(mac, self.total_vfs).is_none())
        {
            return Err(Error::BaseMac(MacAddr(mac)));
        }
        Ok(())
    }

    /// Returns the PF's MAC address.
    pub(crate) fn base_mac(&self) -> [u8; 6] {
        self.base_mac.unwrap_or_else(|| {
            let mut hasher = DefaultHasher::new();
            std::fs::read("/etc/machine-id").unwrap_or_default().hash(&mut hasher);
            self.run_dir.hash(&mut hasher);
            let [a, b, c, ..] = hasher.finish().to_be_bytes();
            [0x02, a, b, c, 0, 0]
        })
    }
}

/// Returns a function's MAC address: the PF's (`base`) plus the function's index, in the last two
/// bytes.
pub(crate) fn function_mac(base: [u8; 6], id: FunctionId) -> [u8; 6] {
    let index = u16::try_from(id.index()).unwrap_or(u16::MAX);
    mac_plus(base, index).unwrap_or(base)
}

fn mac_plus(base: [u8; 6], n: u16) -> Option<[u8; 6]> {
    let [a, b, c, d, e, f] = base;
    let [e, f] = u16::from_be_bytes([e, f]).checked_add(n)?.to_be_bytes();
    Some([a, b, c, d, e, f])
}

/// Returns the EUI-64 made from an EUI-48, for the Device Serial Number capability.
pub(crate) fn serial(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_be_bytes([a, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uplinks_are_read_as_they_are_written() {
        for text in ["none", "tap:tap0", "tap:a23456789012345"] {
            assert_eq!(text.parse::<Uplink>().unwrap().to_string(), text);
        }
        for text in ["", "tap", "tap0", "None", "none:", "af_xdp:eth0", " none"] {
            assert!(matches!(text.parse::<Uplink>(), Err(Error::UnknownUplink(_))), "{text}");
        }
        for name in ["", ".", "..", "a/b", "a b", "a:b", "a\tb", "a\0b", "a234567890123456"] {
            let uplink = format!("tap:{name}").parse::<Uplink>();
            assert!(matches!(uplink, Err(Error::InterfaceName(bad)) if bad == name), "{name}");
        }
    }

    #[test]
    fn addresses_count_up_from_the_pf() {
        let base = [2, 0, 0, 0, 0, 0xff];
        assert_eq!(function_mac(base, FunctionId::Pf), base);
        assert_eq!(function_mac(base, FunctionId::Vf(0)), [2, 0, 0, 0, 1, 0]);
        assert_eq!(function_mac(base, FunctionId::Vf(255)), [2, 0, 0, 0, 1, 0xff]);
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let good = Config::new("/tmp");
        assert!(good.check().is_ok());
        assert!(Config { total_vfs: 0, ..good.clone() }.check().is_err());
        assert!(Config { total_vfs: 257, ..good.clone() }.check().is_err());
        let group = Some([1, 0, 0, 0, 0, 0]);
        assert!(Config { base_mac: group, ..good.clone() }.check().is_err());
        let no_room = Some([2, 0, 0, 0, 0xff, 0x10]);
        assert!(Config { base_mac: no_room, ..good.clone() }.check().is_err());
        assert!(Config { base_mac: no_room, total_vfs: 10, ..good }.check().is_ok());
    }
}
