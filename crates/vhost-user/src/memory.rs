//! This module is a client's memory table: it tells which guest addresses are where in the client's
//! address space.

use crate::codec::RegionDescription;
use crate::device::Region;

/// Largest number of regions in a table. QEMU takes no number above 512.
pub(crate) const MAX_REGIONS: usize = 512;

/// The reason why a region cannot be added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MemoryError {
    /// The region has no bytes, or its range wraps around.
    #[error("a region of {size:#x} bytes at {guest_address:#x} is none")]
    Range {
        /// Guest address of the region.
        guest_address: u64,
        /// Size of the region in bytes.
        size: u64,
    },
    /// The region overlaps another, in the guest's or the client's address space.
    #[error("the region at {guest_address:#x} overlaps the one at {other:#x}")]
    Overlap {
        /// Guest address of the region.
        guest_address: u64,
        /// Guest address of the other region.
        other: u64,
    },
    /// There are too many regions.
    #[error("more than {MAX_REGIONS} regions")]
    TooMany,
    /// There is no such region.
    #[error("there is no region at {guest_address:#x}")]
    Missing {
        /// The guest address asked for.
        guest_address: u64,
    },
}

/// The regions a client has handed over.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    regions: Vec<Region>,
}

impl Memory {
    /// Returns the region that `description` would be in this table.
    pub(crate) fn check(&self, description: &RegionDescription) -> Result<Region, MemoryError> {
        let RegionDescription { guest_address, size, user_address, offset } = *description;
        let ends = [guest_address, user_address, offset].map(|start| start.checked_add(size));
        if size == 0 || ends.contains(&None) {
            return Err(MemoryError::Range { guest_address, size });
        }
        if self.regions.len() >= MAX_REGIONS {
            return Err(MemoryError::TooMany);
        }
        let region = Region { guest_address, size, user_address, offset };
        let overlaps = |a: u64, b: u64, b_size: u64| a < b + b_size && b < a + size;
        let other = self.regions.iter().find(|other| {
            overlaps(guest_address, other.guest_address, other.size)
                || overlaps(user_address, other.user_address, other.size)
        });
        match other {
            Some(other) => Err(MemoryError::Overlap { guest_address, other: other.guest_address }),
            None => Ok(region),
        }
    }

    /// Adds a region that was checked against this table.
    pub(crate) fn add(&mut self, region: Region) {
        self.regions.push(region);
    }

    /// Removes the region that is described; its offset may be left out.
    pub(crate) fn remove(&mut self, what: &RegionDescription) -> Result<Region, MemoryError> {
        let same = |region: &Region| {
            (region.guest_address, region.size, region.user_address)
                == (what.guest_address, what.size, what.user_address)
        };
        let missing = MemoryError::Missing { guest_address: what.guest_address };
        let at = self.regions.iter().position(same).ok_or(missing)?;
        Ok(self.regions.swap_remove(at))
    }

    /// Removes all regions.
    pub(crate) fn take_all(&mut self) -> Vec<Region> {
        std::mem::take(&mut self.regions)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// Returns the guest address of a byte in the client's address space.
    pub(crate) fn guest_address(&self, user_address: u64) -> Option<u64> {
        self.regions.iter().find_map(|region| {
            let within = user_address.checked_sub(region.user_address)?;
            (within < region.size).then(|| region.guest_address + within)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn describe(guest_address: u64, size: u64, user_address: u64) -> RegionDescription {
        RegionDescription { guest_address, size, user_address, offset: 0 }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut memory = Memory::default();
        let region = memory.check(&describe(0x1000, 0x1000, 0x7000)).unwrap();
        memory.add(region);
        for (guest, size, user) in
            [(0, 0, 0), (u64::MAX, 1, 0), (0, 2, u64::MAX), (0x10_0000, u64::MAX, 0)]
        {
            let error = memory.check(&describe(guest, size, user)).unwrap_err();
            assert!(matches!(error, MemoryError::Range { .. }), "{error}");
        }
        for (guest, size, user) in [
            (0x1000, 0x1000, 0x10_0000),
            (0x1fff, 1, 0x10_0000),
            (0, 0x1001, 0x10_0000),
            (0x10_0000, 0x1000, 0x7fff),
            (0x10_0000, 0x10_0000, 0x6000),
        ] {
            let error = memory.check(&describe(guest, size, user)).unwrap_err();
            assert_eq!(
                error,
                MemoryError::Overlap { guest_address: guest, other: 0x1000 },
                "{guest:#x}"
            );
        }
        memory.check(&describe(0x2000, 0x1000, 0x8000)).unwrap();
        memory.remove(&describe(0x1000, 0x800, 0x7000)).unwrap_err();
        memory.remove(&describe(0x1000, 0x1000, 0x7000)).unwrap();
        assert_eq!(memory.guest_address(0x7000), None);
    }

    proptest! {
        /// Every byte of a region that was taken has one guest address; no other byte has any.
        #[test]
        fn addresses_are_translated_region_by_region(
            parts in prop::collection::vec((0u64..64, 1u64..8, 0u64..64), 0..12),
            probe in 0u64..80,
        ) {
            let mut memory = Memory::default();
            let mut bytes = std::collections::HashMap::new();
            for (guest, size, user) in parts {
                if let Ok(region) = memory.check(&describe(guest, size, user)) {
                    memory.add(region);
                    for byte in 0..size {
                        prop_assert_eq!(bytes.insert(user + byte, guest + byte), None);
                    }
                }
            }
            prop_assert_eq!(memory.guest_address(probe), bytes.get(&probe).copied());
        }
    }
}
