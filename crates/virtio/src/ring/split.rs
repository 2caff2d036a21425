//! Split virtqueues (virtio 1.3, 2.7), device side.

use std::sync::atomic::{Ordering, fence};

use manifold_dma::{Access, Pinned, Slice};

use super::area::Area;
use super::chain::{Chain, DESCRIPTOR, Walk};
use super::{MAX_QUEUE_SIZE, QueueAddresses, RingError, RingFeatures};

/// VIRTQ_AVAIL_F_NO_INTERRUPT (2.7.6).
const NO_INTERRUPT: u16 = 1;
/// VIRTQ_USED_F_NO_NOTIFY (2.7.8).
const NO_NOTIFY: u16 = 1;
/// Device-side state of one split virtqueue. It holds indices only; the rings are reached through [`SplitQueue::open`].
#[derive(Debug)]
pub struct SplitQueue {
    addresses: QueueAddresses,
    features: RingFeatures,
    /// Next entry of the available ring to take.
    next_avail: u16,
    /// Next entry of the used ring to write.
    next_used: u16,
    /// The used index the driver knows of.
    published: u16,
    /// Whether the driver was last told that it need not notify.
    quiet: bool,
    descriptors: Area,
    available: Area,
    used: Area,
    /// Version of the domain's snapshot that the areas were resolved with.
    version: Option<u64>,
}

impl SplitQueue {
    /// A queue as a driver set it up, starting at index 0.
    ///
    /// # Errors
    /// [`RingError::Size`].
    pub fn new(addresses: QueueAddresses, features: RingFeatures) -> Result<Self, RingError> {
        let size = addresses.size;
        if !size.is_power_of_two() || size > MAX_QUEUE_SIZE {
            return Err(RingError::Size(size));
        }
        Ok(SplitQueue {
            addresses,
            features,
            next_avail: 0,
            next_used: 0,
            published: 0,
            quiet: false,
            descriptors: Area::default(),
            available: Area::default(),
            used: Area::default(),
            version: None,
        })
    }

    /// The same queue where another server of it stopped: the next available entry to take and the next used entry to
    /// write, as [`SplitQueue::position`] gave them.
    pub fn resume(mut self, next_avail: u16, next_used: u16) -> Self {
        self.next_avail = next_avail;
        self.next_used = next_used;
        self.published = next_used;
        self
    }

    /// The next available entry to take and the next used entry to write.
    pub fn position(&self) -> (u16, u16) {
        (self.next_avail, self.next_used)
    }

    /// The queue's size in descriptors.
    pub fn size(&self) -> u16 {
        self.addresses.size
    }

    /// Begins a burst under `pin`.
    ///
    /// # Errors
    /// [`RingError::Fault`] when a ring is not mapped as it must be: the descriptor table and available ring readable,
    /// the used ring writable.
    #[inline]
    pub fn open<'q, 'p>(&'q mut self, pin: &'p Pinned<'_>) -> Result<Burst<'q, 'p>, RingError> {
        if self.version != Some(pin.version()) {
            self.resolve(pin)?;
        }
        Ok(Burst { mask: self.addresses.size - 1, limit: None, pin, queue: self })
    }

    #[cold]
    fn resolve(&mut self, pin: &Pinned<'_>) -> Result<(), RingError> {
        self.version = None;
        let QueueAddresses { size, descriptors, driver, device } = self.addresses;
        let size = usize::from(size);
        self.descriptors.resolve(pin, descriptors, DESCRIPTOR * size, 16, Access::Read)?;
        self.available.resolve(pin, driver, 6 + 2 * size, 2, Access::Read)?;
        self.used.resolve(pin, device, 6 + 8 * size, 4, Access::Write)?;
        self.version = Some(pin.version());
        Ok(())
    }
}

/// Work on a queue while its memory is pinned.
#[derive(Debug)]
pub struct Burst<'q, 'p> {
    queue: &'q mut SplitQueue,
    pin: &'p Pinned<'p>,
    mask: u16,
    /// The available index as last read: everything before it may be taken.
    limit: Option<u16>,
}

