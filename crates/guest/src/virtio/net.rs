//! Frames in and out of a virtio-net device (virtio 1.3, section 5.1).

use super::Counters;
use super::control::ControlQueue;
use super::device::VirtioPci;
use super::queue::{Queue, write_descriptor};
use super::spec::{
    NET_HEADER, NET_HEADER_NUM_BUFFERS, NO_VECTOR, ctrl, feature, net_config, ring, status,
};
use crate::memory::Arena;
use crate::vfio::Function;
use crate::{Error, Result};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Bytes before the payload of an Ethernet frame.
const ETHERNET_HEADER: usize = 14;
/// The MTU where the device names none.
const DEFAULT_MTU: u16 = 1500;
/// Room in a frame beyond the MTU: Ethernet header and a VLAN tag.
const OVERHEAD: usize = ETHERNET_HEADER + 4;

/// How the driver is to set the device up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetOptions {
    /// Queue pairs, at most what the device has.
    pub queue_pairs: u16,
    /// Entries per queue.
    pub queue_size: u16,
    /// Bytes per receive buffer; raised to a whole frame where the device does not merge buffers.
    pub rx_buffer: u32,
    /// Send through indirect descriptors where the device takes them.
    pub indirect: bool,
    /// Features not to accept.
    pub refuse: u64,
    /// Reserve one descriptor of the first RX and TX queue for [`VirtioNet::rogue_dma`].
    pub spare: bool,
}

impl Default for NetOptions {
    fn default() -> Self {
        Self {
            queue_pairs: 1,
            queue_size: 256,
            rx_buffer: 4096,
            indirect: false,
            refuse: 0,
            spare: false,
        }
    }
}

impl NetOptions {
    /// Bytes of guest memory that the driver needs with these options, for a device of this MTU.
    pub fn memory(&self, mtu: u16) -> usize {
        let size = usize::from(self.queue_size);
        let rings = 3 * (size * (ring::DESC + 2 + ring::USED_ELEMENT) + 512);
        let frame = NET_HEADER + usize::from(mtu) + OVERHEAD;
        let rx = size * (self.rx_buffer as usize).max(128);
        let tx = size.min(TX_SLOTS) * (frame.next_multiple_of(64) + 2 * ring::DESC);
        usize::from(self.queue_pairs.max(1)) * (rings + rx + tx) + 16 * 1024
    }
}

/// The most frames in flight per TX queue; more memory than this buys nothing.
const TX_SLOTS: usize = 128;

/// What the device says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetInfo {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its MTU in bytes, 1500 where it names none.
    pub mtu: u16,
    /// The features agreed on.
    pub features: u64,
    /// Queue pairs in use.
    pub queue_pairs: u16,
}

/// A virtio-net device that works.
#[derive(Debug)]
pub struct VirtioNet {
    device: VirtioPci,
    info: NetInfo,
    rx: Vec<RxQueue>,
    tx: Vec<TxQueue>,
    control: Option<ControlQueue>,
}

