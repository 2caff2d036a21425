//! This module maps files into this process, as the memory behind shared guest RAM.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Weak};

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, fstatfs};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::error::Error;
use crate::limits::{MAX_ADDRESS_SPACE, MAX_FILES, PAGE_SIZE};
use crate::sigbus;

/// Type numbers of file systems whose pages are in memory or on a local disk. On others (FUSE above
/// all) whoever serves the file can withhold a page for ever, and with it the worker thread that
/// touches it.
const FILE_SYSTEMS: [u64; 9] = [
    0x0102_1994, // tmpfs, memfd
    0x9584_58f6, // hugetlbfs
    0x8584_58f6, // ramfs
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0xf2f5_2010, // f2fs
    0xca45_1a4e, // bcachefs
    0x2fc1_2fc1, // zfs
];

/// The identity of a file, so that many mappings of one file share one `mmap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileKey {
    device: u64,
    inode: u64,
}

/// A host address, valid for as long as the [`MappedFile`] beside it exists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostAddress(NonNull<u8>);

impl HostAddress {
    pub(crate) fn as_ptr(self) -> *mut u8 {
        self.0.as_ptr()
    }
}

// SAFETY: an address is a number; what makes using it sound is stated where it is used.
unsafe impl Send for HostAddress {}
// SAFETY: an address is a number; what makes using it sound is stated where it is used.
unsafe impl Sync for HostAddress {}

/// A shared mapping of a whole file, or of a part of something that has no size (a device node).
#[derive(Debug)]
pub(crate) struct MappedFile {
    base: HostAddress,
    len: usize,
    /// File offset of `base`.
    offset: u64,
    writable: bool,
    guard: ManuallyDrop<sigbus::Guard>,
}

/// The facts about a file descriptor before it is mapped.
#[derive(Clone, Copy, Debug)]
struct FileInfo {
    key: FileKey,
    /// Size of a regular file in bytes; `None` for something else that can be mapped.
    size: Option<u64>,
    writable: bool,
}

impl FileInfo {
    /// Checks a file of which `size` bytes from `offset` are to be mapped, for writing if `write`
    /// is true.
    fn check(fd: &OwnedFd, offset: u64, size: u64, write: bool) -> Result<Self, Error> {
        if !offset.is_multiple_of(PAGE_SIZE) {
            return Err(Error::UnalignedOffset(offset));
        }
        let info = Self::of(fd)?;
        if write && !info.writable {
            return Err(Error::ReadOnlyFile);
        }
        let needed = offset.checked_add(size).ok_or(Error::Wraps { iova: offset, size })?;
        match info.size {
            Some(size) if needed > size => Err(Error::BeyondEnd { needed, size }),
            _ => Ok(info),
        }
    }

    fn of(fd: &OwnedFd) -> Result<Self, Error> {
        let stat = fstat(fd).map_err(io::Error::from)?;
        let mode = fcntl_getfl(fd).map_err(io::Error::from)? & OFlags::RWMODE;
        if mode == OFlags::WRONLY {
            return Err(Error::WriteOnlyFile);
        }
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if regular {
            // The type has 32 bits, whatever its width and sign on this architecture.
            let kind = u64::from(fstatfs(fd).map_err(io::Error::from)?.f_type as u32);
            if !FILE_SYSTEMS.contains(&kind) {
                return Err(Error::FileSystem(kind));
            }
        }
        Ok(FileInfo {
            key: FileKey { device: stat.st_dev, inode: stat.st_ino },
            size: regular.then(|| u64::try_from(stat.st_size).unwrap_or(0)),
            writable: mode == OFlags::RDWR,
        })
    }
}

impl MappedFile {
    /// Maps `len` bytes from `offset`, both multiples of the page size.
    fn new(fd: &OwnedFd, offset: u64, len: u64, writable: bool) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut protection = ProtFlags::READ;
        if writable {
            protection |= ProtFlags::WRITE;
        }
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe { mmap(ptr::null_mut(), len, protection, flags, fd, offset)? };
        // SAFETY: the range is the mapping just made, and nothing but `Slice`s and rings, raw
        // copies both, touch it.
        let guard = unsafe { sigbus::protect(base as usize, len) };
        match (NonNull::new(base.cast()), guard) {
            (Some(base), Ok(guard)) => Ok(MappedFile {
                base: HostAddress(base),
                len,
                offset,
                writable,
                guard: ManuallyDrop::new(guard),
            }),
            (_, guard) => {
                // SAFETY: base..base + len was mapped just now and nothing refers to it.
                let _ = unsafe { munmap(base, len) };
                Err(guard.err().unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
            }
        }
    }

