//! A port is an attached device with its rings and counters.

use crate::attach::{Attached, Device};
use crate::config::{Config, Frames};
use crate::frame::Template;
use crate::report::{PairReport, PortReport};
use crate::ring::{Buffer, Ring};
use manifold_guest::memory::Arena;
use manifold_guest::virtio::Used;
use manifold_guest::virtio::spec::{NET_HEADER, NET_HEADER_NUM_BUFFERS};
use manifold_guest::{Error, Result};
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;

/// Alignment of frames in bytes, which network drivers use too. The header is right before the
/// frame.
const ALIGN: usize = 64;

/// The memory of a queue's buffers. Each begins [`BufferArea::LEAD`] bytes into its stride.
#[derive(Debug, Clone, Copy)]
struct BufferArea {
    base: usize,
    stride: usize,
}

impl BufferArea {
    const LEAD: usize = ALIGN - NET_HEADER;

    fn stride(len: usize) -> usize {
        (Self::LEAD + len).next_multiple_of(ALIGN)
    }

    fn alloc(arena: &Arena, len: usize, count: u16) -> Result<Self> {
        let stride = Self::stride(len);
        let base = arena.alloc(stride * usize::from(count), ALIGN)?.offset;
        Ok(Self { base, stride })
    }

    fn at(&self, slot: u16) -> usize {
        self.base + self.stride * usize::from(slot) + Self::LEAD
    }
}

/// Returns how many bytes of guest memory a port's buffers take.
pub(crate) fn memory(config: &Config) -> Result<usize> {
    let strides = BufferArea::stride(rx_buffer(config)?) + BufferArea::stride(tx_buffer(config));
    let queues = usize::from(config.rings.pairs.max(1)) * usize::from(config.rings.size);
    Ok(queues * strides + 4 * ALIGN * usize::from(config.rings.pairs.max(1)))
}

fn tx_buffer(config: &Config) -> usize {
    NET_HEADER + config.frames.largest()
}

/// Returns the bytes per receive buffer. A buffer too small for a frame works only where frames may
/// span buffers.
fn rx_buffer(config: &Config) -> Result<usize> {
    let whole = NET_HEADER + config.frames.largest();
    match config.rings.rx_buffer as usize {
        0 => Ok(whole),
        bytes if bytes >= whole || (config.rings.mergeable && bytes > NET_HEADER) => Ok(bytes),
        bytes => Err(Error::Command(format!(
            "receive buffers of {bytes} bytes for frames that take {whole}; \
             without mergeable buffers they must hold a whole one"
        ))),
    }
}

/// A receive queue.
#[derive(Debug)]
struct RxQueue<'a> {
    ring: Ring<'a>,
    area: BufferArea,
    /// Number of buffers still to come of a frame that began.
    more: u16,
    /// Part of a frame that has arrived, when frames are verified.
    frame: Vec<u8>,
    /// Number of frames received so far.
    frames: u64,
}

/// A transmit queue.
#[derive(Debug)]
struct TxQueue<'a> {
    ring: Ring<'a>,
    /// Number of frames sent so far.
    frames: u64,
}

/// A port whose device runs.
#[derive(Debug)]
pub(crate) struct Port<'a> {
    device: Device,
    arena: &'a Arena,
    rx: Vec<RxQueue<'a>>,
    tx: Vec<TxQueue<'a>>,
    /// True if frames may span buffers.
    spans: bool,
    /// Frames to compare received ones with, if they are verified.
    verify: Option<Verify>,
    /// Number of frames of closed loops given up as lost.
    pub(crate) lost: u64,
    /// Number of frames of closed loops on their way here.
    pub(crate) outstanding: u64,
    /// Time at which a frame last arrived, in cycles.
    pub(crate) last_arrival: u64,
    /// True if buffers were posted since the last [`Self::ring_doorbells`].
    posted: bool,
}

/// The frames that were sent; every received frame must be one of them.
#[derive(Debug, Clone)]
pub(crate) struct Verify {
    pub(crate) frames: Frames,
    pub(crate) templates: std::rc::Rc<[Template]>,
}

