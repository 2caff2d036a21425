//! The mappings of one function and who may see them when.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

use imbl::OrdMap;
use parking_lot::Mutex;
use std::collections::HashMap;

use crate::fault::{Access, Fault, FaultLog, FaultReport};
use crate::memory::{FileKey, MappedFile, inspect};
use crate::reader::{Reader, View};

/// Granularity of mappings in bytes.
pub const PAGE_SIZE: u64 = 4096;

/// What the function may do with a mapping; at least one must be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// The function may read.
    pub read: bool,
    /// The function may write.
    pub write: bool,
}

impl Permissions {
    /// Read and write.
    pub const READ_WRITE: Permissions = Permissions { read: true, write: true };
    /// Read only.
    pub const READ: Permissions = Permissions { read: true, write: false };

    pub(crate) fn allow(self, access: Access) -> bool {
        match access {
            Access::Read => self.read,
            Access::Write => self.write,
        }
    }
}

/// Memory that can only be reached by asking its owner (vfio-user's `DMA_READ` and `DMA_WRITE`).
pub trait RemoteMemory: Send + Sync {
    /// Reads `data.len()` bytes at `iova`.
    ///
    /// # Errors
    /// When the owner refuses, is gone or does not answer in time.
    fn read(&self, iova: u64, data: &mut [u8]) -> io::Result<()>;
    /// Writes `data` at `iova`.
    ///
    /// # Errors
    /// When the owner refuses, is gone or does not answer in time.
    fn write(&self, iova: u64, data: &[u8]) -> io::Result<()>;
}

/// Where the memory of a mapping is.
pub enum Backing {
    /// In a file that both sides can map: `size` bytes from `offset` (a multiple of the page size).
    File {
        /// The file; it is mapped and may be closed afterwards.
        fd: OwnedFd,
        /// Offset of the mapping's first byte in the file.
        offset: u64,
    },
    /// With the VMM only.
    Remote(Arc<dyn RemoteMemory>),
}

impl fmt::Debug for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Backing::File { fd, offset } => {
                f.debug_struct("File").field("fd", fd).field("offset", offset).finish()
            }
            Backing::Remote(_) => f.write_str("Remote"),
        }
    }
}

/// Why a mapping could not be made or removed. The conditions are those of Linux's VFIO type 1 (v2) IOMMU.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Zero size, or address, size or offset not a multiple of [`PAGE_SIZE`].
    #[error(
        "IOVA {iova:#x}, size {size:#x}: both must be multiples of {PAGE_SIZE:#x} and the size not zero"
    )]
    Unaligned {
        /// The address asked for.
        iova: u64,
        /// The size asked for.
        size: u64,
    },
    /// The file offset is not a multiple of [`PAGE_SIZE`].
    #[error("file offset {0:#x} is not a multiple of {PAGE_SIZE:#x}")]
    UnalignedOffset(u64),
    /// The range ends beyond 64 bits.
    #[error("IOVA {iova:#x}, size {size:#x}: the range wraps around")]
    Wraps {
        /// The address asked for.
        iova: u64,
        /// The size asked for.
        size: u64,
    },
    /// Neither reading nor writing was permitted.
    #[error("a mapping needs read or write permission")]
    NoPermission,
    /// Part of the range is mapped already.
    #[error("IOVA {iova:#x}, size {size:#x}: overlaps the mapping at {other:#x}")]
    Overlap {
        /// The address asked for.
        iova: u64,
        /// The size asked for.
        size: u64,
        /// First IOVA of the mapping in the way.
        other: u64,
    },
    /// The range to unmap begins or ends inside a mapping.
    #[error("IOVA {iova:#x}, size {size:#x}: would cut the mapping at {other:#x} in two")]
    Splits {
        /// The address asked for.
        iova: u64,
        /// The size asked for.
        size: u64,
        /// First IOVA of the mapping.
        other: u64,
    },
    /// The file is shorter than the mapping needs.
    #[error("the mapping needs {needed:#x} bytes of a file that has {size:#x}")]
    BeyondEnd {
        /// Offset plus size.
        needed: u64,
        /// The file's size.
        size: u64,
    },
    /// A mapping to be written by the function, of a file that is open for reading only.
    #[error("the file is open for reading only and the mapping is to be written")]
    ReadOnlyFile,
    /// More mappings than a domain takes.
    #[error("more than {0} mappings")]
    TooMany(usize),
    /// The file cannot be mapped.
    #[error("cannot map the file: {0}")]
    Map(#[from] io::Error),
}