impl VirtioNet {
    /// Resets the device and brings it up. The arena is rewound: nobody else may use it.
    pub fn start(function: Function, options: &NetOptions) -> Result<Self> {
        function.arena().rewind();
        let mut device = VirtioPci::probe(function)?;
        device.function().enable()?;
        let mut wanted = feature::VERSION_1
            | feature::ACCESS_PLATFORM
            | feature::ORDER_PLATFORM
            | feature::EVENT_IDX
            | feature::MAC
            | feature::MTU
            | feature::STATUS
            | feature::MRG_RXBUF
            | feature::CTRL_VQ
            | feature::CTRL_RX
            | feature::CTRL_VLAN
            | feature::CTRL_MAC_ADDR
            | feature::MQ;
        if options.indirect {
            wanted |= feature::INDIRECT_DESC;
        }
        let features = device.negotiate(wanted & !options.refuse)?;
        let has = |bit| features & bit != 0;
        let mut info = NetInfo { mac: [0; 6], mtu: DEFAULT_MTU, features, queue_pairs: 1 };
        if !has(feature::MAC) {
            return Err(Error::Device("no MAC address".into()));
        }
        device.read_device(net_config::MAC, &mut info.mac)?;
        if has(feature::MTU) {
            let mut mtu = [0; 2];
            device.read_device(net_config::MTU, &mut mtu)?;
            info.mtu = u16::from_le_bytes(mtu);
        }
        let mut max_pairs = 1;
        if has(feature::MQ) {
            let mut pairs = [0; 2];
            device.read_device(net_config::MAX_VIRTQUEUE_PAIRS, &mut pairs)?;
            max_pairs = u16::from_le_bytes(pairs);
            if !(1..=0x8000).contains(&max_pairs) {
                return Err(Error::Device(format!("{max_pairs} queue pairs")));
            }
        }
        info.queue_pairs = options.queue_pairs.clamp(1, max_pairs);
        // One vector for configuration changes and one per queue, or all of them on the last.
        let vectors = device.function().enable_msix(1 + 2 * info.queue_pairs)?;
        let vector = |n: u16| n.min(vectors - 1);
        device.set_config_vector(0)?;
        let mut net = Self { device, info, rx: Vec::new(), tx: Vec::new(), control: None };
        for pair in 0..info.queue_pairs {
            net.setup_pair(pair, options, [vector(1 + 2 * pair), vector(2 + 2 * pair)])?;
        }
        if has(feature::CTRL_VQ) {
            let index = 2 * if has(feature::MQ) { max_pairs } else { 1 };
            let queue = net.device.setup_queue(
                index,
                options.queue_size.min(64),
                NO_VECTOR,
                has(feature::EVENT_IDX),
            )?;
            net.control = Some(ControlQueue::new(index, queue, &mut net.device)?);
        }
        net.device.add_status(status::DRIVER_OK)?;
        for rx in &mut net.rx {
            rx.queue.disarm()?;
            rx.fill(&mut net.device)?;
        }
        for tx in &mut net.tx {
            tx.queue.disarm()?;
        }
        if info.queue_pairs > 1 {
            net.set_queue_pairs(info.queue_pairs)?;
        }
        Ok(net)
    }

    fn setup_pair(&mut self, pair: u16, options: &NetOptions, vectors: [u16; 2]) -> Result<()> {
        let has = |bit| self.info.features & bit != 0;
        let event_idx = has(feature::EVENT_IDX);
        let (merge, indirect) = (has(feature::MRG_RXBUF), has(feature::INDIRECT_DESC));
        let frame = usize::from(self.info.mtu) + OVERHEAD;
        let arena = self.device.function().arena().clone();
        let spare = u16::from(options.spare && pair == 0);
        let size = options.queue_size;
        let rx = self.device.setup_queue(2 * pair, size, vectors[0], event_idx)?;
        let buffer = options.rx_buffer as usize;
        let buffer = if merge { buffer } else { buffer.max(NET_HEADER + frame) };
        self.rx.push(RxQueue::new(2 * pair, vectors[0], rx, &arena, buffer, merge, spare)?);
        let tx = self.device.setup_queue(2 * pair + 1, size, vectors[1], event_idx)?;
        self.tx.push(TxQueue::new(2 * pair + 1, vectors[1], tx, &arena, frame, indirect, spare)?);
        Ok(())
    }

    /// What the device says of itself, and what was agreed on.
    pub fn info(&self) -> NetInfo {
        self.info
    }

    /// The device below.
    pub fn device(&mut self) -> &mut VirtioPci {
        &mut self.device
    }

    /// The device below, to look at.
    pub fn device_ref(&self) -> &VirtioPci {
        &self.device
    }

    /// All parts at once, for those who use several: device, RX queues, TX queues.
    pub fn parts(&mut self) -> (&mut VirtioPci, &mut [RxQueue], &mut [TxQueue]) {
        (&mut self.device, &mut self.rx, &mut self.tx)
    }

    /// The eventfds of all MSI-X vectors, configuration changes first.
    pub fn interrupts(&self) -> &[OwnedFd] {
        self.device.function_ref().interrupts()
    }

    /// Resets the device and gives the function back.
    pub fn stop(mut self) -> Result<Function> {
        self.device.reset()?;
        Ok(self.device.into_function())
    }

    /// Gives the function back as it is, reset or not.
    pub fn into_function(self) -> Function {
        self.device.into_function()
    }

    /// Fails with [`Error::NeedsReset`] where the device has given up.
    pub fn check(&mut self) -> Result<()> {
        if self.device.status()? & status::DEVICE_NEEDS_RESET == 0 {
            Ok(())
        } else {
            Err(Error::NeedsReset)
        }
    }

