//! Files mapped into this process: the memory behind shared guest RAM.

use std::io;
use std::os::fd::OwnedFd;
use std::ptr;

use rustix::fs::{FileType, fstat, fstatfs};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::sigbus;

/// Identity of a file, so that many mappings of one file share one `mmap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileKey {
    device: u64,
    inode: u64,
}

/// A shared mapping of a whole file, or of a part of something that has no size (a device node).
#[derive(Debug)]
pub(crate) struct MappedFile {
    base: *mut u8,
    len: usize,
    /// File offset of `base`.
    offset: u64,
    writable: bool,
    guard: sigbus::Guard,
}

// SAFETY: the mapping is shared memory that only raw copies touch (see `Slice`); the struct itself is immutable.
unsafe impl Send for MappedFile {}
// SAFETY: as above.
unsafe impl Sync for MappedFile {}

/// What is known of a file descriptor before it is mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileInfo {
    pub(crate) key: FileKey,
    /// Size in bytes of a regular file; `None` for something else that can be mapped.
    pub(crate) size: Option<u64>,
    pub(crate) writable: bool,
}

pub(crate) fn inspect(fd: &OwnedFd) -> io::Result<FileInfo> {
    let stat = fstat(fd)?;
    let flags = rustix::fs::fcntl_getfl(fd)?;
    let mode = flags & rustix::fs::OFlags::RWMODE;
    if mode == rustix::fs::OFlags::WRONLY {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "opened for writing only"));
    }
    let size = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Some(u64::try_from(stat.st_size).unwrap_or(0)),
        _ => None,
    };
    Ok(FileInfo {
        key: FileKey { device: stat.st_dev, inode: stat.st_ino },
        size,
        writable: mode == rustix::fs::OFlags::RDWR,
    })
}

impl MappedFile {
    /// Maps `len` bytes from `offset`, both multiples of the page size.
    pub(crate) fn new(fd: &OwnedFd, offset: u64, len: u64, writable: bool) -> io::Result<Self> {
        let too_large = || io::Error::from(io::ErrorKind::FileTooLarge);
        let len = usize::try_from(len).map_err(|_| too_large())?;
        let page = usize::try_from(fstatfs(fd)?.f_bsize).unwrap_or(4096).max(4096);
        let mut protection = ProtFlags::READ;
        if writable {
            protection |= ProtFlags::WRITE;
        }
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe { mmap(ptr::null_mut(), len, protection, flags, fd, offset)? };
        let guard = match sigbus::protect(base as usize, len, page) {
            Ok(guard) => guard,
            Err(error) => {
                // SAFETY: base..base + len was mapped just now and nothing refers to it.
                let _ = unsafe { munmap(base, len) };
                return Err(error);
            }
        };
        Ok(MappedFile { base: base.cast(), len, offset, writable, guard })
    }

    /// The address of file offset `offset`, if `len` bytes from there are mapped and, where asked for, writable.
    pub(crate) fn address(&self, offset: u64, len: u64, write: bool) -> Option<*mut u8> {
        let start = offset.checked_sub(self.offset)?;
        let end = start.checked_add(len)?;
        if end > self.len as u64 || (write && !self.writable) {
            return None;
        }
        // SAFETY: start is at most end, which is at most len, so the result is in (or one past) the mapping.
        Some(unsafe { self.base.add(usize::try_from(start).ok()?) })
    }

    /// True once an access found the file cut short under the mapping.
    pub(crate) fn truncated(&self) -> bool {
        self.guard.hit()
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        self.guard.release();
        // SAFETY: no Slice outlives the snapshot that owns this mapping, so nothing points into it any more.
        let _ = unsafe { munmap(self.base.cast(), self.len) };
    }
}