impl<'a> Port<'a> {
    /// Describes all buffers, writes all frames of `templates` (by queue pair), and has the device
    /// start.
    pub(crate) fn start(
        mut attached: Attached,
        arena: &'a Arena,
        config: &Config,
        templates: &[Option<Template>],
        verify: Option<Verify>,
    ) -> Result<Self> {
        let (rx_len, tx_len) = (rx_buffer(config)?, tx_buffer(config));
        let (mut rx, mut tx) = (Vec::new(), Vec::new());
        let features = attached.device.features;
        let ring = |layout, buffers: &[Buffer]| {
            Ring::new(arena, layout, features, buffers, config.rings.assume_order)
        };
        for (pair, queues) in attached.layouts.chunks_exact(2).enumerate() {
            let &[rx_layout, tx_layout] = queues else { continue };
            let slots = 0..rx_layout.size;
            let area = BufferArea::alloc(arena, rx_len, rx_layout.size)?;
            let buffer = |slot| Buffer {
                iova: arena.iova_of(area.at(slot)),
                len: rx_len as u32,
                writable: true,
            };
            let buffers: Vec<_> = slots.clone().map(buffer).collect();
            let ring_rx = ring(rx_layout, &buffers)?;
            rx.push(RxQueue { ring: ring_rx, area, more: 0, frame: Vec::new(), frames: 0 });
            let area = BufferArea::alloc(arena, tx_len, tx_layout.size)?;
            let template = templates.get(pair).copied().flatten();
            let mut buffers = Vec::new();
            for slot in slots {
                let frame = template.map(|template| config.frames.build(&template, slot));
                let frame = frame.unwrap_or_default();
                arena.write(area.at(slot), &frame)?;
                let len = frame.len() as u32;
                buffers.push(Buffer { iova: arena.iova_of(area.at(slot)), len, writable: false });
            }
            tx.push(TxQueue { ring: ring(tx_layout, &buffers)?, frames: 0 });
        }
        attached.start()?;
        let mut port = Self {
            device: attached.device,
            arena,
            rx,
            tx,
            spans: rx_len < NET_HEADER + config.frames.largest(),
            verify,
            lost: 0,
            outstanding: 0,
            last_arrival: 0,
            posted: true,
        };
        for queue in &mut port.rx {
            let all = queue.ring.free();
            queue.ring.post(all);
        }
        std::sync::atomic::fence(Ordering::SeqCst);
        port.ring_doorbells()?;
        Ok(port)
    }

    /// Sends at most `count` frames on a queue pair and returns how many it sent.
    #[inline]
    pub(crate) fn send(&mut self, pair: u16, count: u16) -> Result<u16> {
        let Some(TxQueue { ring, frames }) = self.tx.get_mut(usize::from(pair)) else {
            return Ok(0);
        };
        if ring.free() < count {
            // All chains that came back are taken, so that this is asked seldom.
            ring.reclaim(u16::MAX)?;
        }
        let count = count.min(ring.free());
        if count > 0 {
            ring.post(count);
            *frames += u64::from(count);
            self.posted = true;
        }
        Ok(count)
    }

    /// Returns true if the device has nothing of a queue pair's left to send.
    pub(crate) fn has_sent_all(&mut self, pair: u16) -> Result<bool> {
        let Some(TxQueue { ring, .. }) = self.tx.get_mut(usize::from(pair)) else {
            return Ok(false);
        };
        ring.reclaim(u16::MAX)?;
        Ok(ring.free() == ring.size())
    }

    /// Counts at most a burst of received frames per queue and gives their buffers back.
    #[inline]
    pub(crate) fn receive(&mut self, burst: u16) -> Result<u64> {
        let mut frames = 0;
        for queue in &mut self.rx {
            let taken = if self.verify.is_some() {
                queue.verify(self.arena, burst, self.verify.as_ref())?
            } else if self.spans {
                queue.count_frames(self.arena, burst)?
            } else {
                let taken = queue.ring.reclaim(burst)?;
                (taken, u64::from(taken))
            };
            if taken.0 > 0 {
                queue.ring.post(taken.0);
                self.posted = true;
                queue.frames += taken.1;
                frames += taken.1;
            }
        }
        Ok(frames)
    }

    /// Returns true if [`Self::ring_doorbells`] has something to do, before which a full barrier is
    /// needed.
    #[inline]
    pub(crate) fn has_posted(&self) -> bool {
        self.posted
    }