    /// Maps `len` bytes at `offset` of a file, readable and writable, for no domain in particular.
    pub(crate) fn range(fd: &OwnedFd, offset: u64, len: u64) -> Result<(HostAddress, Self), Error> {
        FileInfo::check(fd, offset, len, true)?;
        let file = MappedFile::new(fd, offset, len, true)?;
        Ok((file.base, file))
    }

    /// Returns the address of file offset `offset`, if `len` bytes from there are mapped and, if
    /// asked for, writable.
    fn address(&self, offset: u64, len: u64, write: bool) -> Option<HostAddress> {
        let start = offset.checked_sub(self.offset)?;
        let end = start.checked_add(len)?;
        if end > self.len as u64 || (write && !self.writable) {
            return None;
        }
        // SAFETY: start is at most end, which is at most len, so the result is in (or one past) the
        // mapping.
        Some(HostAddress(unsafe { self.base.0.add(usize::try_from(start).ok()?) }))
    }

    /// Returns whether an access found the file cut short under the mapping.
    #[inline]
    pub(crate) fn truncated(&self) -> bool {
        self.guard.lost()
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        // SAFETY: the guard is dropped here and nowhere else. The protection ends first: once
        // unmapped, the range can be anybody's.
        unsafe { ManuallyDrop::drop(&mut self.guard) };
        // SAFETY: no Slice outlives the snapshot that owns this mapping, so nothing points into it
        // any more.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// The files a domain has mapped.
#[derive(Debug, Default)]
pub(crate) struct Files {
    open: Vec<(FileKey, Weak<MappedFile>)>,
}

impl Files {
    /// Returns host memory of `size` bytes at `offset` of a file, writable if `write` is true. A
    /// file that is mapped already is not mapped again.
    pub(crate) fn map(
        &mut self,
        fd: &OwnedFd,
        offset: u64,
        size: u64,
        write: bool,
    ) -> Result<(HostAddress, Arc<MappedFile>), Error> {
        let info = FileInfo::check(fd, offset, size, write)?;
        for (key, file) in &self.open {
            if *key == info.key
                && let Some(file) = file.upgrade()
                && !file.truncated()
                && let Some(address) = file.address(offset, size, write)
            {
                return Ok((address, file));
            }
        }
        let file = self.open(fd, &info, offset, size, write)?;
        let address = file.address(offset, size, write).ok_or(io::ErrorKind::InvalidInput);
        let address = address.map_err(io::Error::from)?;
        let file = Arc::new(file);
        self.open.push((info.key, Arc::downgrade(&file)));
        Ok((address, file))
    }

    fn open(
        &mut self,
        fd: &OwnedFd,
        info: &FileInfo,
        offset: u64,
        size: u64,
        write: bool,
    ) -> Result<MappedFile, Error> {
        self.forget();
        if self.open.len() >= MAX_FILES {
            return Err(Error::TooManyFiles(MAX_FILES));
        }
        let taken = self.open.iter().filter_map(|(_, file)| file.upgrade());
        let taken: u64 = taken.map(|file| file.len as u64).sum();
        let room = MAX_ADDRESS_SPACE.saturating_sub(taken);
        // The whole file is mapped, so that the next mapping of it needs no mmap and neighbours
        // stay contiguous; only the range is mapped if the whole does not fit, cannot be mapped or
        // has no size.
        let whole = info.size.map(|length| length - length % PAGE_SIZE).filter(|len| *len <= room);
        if let Some(length) = whole
            && let Ok(file) = MappedFile::new(fd, 0, length, info.writable)
        {
            return Ok(file);
        }
        if size > room {
            return Err(Error::AddressSpace { size, limit: MAX_ADDRESS_SPACE });
        }
        // A file that is sealed against writing can be mapped for reading, hence `write` and not
        // `info.writable`.
        Ok(MappedFile::new(fd, offset, size, write)?)
    }

    /// Forgets files that are no longer mapped.
    pub(crate) fn forget(&mut self) {
        self.open.retain(|(_, file)| file.strong_count() > 0);
    }

    /// Returns how many files were found cut short.
    pub(crate) fn truncated(&self) -> usize {
        let open = self.open.iter().filter_map(|(_, file)| file.upgrade());
        open.filter(|file| file.truncated()).count()
    }
}
