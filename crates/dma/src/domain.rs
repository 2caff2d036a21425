//! This module is the DMA domain of a function, which maps, unmaps, and tells its readers.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use imbl::OrdMap;
use parking_lot::Mutex;

use crate::error::Error;
use crate::fault::{Fault, FaultLog, FaultReport};
use crate::limits::PAGE_SIZE;
use crate::memory::Files;
use crate::pin::Slot;
use crate::reader::Reader;
use crate::snapshot::{Mapping, Permissions, Snapshot, Target};

/// The memory that a mapping leads to.
#[derive(Debug)]
pub enum Backing {
    /// The memory is in a file that both sides can map, from `offset` (a multiple of the page
    /// size).
    File {
        /// The file; it is mapped and may be closed afterwards.
        fd: OwnedFd,
        /// Offset of the mapping's first byte in the file.
        offset: u64,
    },
    /// The VMM alone has the memory, and gave no descriptor. Every access is a
    /// [`FaultReason::NotShared`](crate::FaultReason).
    NotShared,
}

/// The counts of a domain's mappings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Number of mappings.
    pub mappings: usize,
    /// Number of bytes mapped.
    pub bytes: u64,
    /// Number of mappings ever made.
    pub maps: u64,
    /// Number of mappings ever removed.
    pub unmaps: u64,
    /// Number of files found cut short under a mapping.
    pub truncated_files: usize,
}

struct State {
    current: Arc<Snapshot>,
    readers: Vec<Weak<Slot>>,
    files: Files,
    stats: Stats,
}

/// The DMA domain of one function. It is shared by its attach point (maps and unmaps), its
/// configuration space (Bus Master Enable) and the workers that serve its queues.
pub struct Domain {
    name: String,
    state: Mutex<State>,
    faults: Arc<FaultLog>,
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domain({})", self.name)
    }
}

impl Domain {
    /// Largest number of mappings in a domain. Linux's VFIO has 65,535 by default; a guest behind a
    /// virtual IOMMU with 4 KiB pages and 16 queue pairs of 1,024 buffers needs more.
    pub const MAX_MAPPINGS: usize = 1 << 20;

    /// Returns an empty domain with Bus Master Enable clear for the function called `name`.
    pub fn new(name: impl Into<String>) -> Arc<Self> {
        Arc::new(Domain {
            name: name.into(),
            state: Mutex::new(State {
                current: Snapshot::new(OrdMap::new(), false),
                readers: Vec::new(),
                files: Files::default(),
                stats: Stats::default(),
            }),
            faults: Arc::default(),
        })
    }

    /// Returns the function's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Maps `size` bytes at `iova`. Readers see the mapping from their next pin on.
    ///
    /// # Errors
    /// Names what is wrong; nothing has changed then.
    pub fn map(
        &self,
        iova: u64,
        size: u64,
        permissions: Permissions,
        backing: Backing,
    ) -> Result<(), Error> {
        let last = check_range(iova, size)?;
        if !permissions.read && !permissions.write {
            return Err(Error::NoPermission);
        }
        let mut state = self.state.lock();
        let mut map = state.current.mappings().clone();
        if map.len() >= Self::MAX_MAPPINGS {
            return Err(Error::TooMany(Self::MAX_MAPPINGS));
        }
        if let Some((other, mapping)) = map.get_prev(&last)
            && mapping.last >= iova
        {
            return Err(Error::Overlap { iova, size, other: *other });
        }
        let target = match backing {
            Backing::NotShared => Target::NotShared,
            Backing::File { fd, offset } => {
                let (address, file) = state.files.map(&fd, offset, size, permissions.write)?;
                Target::Host { address, file }
            }
        };
        map.insert(iova, Mapping { last, permissions, target });
        state.stats.maps += 1;
        state.stats.bytes += size;
        state.change(map);
        Ok(())
    }

    /// Removes every mapping inside `size` bytes at `iova`; returns how many bytes were mapped.
    /// When it returns, no reader can touch the memory any more.
    ///
    /// # Errors
    /// When the range is malformed, or begins or ends inside a mapping; nothing has changed then.
    pub fn unmap(&self, iova: u64, size: u64) -> Result<u64, Error> {
        let last = check_range(iova, size)?;
        let mut state = self.state.lock();
        for edge in [iova, last] {
            if let Some((first, mapping)) = state.current.find(edge)
                && (first < iova || mapping.last > last)
            {
                return Err(Error::Splits { iova, size, other: first });
            }
        }
        let mut map = state.current.mappings().clone();
        let inside: Vec<u64> = map.range(iova..=last).map(|(first, _)| *first).collect();
        let mut bytes = 0;
        for first in &inside {
            if let Some(mapping) = map.remove(first) {
                bytes += mapping.last - first + 1;
            }
        }
        if bytes > 0 {
            state.stats.unmaps += inside.len() as u64;
            state.stats.bytes -= bytes;
            state.change(map);
            state.files.forget();
        }
        Ok(bytes)
    }

    /// Removes all mappings. When it returns, no reader can touch their memory any more.
    pub fn unmap_all(&self) {
        let mut state = self.state.lock();
        state.stats.unmaps += state.current.mappings().len() as u64;
        state.stats.bytes = 0;
        state.change(OrdMap::new());
        state.files.forget();
    }

    /// Follows the Bus Master Enable bit. While it is clear every access faults; once it is cleared
    /// and this has returned, no reader can touch any memory.
    pub fn set_bus_master(&self, enabled: bool) {
        let mut state = self.state.lock();
        if state.current.bus_master != enabled {
            let map = state.current.mappings().clone();
            state.publish(Snapshot::new(map, enabled));
        }
    }

    /// Returns a new translator of this domain.
    pub fn reader(&self) -> Reader {
        let mut state = self.state.lock();
        state.readers.retain(|reader| reader.strong_count() > 0);
        let slot = Arc::new(Slot::new(Arc::clone(&state.current)));
        state.readers.push(Arc::downgrade(&slot));
        Reader::new(Arc::clone(&self.faults), slot)
    }

    /// Records a fault.
    pub fn record(&self, fault: Fault) {
        self.faults.record(fault);
    }

    /// Returns the faults so far.
    pub fn faults(&self) -> FaultReport {
        self.faults.report()
    }

    /// Returns the counts of mappings.
    pub fn stats(&self) -> Stats {
        let state = self.state.lock();
        Stats {
            mappings: state.current.mappings().len(),
            truncated_files: state.files.truncated(),
            ..state.stats
        }
    }
}

impl State {
    /// Publishes new mappings.
    fn change(&mut self, map: OrdMap<u64, Mapping>) {
        self.publish(Snapshot::new(map, self.current.bus_master));
    }

    /// Puts a new snapshot into every reader, then waits until none can use the previous one.
    fn publish(&mut self, snapshot: Arc<Snapshot>) {
        self.current = snapshot;
        let slots: Vec<Arc<Slot>> = self.readers.iter().filter_map(Weak::upgrade).collect();
        let retired: Vec<_> =
            slots.iter().map(|slot| slot.replace(Arc::clone(&self.current))).collect();
        drop(retired);
    }
}

/// Checks alignment and bounds; returns the last IOVA.
fn check_range(iova: u64, size: u64) -> Result<u64, Error> {
    if size == 0 || !iova.is_multiple_of(PAGE_SIZE) || !size.is_multiple_of(PAGE_SIZE) {
        return Err(Error::Unaligned { iova, size });
    }
    iova.checked_add(size - 1).ok_or(Error::Wraps { iova, size })
}
