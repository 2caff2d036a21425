//! This module is the receiving side of a worker: its receive queues, and the links to the workers
//! of the others.

use std::sync::atomic::{Ordering, fence};

use arrayvec::ArrayVec;
use manifold_pci::FunctionId;

use super::function::Switch;
use super::target::{Target, TargetKind};
use crate::frame::burst::FrameBurst;
use crate::frame::finish::Scratch;
use crate::handover::links::Outboxes;
use crate::receive::{RxContext, RxQueue};
use crate::stages::StageTimer;

/// Says which worker serves a receive queue.
pub(crate) enum RxOwner {
    /// No worker serves the queue.
    None,
    /// This worker serves the queue.
    Local(Box<RxQueue>),
    /// The worker of this number serves the queue.
    Remote(usize),
}

/// Receive queues to which frames were delivered, and whose drivers were not yet interrupted. Only
/// broadcasts reach more than fit.
type Delivered = ArrayVec<Target, 64>;

/// The queues and ports that a worker delivers to, with the state that this takes.
pub(crate) struct Egress {
    /// The receive queues by [`FunctionId::index`] and queue pair.
    owners: Vec<Vec<RxOwner>>,
    pub(crate) outboxes: Outboxes,
    pub(crate) scratch: Scratch,
    /// Receive queues with frames of the present burst; empty between bursts.
    delivered: Delivered,
    pub(crate) timer: StageTimer,
    /// Number of frames and copies of frames since the worker last looked at the kicks.
    pub(crate) work: usize,
}

impl Egress {
    pub(crate) fn new(outboxes: Outboxes, timer: StageTimer) -> Self {
        Egress {
            owners: Vec::new(),
            outboxes,
            scratch: Scratch::default(),
            delivered: Delivered::new(),
            timer,
            work: 0,
        }
    }

    /// Returns the place of a receive queue, for changes.
    pub(crate) fn owner_mut(&mut self, id: FunctionId, pair: u16) -> &mut RxOwner {
        let (index, pair) = (id.index(), usize::from(pair));
        if self.owners.len() <= index {
            self.owners.resize_with(index + 1, Vec::new);
        }
        let owners = &mut self.owners[index];
        if owners.len() <= pair {
            owners.resize_with(pair + 1, || RxOwner::None);
        }
        &mut owners[pair]
    }

    /// Forgets all receive queues of a function.
    pub(crate) fn remove_function(&mut self, id: FunctionId) {
        if let Some(owners) = self.owners.get_mut(id.index()) {
            *owners = Vec::new();
        }
    }

    /// Returns the receive queues of a function that this worker serves.
    pub(crate) fn local_queues(&mut self, id: FunctionId) -> impl Iterator<Item = &mut RxQueue> {
        let owners = self.owners.get_mut(id.index()).into_iter().flatten();
        owners.filter_map(|owner| match owner {
            RxOwner::Local(queue) => Some(&mut **queue),
            _ => None,
        })
    }

    /// Returns a receive queue if this worker serves it.
    #[inline]
    pub(crate) fn local(&mut self, function: usize, pair: u16) -> Option<&mut RxQueue> {
        self.local_with_context(function, pair).map(|(queue, ..)| queue)
    }

    /// Returns a receive queue if this worker serves it, with what a delivery needs.
    #[inline]
    pub(crate) fn local_with_context(
        &mut self,
        function: usize,
        pair: u16,
    ) -> Option<(&mut RxQueue, &mut Scratch, &mut StageTimer)> {
        match self.owners.get_mut(function)?.get_mut(usize::from(pair))? {
            RxOwner::Local(queue) => Some((queue, &mut self.scratch, &mut self.timer)),
            _ => None,
        }
    }

    /// Asks the processor for what a delivery to `target` looks at first.
    #[inline]
    pub(crate) fn prefetch(&self, target: Target) {
        if let TargetKind::Queue(function, pair) = target.kind()
            && let Some(owners) = self.owners.get(function)
            && let Some(RxOwner::Local(queue)) = owners.get(usize::from(pair))
        {
            queue.prefetch();
        }
    }

    /// Asks the processor for the descriptors of the buffers that `count` frames for `target` will
    /// take.
    #[inline]
    pub(crate) fn prefetch_buffers(&mut self, switch: &Switch, target: Target, count: usize) {
        if let TargetKind::Queue(index, pair) = target.kind()
            && let Some(function) = switch.function(index)
            && let Some(queue) = self.local(index, pair)
        {
            queue.prefetch_buffers(&function.reader.pin(), count);
        }
    }

    /// Delivers the frames that `which` has a bit for to a receive queue. Returns the number of the
    /// worker that serves the queue if it is another one, and then has delivered nothing.
    #[inline]
    pub(crate) fn deliver(
        &mut self,
        switch: &Switch,
        target: Target,
        burst: &mut FrameBurst<'_, '_>,
        which: u64,
    ) -> Option<usize> {
        let TargetKind::Queue(index, pair) = target.kind() else { return None };
        let (function, counters) = switch.queue(index, pair)?;
        // The wish for an interrupt is read once for each batch: the ring cannot tell for two
        // batches at once when its index has wrapped in between.
        if self.delivered.is_full() || self.delivered.contains(&target) {
            self.interrupt(switch);
        }
        let owner = self.owners.get_mut(index).and_then(|all| all.get_mut(usize::from(pair)));
        match owner {
            Some(RxOwner::Local(queue)) => {
                let Egress { scratch, timer, .. } = self;
                let mut context = RxContext { counters, scratch, timer };
                if queue.deliver(&function.reader.pin(), burst, which, &mut context) {
                    self.delivered.push(target);
                }
            }
            Some(RxOwner::Remote(worker)) => return Some(*worker),
            _ => counters.no_driver(which.count_ones()),
        }
        None
    }

    /// Interrupts the drivers that frames were delivered to, if they want that. Returns true if
    /// there was any driver to ask, and then a full barrier has been passed.
    #[inline]
    pub(crate) fn interrupt(&mut self, switch: &Switch) -> bool {
        let any = !self.delivered.is_empty();
        if any {
            fence(Ordering::SeqCst);
        }
        let Egress { delivered, owners, timer, .. } = self;
        for target in delivered.drain(..) {
            if let TargetKind::Queue(index, pair) = target.kind()
                && let Some((function, counters)) = switch.queue(index, pair)
                && let Some(owners) = owners.get_mut(index)
                && let Some(RxOwner::Local(queue)) = owners.get_mut(usize::from(pair))
            {
                queue.interrupt(&function.reader.pin(), counters, timer);
            }
        }
        any
    }
}