    /// Adds up the queues' counters.
    pub fn counters(&self) -> Counters {
        let mut sum = Counters { kicks: self.device.kicks(), ..Counters::default() };
        for rx in &self.rx {
            sum.rx_frames += rx.frames;
            sum.rx_bytes += rx.bytes;
        }
        for tx in &self.tx {
            sum.tx_frames += tx.frames;
            sum.tx_bytes += tx.bytes;
            sum.tx_dropped += tx.dropped;
        }
        sum
    }

    /// Publishes what was sent and what was taken, ringing the doorbells that the device wants rung.
    pub fn flush(&mut self) -> Result<()> {
        for rx in &mut self.rx {
            rx.flush(&mut self.device)?;
        }
        for tx in &mut self.tx {
            tx.flush(&mut self.device)?;
        }
        Ok(())
    }

    /// Sends a command on the control queue.
    pub fn command(&mut self, name: &'static str, command: (u8, u8), data: &[u8]) -> Result<()> {
        match &mut self.control {
            Some(control) => control.command(&mut self.device, name, command, data),
            None => Err(Error::Unsupported("control commands: the device has no control queue")),
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
        self.command("VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET", ctrl::MQ_VQ_PAIRS_SET, &pairs.to_le_bytes())
    }

    /// Offers the device, on its first TX queue (`write` false) or RX queue (`write` true), one buffer of
    /// `len` bytes at an address of any kind. Needs [`NetOptions::spare`]; works once.
    pub fn rogue_dma(&mut self, write: bool, iova: u64, len: u32) -> Result<()> {
        let flags = if write { ring::F_WRITE } else { 0 };
        let (queue, index) = match (write, self.rx.first_mut(), self.tx.first_mut()) {
            (true, Some(rx), _) => (&mut rx.queue, rx.index),
            (false, _, Some(tx)) => (&mut tx.queue, tx.index),
            _ => return Err(Error::Command("the device has no queues".into())),
        };
        let spare = queue.size() - 1;
        queue.set_descriptor(spare, iova, len, flags, 0)?;
        queue.offer(spare)?;
        queue.publish()?;
        // Whether it wants to know or not.
        self.device.kick(index)
    }
}

/// A receive queue: buffers out, frames in.
#[derive(Debug)]
pub struct RxQueue {
    index: u16,
    vector: u16,
    pub(crate) queue: Queue,
    arena: Arc<Arena>,
    /// Offset of buffer 0 in the arena.
    base: usize,
    /// Bytes per buffer.
    buffer: usize,
    merge: bool,
    /// Buffers, one per descriptor.
    buffers: u16,
    frames: u64,
    bytes: u64,
}

impl RxQueue {
    fn new(
        index: u16,
        vector: u16,
        queue: Queue,
        arena: &Arc<Arena>,
        buffer: usize,
        merge: bool,
        spare: u16,
    ) -> Result<Self> {
        let buffer = buffer.max(NET_HEADER + 64).next_multiple_of(64);
        let buffers = queue.size() - spare;
        let base = arena.alloc(buffer * usize::from(buffers), 64)?.offset;
        for i in 0..buffers {
            let iova = arena.iova_of(base + usize::from(i) * buffer);
            queue.set_descriptor(i, iova, buffer as u32, ring::F_WRITE, 0)?;
        }
        let arena = arena.clone();
        let (frames, bytes) = (0, 0);
        Ok(Self { index, vector, queue, arena, base, buffer, merge, buffers, frames, bytes })
    }

    /// Offers all buffers.
    fn fill(&mut self, device: &mut VirtioPci) -> Result<()> {
        for i in 0..self.buffers {
            self.queue.offer(i)?;
        }
        self.flush(device)
    }

    /// The MSI-X vector of this queue.
    pub fn vector(&self) -> u16 {
        self.vector
    }

    /// Bytes of frames that fit all the buffers together.
    pub fn capacity(&self) -> usize {
        self.buffer * usize::from(self.buffers)
    }