    /// Rings the doorbells that the device wants rung, after a full barrier.
    #[inline]
    pub(crate) fn ring_doorbells(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.posted) {
            return Ok(());
        }
        for (pair, queue) in (0..).zip(&mut self.rx) {
            if queue.ring.needs_kick() {
                self.device.kick(2 * pair)?;
            }
        }
        for (pair, queue) in (0..).zip(&mut self.tx) {
            if queue.ring.needs_kick() {
                self.device.kick(2 * pair + 1)?;
            }
        }
        Ok(())
    }

    /// Asks for an interrupt for the next frame. Returns true if a frame is there already.
    pub(crate) fn arm(&mut self) -> bool {
        let mut any = false;
        for queue in &mut self.rx {
            any |= queue.ring.arm();
        }
        any
    }

    /// Asks for no interrupts, and forgets those that came.
    pub(crate) fn disarm(&mut self) {
        for (pair, queue) in (0..).zip(&mut self.rx) {
            queue.ring.disarm();
            self.device.clear_interrupt(2 * pair);
        }
    }

    /// Returns the eventfds of all receive queues.
    pub(crate) fn interrupts(&self) -> Vec<RawFd> {
        (0..self.rx.len() as u16).filter_map(|pair| self.device.interrupt(2 * pair)).collect()
    }

    /// Returns the counters so far.
    pub(crate) fn count(&self) -> PortReport {
        let pair = |(rx, tx): (&RxQueue<'_>, &TxQueue<'_>)| PairReport {
            sent: tx.frames,
            received: rx.frames,
        };
        let pairs: Vec<_> = self.rx.iter().zip(&self.tx).map(pair).collect();
        PortReport {
            sent: pairs.iter().map(|pair| pair.sent).sum(),
            received: pairs.iter().map(|pair| pair.received).sum(),
            kicks: self.device.kicks(),
            lost: self.lost,
            pairs,
        }
    }

    /// Returns the features agreed on.
    pub(crate) fn features(&self) -> u64 {
        self.device.features
    }
}

impl RxQueue<'_> {
    /// Takes at most `limit` buffers of frames that may span several. Returns how many buffers, and
    /// how many frames began in them.
    fn count_frames(&mut self, arena: &Arena, limit: u16) -> Result<(u16, u64)> {
        let (area, more) = (self.area, &mut self.more);
        let mut frames = 0;
        let taken = self.ring.reclaim_each(limit, |used| {
            if *more > 0 {
                *more -= 1;
                return Ok(());
            }
            frames += 1;
            let at = area.at(used.head) + NET_HEADER_NUM_BUFFERS;
            *more = arena.load_u16(at, Ordering::Relaxed)?.saturating_sub(1);
            Ok(())
        })?;
        Ok((taken, frames))
    }

    /// Takes at most `limit` buffers and checks every byte of the frames in them. Returns how many
    /// buffers, and how many frames that flows sent.
    fn verify(&mut self, arena: &Arena, limit: u16, verify: Option<&Verify>) -> Result<(u16, u64)> {
        let Self { ring, area, more, frame, .. } = self;
        let mut frames = 0;
        let taken = ring.reclaim_each(limit, |Used { head, len }| {
            let at = area.at(head);
            let mut skip = 0;
            if *more == 0 {
                frame.clear();
                *more = arena.load_u16(at + NET_HEADER_NUM_BUFFERS, Ordering::Relaxed)?.max(1);
                skip = NET_HEADER;
            }
            let Some(bytes) = (len as usize).checked_sub(skip) else {
                return Err(Error::Device(format!("{len} bytes in buffer {head}")));
            };
            let begin = frame.len();
            frame.resize(begin + bytes, 0);
            arena.read(at + skip, frame.get_mut(begin..).unwrap_or_default())?;
            *more -= 1;
            if *more == 0
                && let Some(verify) = verify
                && let Some(verdict) = verify
                    .frames
                    .verify(frame, |flow| verify.templates.get(usize::from(flow)).copied())
            {
                verdict?;
                frames += 1;
            }
            Ok(())
        })?;
        Ok((taken, frames))
    }
}
