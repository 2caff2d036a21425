//! This module moves frames in and out of a virtio-net device (virtio 1.3, section 5.1).

use super::control::ControlQueue;
use super::counters::Counters;
use super::device::VirtioPci;
use super::queue::Descriptor;
use super::rx::RxQueue;
use super::spec::{NET_HEADER, NO_VECTOR, feature, net_config, net_header, ring, status};
use super::tx::TxQueue;
use crate::vfio::Function;
use crate::{Error, Result};
use std::os::fd::OwnedFd;

/// Length of an Ethernet header in bytes.
const ETHERNET_HEADER: usize = 14;
/// MTU in bytes if the device names none.
const DEFAULT_MTU: u16 = 1500;
/// Largest number of entries in the control queue.
const CONTROL_QUEUE: u16 = 64;
/// Number of bytes in a frame beyond the MTU: Ethernet header and a VLAN tag.
const OVERHEAD: usize = ETHERNET_HEADER + 4;

/// Features that use the control queue.
const CONTROL: u64 = feature::CTRL_RX
    | feature::CTRL_VLAN
    | feature::CTRL_MAC_ADDR
    | feature::CTRL_GUEST_OFFLOADS
    | feature::MQ
    | feature::RSS
    | feature::NOTF_COAL
    | feature::VQ_NOTF_COAL
    | feature::DEVICE_STATS;
/// Features for large frames to the device. Only TCP over IPv4 is sent by this crate's stack.
const HOST_LARGE: u64 =
    feature::HOST_TSO4 | feature::HOST_TSO6 | feature::HOST_ECN | feature::HOST_USO;
/// Features for large frames from the device. UDP is left out: its large frames would have to be
/// taken apart again.
const GUEST_LARGE: u64 = feature::GUEST_TSO4 | feature::GUEST_TSO6 | feature::GUEST_ECN;
/// Length of the largest frame in bytes: an IP packet of 65535 bytes.
pub(crate) const LARGEST_FRAME: usize = 65535 + ETHERNET_HEADER;

/// The way in which the driver sets the device up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetOptions {
    /// Number of queue pairs, at most what the device has.
    pub queue_pairs: u16,
    /// Number of entries per queue.
    pub queue_size: u16,
    /// Size of a receive buffer in bytes; raised to a whole frame where the device does not merge
    /// buffers.
    pub rx_buffer: u32,
    /// Sends through indirect descriptors if the device takes them.
    pub indirect: bool,
    /// Features that the driver must not accept.
    pub refuse: u64,
    /// Largest number of frames in flight per TX queue; each takes a frame's worth of guest memory.
    pub tx_slots: u16,
    /// Gives the device receive buffers, without which it can receive nothing.
    pub fill_rx: bool,
}

impl Default for NetOptions {
    fn default() -> Self {
        Self {
            queue_pairs: 1,
            queue_size: 256,
            rx_buffer: 4096,
            indirect: false,
            refuse: 0,
            tx_slots: 128,
            fill_rx: true,
        }
    }
}

impl NetOptions {
    /// Returns the bytes of guest memory that the driver needs with these options, for a device of
    /// this MTU.
    pub fn memory(&self, mtu: u16) -> usize {
        let size = usize::from(self.queue_size);
        let rings = 3 * (size * (ring::DESC + 2 + ring::USED_ELEMENT) + 512);
        let frame = NET_HEADER + 8 + usize::from(mtu) + OVERHEAD;
        // Without merged buffers a buffer must hold a whole frame; untouched memory costs nothing.
        let rx = size * (self.rx_buffer as usize).max(frame.next_multiple_of(64));
        // A device that segments is given frames larger than its MTU.
        let frame = frame.max(NET_HEADER + 8 + LARGEST_FRAME);
        let tx = size.min(self.tx_slots.into()) * (frame.next_multiple_of(64) + 2 * ring::DESC);
        usize::from(self.queue_pairs.max(1)) * (rings + rx + tx) + 32 * 1024
    }
}

/// The device's properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetInfo {
    /// MAC address of the device.
    pub mac: [u8; 6],
    /// MTU in bytes, 1500 if the device names none.
    pub mtu: u16,
    /// Features that were agreed on.
    pub features: u64,
    /// Number of queue pairs in use.
    pub queue_pairs: u16,
}