    /// Copies the next frame into `frame` and returns its length; `None` where there is none. A frame that
    /// does not fit is an error of the device.
    pub fn receive(&mut self, frame: &mut [u8]) -> Result<Option<usize>> {
        let Some(first) = self.queue.take()? else { return Ok(None) };
        let at = self.offset(first.head)?;
        let short = || Error::Device(format!("a used length of {} bytes", first.len));
        let mut part = (first.len as usize).checked_sub(NET_HEADER).ok_or_else(short)?;
        let more = match self.merge {
            true => self
                .arena
                .load_u16(at + NET_HEADER_NUM_BUFFERS, std::sync::atomic::Ordering::Relaxed)?,
            false => 1,
        };
        let mut from = at + NET_HEADER;
        let mut head = first.head;
        let mut done = 0;
        for left in (0..more.max(1)).rev() {
            if from + part > self.offset(head)? + self.buffer {
                return Err(Error::Device(format!("{part} bytes in a buffer of {}", self.buffer)));
            }
            let place = frame.get_mut(done..done + part).ok_or_else(|| {
                Error::Device(format!("a frame of more than {} bytes", done + part))
            })?;
            self.arena.read(from, place)?;
            done += part;
            self.queue.offer(head)?;
            if left > 0 {
                let next = self.queue.take()?.ok_or_else(|| {
                    Error::Device(format!("a frame lacks {left} of its {more} buffers"))
                })?;
                head = next.head;
                part = next.len as usize;
                from = self.offset(head)?;
            }
        }
        self.frames += 1;
        self.bytes += done as u64;
        Ok(Some(done))
    }

    /// Takes up to `limit` frames without looking at them, and returns how many there were. Only for frames
    /// that fit one buffer.
    pub fn discard(&mut self, limit: usize) -> Result<usize> {
        let mut frames = 0;
        while frames < limit {
            let Some(used) = self.queue.take()? else { break };
            self.bytes += u64::from(used.len).saturating_sub(NET_HEADER as u64);
            self.queue.offer(used.head)?;
            frames += 1;
        }
        self.frames += frames as u64;
        Ok(frames)
    }

    fn offset(&self, head: u16) -> Result<usize> {
        if head < self.buffers {
            Ok(self.base + usize::from(head) * self.buffer)
        } else {
            Err(Error::Device(format!("RX descriptor {head} holds no buffer")))
        }
    }

    /// Gives the buffers back that were taken.
    pub fn flush(&mut self, device: &mut VirtioPci) -> Result<()> {
        if self.queue.publish()? { device.kick(self.index) } else { Ok(()) }
    }

    /// As [`Self::flush`], but only when a quarter of the ring has come together.
    pub fn flush_if_many(&mut self, device: &mut VirtioPci) -> Result<()> {
        if self.queue.unpublished() >= self.queue.size() / 4 { self.flush(device) } else { Ok(()) }
    }

    /// See [`Queue::arm`].
    pub fn arm(&mut self) -> Result<bool> {
        self.queue.arm()
    }

    /// See [`Queue::disarm`].
    pub fn disarm(&mut self) -> Result<()> {
        self.queue.disarm()
    }
}

/// A transmit queue.
#[derive(Debug)]
pub struct TxQueue {
    index: u16,
    vector: u16,
    pub(crate) queue: Queue,
    arena: Arc<Arena>,
    /// Offset of slot 0 in the arena: header, then frame.
    base: usize,
    /// Bytes per slot.
    slot: usize,
    /// Offset of the indirect tables, two descriptors per slot, where used.
    tables: Option<usize>,
    /// Slots that the device does not have.
    free: Vec<u16>,
    frames: u64,
    bytes: u64,
    dropped: u64,
}

impl TxQueue {
    fn new(
        index: u16,
        vector: u16,
        queue: Queue,
        arena: &Arc<Arena>,
        frame: usize,
        indirect: bool,
        spare: u16,
    ) -> Result<Self> {
        let slot = (NET_HEADER + frame).next_multiple_of(64);
        let slots = (queue.size() - spare).min(TX_SLOTS as u16);
        let base = arena.alloc(slot * usize::from(slots), 64)?;
        let mut tables = None;
        if indirect {
            tables = Some(arena.alloc(2 * ring::DESC * usize::from(slots), ring::DESC)?.offset);
        }
        for i in 0..slots {
            let at = base.offset + usize::from(i) * slot;
            // The header says: no checksum, no segmentation. It never changes.
            arena.write(at, &[0; NET_HEADER])?;
            let iova = arena.iova_of(at);
            if let Some(tables) = tables {
                let table = tables + 2 * ring::DESC * usize::from(i);
                write_descriptor(arena, table, 0, iova, NET_HEADER as u32, ring::F_NEXT, 1)?;
                write_descriptor(arena, table, 1, iova + NET_HEADER as u64, 0, 0, 0)?;
                let bytes = 2 * ring::DESC as u32;
                queue.set_descriptor(i, arena.iova_of(table), bytes, ring::F_INDIRECT, 0)?;
            } else {
                queue.set_descriptor(i, iova, 0, 0, 0)?;
            }
        }
        Ok(Self {
            index,
            vector,
            queue,
            arena: arena.clone(),
            base: base.offset,
            slot,
            tables,
            free: (0..slots).rev().collect(),
            frames: 0,
            bytes: 0,
            dropped: 0,
        })
    }