/// What a domain holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Mappings.
    pub mappings: usize,
    /// Bytes mapped.
    pub bytes: u64,
    /// Mappings ever made.
    pub maps: u64,
    /// Mappings ever removed.
    pub unmaps: u64,
    /// Files found cut short under a mapping.
    pub truncated_files: usize,
}

#[derive(Clone)]
pub(crate) enum Target {
    Host {
        address: HostAddress,
        /// Keeps the memory mapped.
        _file: Arc<MappedFile>,
    },
    Remote(
        #[allow(dead_code, reason = "kept for its owner; direct translation refuses it")]
        Arc<dyn RemoteMemory>,
    ),
}

/// A host address; the [`MappedFile`] beside it keeps it valid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostAddress(NonNull<u8>);

impl HostAddress {
    pub(crate) fn as_ptr(self) -> *mut u8 {
        self.0.as_ptr()
    }
}

// SAFETY: an address is a number; what makes using it sound is stated where it is used.
unsafe impl Send for HostAddress {}
// SAFETY: as above.
unsafe impl Sync for HostAddress {}

#[derive(Clone)]
pub(crate) struct Mapping {
    /// Last IOVA, inclusive: a mapping may end at the top of the address space.
    pub(crate) last: u64,
    pub(crate) permissions: Permissions,
    pub(crate) target: Target,
}

/// The mappings at one moment. Cloning shares everything.
#[derive(Clone)]
pub(crate) struct Snapshot {
    map: OrdMap<u64, Mapping>,
    pub(crate) bus_master: bool,
    pub(crate) version: u64,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot {{ version: {}, mappings: {} }}", self.version, self.map.len())
    }
}

impl Snapshot {
    /// The mapping that holds `iova`, with its first IOVA.
    pub(crate) fn find(&self, iova: u64) -> Option<(u64, &Mapping)> {
        self.map.get_prev(&iova).filter(|(_, m)| m.last >= iova).map(|(first, m)| (*first, m))
    }
}

struct State {
    snapshot: Snapshot,
    readers: Vec<Weak<Mutex<View>>>,
    files: HashMap<FileKey, Weak<MappedFile>>,
    stats: Stats,
}

/// The DMA domain of one function. Shared by its attach point (maps and unmaps), its configuration space (Bus Master
/// Enable) and the workers that serve its queues.
pub struct Domain {
    name: String,
    state: Mutex<State>,
    faults: FaultLog,
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domain({})", self.name)
    }
}

impl Domain {
    /// How many mappings a domain takes at most. Linux's VFIO has 65,535 by default; a guest behind a virtual IOMMU with
    /// 4 KiB pages and 16 queue pairs of 1,024 buffers needs more.
    pub const MAX_MAPPINGS: usize = 1 << 20;

    /// An empty domain, Bus Master Enable clear, for the function called `name`.
    pub fn new(name: impl Into<String>) -> Arc<Self> {
        let snapshot = Snapshot { map: OrdMap::new(), bus_master: false, version: 0 };
        Arc::new(Domain {
            name: name.into(),
            state: Mutex::new(State {
                snapshot,
                readers: Vec::new(),
                files: HashMap::new(),
                stats: Stats::default(),
            }),
            faults: FaultLog::default(),
        })
    }

