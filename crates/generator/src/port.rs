//! A port at work: its wheels, and what went through them.

use crate::attach::{Attached, Plug};
use crate::config::{Config, Frames};
use crate::frame::Route;
use crate::report::{PairReport, PortReport};
use crate::ring::{Buffer, Wheel};
use manifold_guest::memory::Arena;
use manifold_guest::virtio::Used;
use manifold_guest::virtio::spec::{NET_HEADER, NET_HEADER_NUM_BUFFERS};
use manifold_guest::{Error, Result};
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;

/// Frames begin at a multiple of this, as network drivers like it; the header is right before.
const ALIGN: usize = 64;

/// Where the buffers of a queue are: each begins [`Row::LEAD`] bytes into its stride.
#[derive(Debug, Clone, Copy)]
struct Row {
    base: usize,
    stride: usize,
}

impl Row {
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

/// Bytes of guest memory that a port's buffers take.
pub(crate) fn memory(config: &Config) -> Result<usize> {
    let strides = Row::stride(rx_buffer(config)?) + Row::stride(tx_buffer(config));
    let queues = usize::from(config.rings.pairs.max(1)) * usize::from(config.rings.size);
    Ok(queues * strides + 4 * ALIGN * usize::from(config.rings.pairs.max(1)))
}

fn tx_buffer(config: &Config) -> usize {
    NET_HEADER + config.frames.largest()
}

/// Bytes per receive buffer. One that is too small for a frame works only where frames may span buffers.
fn rx_buffer(config: &Config) -> Result<usize> {
    let whole = NET_HEADER + config.frames.largest();
    match config.rings.rx_buffer as usize {
        0 => Ok(whole),
        bytes if bytes >= whole || (config.rings.mergeable && bytes > NET_HEADER) => Ok(bytes),
        bytes => Err(Error::Command(format!(
            "receive buffers of {bytes} bytes for frames that take {whole}; without mergeable buffers they must hold a whole one"
        ))),
    }
}

/// A receive queue.
#[derive(Debug)]
struct Receive<'a> {
    wheel: Wheel<'a>,
    row: Row,
    /// Buffers still to come of a frame that began.
    more: u16,
    /// The frame so far, where it is looked at.
    frame: Vec<u8>,
    /// Frames received so far.
    frames: u64,
}

/// A transmit queue.
#[derive(Debug)]
struct Transmit<'a> {
    wheel: Wheel<'a>,
    /// Frames sent so far.
    frames: u64,
}

/// A port whose device runs.
#[derive(Debug)]
pub(crate) struct Port<'a> {
    plug: Plug,
    arena: &'a Arena,
    rx: Vec<Receive<'a>>,
    tx: Vec<Transmit<'a>>,
    /// Frames may span buffers.
    spans: bool,
    /// What is asked of every frame, where anything is.
    verify: Option<Verify>,
    /// Frames of closed loops given up as lost.
    pub(crate) lost: u64,
    /// Frames on their way here, by closed loops.
    pub(crate) outstanding: u64,
    /// When one last arrived, in cycles.
    pub(crate) last_arrival: u64,
    /// A queue's index was changed since the last [`Self::settle`].
    unsettled: bool,
}

/// What every received frame must be.
#[derive(Debug, Clone)]
pub(crate) struct Verify {
    pub(crate) frames: Frames,
    pub(crate) routes: std::rc::Rc<[Route]>,
}

impl<'a> Port<'a> {
    /// Describes all buffers, writes all frames of `routes` (by queue pair), and has the device start.
    pub(crate) fn start(
        mut attached: Attached,
        arena: &'a Arena,
        config: &Config,
        routes: &[Option<Route>],
        verify: Option<Verify>,
    ) -> Result<Self> {
        let (rx_len, tx_len) = (rx_buffer(config)?, tx_buffer(config));
        let (mut rx, mut tx) = (Vec::new(), Vec::new());
        let features = attached.plug.features;
        let wheel = |layout, buffers: &[Buffer]| {
            Wheel::new(arena, layout, features, buffers, config.rings.assume_order)
        };
        for (pair, queues) in attached.layouts.chunks_exact(2).enumerate() {
            let &[rx_layout, tx_layout] = queues else { continue };
            let slots = 0..rx_layout.size;
            let row = Row::alloc(arena, rx_len, rx_layout.size)?;
            let buffer = |slot| Buffer {
                iova: arena.iova_of(row.at(slot)),
                len: rx_len as u32,
                writable: true,
            };
            let buffers: Vec<_> = slots.clone().map(buffer).collect();
            let wheel_rx = wheel(rx_layout, &buffers)?;
            rx.push(Receive { wheel: wheel_rx, row, more: 0, frame: Vec::new(), frames: 0 });
            let row = Row::alloc(arena, tx_len, tx_layout.size)?;
            let route = routes.get(pair).copied().flatten();
            let mut buffers = Vec::new();
            for slot in slots {
                let frame = route.map(|route| config.frames.build(&route, slot));
                let frame = frame.unwrap_or_default();
                arena.write(row.at(slot), &frame)?;
                let len = frame.len() as u32;
                buffers.push(Buffer { iova: arena.iova_of(row.at(slot)), len, writable: false });
            }
            tx.push(Transmit { wheel: wheel(tx_layout, &buffers)?, frames: 0 });
        }
        attached.start()?;
        let mut port = Self {
            plug: attached.plug,
            arena,
            rx,
            tx,
            spans: rx_len < NET_HEADER + config.frames.largest(),
            verify,
            lost: 0,
            outstanding: 0,
            last_arrival: 0,
            unsettled: true,
        };
        for queue in &mut port.rx {
            let all = queue.wheel.held();
            queue.wheel.give(all);
        }
        std::sync::atomic::fence(Ordering::SeqCst);
        port.settle()?;
        Ok(port)
    }