/// A virtio-net device that has been brought up.
#[derive(Debug)]
pub struct VirtioNet {
    pub(super) device: VirtioPci,
    pub(super) info: NetInfo,
    rx: Vec<RxQueue>,
    tx: Vec<TxQueue>,
    pub(super) control: Option<ControlQueue>,
}

impl VirtioNet {
    /// Resets the device and brings it up. The function's arena is rewound: nobody else may use it.
    pub fn start(function: Function, options: &NetOptions) -> Result<Self> {
        let device = VirtioPci::probe(function)?;
        let info = NetInfo { mac: [0; 6], mtu: DEFAULT_MTU, features: 0, queue_pairs: 1 };
        let mut net = Self { device, info, rx: Vec::new(), tx: Vec::new(), control: None };
        net.restart(options)?;
        Ok(net)
    }

    /// Resets a device that was up before and brings it up again. After an error only this works.
    pub fn restart(&mut self, options: &NetOptions) -> Result<()> {
        self.rx.clear();
        self.tx.clear();
        self.control = None;
        let device = &mut self.device;
        device.function().arena().rewind();
        device.function().enable()?;
        let wanted = wanted(device.device_features()?, options);
        let features = device.negotiate(wanted)?;
        let has = |bit| features & bit != 0;
        if !has(feature::MAC) {
            return Err(Error::Device("no MAC address".into()));
        }
        let mut mac = [0; 6];
        device.read_device(net_config::MAC, &mut mac)?;
        let mut mtu = DEFAULT_MTU;
        if has(feature::MTU) {
            mtu = device.read_device_u16(net_config::MTU)?;
        }
        let max_pairs = device.max_queue_pairs(features)?;
        let pairs = options.queue_pairs.clamp(1, max_pairs);
        self.info = NetInfo { mac, mtu, features, queue_pairs: pairs };
        // There is one vector for configuration changes and one per queue, or the last serves all
        // the rest.
        let vectors = device.function().enable_msix(1 + 2 * pairs)?;
        let vector = |n: u16| n.min(vectors - 1);
        device.set_config_vector(0)?;
        for pair in 0..pairs {
            self.setup_pair(pair, options, [vector(1 + 2 * pair), vector(2 + 2 * pair)])?;
        }
        let device = &mut self.device;
        if has(feature::CTRL_VQ) {
            let index = 2 * max_pairs;
            let size = options.queue_size.min(CONTROL_QUEUE);
            let queue = device.setup_queue(index, size, NO_VECTOR, features)?;
            self.control = Some(ControlQueue::new(index, queue, device)?);
        }
        device.add_status(status::DRIVER_OK)?;
        for rx in &mut self.rx {
            rx.queue.disarm()?;
            if options.fill_rx {
                rx.fill(device)?;
            }
        }
        for tx in &mut self.tx {
            tx.queue.disarm()?;
        }
        if has(feature::RSS) {
            // This command takes the place of VQ_PAIRS_SET (5.1.6.5.7).
            self.spread_over(pairs)?;
        } else if pairs > 1 {
            self.set_queue_pairs(pairs)?;
        }
        Ok(())
    }

    fn setup_pair(&mut self, pair: u16, options: &NetOptions, vectors: [u16; 2]) -> Result<()> {
        let has = |bit| self.info.features & bit != 0;
        let features = self.info.features;
        let merge = has(feature::MRG_RXBUF);
        let mut frame = usize::from(self.info.mtu) + OVERHEAD;
        if features & HOST_LARGE != 0 {
            frame = frame.max(LARGEST_FRAME);
        }
        let arena = self.device.function().arena().clone();
        let size = options.queue_size;
        let rx = self.device.setup_queue(2 * pair, size, vectors[0], features)?;
        let buffer = options.rx_buffer as usize;
        let buffer = if merge {
            buffer
        } else {
            buffer.max(net_header(features) + usize::from(self.info.mtu) + OVERHEAD)
        };
        self.rx.push(RxQueue::new(2 * pair, vectors[0], rx, &arena, buffer, merge, features)?);
        let tx = self.device.setup_queue(2 * pair + 1, size, vectors[1], features)?;
        self.tx.push(TxQueue::new(
            2 * pair + 1,
            vectors[1],
            tx,
            &arena,
            frame,
            features,
            options.tx_slots,
        )?);
        Ok(())
    }

