//! This module carries out the commands that say which queue pairs are used, and what is hashed to
//! choose one (5.1.6.5.5 to 5.1.6.5.7). Of the modes negotiated, the one of the last command is in
//! force.

use super::{Outcome, Refused, le16, split, split16, split32};
use crate::net::settings::{Changes, Settings};
use crate::net::steering::{HashConfig, Indirection, RSS_KEY_SIZE, RSS_TABLE_ENTRIES, Steering};
use crate::spec::net::{feature, hash_type};

impl Settings {
    /// Sets the number of pairs and automatic steering (5.1.6.5.6). Hashes that are reported
    /// continue to be reported.
    pub(super) fn pairs_set(&mut self, data: &[u8]) -> Outcome {
        self.require(feature::MQ)?;
        let pairs = self.pair_count(le16(data)?)?;
        self.steering.pairs = pairs;
        self.steering.table = None;
        if self.features & feature::HASH_REPORT == 0 {
            self.steering.hash = None;
        }
        Ok(Changes::STEERING)
    }

    /// Sets the hashes that are reported with automatic steering (5.1.6.5.6.4).
    ///
    /// `reserved` is not looked at: Linux has sent there what it would send for RSS.
    pub(super) fn hash_config(&mut self, data: &[u8]) -> Outcome {
        self.require(feature::HASH_REPORT)?;
        let (types, rest) = split32(data)?;
        let (_reserved, rest) = split::<8>(rest)?;
        self.steering.hash = hash(types, rest)?;
        self.steering.table = None;
        Ok(Changes::STEERING)
    }

    /// Sets the indirection table (5.1.6.5.7.1).
    pub(super) fn rss_config(&mut self, data: &[u8]) -> Outcome {
        self.require(feature::RSS)?;
        let (types, rest) = split32(data)?;
        let (mask, rest) = split16(rest)?;
        let (unclassified, rest) = split16(rest)?;
        if mask >= RSS_TABLE_ENTRIES || !(mask + 1).is_power_of_two() {
            return Err(Refused);
        }
        let unclassified = self.receive_queue(unclassified)?;
        let (table, rest) = rest.split_at_checked(2 * (usize::from(mask) + 1)).ok_or(Refused)?;
        let (entries, _) = table.as_chunks();
        let entries = entries
            .iter()
            .map(|entry| self.receive_queue(u16::from_le_bytes(*entry)))
            .collect::<Result<_, _>>()?;
        let (transmit_queues, rest) = split16(rest)?;
        let pairs = self.pair_count(transmit_queues)?;
        let hash = hash(types, rest)?;
        self.steering =
            Steering { pairs, hash, table: Some(Indirection { entries, unclassified }) };
        Ok(Changes::STEERING)
    }

    /// Checks a `struct rss_rq_id`, the number of a receive queue among its kind. The queue need
    /// not be enabled, since it may be reset at any time after.
    fn receive_queue(&self, pair: u16) -> Result<u16, Refused> {
        if pair < self.max_pairs { Ok(pair) } else { Err(Refused) }
    }

    fn pair_count(&self, pairs: u16) -> Result<u16, Refused> {
        if (1..=self.max_pairs).contains(&pairs) { Ok(pairs) } else { Err(Refused) }
    }
}

/// Reads the end of a command, `hash_key_length` and the key, for these hash types. Types need a
/// key.
///
/// What follows is not looked at: Windows sends a structure with room for one byte of key, and
/// padding, whatever the length says.
fn hash(types: u32, data: &[u8]) -> Result<Option<HashConfig>, Refused> {
    let [len, rest @ ..] = data else { return Err(Refused) };
    let given = rest.get(..usize::from(*len)).ok_or(Refused)?;
    let mut key = [0; RSS_KEY_SIZE];
    key.get_mut(..given.len()).ok_or(Refused)?.copy_from_slice(given);
    if types & !hash_type::ALL != 0 || (types != 0 && given.is_empty()) {
        return Err(Refused);
    }
    Ok((types != 0).then_some(HashConfig { types, key }))
}