    /// Sends at most `count` frames on a queue pair; returns how many.
    #[inline]
    pub(crate) fn send(&mut self, pair: u16, count: u16) -> Result<u16> {
        let Some(Transmit { wheel, frames }) = self.tx.get_mut(usize::from(pair)) else {
            return Ok(0);
        };
        if wheel.held() < count {
            // As much as came back, so that this is asked seldom.
            wheel.take(u16::MAX)?;
        }
        let count = count.min(wheel.held());
        if count > 0 {
            wheel.give(count);
            *frames += u64::from(count);
            self.unsettled = true;
        }
        Ok(count)
    }

    /// True where the device has nothing of a queue pair's left to send.
    pub(crate) fn has_sent_all(&mut self, pair: u16) -> Result<bool> {
        let Some(Transmit { wheel, .. }) = self.tx.get_mut(usize::from(pair)) else {
            return Ok(false);
        };
        wheel.take(u16::MAX)?;
        Ok(wheel.held() == wheel.size())
    }

    /// Counts at most a burst of received frames per queue and gives their buffers back.
    #[inline]
    pub(crate) fn receive(&mut self, burst: u16) -> Result<u64> {
        let mut frames = 0;
        for queue in &mut self.rx {
            let taken = if self.verify.is_some() {
                queue.look(self.arena, burst, self.verify.as_ref())?
            } else if self.spans {
                queue.walk(self.arena, burst)?
            } else {
                let taken = queue.wheel.take(burst)?;
                (taken, u64::from(taken))
            };
            if taken.0 > 0 {
                queue.wheel.give(taken.0);
                self.unsettled = true;
                queue.frames += taken.1;
                frames += taken.1;
            }
        }
        Ok(frames)
    }

    /// True where [`Self::settle`] has something to do, for which a full barrier is to be waited for.
    #[inline]
    pub(crate) fn is_unsettled(&self) -> bool {
        self.unsettled
    }

    /// Rings the doorbells that the device wants rung, after a full barrier.
    #[inline]
    pub(crate) fn settle(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.unsettled) {
            return Ok(());
        }
        for (pair, queue) in (0..).zip(&mut self.rx) {
            if queue.wheel.settle() {
                self.plug.kick(2 * pair)?;
            }
        }
        for (pair, queue) in (0..).zip(&mut self.tx) {
            if queue.wheel.settle() {
                self.plug.kick(2 * pair + 1)?;
            }
        }
        Ok(())
    }

    /// Asks for an interrupt for the next frame. True where there is one already.
    pub(crate) fn arm(&mut self) -> bool {
        let mut any = false;
        for queue in &mut self.rx {
            any |= queue.wheel.arm();
        }
        any
    }

    /// Asks for no interrupts, and forgets those that came.
    pub(crate) fn disarm(&mut self) {
        for (pair, queue) in (0..).zip(&mut self.rx) {
            queue.wheel.disarm();
            self.plug.clear_interrupt(2 * pair);
        }
    }

    /// The eventfds of all receive queues.
    pub(crate) fn interrupts(&self) -> Vec<RawFd> {
        (0..self.rx.len() as u16).filter_map(|pair| self.plug.interrupt(2 * pair)).collect()
    }

    /// The counters so far.
    pub(crate) fn count(&self) -> PortReport {
        let pair = |(rx, tx): (&Receive<'_>, &Transmit<'_>)| PairReport {
            sent: tx.frames,
            received: rx.frames,
        };
        let pairs: Vec<_> = self.rx.iter().zip(&self.tx).map(pair).collect();
        PortReport {
            sent: pairs.iter().map(|pair| pair.sent).sum(),
            received: pairs.iter().map(|pair| pair.received).sum(),
            kicks: self.plug.kicks(),
            lost: self.lost,
            pairs,
        }
    }

    /// The features agreed on.
    pub(crate) fn features(&self) -> u64 {
        self.plug.features
    }
}

impl Receive<'_> {
    /// Takes at most `limit` buffers of frames that may span several. Returns how many buffers, and how many
    /// frames began in them.
    fn walk(&mut self, arena: &Arena, limit: u16) -> Result<(u16, u64)> {
        let (row, more) = (self.row, &mut self.more);
        let mut frames = 0;
        let taken = self.wheel.take_each(limit, |used| {
            if *more > 0 {
                *more -= 1;
                return Ok(());
            }
            frames += 1;
            let at = row.at(used.head) + NET_HEADER_NUM_BUFFERS;
            *more = arena.load_u16(at, Ordering::Relaxed)?.saturating_sub(1);
            Ok(())
        })?;
        Ok((taken, frames))
    }

    /// As [`Self::walk`], and checks every byte. Only frames that flows sent count.
    fn look(&mut self, arena: &Arena, limit: u16, verify: Option<&Verify>) -> Result<(u16, u64)> {
        let Self { wheel, row, more, frame, .. } = self;
        let mut frames = 0;
        let taken = wheel.take_each(limit, |Used { head, len }| {
            let at = row.at(head);
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
                    .verify(frame, |flow| verify.routes.get(usize::from(flow)).copied())
            {
                verdict?;
                frames += 1;
            }
            Ok(())
        })?;
        Ok((taken, frames))
    }
}
