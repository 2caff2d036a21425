//! This module defines the commands to a guest process and the events from it: one JSON object per
//! line, each way.

use crate::vfio::{ClientKind, DmaMode};
use crate::virtio::Counters;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Configuration of a guest process. Everything but `socket` has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The function's vfio-user socket.
    pub socket: PathBuf,
    /// The client to connect with.
    #[serde(default)]
    pub client: ClientKind,
    /// The way in which the device reaches guest memory.
    #[serde(default)]
    pub dma: DmaMode,
    /// The I/O virtual address at which guest memory begins (a multiple of 4096).
    #[serde(default = "Config::default_iova")]
    pub iova: u64,
    /// RX/TX queue pairs to use, at most what the device offers.
    #[serde(default = "Config::default_queue_pairs")]
    pub queue_pairs: u16,
    /// Entries per virtqueue: a power of two, at most what the device offers.
    #[serde(default = "Config::default_queue_size")]
    pub queue_size: u16,
    /// Bytes per receive buffer, virtio-net header included.
    #[serde(default = "Config::default_rx_buffer")]
    pub rx_buffer: u32,
    /// Uses indirect descriptors for transmission if the device offers them.
    #[serde(default)]
    pub indirect: bool,
    /// Feature bits that the driver must not accept, even where it could use them.
    #[serde(default)]
    pub refuse_features: u64,
}

impl Config {
    /// Makes a configuration with defaults for a function's socket.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            client: ClientKind::default(),
            dma: DmaMode::default(),
            iova: Self::default_iova(),
            queue_pairs: Self::default_queue_pairs(),
            queue_size: Self::default_queue_size(),
            rx_buffer: Self::default_rx_buffer(),
            indirect: false,
            refuse_features: 0,
        }
    }

    fn default_iova() -> u64 {
        0x1_0000_0000
    }
    fn default_queue_pairs() -> u16 {
        1
    }
    fn default_queue_size() -> u16 {
        256
    }
    fn default_rx_buffer() -> u32 {
        4096
    }
}

/// A neighbour whose MAC address is known beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// The neighbour's IPv4 address.
    pub address: Ipv4Addr,
    /// The neighbour's MAC address.
    pub mac: [u8; 6],
}

/// A transfer that this guest is to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incoming {
    /// Number that names the transfer in events; the caller chooses it.
    pub id: u32,
    /// TCP port to listen on; each transfer has its own.
    pub port: u16,
}

/// A transfer that this guest is to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    /// Number that names the transfer in events; the caller chooses it.
    pub id: u32,
    /// The receiver.
    pub to: Ipv4Addr,
    /// The receiver's TCP port.
    pub port: u16,
    /// Number of bytes to send.
    pub bytes: u64,
    /// Seed of the random bytes.
    pub seed: u64,
}

/// Direction of a rogue DMA, from the device's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The device is asked to read from the address, that is to transmit.
    Read,
    /// The device is asked to write to the address, that is to receive.
    Write,
}

/// A command to the agent. Commands run concurrently unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Sets the guest's address. Answered by [`Event::Configured`].
    Configure {
        /// The guest's IPv4 address.
        address: Ipv4Addr,
        /// Network bits in the address, 0 to 32.
        prefix: u8,
        /// Neighbours known beforehand; all others are resolved by ARP.
        #[serde(default)]
        neighbours: Vec<Neighbour>,
    },
    /// Pings all targets concurrently. Answered by one [`Event::Pinged`] per target.
    Ping {
        /// The addresses to ping.
        targets: Vec<Ipv4Addr>,
        /// Number of echo requests per target.
        count: u32,
        /// Milliseconds between two requests to one target.
        #[serde(default = "default_interval")]
        interval_ms: u64,
        /// Milliseconds to wait for the last reply, and for ARP.
        #[serde(default = "default_timeout")]
        timeout_ms: u64,
        /// Length in bytes of the data after the ICMP header.
        #[serde(default = "default_payload")]
        payload: u16,
    },
    /// Listens for transfers. Answered by [`Event::Listening`] at once, then by one
    /// [`Event::Received`] or [`Event::Failed`] per transfer.
    Receive {
        /// The transfers.
        transfers: Vec<Incoming>,
    },
    /// Sends transfers. Answered by one [`Event::Sent`] or [`Event::Failed`] per transfer.
    Send {
        /// The transfers.
        transfers: Vec<Outgoing>,
    },
    /// Offers the device one descriptor whose address the guest never mapped. Answered by
    /// [`Event::RogueDma`], after which the device is reset and brought up again; other traffic of
    /// this guest pauses meanwhile.
    RogueDma {
        /// IOVA to aim at.
        iova: u64,
        /// Direction of the DMA.
        direction: Direction,
    },
    /// Asks for [`Event::Stats`].
    Stats,
    /// Resets the device and ends the process. Answered by [`Event::Stopped`].
    Stop,
}

