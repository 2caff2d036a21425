//! This module carries out the commands of the control queue (5.1.6.5): it reads a command's bytes,
//! changes the settings and returns the result. It touches no guest memory and no queue.
//!
//! ```text
//!   class, command, data --> Settings::execute --> Changes (for the data path)
//!                             |- receive.rs        result  (for the driver)
//!                             |- steering.rs
//!                             |- offloads.rs
//!                             |- coalescing.rs
//!                             `- statistics.rs
//! ```

mod coalescing;
mod offloads;
mod receive;
mod statistics;
mod steering;

use super::host::QueueHost;
use super::settings::{Changes, Queues, Settings};
use crate::spec::net::ctrl;

/// Length in bytes of the longest command that is read: a MAC filter table of some 10,000
/// addresses. A longer one is refused.
pub(super) const COMMAND_MAX: usize = 64 << 10;

/// Length in bytes of the longest result.
pub(super) const RESULT_MAX: usize = 64 << 10;

/// The error of a command that was refused: it is unknown, belongs to a feature that was not
/// negotiated, or its data are malformed. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

type Outcome = Result<Changes, Refused>;

/// The state besides the settings that a command can ask about.
pub(super) struct CommandContext<'a> {
    /// The host, which has the statistics.
    pub(super) host: &'a dyn QueueHost,
    /// The data queues that are enabled.
    pub(super) started: Queues,
    /// Counts of the commands, the present one included.
    pub(super) commands: CommandCounts,
}

/// Counts of the control queue since the function was made; they wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CommandCounts {
    pub(super) received: u64,
    pub(super) done: u64,
}

impl Settings {
    /// Carries out one command, `class` and `command` bytes first. Data must have the command's
    /// length exactly, where nothing else is said. `result` is empty; if the command is not
    /// refused, it is what the driver is given after the acknowledgement.
    pub(super) fn execute(
        &mut self,
        bytes: &[u8],
        context: &CommandContext<'_>,
        result: &mut Vec<u8>,
    ) -> Outcome {
        if bytes.len() > COMMAND_MAX {
            return Err(Refused);
        }
        let [class, command, data @ ..] = bytes else { return Err(Refused) };
        match (*class, *command) {
            (ctrl::RX, command) => self.receive_mode(command, data),
            (ctrl::MAC, ctrl::MAC_TABLE_SET) => self.mac_table_set(data),
            (ctrl::MAC, ctrl::MAC_ADDR_SET) => self.mac_address_set(data),
            (ctrl::VLAN, ctrl::VLAN_ADD) => self.vlan(data, true),
            (ctrl::VLAN, ctrl::VLAN_DEL) => self.vlan(data, false),
            (ctrl::ANNOUNCE, ctrl::ANNOUNCE_ACK) => self.announce_ack(data),
            (ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET) => self.pairs_set(data),
            (ctrl::MQ, ctrl::MQ_RSS_CONFIG) => self.rss_config(data),
            (ctrl::MQ, ctrl::MQ_HASH_CONFIG) => self.hash_config(data),
            (ctrl::GUEST_OFFLOADS, ctrl::GUEST_OFFLOADS_SET) => self.offloads_set(data),
            (ctrl::NOTF_COAL, command) => self.coalescing_command(command, data, context, result),
            (ctrl::STATS, ctrl::STATS_QUERY) => self.statistics_query(data, result),
            (ctrl::STATS, ctrl::STATS_GET) => self.statistics_get(data, context, result),
            _ => Err(Refused),
        }
    }

    fn require(&self, feature: u64) -> Result<(), Refused> {
        if self.features & feature == 0 { Err(Refused) } else { Ok(()) }
    }
}

fn le16(data: &[u8]) -> Result<u16, Refused> {
    data.try_into().map(u16::from_le_bytes).map_err(|_| Refused)
}

/// Splits the first `N` bytes off `data`.
fn split<const N: usize>(data: &[u8]) -> Result<([u8; N], &[u8]), Refused> {
    data.split_first_chunk().map(|(first, rest)| (*first, rest)).ok_or(Refused)
}

fn split16(data: &[u8]) -> Result<(u16, &[u8]), Refused> {
    split(data).map(|(first, rest)| (u16::from_le_bytes(first), rest))
}

fn split32(data: &[u8]) -> Result<(u32, &[u8]), Refused> {
    split(data).map(|(first, rest)| (u32::from_le_bytes(first), rest))
}

#[cfg(test)]
mod tests;