    /// The MSI-X vector of this queue.
    pub fn vector(&self) -> u16 {
        self.vector
    }

    /// True where a frame can be sent now.
    pub fn has_room(&mut self) -> Result<bool> {
        if self.free.is_empty() {
            self.reclaim()?;
        }
        Ok(!self.free.is_empty())
    }

    /// Takes back the slots that the device is done with, and returns how many are free.
    pub fn reclaim(&mut self) -> Result<usize> {
        while let Some(used) = self.queue.take()? {
            self.free.push(used.head);
        }
        Ok(self.free.len())
    }

    /// Frames that the device has and is not done with, as far as known.
    pub fn in_flight(&self) -> usize {
        usize::from(self.queue.size().min(TX_SLOTS as u16)).saturating_sub(self.free.len())
    }

    /// Queues a frame; [`Self::flush`] shows it to the device. False, and counted, where there is no room.
    pub fn send(&mut self, frame: &[u8]) -> Result<bool> {
        if NET_HEADER + frame.len() > self.slot {
            return Err(Error::Command(format!(
                "a frame of {} bytes; the device takes {}",
                frame.len(),
                self.slot - NET_HEADER
            )));
        }
        if !self.has_room()? {
            self.dropped += 1;
            return Ok(false);
        }
        let Some(slot) = self.free.pop() else { return Ok(false) };
        self.arena.write(self.base + usize::from(slot) * self.slot + NET_HEADER, frame)?;
        self.offer(slot, frame.len())?;
        Ok(true)
    }

    /// Writes a frame into every free slot, for [`Self::resend`].
    pub fn prefill(&mut self, frame: &[u8]) -> Result<()> {
        for &slot in &self.free {
            self.arena.write(self.base + usize::from(slot) * self.slot + NET_HEADER, frame)?;
            self.set_length(slot, frame.len())?;
        }
        Ok(())
    }

    /// Queues up to `count` of the frames that [`Self::prefill`] wrote; returns how many.
    pub fn resend(&mut self, count: usize, len: usize) -> Result<usize> {
        if self.free.len() < count {
            self.reclaim()?;
        }
        let count = count.min(self.free.len());
        for _ in 0..count {
            let Some(slot) = self.free.pop() else { break };
            self.queue.offer(slot)?;
        }
        self.frames += count as u64;
        self.bytes += (count * len) as u64;
        Ok(count)
    }

    fn set_length(&self, slot: u16, len: usize) -> Result<()> {
        match self.tables {
            Some(tables) => {
                let at = tables + ring::DESC * (2 * usize::from(slot) + 1) + 8;
                self.arena.store_u64(at, len as u64)
            }
            None => self.queue.set_length(slot, (NET_HEADER + len) as u32, 0),
        }
    }

    fn offer(&mut self, slot: u16, len: usize) -> Result<()> {
        self.set_length(slot, len)?;
        self.queue.offer(slot)?;
        self.frames += 1;
        self.bytes += len as u64;
        Ok(())
    }

    /// Shows the device what was queued.
    pub fn flush(&mut self, device: &mut VirtioPci) -> Result<()> {
        if self.queue.publish()? { device.kick(self.index) } else { Ok(()) }
    }

    /// See [`Queue::arm`].
    pub fn arm(&mut self) -> Result<bool> {
        self.queue.arm()
    }

    /// See [`Queue::disarm`].
    pub fn disarm(&mut self) -> Result<()> {
        self.queue.disarm()
    }
}