fn default_interval() -> u64 {
    10
}
fn default_timeout() -> u64 {
    2000
}
fn default_payload() -> u16 {
    56
}

/// Round-trip times in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rtt {
    /// Shortest round trip.
    pub min: f64,
    /// Median round trip.
    pub median: f64,
    /// Longest round trip.
    pub max: f64,
}

/// A report of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The device is up; commands are taken.
    Ready {
        /// The device's MAC address.
        mac: [u8; 6],
        /// The device's MTU in bytes.
        mtu: u16,
        /// The features agreed on.
        features: u64,
        /// The queue pairs in use.
        queue_pairs: u16,
    },
    /// [`Command::Configure`] is done.
    Configured {
        /// The guest's address.
        address: Ipv4Addr,
    },
    /// Pinging one target has ended.
    Pinged {
        /// The target.
        to: Ipv4Addr,
        /// Echo requests sent.
        sent: u32,
        /// Replies received.
        received: u32,
        /// Round-trip times; `None` without a reply.
        rtt_us: Option<Rtt>,
    },
    /// The transfers of one [`Command::Receive`] can be sent now.
    Listening {
        /// Number of transfers.
        transfers: usize,
    },
    /// Transfers make progress; this is reported a few times a second while any is running.
    Progress {
        /// Bytes received so far, all transfers of this guest together.
        received: u64,
        /// Bytes sent and acknowledged so far, all transfers of this guest together.
        sent: u64,
    },
    /// A transfer was received to its end.
    Received {
        /// The transfer's ID.
        id: u32,
        /// Bytes received.
        bytes: u64,
        /// BLAKE3 of what was received, in hexadecimal.
        digest: String,
        /// Seconds from the first byte to the last.
        seconds: f64,
    },
    /// A transfer was sent and acknowledged to its end.
    Sent {
        /// The transfer's ID.
        id: u32,
        /// Bytes sent.
        bytes: u64,
        /// BLAKE3 of what was sent, in hexadecimal.
        digest: String,
        /// Seconds from the start of the connection to the last acknowledgement.
        seconds: f64,
    },
    /// A rogue DMA was tried.
    RogueDma {
        /// IOVA that it aimed at.
        iova: u64,
        /// Direction of the DMA.
        direction: Direction,
        /// The device status afterwards (virtio 1.3, section 2.1).
        status: u8,
        /// True if DEVICE_NEEDS_RESET was set in the status.
        needs_reset: bool,
        /// True if the device worked again after a reset.
        recovered: bool,
    },
    /// These counters answer [`Command::Stats`].
    Stats {
        /// Counters of the driver.
        counters: Counters,
    },
    /// A command or a transfer failed; the agent goes on.
    Failed {
        /// ID of the transfer, if one failed.
        id: Option<u32>,
        /// Description of what happened.
        message: String,
    },
    /// The device needs a reset or the server is gone; the agent ends.
    Fatal {
        /// Description of what happened.
        message: String,
    },
    /// The agent ends, because it was told to.
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_needs_only_the_socket() {
        let config: Config = serde_json::from_str(r#"{"socket":"/run/x/vf0.sock"}"#).unwrap();
        assert_eq!(config, Config::new("/run/x/vf0.sock"));
        assert!(serde_json::from_str::<Config>(r#"{"socket":"x","sokcet":1}"#).is_err());
    }

    #[test]
    fn commands_are_one_line_each() {
        let ping: Command =
            serde_json::from_str(r#"{"command":"ping","targets":["10.0.0.2"],"count":3}"#).unwrap();
        assert_eq!(
            ping,
            Command::Ping {
                targets: vec![Ipv4Addr::new(10, 0, 0, 2)],
                count: 3,
                interval_ms: 10,
                timeout_ms: 2000,
                payload: 56
            }
        );
        let text = serde_json::to_string(&Event::Stopped).unwrap();
        assert_eq!(text, r#"{"event":"stopped"}"#);
        assert!(serde_json::from_str::<Command>(r#"{"command":"fly"}"#).is_err());
    }
}
