//! This module has the mappings of a domain at one moment.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use imbl::OrdMap;

use crate::fault::Access;
use crate::limits::PAGE_SIZE;
use crate::memory::{HostAddress, MappedFile};

/// The accesses that a function may make to a mapping. At least one must be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// True if the function may read.
    pub read: bool,
    /// True if the function may write.
    pub write: bool,
}

impl Permissions {
    /// Permissions for reading and writing.
    pub const READ_WRITE: Permissions = Permissions { read: true, write: true };
    /// Permissions for reading only.
    pub const READ: Permissions = Permissions { read: true, write: false };

    pub(crate) fn allow(self, access: Access) -> bool {
        match access {
            Access::Read => self.read,
            Access::Write => self.write,
        }
    }
}

#[derive(Clone)]
pub(crate) enum Target {
    Host {
        address: HostAddress,
        /// File that keeps the memory mapped.
        file: Arc<MappedFile>,
    },
    NotShared,
}

#[derive(Clone)]
pub(crate) struct Mapping {
    /// Last IOVA, inclusive: a mapping may end at the top of the address space.
    pub(crate) last: u64,
    pub(crate) permissions: Permissions,
    pub(crate) target: Target,
}

/// The mappings at one moment, which never change. A clone shares everything.
#[derive(Clone)]
pub(crate) struct Snapshot {
    map: OrdMap<u64, Mapping>,
    pub(crate) bus_master: bool,
    /// Number of this snapshot among those of all domains in this process, so that what was derived
    /// from one is never taken for derived from another.
    pub(crate) version: u64,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot {{ version: {}, mappings: {} }}", self.version, self.map.len())
    }
}

impl Snapshot {
    pub(crate) fn new(map: OrdMap<u64, Mapping>, bus_master: bool) -> Arc<Self> {
        static VERSIONS: AtomicU64 = AtomicU64::new(0);
        let version = VERSIONS.fetch_add(1, Ordering::Relaxed);
        Arc::new(Snapshot { map, bus_master, version })
    }

    /// Returns the mappings by their first IOVA.
    pub(crate) fn mappings(&self) -> &OrdMap<u64, Mapping> {
        &self.map
    }

    /// Returns the mapping that holds `iova`, with its first IOVA.
    pub(crate) fn find(&self, iova: u64) -> Option<(u64, &Mapping)> {
        // Only one-page mappings are numerous, and looking for a key is cheaper than for its
        // neighbour.
        let page = iova - iova % PAGE_SIZE;
        if let Some(mapping) = self.map.get(&page) {
            return Some((page, mapping));
        }
        self.map.get_prev(&iova).filter(|(_, m)| m.last >= iova).map(|(first, m)| (*first, m))
    }
}
