//! Into receive queues: one copy, from the sender's memory to the receiver's.

use std::sync::Arc;

use arrayvec::ArrayVec;
use manifold_dma::{Access, Pinned, Slice};
use manifold_virtio::ring::{AnyBurst, Burst, Chain, Queue, RingError};
use manifold_virtio::transport::{QueueEvents, QueueState};

use crate::config::QueueConfig;
use crate::counters::{Drop, PairCounters};
use crate::frame::{Frame, NET_HEADER, Pieces};

/// The most buffers one frame is spread over: 64 KiB in buffers of the smallest size the standard advises, twice over.
const MAX_CHAINS: usize = 128;
/// The most pieces those buffers may be in.
const MAX_PIECES: usize = 1024;

/// A receive queue.
pub(crate) struct Receiver {
    queue: Queue,
    mergeable: bool,
    events: Arc<dyn QueueEvents>,
    failed: bool,
}

impl Receiver {
    /// Where the queue is, for whoever serves it next.
    pub(crate) fn state(&self) -> QueueState {
        self.queue.position()
    }

    pub(crate) fn new(config: QueueConfig) -> Result<Self, RingError> {
        Ok(Receiver {
            queue: Queue::new(config.addresses, config.features)?.resume(config.resume)?,
            mergeable: config.mergeable,
            events: config.events,
            failed: false,
        })
    }

    /// Delivers frames, in order; those that do not fit are counted and dropped.
    pub(crate) fn deliver<'f>(
        &mut self,
        pin: &Pinned<'_>,
        mut frames: impl Iterator<Item = &'f mut Frame>,
        pieces: &Pieces<'_>,
        counters: &PairCounters,
    ) {
        if self.failed {
            frames.for_each(|_| counters.drop(Drop::NotReady));
            return;
        }
        if let Err(error) = self.deliver_to_ring(pin, &mut frames, pieces, counters) {
            frames.for_each(|_| counters.drop(Drop::NotReady));
            self.failed = true;
            self.events.fail(&error);
        }
    }

    fn deliver_to_ring<'f>(
        &mut self,
        pin: &Pinned<'_>,
        frames: &mut impl Iterator<Item = &'f mut Frame>,
        pieces: &Pieces<'_>,
        counters: &PairCounters,
    ) -> Result<(), RingError> {
        let mut burst = self.queue.open(pin)?;
        // Buffers are looked for when a frame comes, so the driver need never notify of them.
        burst.disarm();
        let (mut delivered, mut bytes) = (0, 0);
        let mut result = Ok(());
        for frame in frames {
            match put(&mut burst, self.mergeable, frame, pieces) {
                Ok(None) => {
                    delivered += 1;
                    bytes += frame.len() as u64;
                }
                Ok(Some(reason)) => counters.drop(reason),
                Err(error) => {
                    counters.drop(Drop::NotReady);
                    result = Err(error);
                    break;
                }
            }
        }
        if delivered > 0 {
            counters.rx_frames.add(delivered);
            counters.rx_bytes.add(bytes);
            if burst.publish() {
                counters.interrupts.add(1);
                self.events.interrupt();
            }
        }
        result
    }
}

/// Puts one frame into as many buffers as it needs; says why if it is dropped.
fn put<'p>(
    burst: &mut AnyBurst<'_, 'p>,
    mergeable: bool,
    frame: &mut Frame,
    pieces: &Pieces<'_>,
) -> Result<Option<Drop>, RingError> {
    let needed = NET_HEADER + frame.len();
    let mut room: ArrayVec<Slice<'p>, MAX_PIECES> = ArrayVec::new();
    let mut chains: ArrayVec<Chain, MAX_CHAINS> = ArrayVec::new();
    let mut capacity = 0;
    while capacity < needed {
        let popped =
            burst.pop(|slice, access| access == Access::Read || room.try_push(slice).is_ok());
        let chain = match popped {
            Ok(Some(chain)) => chain,
            Ok(None) => {
                burst.put_back(&chains);
                return Ok(Some(Drop::NoBuffer));
            }
            Err(RingError::TooManyPieces(_)) if !chains.is_empty() => {
                burst.put_back(&chains);
                return Ok(Some(Drop::BufferTooSmall));
            }
            Err(error) => return Err(error),
        };
        if chain.writable == 0 {
            return Err(RingError::NoBuffers("device-writable"));
        }
        capacity += chain.writable as usize;
        if chains.try_push(chain).is_err() {
            burst.put_back(&[chain]);
            burst.put_back(&chains);
            return Ok(Some(Drop::BufferTooSmall));
        }
        if capacity < needed && !mergeable {
            burst.put_back(&chains);
            return Ok(Some(Drop::BufferTooSmall));
        }
    }
    let head = frame.delivered_head(chains.len() as u16);
    let mut scatter = Scatter { room: &room, skip: 0 };
    scatter.write(head);
    for piece in frame.rest(pieces) {
        scatter.copy(piece);
    }
    let mut left = needed;
    for chain in &chains {
        let written = left.min(chain.writable as usize);
        burst.complete(chain, written as u32);
        left -= written;
    }
    Ok(None)
}

/// Writes bytes one after the other into pieces of memory.
struct Scatter<'r, 'p> {
    room: &'r [Slice<'p>],
    skip: usize,
}

impl Scatter<'_, '_> {
    #[inline]
    fn write(&mut self, mut data: &[u8]) {
        while let Some((first, others)) = self.room.split_first()
            && !data.is_empty()
        {
            let target = first.skip(self.skip);
            let done = target.write(data);
            data = data.get(done..).unwrap_or_default();
            self.advance(done, target.len(), others.len());
        }
    }

    #[inline]
    fn copy(&mut self, mut source: Slice<'_>) {
        while let Some((first, others)) = self.room.split_first()
            && !source.is_empty()
        {
            let target = first.skip(self.skip);
            let done = target.copy_from(&source);
            source = source.skip(done);
            self.advance(done, target.len(), others.len());
        }
    }

    #[inline]
    fn advance(&mut self, done: usize, had: usize, others: usize) {
        if done == had {
            self.room = &self.room[self.room.len() - others..];
            self.skip = 0;
        } else {
            self.skip += done;
        }
    }
}
