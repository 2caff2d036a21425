//! This module is the record of a packed queue, in the layout `QueueRegionPacked`.
//!
//! Used descriptors overwrite available ones, so the region keeps copies. Its entries are linked:
//! those of one chain, and those that are free.

use std::collections::VecDeque;

use super::region::{
    DESC_NUM_AT, Inflight, PACKED_ENTRY as DESC, PACKED_HEADER as DESC_AT, VERSION, VERSION_AT,
};
use crate::ring::chain::{Chain, Descriptor};
use crate::ring::error::RingError;
use crate::ring::position::{WRAP, index};

/// Offsets of `free_head` and of `old_free_head`.
const FREE_HEAD_AT: [usize; 2] = [12, 14];
/// Index, in [`FREE_HEAD_AT`] and in positions, of the value that is being worked on; [`OLD`] is
/// that of the one in force.
const NEW: usize = 0;
const OLD: usize = 1;
/// Offset of `used_idx`, `old_used_idx`, `used_wrap_counter`, `old_used_wrap_counter` and two bytes
/// of padding, which are written at once.
const USED_AT: usize = 16;
/// Offset of `inflight` in `DescStatePacked`; those of the other fields follow.
const INFLIGHT: usize = 0;
const NEXT: usize = 2;
const LAST: usize = 4;
const NUM: usize = 6;
const COUNTER: usize = 8;
const ID: usize = 16;
const FLAGS: usize = 18;
const LEN: usize = 20;
const ADDR: usize = 24;

/// The record of what a packed queue has in flight.
#[derive(Debug)]
pub(in crate::ring) struct PackedRecord {
    region: Inflight,
    size: u16,
    /// Number of chains recorded so far, modulo 2^64.
    counter: u64,
    /// The entry that follows each one; the queue's size after the last.
    next: Vec<u16>,
    free_head: u16,
    /// Chains taken and not completed, in the order they were taken.
    taken: VecDeque<Taken>,
    /// Chains completed and not published.
    batch: Vec<Taken>,
    /// The positions where used descriptors continue, as the region says: [`NEW`] and [`OLD`].
    positions: [u16; 2],
    /// Chains to be taken again.
    resubmit: Vec<Resubmitted>,
    resubmit_next: usize,
}

/// A chain in flight, by its entries.
#[derive(Clone, Copy, Debug)]
struct Taken {
    id: u16,
    first: u16,
    last: u16,
    resubmit: bool,
}

/// A chain to be taken again.
#[derive(Debug)]
pub(in crate::ring) struct Resubmitted {
    counter: u64,
    first: u16,
    last: u16,
    /// The descriptors, as they were in the ring.
    descriptors: Vec<Descriptor>,
}

impl Resubmitted {
    /// Returns a descriptor of the chain. It is an error if the chain continues where there are no
    /// more descriptors: the region is wrong.
    pub(in crate::ring) fn descriptor(&self, index: u16) -> Result<Descriptor, RingError> {
        let found = self.descriptors.get(usize::from(index)).copied();
        found.ok_or(RingError::Loop(index))
    }
}

impl PackedRecord {
    /// Continues from what `region` says, or begins the record if it says nothing. `position` is
    /// where the queue would continue without the region, and `flags_at` reads the flags of a
    /// descriptor of the ring. The result is where used and, without those to be taken again,
    /// available descriptors continue; `None` means as without a region.
    pub(in crate::ring) fn new<E>(
        region: Inflight,
        size: u16,
        position: u16,
        available: impl FnOnce(u16) -> Result<bool, E>,
    ) -> Result<(Self, Option<u16>), E> {
        let mut record = PackedRecord {
            region,
            size,
            counter: 0,
            next: (1..=size).collect(),
            free_head: 0,
            taken: VecDeque::new(),
            batch: Vec::new(),
            positions: [position; 2],
            resubmit: Vec::new(),
            resubmit_next: 0,
        };
        let fresh = record.region.u16(VERSION_AT) != VERSION;
        // The region names a place that the ring does not have, so nothing in it can be believed.
        let positions = record.positions();
        if fresh || positions.iter().any(|position| index(*position) >= size) {
            record.begin(position);
            return Ok((record, None));
        }
        let [new, old] = positions;
        // A batch that the driver has seen is finished; any other is undone.
        let seen = new != old && !available(old)?;
        let which = if seen { NEW } else { OLD };
        let used = positions[which];
        record.clear_free(record.region.u16(FREE_HEAD_AT[which]));
        record.collect();
        record.relink(used);
        Ok((record, Some(used)))
    }

