//! This module is the record of a split queue, in the layout `QueueRegionSplit`.

use super::region::{
    DESC_NUM_AT, Inflight, SPLIT_ENTRY as DESC, SPLIT_HEADER as DESC_AT, VERSION, VERSION_AT,
};
use crate::ring::chain::Chain;

/// Offset of `last_batch_head`.
const LAST_BATCH_HEAD_AT: usize = 12;
/// Offset of `used_idx`.
const USED_IDX_AT: usize = 14;
/// Offset of `inflight` in `DescStateSplit`; those of the other fields follow.
const INFLIGHT: usize = 0;
const NEXT: usize = 6;
const COUNTER: usize = 8;

/// The record of what a split queue has in flight.
#[derive(Debug)]
pub(in crate::ring) struct SplitRecord {
    region: Inflight,
    size: u16,
    /// Number of chains recorded so far, modulo 2^64.
    counter: u64,
    /// Heads completed and not published.
    batch: Vec<u16>,
    /// Heads to take again. They are found where the available ring has its entries `again_from`
    /// on.
    resubmit: Vec<u16>,
    resubmit_from: u16,
}

impl SplitRecord {
    /// Continues from what `region` says, or begins the record if it says nothing. `used` is the
    /// index of the used ring, and `published` what it is taken for if the region is new. The
    /// result is where used and, without those to be taken again, available entries continue;
    /// `None` means as without a region.
    pub(in crate::ring) fn new(
        region: Inflight,
        size: u16,
        used: u16,
        published: u16,
    ) -> (Self, Option<u16>) {
        let mut record = SplitRecord {
            region,
            size,
            counter: 0,
            batch: Vec::new(),
            resubmit: Vec::new(),
            resubmit_from: 0,
        };
        if record.region.u16(VERSION_AT) != VERSION {
            record.begin(published);
            return (record, None);
        }
        record.finish_batch(used);
        let states = (0..size).map(|head| (record.counter_of(head), head));
        let mut resubmit: Vec<(u64, u16)> =
            states.filter_map(|(counter, head)| Some((counter?, head))).collect();
        resubmit.sort_unstable();
        record.counter = resubmit.last().map_or(0, |(counter, _)| counter.wrapping_add(1));
        record.resubmit = resubmit.into_iter().map(|(_, head)| head).collect();
        record.resubmit_from = used;
        (record, Some(used))
    }

    fn at(head: u16, field: usize) -> usize {
        DESC_AT + DESC * usize::from(head) + field
    }

    /// Writes an empty record.
    fn begin(&self, used: u16) {
        let region = &self.region;
        region.put_u16(DESC_NUM_AT, self.size);
        region.put_u16(LAST_BATCH_HEAD_AT, 0);
        region.put_u16(USED_IDX_AT, used);
        (0..self.size).for_each(|head| region.put_u8(Self::at(head, INFLIGHT), 0));
        region.put_u16(VERSION_AT, VERSION);
    }

    /// Finishes what was interrupted after the used ring's index was written.
    fn finish_batch(&self, used: u16) {
        let region = &self.region;
        let count = used.wrapping_sub(region.u16(USED_IDX_AT));
        let mut head = region.u16(LAST_BATCH_HEAD_AT);
        for _ in 0..count.min(self.size) {
            if head >= self.size {
                break;
            }
            region.put_u8(Self::at(head, INFLIGHT), 0);
            head = region.u16(Self::at(head, NEXT));
        }
        region.put_u16(USED_IDX_AT, used);
    }

    fn counter_of(&self, head: u16) -> Option<u64> {
        let inflight = self.region.u8(Self::at(head, INFLIGHT)) == 1;
        inflight.then(|| self.region.u64(Self::at(head, COUNTER)))
    }

    /// Returns the head to be taken again at available index `index`.
    pub(in crate::ring) fn resubmit(&self, index: u16) -> Option<u16> {
        self.resubmit.get(usize::from(index.wrapping_sub(self.resubmit_from))).copied()
    }

    /// Records that the chain at available index `index` is taken.
    pub(in crate::ring) fn take(&mut self, index: u16, head: u16) {
        if self.resubmit(index).is_none() && head < self.size {
            self.region.put_u64(Self::at(head, COUNTER), self.counter);
            self.counter = self.counter.wrapping_add(1);
            self.region.put_u8(Self::at(head, INFLIGHT), 1);
        }
    }

    /// Records that the chains from available index `index` on are not taken any more.
    pub(in crate::ring) fn put_back(&mut self, index: u16, chains: &[Chain]) {
        for (index, chain) in (0..).map(|n: u16| index.wrapping_add(n)).zip(chains) {
            if self.resubmit(index).is_none() && chain.head < self.size {
                self.region.put_u8(Self::at(chain.head, INFLIGHT), 0);
            }
        }
    }

    /// Notes that a chain was completed.
    pub(in crate::ring) fn complete(&mut self, head: u16) {
        self.batch.push(head);
    }

    /// Records that the used index is about to be written.
    pub(in crate::ring) fn publish(&mut self, next_avail: u16) {
        // The indices mean what they always do once none of the chains taken again can be put back.
        let past = usize::from(next_avail.wrapping_sub(self.resubmit_from));
        if past >= self.resubmit.len() + usize::from(self.size) {
            self.resubmit.clear();
        }
        for head in self.batch.iter().filter(|head| **head < self.size) {
            let last = self.region.u16(LAST_BATCH_HEAD_AT);
            self.region.put_u16(Self::at(*head, NEXT), last);
            self.region.put_u16(LAST_BATCH_HEAD_AT, *head);
        }
    }

    /// Records that the used index was written.
    pub(in crate::ring) fn published(&mut self, used: u16) {
        for head in self.batch.drain(..).filter(|head| *head < self.size) {
            self.region.put_u8(Self::at(head, INFLIGHT), 0);
        }
        self.region.put_u16(USED_IDX_AT, used);
    }
}
