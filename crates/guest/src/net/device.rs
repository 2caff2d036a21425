//! This module shows a virtio-net device to smoltcp.

use super::arp;
use crate::virtio::offload::{complete, is_intact, prepare};
use crate::virtio::{LARGEST_FRAME, Offloads, RxQueue, TxQueue, VirtioNet, VirtioPci};
use crate::{Error, Result};
use smoltcp::phy::{self, Checksum, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;

/// Number of received frames per round, after which the sockets get their turn.
pub(super) const RX_BUDGET: usize = 64;
/// Number of frames sent before the device is notified, unless the round ends first.
const TX_BATCH: u16 = 16;
/// Bytes of the largest frame: the largest MTU with its Ethernet header and a VLAN tag.
const MAX_FRAME: usize = 65535 + 18;

/// A virtio-net device, with a buffer for one frame each way.
#[derive(Debug)]
pub(crate) struct PhyDevice {
    pub(crate) net: VirtioNet,
    rx_frame: Vec<u8>,
    tx_frame: Vec<u8>,
    /// Frames that the stack is to believe it received.
    injected: VecDeque<Vec<u8>>,
    budget: usize,
    /// Number of frames that arrived with a wrong checksum.
    pub(crate) corrupt: u64,
    /// Queue pair to poll first.
    turn: usize,
    /// The host's address, once it has one.
    pub(crate) own: Option<Ipv4Addr>,
    /// MAC addresses of neighbours that have told theirs, or that were injected.
    pub(crate) neighbours: HashMap<Ipv4Addr, [u8; 6]>,
    /// The error that happened while smoltcp was polling, which it cannot pass on.
    error: Option<Error>,
}

impl PhyDevice {
    pub(crate) fn new(net: VirtioNet) -> Self {
        Self {
            rx_frame: vec![0; MAX_FRAME],
            tx_frame: vec![0; MAX_FRAME],
            net,
            injected: VecDeque::new(),
            budget: RX_BUDGET,
            corrupt: 0,
            turn: 0,
            own: None,
            neighbours: HashMap::new(),
            error: None,
        }
    }

    /// Has the stack learn a neighbour.
    pub(crate) fn inject_neighbour(&mut self, address: Ipv4Addr, mac: [u8; 6], own: Ipv4Addr) {
        self.neighbours.insert(address, mac);
        self.injected.push_back(arp::reply(mac, address, self.net.info().mac, own));
    }

    /// Sends a frame past the stack.
    pub(crate) fn send(&mut self, frame: &[u8]) -> Result<()> {
        let (_, _, tx) = self.net.parts();
        match tx.first_mut() {
            Some(tx) => tx.send(frame).map(drop),
            None => Ok(()),
        }
    }

    /// Starts a round. Fails with the error of the round before, if there was one.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.budget = RX_BUDGET;
        self.error.take().map_or(Ok(()), Err)
    }

    /// Ends a round: shows the device everything that was queued.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.error.take().map_or(Ok(()), Err)?;
        self.net.flush()
    }

    /// Receives the next frame into `rx_frame` and returns its length.
    fn next_frame(&mut self) -> Result<Option<usize>> {
        if let Some(frame) = self.injected.pop_front() {
            if let Some(place) = self.rx_frame.get_mut(..frame.len()) {
                place.copy_from_slice(&frame);
            }
            return Ok(Some(frame.len()));
        }
        let offloads = Offloads::of(self.net.info().features);
        let (device, rx, _) = self.net.parts();
        let pairs = rx.len().max(1);
        for step in 0..pairs {
            let which = (self.turn + step) % pairs;
            let Some(queue) = rx.get_mut(which) else { break };
            while let Some(len) = queue.receive(&mut self.rx_frame)? {
                queue.flush_if_many(device)?;
                let header = queue.header();
                let frame = self.rx_frame.get_mut(..len).unwrap_or_default();
                // smoltcp does not check TCP if the device may leave the checksum incomplete. All
                // other checksums are completed for it.
                if offloads.rx_checksum && !is_intact(frame, &header) {
                    self.corrupt += 1;
                    continue;
                }
                if !is_tcp(frame) {
                    complete(frame, &header);
                }
                self.turn = which + 1;
                return Ok(Some(len));
            }
        }
        Ok(None)
    }

    fn room(&mut self) -> Result<bool> {
        let (_, _, tx) = self.net.parts();
        for queue in tx {
            if !queue.has_room()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Notes an error for [`Self::end`].
    fn note<T: Default>(&mut self, result: Result<T>) -> T {
        result.unwrap_or_else(|e| {
            self.error.get_or_insert(e);
            T::default()
        })
    }

    fn tokens(&mut self, len: usize) -> (RxToken<'_>, TxToken<'_>) {
        let info = self.net.info();
        let (mtu, offloads) = (info.mtu, Offloads::of(info.features));
        let (device, _, queues) = self.net.parts();
        let rx = RxToken { frame: self.rx_frame.get(..len).unwrap_or_default() };
        let tx = TxToken {
            device,
            queues,
            mtu,
            offloads,
            scratch: &mut self.tx_frame,
            error: &mut self.error,
        };
        (rx, tx)
    }
}

impl phy::Device for PhyDevice {
    type RxToken<'a> = RxToken<'a>;
    type TxToken<'a> = TxToken<'a>;

    fn receive(&mut self, _: Instant) -> Option<(RxToken<'_>, TxToken<'_>)> {
        if self.budget == 0 || self.error.is_some() {
            return None;
        }
        // A received frame may need an answer, so there must be room for one.
        let room = self.room();
        if !self.note(room) {
            return None;
        }
        let next = self.next_frame();
        let len = self.note(next)?;
        self.budget -= 1;
        let own = self.own;
        let frame = self.rx_frame.get(..len);
        if let Some((address, mac)) = frame.and_then(|frame| arp::sender(frame, own)) {
            self.neighbours.insert(address, mac);
        }
        Some(self.tokens(len))
    }

    fn transmit(&mut self, _: Instant) -> Option<TxToken<'_>> {
        if self.error.is_some() {
            return None;
        }
        let room = self.room();
        if self.note(room) { Some(self.tokens(0).1) } else { None }
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        let info = self.net.info();
        let offloads = Offloads::of(info.features);
        capabilities.max_transmission_unit = match offloads.tx_large {
            true => LARGEST_FRAME,
            false => usize::from(info.mtu) + 14,
        };
        capabilities.checksum.tcp = match (offloads.tx_checksum, offloads.rx_checksum) {
            (true, true) => Checksum::None,
            (true, false) => Checksum::Rx,
            (false, true) => Checksum::Tx,
            (false, false) => Checksum::Both,
        };
        capabilities
    }
}