    fn at(entry: u16, field: usize) -> usize {
        DESC_AT + DESC * usize::from(entry) + field
    }

    /// Returns where used descriptors continue: [`NEW`] and [`OLD`].
    fn positions(&self) -> [u16; 2] {
        let [a, b, c, d, wrap, old_wrap, ..]: [u8; 8] = self.region.get(USED_AT);
        let position = |bytes: [u8; 2], wrap: u8| {
            index(u16::from_ne_bytes(bytes)) | if wrap != 0 { WRAP } else { 0 }
        };
        [position([a, b], wrap), position([c, d], old_wrap)]
    }

    fn put_positions(&self, [new, old]: [u16; 2]) {
        let wrap = |position: u16| u8::from(position & WRAP != 0);
        let [a, b] = index(new).to_ne_bytes();
        let [c, d] = index(old).to_ne_bytes();
        self.region.put(USED_AT, [a, b, c, d, wrap(new), wrap(old), 0, 0]);
    }

    /// Writes an empty record.
    fn begin(&mut self, position: u16) {
        self.region.put_u16(DESC_NUM_AT, self.size);
        (0..self.size).for_each(|entry| self.region.put_u8(Self::at(entry, INFLIGHT), 0));
        self.relink(position);
        self.region.put_u16(VERSION_AT, VERSION);
    }

    /// Clears the marks of free entries. Entries of a batch that was just being given back may
    /// still have them.
    fn clear_free(&self, head: u16) {
        let mut entry = head;
        for _ in 0..self.size {
            if entry >= self.size {
                break;
            }
            self.region.put_u8(Self::at(entry, INFLIGHT), 0);
            entry = self.region.u16(Self::at(entry, NEXT));
        }
    }

    /// Copies out the chains in flight. An entry belongs to one chain; chains that contradict this
    /// are forgotten. The work is bounded by the number of entries, whatever is in them.
    fn collect(&mut self) {
        let mut claimed = vec![false; usize::from(self.size)];
        for first in 0..self.size {
            if self.region.u8(Self::at(first, INFLIGHT)) != 1 {
                continue;
            }
            match self.chain(first, &mut claimed) {
                Some(chain) => self.resubmit.push(chain),
                None => self.region.put_u8(Self::at(first, INFLIGHT), 0),
            }
        }
        self.resubmit.sort_unstable_by_key(|chain| chain.counter);
        self.counter = self.resubmit.last().map_or(0, |chain| chain.counter.wrapping_add(1));
    }

    fn chain(&mut self, first: u16, claimed: &mut [bool]) -> Option<Resubmitted> {
        let region = &self.region;
        let count = region.u16(Self::at(first, NUM));
        if count == 0 || count > self.size {
            return None;
        }
        let mut entries = Vec::new();
        let mut descriptors = Vec::new();
        let mut entry = first;
        for _ in 0..count {
            if std::mem::replace(claimed.get_mut(usize::from(entry))?, true) {
                return None;
            }
            entries.push(entry);
            descriptors.push(Descriptor {
                iova: region.u64(Self::at(entry, ADDR)),
                len: u32::from_ne_bytes(region.get(Self::at(entry, LEN))),
                flags: region.u16(Self::at(entry, FLAGS)),
                link: region.u16(Self::at(entry, ID)),
            });
            entry = region.u16(Self::at(entry, NEXT));
        }
        for pair in entries.windows(2) {
            if let [entry, next] = pair {
                *self.next.get_mut(usize::from(*entry))? = *next;
            }
        }
        let last = entries.last().copied()?;
        Some(Resubmitted {
            counter: region.u64(Self::at(first, COUNTER)),
            first,
            last,
            descriptors,
        })
    }

    /// Returns how many descriptors the chains to be taken again have.
    pub(in crate::ring) fn held(&self) -> u16 {
        let total: usize = self.resubmit.iter().map(|chain| chain.descriptors.len()).sum();
        total.min(usize::from(self.size)) as u16
    }

    /// Links all entries that no chain to be taken again has, and puts the result in force.
    /// Whenever this is interrupted, the list in force leads through free entries only.
    fn relink(&mut self, position: u16) {
        let mut free = vec![true; usize::from(self.size)];
        for chain in &self.resubmit {
            let mut entry = chain.first;
            for _ in &chain.descriptors {
                free[usize::from(entry)] = false;
                entry = self.next[usize::from(entry)];
            }
        }
        let mut head = self.size;
        for entry in (0..self.size).rev().filter(|entry| free[usize::from(*entry)]) {
            self.link(entry, head);
            head = entry;
        }
        self.free_head = head;
        self.positions = [position; 2];
        for which in [NEW, OLD] {
            self.region.put_u16(FREE_HEAD_AT[which], head);
        }
        self.put_positions(self.positions);
    }

