//! This module stands in for a device: the frames of a flow arrive at its receiver as long as there
//! is room.
//!
//! It does for the rings what a device must, so that the generator sees nothing unusual. It copies
//! nothing, unless frames are verified.

use crate::config::Flow;
use manifold_guest::memory::Arena;
use manifold_guest::virtio::Layout;
use manifold_guest::virtio::spec::{NET_HEADER, NET_HEADER_NUM_BUFFERS, packed, ring};
use manifold_guest::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A chain of one descriptor.
#[derive(Debug, Clone, Copy)]
struct Chain {
    id: u16,
    iova: u64,
    len: u32,
}

/// The device's side of a virtqueue.
#[derive(Debug)]
struct DeviceQueue {
    arena: Arc<Arena>,
    layout: Layout,
    packed: bool,
    /// Next entry; wraps at 2^16 (split) or at the size, where `wrap` changes (packed).
    next: u16,
    wrap: bool,
}

impl DeviceQueue {
    fn new(arena: &Arc<Arena>, layout: Layout, packed: bool) -> Self {
        Self { arena: arena.clone(), layout, packed, next: 0, wrap: true }
    }

    /// Returns how many chains are available, at most `limit`.
    fn available(&self, limit: u16) -> Result<u16> {
        if !self.packed {
            let at = self.layout.avail + ring::AVAIL_IDX;
            let index = self.arena.load_u16(at, Ordering::Acquire)?;
            return Ok(index.wrapping_sub(self.next).min(limit));
        }
        let (mut next, mut wrap, mut count) = (self.next, self.wrap, 0);
        while count < limit.min(self.layout.size) {
            let at = self.layout.desc + packed::DESC * usize::from(next) + 14;
            let flags = self.arena.load_u16(at, Ordering::Acquire)?;
            if (flags & packed::F_AVAIL != 0) != wrap || (flags & packed::F_USED != 0) == wrap {
                break;
            }
            (next, wrap) = self.after(next, wrap);
            count += 1;
        }
        Ok(count)
    }

    fn after(&self, next: u16, wrap: bool) -> (u16, bool) {
        if next + 1 == self.layout.size { (0, !wrap) } else { (next + 1, wrap) }
    }

    /// Returns the next chain, which must be available.
    fn peek(&self) -> Result<Chain> {
        let desc = |index: u16| self.layout.desc + ring::DESC * usize::from(index);
        let (at, id) = if self.packed {
            let at = desc(self.next);
            (at, self.arena.load_u16(at + 12, Ordering::Relaxed)?)
        } else {
            let slot = usize::from(self.next & (self.layout.size - 1));
            let at = self.layout.avail + ring::AVAIL_RING + 2 * slot;
            let id = self.arena.load_u16(at, Ordering::Relaxed)?;
            (desc(id), id)
        };
        let low = u64::from(self.arena.load_u32(at)?);
        let iova = low | u64::from(self.arena.load_u32(at + 4)?) << 32;
        Ok(Chain { id, iova, len: self.arena.load_u32(at + 8)? })
    }

    /// Marks the next chain used. On a split ring the driver sees that after [`Self::publish`].
    fn complete(&mut self, id: u16, written: u32) -> Result<()> {
        if self.packed {
            let at = self.layout.desc + packed::DESC * usize::from(self.next) + 8;
            let flags = if self.wrap { packed::F_AVAIL | packed::F_USED } else { 0 };
            let word = u64::from(written) | u64::from(id) << 32 | u64::from(flags) << 48;
            self.arena.store_u64(at, word)?;
            (self.next, self.wrap) = self.after(self.next, self.wrap);
        } else {
            let slot = usize::from(self.next & (self.layout.size - 1));
            let at = self.layout.used + ring::USED_RING + ring::USED_ELEMENT * slot;
            let element = [u32::from(id).to_le_bytes(), written.to_le_bytes()];
            self.arena.write(at, element.as_flattened())?;
            self.next = self.next.wrapping_add(1);
        }
        Ok(())
    }

