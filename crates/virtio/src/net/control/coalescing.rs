//! This module carries out the commands of notification coalescing (5.1.6.5.9).

use super::{CommandContext, Outcome, Refused, split16, split32};
use crate::net::settings::{Changes, Kind, Queues, Settings};
use crate::net::steering::Coalescing;
use crate::spec::net::{ctrl, feature};

impl Settings {
    pub(super) fn coalescing_command(
        &mut self,
        command: u8,
        data: &[u8],
        context: &CommandContext<'_>,
        result: &mut Vec<u8>,
    ) -> Outcome {
        match command {
            ctrl::NOTF_COAL_TX_SET => self.coalescing_set(Kind::Transmit, data),
            ctrl::NOTF_COAL_RX_SET => self.coalescing_set(Kind::Receive, data),
            ctrl::NOTF_COAL_VQ_SET => self.coalescing_set_one(data, context.started),
            ctrl::NOTF_COAL_VQ_GET => self.coalescing_get(data, context.started, result),
            _ => Err(Refused),
        }
    }

    fn coalescing_set(&mut self, kind: Kind, data: &[u8]) -> Outcome {
        self.require(feature::NOTF_COAL)?;
        self.coalescing.set_all(kind, parameters(data)?);
        Ok(Changes::coalescing(Queues::all(kind)))
    }

    fn coalescing_set_one(&mut self, data: &[u8], started: Queues) -> Outcome {
        self.require(feature::VQ_NOTF_COAL)?;
        let (index, rest) = split16(data)?;
        let (_reserved, rest) = split16(rest)?;
        let to = parameters(rest)?;
        if !started.contains(index) {
            return Err(Refused);
        }
        self.coalescing.set(index, to);
        Ok(Changes::coalescing(Queues::one(index)))
    }

    /// Answers VQ_GET. Linux leaves `reserved` out of it.
    fn coalescing_get(&self, data: &[u8], started: Queues, result: &mut Vec<u8>) -> Outcome {
        self.require(feature::VQ_NOTF_COAL)?;
        let (index, reserved) = split16(data)?;
        if !matches!(reserved, [] | [_, _]) || !started.contains(index) {
            return Err(Refused);
        }
        let Coalescing { max_packets, max_usecs } = self.coalescing.get(index);
        result.extend_from_slice(&max_packets.to_le_bytes());
        result.extend_from_slice(&max_usecs.to_le_bytes());
        Ok(Changes::NONE)
    }
}

/// Reads a `struct virtio_net_ctrl_coal`.
fn parameters(data: &[u8]) -> Result<Coalescing, Refused> {
    let (max_packets, rest) = split32(data)?;
    let (max_usecs, rest) = split32(rest)?;
    if rest.is_empty() { Ok(Coalescing { max_packets, max_usecs }) } else { Err(Refused) }
}
