//! This module has the type of sets of VLANs.

use std::fmt;

use crate::spec::ethernet;

const WORDS: usize = ethernet::VID_COUNT / 64;

/// A set of VLAN identifiers, 0 to 4095, with one bit each.
#[derive(Clone, PartialEq, Eq)]
pub struct VlanSet([u64; WORDS]);

impl VlanSet {
    /// The set without a VLAN.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// Returns whether `vid` (its low 12 bits) is in the set.
    #[inline]
    pub const fn contains(&self, vid: u16) -> bool {
        let vid = (vid & ethernet::VID_MASK) as usize;
        self.0[vid / 64] >> (vid % 64) & 1 != 0
    }

    /// Adds `vid` (its low 12 bits); returns whether it was absent.
    pub const fn insert(&mut self, vid: u16) -> bool {
        let absent = !self.contains(vid);
        let vid = (vid & ethernet::VID_MASK) as usize;
        self.0[vid / 64] |= 1 << (vid % 64);
        absent
    }

    /// Removes `vid` (its low 12 bits); returns whether it was present.
    pub const fn remove(&mut self, vid: u16) -> bool {
        let present = self.contains(vid);
        let vid = (vid & ethernet::VID_MASK) as usize;
        self.0[vid / 64] &= !(1 << (vid % 64));
        present
    }

    /// Returns the identifiers in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..=ethernet::VID_MASK).filter(|vid| self.contains(*vid))
    }
}

impl Default for VlanSet {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl FromIterator<u16> for VlanSet {
    fn from_iter<I: IntoIterator<Item = u16>>(vids: I) -> Self {
        let mut set = Self::EMPTY;
        for vid in vids {
            set.insert(vid);
        }
        set
    }
}

impl fmt::Debug for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn is_a_set(steps: Vec<(bool, u16)>) {
            let (mut set, mut model) = (VlanSet::EMPTY, BTreeSet::new());
            for (add, vid) in steps {
                let id = vid & 0xfff;
                if add {
                    prop_assert_eq!(set.insert(vid), model.insert(id));
                } else {
                    prop_assert_eq!(set.remove(vid), model.remove(&id));
                }
            }
            prop_assert!(set.iter().eq(model.iter().copied()));
            prop_assert_eq!(model.into_iter().collect::<VlanSet>(), set);
        }
    }
}