    fn publish(&self) -> Result<()> {
        if self.packed {
            return Ok(());
        }
        self.arena.store_u16(self.layout.used + ring::USED_IDX, self.next, Ordering::Release)
    }
}

/// The sending and the receiving queue of a flow.
#[derive(Debug)]
struct Link {
    tx: DeviceQueue,
    rx: DeviceQueue,
}

/// The device behind ports of [`crate::config::Protocol::Loopback`].
#[derive(Debug)]
pub(crate) struct Loopback {
    links: Vec<Link>,
    /// True if frames are verified, so that they must be copied.
    copy_frames: bool,
    bytes: Vec<u8>,
}

impl Loopback {
    /// Makes a device for these flows, of which no two share a queue. A flow arrives at its
    /// receiver's queue pair of the same number. `ports` are each port's memory and queues.
    pub(crate) fn new(
        flows: &[Flow],
        ports: &[(Arc<Arena>, Vec<Layout>)],
        packed: bool,
        copy_frames: bool,
    ) -> Result<Self> {
        let mut links = Vec::new();
        for (n, flow) in flows.iter().enumerate() {
            let others = flows.get(..n).unwrap_or_default();
            if others.iter().any(|other| (other.to, other.queue) == (flow.to, flow.queue)) {
                return Err(Error::Command(format!(
                    "flow {flow:?}: over loopback a queue receives one flow"
                )));
            }
            let queue_of = |port: usize, queue: usize| {
                let (arena, layouts) = ports.get(port)?;
                Some(DeviceQueue::new(arena, *layouts.get(queue)?, packed))
            };
            let queue = 2 * usize::from(flow.queue);
            let (tx, rx) = (queue_of(flow.from, queue + 1), queue_of(flow.to, queue));
            let (Some(tx), Some(rx)) = (tx, rx) else {
                return Err(Error::Command(format!("flow {flow:?}: no such queue")));
            };
            links.push(Link { tx, rx });
        }
        Ok(Self { links, copy_frames, bytes: Vec::new() })
    }

    /// Moves all frames that can be moved.
    pub(crate) fn pump(&mut self) -> Result<()> {
        for Link { tx, rx } in &mut self.links {
            let mut sent = tx.available(u16::MAX)?;
            while sent > 0 {
                let from = tx.peek()?;
                if !fill(rx, &from, &tx.arena, self.copy_frames.then_some(&mut self.bytes))? {
                    break;
                }
                tx.complete(from.id, 0)?;
                sent -= 1;
            }
            rx.publish()?;
            tx.publish()?;
        }
        Ok(())
    }
}

/// Fills as many receive buffers as a frame takes. Returns false, and fills none, if there are not
/// enough.
fn fill(
    rx: &mut DeviceQueue,
    from: &Chain,
    sender: &Arena,
    copy: Option<&mut Vec<u8>>,
) -> Result<bool> {
    if rx.available(1)? == 0 {
        return Ok(false);
    }
    let size = rx.peek()?.len.max(NET_HEADER as u32 + 1);
    let buffers = from.len.div_ceil(size);
    if rx.available(buffers as u16)? < buffers as u16 {
        return Ok(false);
    }
    let offset = |arena: &Arena, iova: u64| (iova - arena.iova()) as usize;
    let copy = copy.map(|bytes| {
        bytes.resize(from.len as usize, 0);
        sender.read(offset(sender, from.iova), bytes).map(|()| &*bytes)
    });
    let copy = copy.transpose()?;
    let mut done = 0;
    while done < from.len {
        let to = rx.peek()?;
        let part = to.len.min(from.len - done);
        let at = offset(&rx.arena, to.iova);
        if let Some(bytes) = copy {
            let range = done as usize..(done + part) as usize;
            rx.arena.write(at, bytes.get(range).unwrap_or_default())?;
        }
        if done == 0 && (copy.is_some() || buffers > 1) {
            let count = at + NET_HEADER_NUM_BUFFERS;
            rx.arena.store_u16(count, buffers as u16, Ordering::Relaxed)?;
        }
        rx.complete(to.id, part)?;
        done += part;
    }
    Ok(true)
}
