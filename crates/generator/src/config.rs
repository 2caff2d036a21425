//! This module is the generator's configuration. Everything with a default may be left out of the
//! JSON.

use manifold_guest::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A MAC address, which in JSON is text: `"02:00:00:00:00:01"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad =
            || Error::Command(format!("{text:?} is no MAC address such as 02:00:00:00:00:01"));
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let hex = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            let part = parts.next().filter(hex).ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        parts.next().is_none().then_some(Self(mac)).ok_or_else(bad)
    }
}

impl TryFrom<String> for Mac {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

/// The way in which a port is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// The port attaches to a whole PCIe function: `vfN.sock`.
    #[default]
    VfioUser,
    /// The port attaches to the data path only: `vfN.vhost.sock`, or the socket of a vhost-user
    /// backend of others.
    VhostUser,
    /// There is no device at all. What a port sends arrives, uncopied, at the receiver of its flow,
    /// and the time for that is not counted: the cost of the generator itself is left. The socket
    /// is not used.
    Loopback,
}

/// A port of the generator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortConfig {
    /// The socket that the device listens on.
    #[serde(default)]
    pub socket: PathBuf,
    /// The protocol on the socket.
    #[serde(default)]
    pub protocol: Protocol,
    /// The port's address. The default is the device's own, or `02:00:00:00:hh:ll` with the port's
    /// index in `hhll` where the device does not name one, as over vhost-user. Manifold drops
    /// frames from other addresses than the VF's own (`manifold vf list`), so name it there.
    #[serde(default)]
    pub mac: Option<Mac>,
}

impl PortConfig {
    /// Makes a port with defaults for everything else.
    pub fn new(socket: impl Into<PathBuf>, protocol: Protocol) -> Self {
        Self { socket: socket.into(), protocol, mac: None }
    }
}

/// The rate at which a flow sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// The flow sends as fast as the ring takes frames, whatever arrives.
    Open,
    /// The flow sends at most this many frames a second.
    Rate(u64),
    /// The flow sends only while fewer than this many frames to the same receiver are on their way.
    /// If that is not more than the queue size, nothing is lost to overload.
    Closed(u32),
}

/// A stream of frames from one port to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// Index into [`Config::ports`] of the sender.
    pub from: usize,
    /// Index into [`Config::ports`] of the receiver.
    pub to: usize,
    /// The sender's queue pair, which sends no other flow.
    #[serde(default)]
    pub queue: u16,
    /// Rate at which it sends.
    pub load: Load,
}

/// The kind of frames. They are UDP over IPv4, except [`Frames::Tso`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frames {
    /// All frames have this many bytes without FCS, 60 to 65549. 64 bytes on a real wire are 60
    /// here.
    Size(u32),
    /// Frames have 60, 590 and 1514 bytes in the proportion 7 to 4 to 1.
    Imix,
    /// All frames are TCP over IPv4 larger than any MTU, and ask for segmentation.
    Tso {
        /// Length of a whole frame in bytes, 60 to 65549.
        bytes: u32,
        /// Length of the TCP payload in a segment, in bytes.
        mss: u16,
    },
}

impl Default for Frames {
    fn default() -> Self {
        Self::Size(60)
    }
}

/// The kind of pages that guest memory has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Memory {
    /// Guest memory is a memfd of ordinary pages.
    #[default]
    Pages,
    /// Guest memory is a memfd of 2 MiB pages; the machine must have some to spare
    /// (`/proc/sys/vm/nr_hugepages`).
    HugePages,
}

/// The set-up of virtqueues. It is an error if a device lacks a feature that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rings {
    /// Negotiates `VIRTIO_F_RING_PACKED`.
    pub packed: bool,
    /// Negotiates `VIRTIO_F_IN_ORDER`.
    pub in_order: bool,
    /// Negotiates `VIRTIO_F_EVENT_IDX`.
    pub event_idx: bool,
    /// Negotiates `VIRTIO_NET_F_MRG_RXBUF`.
    pub mergeable: bool,
    /// Number of entries per virtqueue, a power of two up to 1024.
    pub size: u16,
    /// Number of queue pairs per port.
    pub pairs: u16,
    /// Size of a receive buffer in bytes, header included. 0 means as many as the largest frame
    /// takes.
    pub rx_buffer: u32,
    /// Believes that chains come back in the order they went, and reads only the index and now and
    /// then an entry. If false, every used entry is read, as by a driver that cannot know.
    pub assume_order: bool,
    /// The kind of pages of guest memory.
    pub memory: Memory,
}

impl Default for Rings {
    fn default() -> Self {
        Self {
            packed: false,
            in_order: false,
            event_idx: false,
            mergeable: false,
            size: 256,
            pairs: 1,
            rx_buffer: 0,
            assume_order: true,
            memory: Memory::Pages,
        }
    }
}

/// The kind of measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Measures frames per second of all [`Config::flows`].
    #[default]
    Flows,
    /// Measures round trips of one frame from port 0 to port 1 and back, with polling. There are no
    /// flows.
    PingPong,
    /// Measures round trips with pauses in between, in which the device may fall asleep.
    Sleeping {
        /// Microseconds between two round trips.
        pause_us: u64,
        /// Waits for interrupts instead of polling.
        interrupts: bool,
    },
}

/// The whole configuration. One thread drives all ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The ports, up to 256.
    pub ports: Vec<PortConfig>,
    /// The flows between the ports.
    #[serde(default)]
    pub flows: Vec<Flow>,
    /// The kind of measurement.
    #[serde(default)]
    pub work: Work,
    /// The kind of frames.
    #[serde(default)]
    pub frames: Frames,
    /// The set-up of virtqueues.
    #[serde(default)]
    pub rings: Rings,
    /// Number of frames per burst.
    #[serde(default = "Config::default_burst")]
    pub burst: u16,
    /// Milliseconds that devices may take, at the very start, until a frame of each closed loop
    /// arrives.
    #[serde(default = "Config::default_ready")]
    pub ready_ms: u64,
    /// Milliseconds before counting starts.
    #[serde(default = "Config::default_warm_up")]
    pub warm_up_ms: u64,
    /// Milliseconds for which frames are counted.
    #[serde(default = "Config::default_duration")]
    pub duration_ms: u64,
    /// Checks every used entry and every received byte, which is slow.
    #[serde(default)]
    pub verify: bool,
    /// Processor to run on; any by default.
    #[serde(default)]
    pub cpu: Option<usize>,
}

impl Config {
    /// Makes a configuration for one second of 60-byte frames in bursts of 32 over these ports.
    pub fn new(ports: Vec<PortConfig>, flows: Vec<Flow>) -> Self {
        Self {
            ports,
            flows,
            work: Work::default(),
            frames: Frames::default(),
            rings: Rings::default(),
            burst: Self::default_burst(),
            ready_ms: Self::default_ready(),
            warm_up_ms: Self::default_warm_up(),
            duration_ms: Self::default_duration(),
            verify: false,
            cpu: None,
        }
    }

    fn default_burst() -> u16 {
        32
    }

    fn default_ready() -> u64 {
        5000
    }

    fn default_warm_up() -> u64 {
        200
    }

    fn default_duration() -> u64 {
        1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_json_is_enough() {
        let text = r#"{
            "ports": [{"socket": "a", "protocol": "vhost-user", "mac": "02:00:00:00:00:0a"}],
            "flows": [{"from": 0, "to": 0, "load": {"closed": 64}}], "frames": "imix",
            "rings": {"packed": true, "size": 1024, "memory": "huge_pages"}}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!(config.ports[0].mac, Some(Mac([2, 0, 0, 0, 0, 10])));
        assert_eq!(config.frames, Frames::Imix);
        assert!(config.rings.packed && config.rings.assume_order && config.rings.pairs == 1);
        let again = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(config, again);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            r#"{"ports": [{"socket": "a", "mac": "02:00"}]}"#,
            r#"{"ports": [{"socket": "a", "mac": "02:00:00:00:00:00:00"}]}"#,
            r#"{"ports": [{"socket": "a", "mac": "02:00:00:00:00:+1"}]}"#,
            r#"{"ports": [], "burts": 1}"#,
            r#"{"ports": [], "rings": {"packd": true}}"#,
        ] {
            assert!(serde_json::from_str::<Config>(text).is_err(), "{text}");
        }
    }
}
