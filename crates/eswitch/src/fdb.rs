use std::hash::{BuildHasher, RandomState};

/// Longest probe of a look-up in entries: half a cache line of hits, at most two lines touched.
const PROBES: usize = 8;

/// Number of multipliers tried before the table is doubled.
const ATTEMPTS: u32 = 4;

/// Key of no entry: the broadcast address is never stored.
const EMPTY: u64 = u64::MAX;

/// A forwarding database maps 48-bit addresses to 16-bit values. It is immutable, with open
/// addressing and bounded probes.
///
/// Guests choose the addresses, so the multiplier of the hash is random, and building retries (then
/// doubles) until no look-up probes more than [`PROBES`] entries: nobody can make another
/// function's look-ups slow.
#[derive(Debug)]
pub(crate) struct Fdb {
    /// Address in bits 63:16, value in 15:0. There are `PROBES - 1` entries more than the hash
    /// reaches, so that a probe never wraps around.
    entries: Box<[u64]>,
    multiplier: u64,
    shift: u32,
}

impl Fdb {
    /// Builds the database from pairs of distinct [`MacAddr::key`](crate::MacAddr::key)s and
    /// values.
    pub(crate) fn new(pairs: &[(u64, u16)]) -> Self {
        let mut bits = (pairs.len() * 2).next_power_of_two().max(16).trailing_zeros();
        let random = RandomState::new();
        let mut attempt = 0;
        loop {
            let multiplier = random.hash_one(attempt) | 1;
            if let Some(database) = Self::place(pairs, bits, multiplier) {
                return database;
            }
            attempt += 1;
            if attempt % ATTEMPTS == 0 {
                bits += 1;
            }
        }
    }

    fn place(pairs: &[(u64, u16)], bits: u32, multiplier: u64) -> Option<Self> {
        let shift = u64::BITS - bits;
        let mut entries = vec![EMPTY; (1 << bits) + PROBES - 1].into_boxed_slice();
        for &(key, value) in pairs {
            let home = home(key, multiplier, shift);
            let free = entries.get_mut(home..home + PROBES)?.iter_mut().find(|e| **e == EMPTY)?;
            *free = key << 16 | u64::from(value);
        }
        Some(Self { entries, multiplier, shift })
    }

    /// Returns the value stored for `key`.
    #[inline]
    pub(crate) fn get(&self, key: u64) -> Option<u16> {
        let home = home(key, self.multiplier, self.shift);
        for &entry in self.entries.get(home..home + PROBES)? {
            if entry >> 16 == key {
                // A look-up of the broadcast address meets the empty marker.
                return if entry == EMPTY { None } else { Some(entry as u16) };
            }
            if entry == EMPTY {
                return None;
            }
        }
        None
    }
}

/// Returns the top bits of the product as the key's hash.
#[inline]
fn home(key: u64, multiplier: u64, shift: u32) -> usize {
    (key.wrapping_mul(multiplier) >> shift) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const KEY: u64 = (1 << 48) - 1;

    proptest! {
        #[test]
        fn finds_what_was_stored_and_nothing_else(
            stored in proptest::collection::btree_map(0..KEY, any::<u16>(), 0..600),
            others in proptest::collection::vec(0..=KEY, 100),
        ) {
            let pairs: Vec<_> = stored.iter().map(|(k, v)| (*k, *v)).collect();
            let fdb = Fdb::new(&pairs);
            for key in stored.keys().chain(&others) {
                prop_assert_eq!(fdb.get(*key), stored.get(key).copied());
            }
        }
    }

    #[test]
    fn dense_and_strided_addresses_fit_without_growing_much() {
        for stride in [1, 1 << 8, 1 << 16, 1 << 24, 1 << 32, 1 << 40] {
            let stored: BTreeMap<u64, u16> = (0..256).map(|i| (u64::from(i) * stride, i)).collect();
            let pairs: Vec<_> = stored.into_iter().collect();
            let fdb = Fdb::new(&pairs);
            for (key, value) in pairs {
                assert_eq!(fdb.get(key), Some(value));
            }
            assert!(fdb.entries.len() < 4096, "stride {stride}: {} entries", fdb.entries.len());
        }
    }

    #[test]
    fn empty() {
        let fdb = Fdb::new(&[]);
        assert_eq!(fdb.get(0), None);
        assert_eq!(fdb.get(KEY), None);
    }
}