// Every `unsafe` block below relies on one fact: `queue`'s areas were resolved under the version that `pin` pins, and
// `pin` outlives the burst, so the rings stay mapped.
impl<'p> Burst<'_, 'p> {
    /// How many chains the driver has made available and the device has not taken.
    ///
    /// # Errors
    /// [`RingError::AvailableIndex`].
    #[inline]
    pub fn available(&mut self) -> Result<u16, RingError> {
        // SAFETY: see above; the index is the second word of the available ring.
        let index = u16::from_le(unsafe { self.queue.available.word(2) }.load(Ordering::Acquire));
        let ahead = index.wrapping_sub(self.queue.next_avail);
        let size = self.queue.addresses.size;
        if ahead > size {
            return Err(RingError::AvailableIndex { index, next: self.queue.next_avail, size });
        }
        self.limit = Some(index);
        Ok(ahead)
    }

    /// Takes the next available chain, if there is one, and calls `each` with the pieces of its buffers in order:
    /// device-readable ones with [`Access::Read`], then device-writable ones with [`Access::Write`]. `each` returns
    /// whether it had room for the piece.
    ///
    /// # Errors
    /// Any [`RingError`]. The chain has not been taken then, though `each` may have seen some of it. After
    /// [`RingError::TooManyPieces`] the queue can be used further; otherwise it must not be.
    #[inline]
    pub fn pop(
        &mut self,
        each: impl FnMut(Slice<'p>, Access) -> bool,
    ) -> Result<Option<Chain>, RingError> {
        if self.limit.is_none_or(|limit| limit == self.queue.next_avail) && self.available()? == 0 {
            return Ok(None);
        }
        let slot = usize::from(self.queue.next_avail & self.mask);
        // SAFETY: see above; `available` ordered this load after that of the index.
        let head = u16::from_le(
            unsafe { self.queue.available.word(4 + 2 * slot) }.load(Ordering::Relaxed),
        );
        let walk =
            Walk::new(self.pin, self.queue.addresses.size, self.queue.features.indirect, each);
        // SAFETY: see above; the table is 16-aligned, and the walk stays below the queue's size.
        let chain = walk.chain(head, |index| unsafe {
            self.queue.descriptors.descriptor(usize::from(index) * DESCRIPTOR)
        })?;
        self.queue.next_avail = self.queue.next_avail.wrapping_add(1);
        Ok(Some(chain))
    }

    /// Gives back the `count` chains taken last, none of them completed, as if they had not been taken.
    #[inline]
    pub fn put_back(&mut self, count: u16) {
        self.queue.next_avail = self.queue.next_avail.wrapping_sub(count);
    }

    /// Asks for what the next [`Burst::pop`]s will read: the available entry and descriptor `ahead` entries on.
    #[inline]
    pub fn prefetch(&self, ahead: u16) {
        let next = self.queue.next_avail.wrapping_add(ahead);
        if self.limit.is_some_and(|limit| limit.wrapping_sub(next).wrapping_sub(1) < self.mask) {
            let slot = usize::from(next & self.mask);
            // SAFETY: see above.
            let head = u16::from_le(
                unsafe { self.queue.available.word(4 + 2 * slot) }.load(Ordering::Relaxed),
            );
            self.queue.descriptors.prefetch(usize::from(head & self.mask) * DESCRIPTOR);
        }
    }

    /// Puts a taken chain on the used ring, `written` bytes of it filled from the start; the driver sees it after
    /// [`Burst::publish`].
    #[inline]
    pub fn complete(&mut self, head: u16, written: u32) {
        let slot = usize::from(self.queue.next_used & self.mask);
        // SAFETY: see above; the used ring is 4-aligned and its elements begin at 4.
        unsafe { self.queue.used.write_pair(4 + 8 * slot, u32::from(head), written) };
        self.queue.next_used = self.queue.next_used.wrapping_add(1);
    }

    /// Makes the completed chains visible to the driver; true when it wants an interrupt for them (2.7.7, 2.7.10).
    #[inline]
    pub fn publish(&mut self) -> bool {
        let queue = &mut *self.queue;
        let (old, new) = (queue.published, queue.next_used);
        if old == new {
            return false;
        }
        // SAFETY: see above; the used index is the second word of the used ring.
        unsafe { queue.used.word(2) }.store(new.to_le(), Ordering::Release);
        queue.published = new;
        // The driver writes its event index, then looks at the used index; the device does the reverse. Each needs its
        // store to be visible before its load.
        fence(Ordering::SeqCst);
        if queue.features.event_index {
            let offset = 4 + 2 * usize::from(queue.addresses.size);
            // SAFETY: see above; used_event follows the available ring's entries.
            let event =
                u16::from_le(unsafe { queue.available.word(offset) }.load(Ordering::Relaxed));
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            // SAFETY: see above; the flags are the first word of the available ring.
            let flags = u16::from_le(unsafe { queue.available.word(0) }.load(Ordering::Relaxed));
            flags & NO_INTERRUPT == 0
        }
    }

    /// Asks the driver to notify the device of the next chain it makes available; true when there is one already, so
    /// that waiting would be wrong.
    ///
    /// # Errors
    /// [`RingError::AvailableIndex`].
    pub fn arm(&mut self) -> Result<bool, RingError> {
        if self.queue.features.event_index {
            let offset = 4 + 8 * usize::from(self.queue.addresses.size);
            let next = self.queue.next_avail;
            // SAFETY: see above; avail_event follows the used ring's elements.
            unsafe { self.queue.used.word(offset) }.store(next.to_le(), Ordering::Release);
        } else {
            // SAFETY: see above; the flags are the first word of the used ring.
            unsafe { self.queue.used.word(0) }.store(0, Ordering::Release);
        }
        self.queue.quiet = false;
        fence(Ordering::SeqCst);
        Ok(self.available()? > 0)
    }

    /// Tells the driver that it need not notify the device, which polls. With the event index this needs no store: the
    /// index asked for last has passed.
    pub fn disarm(&mut self) {
        if !self.queue.quiet && !self.queue.features.event_index {
            // SAFETY: see above; the flags are the first word of the used ring.
            unsafe { self.queue.used.word(0) }.store(NO_NOTIFY.to_le(), Ordering::Release);
        }
        self.queue.quiet = true;
    }
}