    /// The function's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Maps `size` bytes at `iova`. Readers see it from their next pin on.
    ///
    /// # Errors
    /// See [`Error`]; nothing has changed then.
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
        if state.snapshot.map.len() >= Self::MAX_MAPPINGS {
            return Err(Error::TooMany(Self::MAX_MAPPINGS));
        }
        if let Some((other, mapping)) = state.snapshot.map.get_prev(&last)
            && mapping.last >= iova
        {
            return Err(Error::Overlap { iova, size, other: *other });
        }
        let target = match backing {
            Backing::Remote(remote) => Target::Remote(remote),
            Backing::File { fd, offset } => state.open(&fd, offset, size, permissions.write)?,
        };
        state.snapshot.map.insert(iova, Mapping { last, permissions, target });
        state.stats.maps += 1;
        state.stats.bytes += size;
        state.publish();
        Ok(())
    }

    /// Removes every mapping inside `size` bytes at `iova`; returns how many bytes were mapped. When it returns, no
    /// reader can touch the memory any more.
    ///
    /// # Errors
    /// When the range is malformed, or begins or ends inside a mapping; nothing has changed then.
    pub fn unmap(&self, iova: u64, size: u64) -> Result<u64, Error> {
        let last = check_range(iova, size)?;
        let mut state = self.state.lock();
        for edge in [iova, last] {
            if let Some((first, mapping)) = state.snapshot.find(edge)
                && (first < iova || mapping.last > last)
            {
                return Err(Error::Splits { iova, size, other: first });
            }
        }
        let inside: Vec<u64> = state.snapshot.map.range(iova..=last).map(|(key, _)| *key).collect();
        let mut bytes = 0;
        for first in inside {
            if let Some(mapping) = state.snapshot.map.remove(&first) {
                bytes += mapping.last - first + 1;
                state.stats.unmaps += 1;
            }
        }
        if bytes > 0 {
            state.stats.bytes -= bytes;
            state.publish();
            state.forget_files();
        }
        Ok(bytes)
    }

    /// Removes all mappings; as [`Domain::unmap`], complete when it returns.
    pub fn unmap_all(&self) {
        let mut state = self.state.lock();
        state.stats.unmaps += state.snapshot.map.len() as u64;
        state.stats.bytes = 0;
        state.snapshot.map = OrdMap::new();
        state.publish();
        state.forget_files();
    }

    /// Follows the Bus Master Enable bit. While it is clear every access faults.
    pub fn set_bus_master(&self, enabled: bool) {
        let mut state = self.state.lock();
        if state.snapshot.bus_master != enabled {
            state.snapshot.bus_master = enabled;
            state.publish();
        }
    }

    /// A new translator of this domain.
    pub fn reader(self: &Arc<Self>) -> Reader {
        let mut state = self.state.lock();
        state.readers.retain(|reader| reader.strong_count() > 0);
        let view = Arc::new(Mutex::new(View::new(state.snapshot.clone())));
        state.readers.push(Arc::downgrade(&view));
        Reader::new(Arc::clone(self), view)
    }

    /// Records a fault.
    pub fn record(&self, fault: Fault) {
        self.faults.record(fault);
    }

    /// The faults so far.
    pub fn faults(&self) -> FaultReport {
        self.faults.report()
    }

    /// Counts of mappings.
    pub fn stats(&self) -> Stats {
        let state = self.state.lock();
        let mut stats = state.stats;
        stats.mappings = state.snapshot.map.len();
        stats.truncated_files =
            state.files.values().filter_map(Weak::upgrade).filter(|file| file.truncated()).count();
        stats
    }
}

impl State {
    /// Puts the current snapshot into every reader. Taking a reader's lock waits for its burst to end, so afterwards the
    /// previous snapshot is out of use.
    fn publish(&mut self) {
        self.snapshot.version += 1;
        let snapshot = &self.snapshot;
        self.readers.retain(|reader| match reader.upgrade() {
            Some(view) => {
                view.lock().replace(snapshot.clone());
                true
            }
            None => false,
        });
    }

    fn open(&mut self, fd: &OwnedFd, offset: u64, size: u64, write: bool) -> Result<Target, Error> {
        if !offset.is_multiple_of(PAGE_SIZE) {
            return Err(Error::UnalignedOffset(offset));
        }
        let info = inspect(fd)?;
        if write && !info.writable {
            return Err(Error::ReadOnlyFile);
        }
        let needed = offset.checked_add(size).ok_or(Error::Wraps { iova: offset, size })?;
        if let Some(length) = info.size
            && needed > length
        {
            return Err(Error::BeyondEnd { needed, size: length });
        }
        let known = self.files.get(&info.key).and_then(Weak::upgrade);
        let known =
            known.and_then(|file| file.address(offset, size, write).map(|address| (address, file)));
        let (address, file) = match known {
            Some(found) => found,
            None => {
                // The whole file, so that the next mapping of it needs no mmap and neighbours stay contiguous; just the
                // range where the whole is too large for the address space or has no size.
                let whole = info.size.map(|length| length - length % PAGE_SIZE);
                let file = match whole.filter(|length| *length >= needed) {
                    Some(length) => MappedFile::new(fd, 0, length, info.writable)
                        .or_else(|_| MappedFile::new(fd, offset, size, info.writable))?,
                    None => MappedFile::new(fd, offset, size, info.writable)?,
                };
                let file = Arc::new(file);
                let address = file
                    .address(offset, size, write)
                    .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
                self.files.insert(info.key, Arc::downgrade(&file));
                (address, file)
            }
        };
        let address =
            NonNull::new(address).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Target::Host { address: HostAddress(address), _file: file })
    }

    fn forget_files(&mut self) {
        self.files.retain(|_, file| file.strong_count() > 0);
    }
}

/// Checks alignment and bounds; returns the last IOVA.
fn check_range(iova: u64, size: u64) -> Result<u64, Error> {
    if size == 0 || !iova.is_multiple_of(PAGE_SIZE) || !size.is_multiple_of(PAGE_SIZE) {
        return Err(Error::Unaligned { iova, size });
    }
    iova.checked_add(size - 1).ok_or(Error::Wraps { iova, size })
}