    fn link(&mut self, entry: u16, next: u16) {
        if let Some(link) = self.next.get_mut(usize::from(entry)) {
            *link = next;
            self.region.put_u16(Self::at(entry, NEXT), next);
        }
    }

    /// Returns the next chain to be taken again.
    pub(in crate::ring) fn resubmit(&self) -> Option<&Resubmitted> {
        self.resubmit.get(self.resubmit_next)
    }

    /// Takes the chain that [`PackedRecord::resubmit`] gave.
    pub(in crate::ring) fn take_resubmitted(&mut self, id: u16) {
        if let Some(&Resubmitted { first, last, .. }) = self.resubmit() {
            self.taken.push_back(Taken { id, first, last, resubmit: true });
            self.resubmit_next += 1;
        }
    }

    /// Records a chain that is taken from the ring; at most as many descriptors in all as the queue
    /// has.
    pub(in crate::ring) fn take(&mut self, id: u16, descriptors: &[Descriptor]) {
        let first = self.free_head;
        let (mut last, mut entry) = (first, first);
        for descriptor in descriptors {
            let Some(next) = self.next.get(usize::from(entry)) else { return };
            let region = &self.region;
            region.put_u64(Self::at(entry, ADDR), descriptor.iova);
            region.put(Self::at(entry, LEN), descriptor.len.to_ne_bytes());
            region.put_u16(Self::at(entry, FLAGS), descriptor.flags);
            region.put_u16(Self::at(entry, ID), descriptor.link);
            last = std::mem::replace(&mut entry, *next);
        }
        let region = &self.region;
        region.put_u16(Self::at(first, NUM), descriptors.len() as u16);
        region.put_u16(Self::at(first, LAST), last);
        region.put_u64(Self::at(first, COUNTER), self.counter);
        self.counter = self.counter.wrapping_add(1);
        region.put_u8(Self::at(first, INFLIGHT), 1);
        region.put_u16(FREE_HEAD_AT[NEW], entry);
        // The chain is in flight from here on.
        region.put_u16(FREE_HEAD_AT[OLD], entry);
        self.free_head = entry;
        self.taken.push_back(Taken { id, first, last, resubmit: false });
    }

    /// Undoes the taking of the chains taken last.
    pub(in crate::ring) fn put_back(&mut self, chains: &[Chain]) {
        for _ in chains {
            match self.taken.pop_back() {
                Some(Taken { resubmit: true, .. }) => self.resubmit_next -= 1,
                Some(taken) => {
                    self.free(taken);
                    self.region.put_u16(FREE_HEAD_AT[OLD], self.free_head);
                    self.region.put_u8(Self::at(taken.first, INFLIGHT), 0);
                }
                None => {}
            }
        }
    }

    fn free(&mut self, taken: Taken) {
        self.link(taken.last, self.free_head);
        self.free_head = taken.first;
        self.region.put_u16(FREE_HEAD_AT[NEW], self.free_head);
    }

    /// Notes that a chain was completed.
    pub(in crate::ring) fn complete(&mut self, id: u16) {
        let found = self.taken.iter().position(|taken| taken.id == id);
        if let Some(taken) = found.and_then(|index| self.taken.remove(index)) {
            self.batch.push(taken);
        }
    }

    /// Records that the first used descriptor of a batch is about to be written, after which used
    /// descriptors go on at `position`.
    pub(in crate::ring) fn publish(&mut self, position: u16) {
        let batch = std::mem::take(&mut self.batch);
        batch.iter().for_each(|taken| self.free(*taken));
        self.batch = batch;
        let [_, old] = self.positions;
        self.positions = [position, old];
        self.put_positions(self.positions);
    }

    /// Records that the first used descriptor of the batch was written.
    pub(in crate::ring) fn published(&mut self, position: u16) {
        for taken in self.batch.drain(..) {
            self.region.put_u8(Self::at(taken.first, INFLIGHT), 0);
        }
        self.region.put_u16(FREE_HEAD_AT[OLD], self.free_head);
        self.positions = [position; 2];
        self.put_positions(self.positions);
        // None of the chains taken again can be put back any more.
        if self.resubmit_next == self.resubmit.len()
            && !self.taken.iter().any(|taken| taken.resubmit)
        {
            self.resubmit.clear();
            self.resubmit_next = 0;
        }
    }
}