/// A received frame.
#[derive(Debug)]
pub(crate) struct RxToken<'a> {
    frame: &'a [u8],
}

impl phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.frame)
    }
}

/// The right to send a frame.
#[derive(Debug)]
pub(crate) struct TxToken<'a> {
    device: &'a mut VirtioPci,
    queues: &'a mut [TxQueue],
    mtu: u16,
    offloads: Offloads,
    scratch: &'a mut [u8],
    error: &'a mut Option<Error>,
}

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Some(frame) = self.scratch.get_mut(..len) else {
            // smoltcp keeps to the MTU; if it ever did not, the frame is lost and not this process.
            self.error
                .get_or_insert(Error::Command(format!("the stack made a frame of {len} bytes")));
            return f(&mut vec![0; len]);
        };
        let result = f(frame);
        let which = flow_hash(frame) % self.queues.len().max(1);
        // A frame that is too large and cannot be segmented is lost, as it would be on a wire.
        let header = prepare(frame, self.mtu, self.offloads);
        if let Some(queue) = self.queues.get_mut(which)
            && let Some(header) = header
        {
            let sent =
                queue.send_with(&header, frame).and_then(|_| queue.flush_if(self.device, TX_BATCH));
            if let Err(e) = sent {
                self.error.get_or_insert(e);
            }
        }
        result
    }
}

/// Returns true if a frame is TCP over IPv4, which smoltcp is told not to check.
fn is_tcp(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x08, 0x00]) && frame.get(23) == Some(&6)
}

/// Hashes IPv4 addresses and the four bytes behind them, so that frames of one connection give one
/// number.
fn flow_hash(frame: &[u8]) -> usize {
    let fields = frame.get(26..38).unwrap_or_default();
    let sum = fields.iter().fold(0u32, |sum, b| sum.wrapping_mul(31).wrapping_add((*b).into()));
    (sum ^ sum >> 16) as usize
}

impl PhyDevice {
    /// Asks for interrupts before sleeping: for received frames, and for room where a TX ring is
    /// full. Returns true if there is something to do already.
    pub(crate) fn arm(&mut self) -> Result<bool> {
        let (_, rx, tx) = self.net.parts();
        let mut pending = !self.injected.is_empty();
        for queue in rx {
            pending |= queue.arm()?;
        }
        for queue in tx {
            if !queue.has_room()? {
                pending |= queue.arm()?;
            }
        }
        Ok(pending)
    }

    /// Asks for no more interrupts, because this process polls.
    pub(crate) fn disarm(&mut self) -> Result<()> {
        let (_, rx, tx) = self.net.parts();
        rx.iter_mut().try_for_each(RxQueue::disarm)?;
        tx.iter_mut().try_for_each(TxQueue::disarm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_stays_on_its_queue() {
        let mut frame = vec![7; 100];
        let hash = flow_hash(&frame);
        frame[60] = 1;
        assert_eq!(flow_hash(&frame), hash);
        frame[35] = 1;
        assert_ne!(flow_hash(&frame), hash);
        assert_eq!(flow_hash(&[]), 0);
    }
}
