//! This module sends commands on the control queue (virtio 1.3, section 5.1.6.5) as Linux' driver
//! sends them.

use super::net::VirtioNet;
use super::spec::{ctrl, net_config};
use crate::{Error, Result};

/// All hash types of the standard (5.1.6.4.3.1) except those of IPv6 extension headers.
const HASH_TYPES: u32 = 0x3f;
/// The RSS key that network cards come with.
const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];
/// Number of entries in the indirection table that this driver sets up by itself.
const TABLE: u16 = 128;

/// An RSS configuration, `struct virtio_net_rss_config` (5.1.6.5.7.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rss {
    /// Hash types, bits of 5.1.6.4.3.1.
    pub hash_types: u32,
    /// The receive queue of frames without a hash.
    pub unclassified: u16,
    /// Receive queues by hash; their number is a power of two.
    pub table: Vec<u16>,
    /// Number of transmit queues in use.
    pub max_tx: u16,
    /// The hash key.
    pub key: Vec<u8>,
}

impl Rss {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.hash_types.to_le_bytes().to_vec();
        let mask = (self.table.len() as u16).wrapping_sub(1);
        for word in [mask, self.unclassified].iter().chain(&self.table).chain([&self.max_tx]) {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.push(self.key.len() as u8);
        bytes.extend_from_slice(&self.key);
        bytes
    }
}

impl VirtioNet {
    /// Sends a command on the control queue.
    pub fn command(&mut self, name: &'static str, command: (u8, u8), data: &[u8]) -> Result<()> {
        match &mut self.control {
            Some(control) => control.command(&mut self.device, name, command, data),
            None => Err(no_control()),
        }
    }

    /// Sends `VIRTIO_NET_CTRL_MAC_ADDR_SET`.
    pub fn set_mac(&mut self, mac: [u8; 6]) -> Result<()> {
        self.command("VIRTIO_NET_CTRL_MAC_ADDR_SET", ctrl::MAC_ADDR_SET, &mac)?;
        self.info.mac = mac;
        Ok(())
    }

    /// Sends `VIRTIO_NET_CTRL_MAC_TABLE_SET`: further addresses to receive.
    pub fn set_mac_table(&mut self, unicast: &[[u8; 6]], multicast: &[[u8; 6]]) -> Result<()> {
        let mut data = Vec::new();
        for table in [unicast, multicast] {
            data.extend_from_slice(&(table.len() as u32).to_le_bytes());
            data.extend(table.iter().flatten());
        }
        self.command("VIRTIO_NET_CTRL_MAC_TABLE_SET", ctrl::MAC_TABLE_SET, &data)
    }

    /// Sends `VIRTIO_NET_CTRL_RX_PROMISC`.
    pub fn set_promiscuous(&mut self, on: bool) -> Result<()> {
        self.command("VIRTIO_NET_CTRL_RX_PROMISC", ctrl::RX_PROMISC, &[on.into()])
    }

    /// Sends `VIRTIO_NET_CTRL_RX_ALLMULTI`.
    pub fn set_all_multicast(&mut self, on: bool) -> Result<()> {
        self.command("VIRTIO_NET_CTRL_RX_ALLMULTI", ctrl::RX_ALLMULTI, &[on.into()])
    }

    /// Sends `VIRTIO_NET_CTRL_VLAN_ADD` or `_DEL`.
    pub fn set_vlan(&mut self, vlan: u16, on: bool) -> Result<()> {
        let command = if on { ctrl::VLAN_ADD } else { ctrl::VLAN_DEL };
        self.command("VIRTIO_NET_CTRL_VLAN", command, &vlan.to_le_bytes())
    }

    /// Sends `VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET`.
    pub fn set_queue_pairs(&mut self, pairs: u16) -> Result<()> {
        match &mut self.control {
            Some(control) => control.set_queue_pairs(&mut self.device, pairs),
            None => Err(no_control()),
        }
    }

    /// Sends `VIRTIO_NET_CTRL_MQ_RSS_CONFIG`.
    pub fn set_rss(&mut self, rss: &Rss) -> Result<()> {
        self.command("VIRTIO_NET_CTRL_MQ_RSS_CONFIG", ctrl::MQ_RSS_CONFIG, &rss.bytes())
    }

    /// Spreads frames by RSS over the first `pairs` receive queues, evenly.
    pub(super) fn spread_over(&mut self, pairs: u16) -> Result<()> {
        let mut key_size = [0; 1];
        self.device.read_device(net_config::RSS_MAX_KEY_SIZE, &mut key_size)?;
        let mut limits = [0; 6];
        self.device.read_device(net_config::RSS_MAX_KEY_SIZE + 1, &mut limits)?;
        let [a, b, c, d, e, f] = limits;
        let length = u16::from_le_bytes([a, b]).min(TABLE);
        let types = u32::from_le_bytes([c, d, e, f]);
        // The length is the largest power of two that both sides can do.
        let length = length.checked_ilog2().map_or(1, |log| 1 << log);
        self.set_rss(&Rss {
            hash_types: HASH_TYPES & types,
            unclassified: 0,
            table: (0..length).map(|n| n % pairs.max(1)).collect(),
            max_tx: pairs,
            key: KEY.get(..usize::from(key_size[0]).min(KEY.len())).unwrap_or_default().to_vec(),
        })
    }

    /// Sends `VIRTIO_NET_CTRL_MQ_HASH_CONFIG`: what the hashes in headers are made of, where there
    /// is no RSS.
    pub fn set_hash(&mut self, hash_types: u32, key: &[u8]) -> Result<()> {
        let mut data = hash_types.to_le_bytes().to_vec();
        data.extend_from_slice(&[0; 8]);
        data.push(key.len() as u8);
        data.extend_from_slice(key);
        self.command("VIRTIO_NET_CTRL_MQ_HASH_CONFIG", ctrl::MQ_HASH_CONFIG, &data)
    }
}

fn no_control() -> Error {
    Error::Unsupported("control commands: the device has no control queue")
}
