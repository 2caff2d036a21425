//! This module answers requests for device statistics (virtio 1.4, 5.1.6.5.11), of those types that
//! [`QueueStatistics`] answers in full.
//!
//! Not offered are RX_CSUM (how many checksums were found good or bad), TX_GSO (what became of each
//! unsegmented frame is up to its receivers) and the two SPEED types (the speed is no limit:
//! nothing is dropped for it).

use super::{CommandContext, Outcome, RESULT_MAX, Refused};
use crate::net::settings::{Changes, Kind, Settings};
use crate::net::steering::QueueStatistics;
use crate::spec::net::{feature, statistics as spec};

/// Statistics types of receive queues, each with the features of which it needs at least one.
const RECEIVE: [(u64, u64); 2] = [
    (spec::RX_BASIC, feature::DEVICE_STATS),
    (spec::RX_GSO, feature::GUEST_TSO4 | feature::GUEST_TSO6),
];
/// Statistics types of transmit queues, with the features that they need.
const TRANSMIT: [(u64, u64); 2] =
    [(spec::TX_BASIC, feature::DEVICE_STATS), (spec::TX_CSUM, feature::CSUM)];
/// Statistics types of the control queue, with the features that they need.
const CONTROL: [(u64, u64); 1] = [(spec::CVQ, feature::DEVICE_STATS)];

impl Settings {
    /// Names the types that can be got with the features negotiated, and no others: Linux asks for
    /// all that are.
    pub(super) fn statistics_query(&self, data: &[u8], result: &mut Vec<u8>) -> Outcome {
        self.require(feature::DEVICE_STATS)?;
        if !data.is_empty() {
            return Err(Refused);
        }
        let types = self.types(&RECEIVE) | self.types(&TRANSMIT) | self.types(&CONTROL);
        result.extend_from_slice(&types.to_le_bytes());
        Ok(Changes::NONE)
    }

    /// Answers a request for statistics, which is checked as a whole before anything is counted.
    pub(super) fn statistics_get(
        &self,
        data: &[u8],
        context: &CommandContext<'_>,
        result: &mut Vec<u8>,
    ) -> Outcome {
        self.require(feature::DEVICE_STATS)?;
        let (requests, rest) = data.as_chunks();
        let valid = requests.iter().map(Request::from).all(|request| {
            self.types_of(request.queue).is_some_and(|types| request.types & !types == 0)
        });
        if !valid || !rest.is_empty() {
            return Err(Refused);
        }
        for request in requests.iter().map(Request::from) {
            if result.len() >= RESULT_MAX {
                break;
            }
            self.reply(request, context, result);
        }
        result.truncate(RESULT_MAX);
        Ok(Changes::NONE)
    }

    /// Returns the types that the queue of this number has; `None` if there is no such queue.
    fn types_of(&self, index: u16) -> Option<u64> {
        let control = 2 * self.pairs();
        if index < control {
            Some(match Kind::of(index) {
                Kind::Receive => self.types(&RECEIVE),
                Kind::Transmit => self.types(&TRANSMIT),
            })
        } else {
            (index == control).then(|| self.types(&CONTROL))
        }
    }

    fn types(&self, of: &[(u64, u64)]) -> u64 {
        of.iter()
            .filter(|(_, any_of)| self.features & any_of != 0)
            .fold(0, |types, (one, _)| types | one)
    }

    fn reply(&self, request: Request, context: &CommandContext<'_>, result: &mut Vec<u8>) {
        let Request { queue, types } = request;
        let mut put = |one: u64, counters: &[u64]| {
            if types & one != 0 {
                let size = spec::HEADER + size_of_val(counters);
                result.extend_from_slice(&[one.trailing_zeros() as u8, 0]);
                result.extend_from_slice(&queue.to_le_bytes());
                result.extend_from_slice(&[0; 2]);
                result.extend_from_slice(&(size as u16).to_le_bytes());
                result.extend(counters.iter().flat_map(|counter| counter.to_le_bytes()));
            }
        };
        if types & spec::CVQ != 0 {
            // The command that asks counts itself as done.
            put(spec::CVQ, &[context.commands.received, context.commands.done.wrapping_add(1)]);
        } else if types != 0 {
            let QueueStatistics {
                packets,
                bytes,
                interrupts,
                notifications,
                drops,
                overruns,
                malformed,
                partial_checksums,
                gso_packets,
                gso_bytes,
            } = context.host.statistics(queue);
            put(spec::RX_BASIC, &[notifications, packets, bytes, interrupts, drops, overruns]);
            // This device coalesces nothing.
            put(spec::RX_GSO, &[gso_packets, gso_bytes, 0, 0]);
            put(spec::TX_BASIC, &[notifications, packets, bytes, interrupts, drops, malformed]);
            // The two counters are not read at the same moment.
            let whole = packets.saturating_sub(partial_checksums);
            put(spec::TX_CSUM, &[whole, partial_checksums]);
        }
    }
}

/// One element of `struct virtio_net_ctrl_queue_stats`: le16 queue, three reserved le16, le64
/// types.
#[derive(Clone, Copy)]
struct Request {
    queue: u16,
    types: u64,
}

impl From<&[u8; 16]> for Request {
    fn from(bytes: &[u8; 16]) -> Self {
        let value = u128::from_le_bytes(*bytes);
        Request { queue: value as u16, types: (value >> 64) as u64 }
    }
}