    /// Returns the device's properties and the features agreed on.
    pub fn info(&self) -> NetInfo {
        self.info
    }

    /// Returns the device below.
    pub fn device(&mut self) -> &mut VirtioPci {
        &mut self.device
    }

    /// Returns the device below, for reading.
    pub fn device_ref(&self) -> &VirtioPci {
        &self.device
    }

    /// Returns device, RX queues and TX queues at once, for those who use several.
    pub fn parts(&mut self) -> (&mut VirtioPci, &mut [RxQueue], &mut [TxQueue]) {
        (&mut self.device, &mut self.rx, &mut self.tx)
    }

    /// Returns the eventfds of all MSI-X vectors, configuration changes first.
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

    /// Publishes what was sent and what was taken, ringing the doorbells that the device wants
    /// rung.
    pub fn flush(&mut self) -> Result<()> {
        for rx in &mut self.rx {
            rx.flush(&mut self.device)?;
        }
        for tx in &mut self.tx {
            tx.flush(&mut self.device)?;
        }
        Ok(())
    }

    /// Offers the device, on its first TX queue, a frame of `len` bytes at an address of any kind.
    /// One slot of the queue is lost to this.
    pub fn rogue_read(&mut self, iova: u64, len: u32) -> Result<()> {
        let tx = self.tx.first_mut().ok_or_else(no_queues)?;
        tx.reclaim()?;
        let slot = tx.free.pop().ok_or_else(|| Error::Command("the TX queue is full".into()))?;
        tx.queue.set_descriptor(slot, Descriptor { iova, len, flags: 0, next: 0 })?;
        tx.queue.offer(slot)?;
        tx.queue.publish()?;
        // The doorbell rings even if the device does not want it.
        self.device.kick(tx.index)
    }

    /// Offers the device, on its first RX queue, a buffer of `len` bytes at an address of any kind.
    /// Needs [`NetOptions::fill_rx`] to be off.
    pub fn rogue_write(&mut self, iova: u64, len: u32) -> Result<()> {
        let rx = self.rx.first_mut().ok_or_else(no_queues)?;
        rx.queue.set_descriptor(0, Descriptor { iova, len, flags: ring::F_WRITE, next: 0 })?;
        rx.queue.offer(0)?;
        rx.queue.publish()?;
        self.device.kick(rx.index)
    }
}

/// Returns the features that a driver with these options accepts of an offer: all that it can use.
fn wanted(offered: u64, options: &NetOptions) -> u64 {
    let mut wanted = feature::VERSION_1
        | feature::ACCESS_PLATFORM
        | feature::ORDER_PLATFORM
        | feature::RING_PACKED
        | feature::IN_ORDER
        | feature::EVENT_IDX
        | feature::MAC
        | feature::MTU
        | feature::STATUS
        | feature::SPEED_DUPLEX
        | feature::MRG_RXBUF
        | feature::CSUM
        | feature::GUEST_CSUM
        | HOST_LARGE
        | GUEST_LARGE
        | feature::GUEST_HDRLEN
        | feature::HASH_REPORT
        | feature::CTRL_VQ
        | CONTROL;
    if options.indirect {
        wanted |= feature::INDIRECT_DESC;
    }
    if options.queue_pairs < 2 {
        // There is only one queue to spread over.
        wanted &= !feature::RSS;
    }
    wanted &= offered & !options.refuse;
    // These features depend on others (5.1.3.1).
    for (needed, by) in [
        (feature::CTRL_VQ, CONTROL | feature::HASH_REPORT),
        (feature::CSUM, HOST_LARGE),
        (feature::GUEST_CSUM, GUEST_LARGE),
        // Buffers of 64 KiB each are more than this driver cares to give.
        (feature::MRG_RXBUF, GUEST_LARGE),
        (HOST_LARGE, feature::GUEST_HDRLEN),
    ] {
        if wanted & needed == 0 {
            wanted &= !by;
        }
    }
    wanted
}

fn no_queues() -> Error {
    Error::Command("the device has no queues".into())
}
