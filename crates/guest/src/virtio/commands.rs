//! Commands on the control queue (virtio 1.3, section 5.1.6.5), as Linux' driver sends them.

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
/// Entries in the indirection table that this driver sets up by itself.
const TABLE: u16 = 128;

/// `struct virtio_net_rss_config` (5.1.6.5.7.1).
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

/// Interrupt moderation: `struct virtio_net_ctrl_coal` (5.1.6.5.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Coalescing {
    /// Number of frames after which an interrupt comes at the latest.
    pub packets: u32,
    /// Microseconds after the first frame after which an interrupt comes at the latest.
    pub usecs: u32,
}

impl Coalescing {
    fn bytes(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        for (place, word) in bytes.chunks_exact_mut(4).zip([self.packets, self.usecs]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// A group of counters of a queue (virtio 1.4, 5.1.6.5.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statistics {
    /// `VIRTIO_NET_STATS_TYPE_REPLY_*`.
    pub kind: u8,
    /// The virtqueue's index.
    pub queue: u16,
    /// The counters, in the order that the standard gives for the type.
    pub counters: Vec<u64>,
}

impl VirtioNet {
    /// Sends a command on the control queue.
    pub fn command(&mut self, name: &'static str, command: (u8, u8), data: &[u8]) -> Result<()> {
        self.ask(name, command, data, &mut []).map(drop)
    }

    /// Sends a command whose answer carries data and returns how many bytes of `reply` are filled.
    pub fn ask(
        &mut self,
        name: &'static str,
        command: (u8, u8),
        data: &[u8],
        reply: &mut [u8],
    ) -> Result<usize> {
        match &mut self.control {
            Some(control) => control.command(&mut self.device, name, command, data, reply),
            None => Err(no_control()),
        }
    }

    /// `VIRTIO_NET_CTRL_MAC_ADDR_SET`.
    pub fn set_mac(&mut self, mac: [u8; 6]) -> Result<()> {
        self.command("VIRTIO_NET_CTRL_MAC_ADDR_SET", ctrl::MAC_ADDR_SET, &mac)?;
        self.info.mac = mac;
        Ok(())
    }

    /// `VIRTIO_NET_CTRL_MAC_TABLE_SET`: further addresses to receive.
    pub fn set_mac_table(&mut self, unicast: &[[u8; 6]], multicast: &[[u8; 6]]) -> Result<()> {
        let mut data = Vec::new();
        for table in [unicast, multicast] {
            data.extend_from_slice(&(table.len() as u32).to_le_bytes());
            data.extend(table.iter().flatten());
        }
        self.command("VIRTIO_NET_CTRL_MAC_TABLE_SET", ctrl::MAC_TABLE_SET, &data)
    }

    /// `VIRTIO_NET_CTRL_RX_PROMISC`.
    pub fn set_promiscuous(&mut self, on: bool) -> Result<()> {
        self.command("VIRTIO_NET_CTRL_RX_PROMISC", ctrl::RX_PROMISC, &[on.into()])
    }

    /// `VIRTIO_NET_CTRL_RX_ALLMULTI`.
    pub fn set_all_multicast(&mut self, on: bool) -> Result<()> {
        self.command("VIRTIO_NET_CTRL_RX_ALLMULTI", ctrl::RX_ALLMULTI, &[on.into()])
    }

    /// `VIRTIO_NET_CTRL_VLAN_ADD` or `_DEL`.
    pub fn set_vlan(&mut self, vlan: u16, on: bool) -> Result<()> {
        let command = if on { ctrl::VLAN_ADD } else { ctrl::VLAN_DEL };
        self.command("VIRTIO_NET_CTRL_VLAN", command, &vlan.to_le_bytes())
    }

    /// `VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET`.
    pub fn set_queue_pairs(&mut self, pairs: u16) -> Result<()> {
        match &mut self.control {
            Some(control) => control.set_queue_pairs(&mut self.device, pairs),
            None => Err(no_control()),
        }
    }

    /// `VIRTIO_NET_CTRL_MQ_RSS_CONFIG`.
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
        // The largest power of two that both sides can do.
        let length = length.checked_ilog2().map_or(1, |log| 1 << log);
        self.set_rss(&Rss {
            hash_types: HASH_TYPES & types,
            unclassified: 0,
            table: (0..length).map(|n| n % pairs.max(1)).collect(),
            max_tx: pairs,
            key: KEY.get(..usize::from(key_size[0]).min(KEY.len())).unwrap_or_default().to_vec(),
        })
    }

    /// `VIRTIO_NET_CTRL_MQ_HASH_CONFIG`: what the hashes in headers are made of, where there is no RSS.
    pub fn set_hash(&mut self, hash_types: u32, key: &[u8]) -> Result<()> {
        let mut data = hash_types.to_le_bytes().to_vec();
        data.extend_from_slice(&[0; 8]);
        data.push(key.len() as u8);
        data.extend_from_slice(key);
        self.command("VIRTIO_NET_CTRL_MQ_HASH_CONFIG", ctrl::MQ_HASH_CONFIG, &data)
    }

    /// `VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET`: which of the receive offloads agreed on are in force, as feature
    /// bits.
    pub fn set_guest_offloads(&mut self, offloads: u64) -> Result<()> {
        let data = offloads.to_le_bytes();
        self.command("VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET", ctrl::GUEST_OFFLOADS_SET, &data)
    }

    /// `VIRTIO_NET_CTRL_NOTF_COAL_RX_SET`.
    pub fn set_rx_coalescing(&mut self, to: Coalescing) -> Result<()> {
        self.command("VIRTIO_NET_CTRL_NOTF_COAL_RX_SET", ctrl::NOTF_COAL_RX_SET, &to.bytes())
    }

    /// `VIRTIO_NET_CTRL_NOTF_COAL_TX_SET`.
    pub fn set_tx_coalescing(&mut self, to: Coalescing) -> Result<()> {
        self.command("VIRTIO_NET_CTRL_NOTF_COAL_TX_SET", ctrl::NOTF_COAL_TX_SET, &to.bytes())
    }

    /// `VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET`, for one virtqueue.
    pub fn set_queue_coalescing(&mut self, queue: u16, to: Coalescing) -> Result<()> {
        let mut data = [0; 12];
        data[..2].copy_from_slice(&queue.to_le_bytes());
        data[4..].copy_from_slice(&to.bytes());
        self.command("VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET", ctrl::NOTF_COAL_VQ_SET, &data)
    }

    /// `VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET`.
    pub fn queue_coalescing(&mut self, queue: u16) -> Result<Coalescing> {
        let name = "VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET";
        let mut data = [0; 12];
        data[..2].copy_from_slice(&queue.to_le_bytes());
        let mut reply = [0; 12];
        if self.ask(name, ctrl::NOTF_COAL_VQ_GET, &data, &mut reply)? < reply.len() {
            return Err(Error::Device(format!("{name}: the answer is too short")));
        }
        let [_, _, _, _, a, b, c, d, e, f, g, h] = reply;
        Ok(Coalescing {
            packets: u32::from_le_bytes([a, b, c, d]),
            usecs: u32::from_le_bytes([e, f, g, h]),
        })
    }

    /// `VIRTIO_NET_CTRL_STATS_QUERY`: the kinds of counters that the device has, as bits.
    pub fn statistics_kinds(&mut self) -> Result<u64> {
        let mut reply = [0; 8];
        let name = "VIRTIO_NET_CTRL_STATS_QUERY";
        if self.ask(name, ctrl::STATS_QUERY, &[], &mut reply)? < reply.len() {
            return Err(Error::Device(format!("{name}: the answer is too short")));
        }
        Ok(u64::from_le_bytes(reply))
    }

    /// `VIRTIO_NET_CTRL_STATS_GET`: counters of these kinds of one virtqueue.
    pub fn statistics(&mut self, queue: u16, kinds: u64) -> Result<Vec<Statistics>> {
        let name = "VIRTIO_NET_CTRL_STATS_GET";
        let mut data = [0; 16];
        data[..2].copy_from_slice(&queue.to_le_bytes());
        data[8..].copy_from_slice(&kinds.to_le_bytes());
        let mut reply = [0; 1024];
        let len = self.ask(name, ctrl::STATS_GET, &data, &mut reply)?;
        let mut rest = reply.get(..len).unwrap_or_default();
        let mut found = Vec::new();
        // struct virtio_net_stats_reply_hdr: type, a byte, queue, two bytes, size of all.
        while let [kind, _, a, b, _, _, c, d, ..] = *rest {
            let size = usize::from(u16::from_le_bytes([c, d]));
            let Some((group, after)) = rest.split_at_checked(size).filter(|_| size >= 8) else {
                return Err(Error::Device(format!("{name}: a group of {size} bytes")));
            };
            let (words, _) = group.get(8..).unwrap_or_default().as_chunks::<8>();
            found.push(Statistics {
                kind,
                queue: u16::from_le_bytes([a, b]),
                counters: words.iter().map(|word| u64::from_le_bytes(*word)).collect(),
            });
            rest = after;
        }
        Ok(found)
    }
}

fn no_control() -> Error {
    Error::Unsupported("control commands: the device has no control queue")
}
