//! This module maps memory that a VMM shares with the adapter itself, outside of any domain:
//! regions that a protocol hands over as a file descriptor, such as vhost-user's record of chains
//! in flight.

use std::os::fd::OwnedFd;

use crate::error::Error;
use crate::memory::{HostAddress, MappedFile};
use crate::slice::Slice;

/// A part of a file, mapped for reading and writing until this is dropped.
///
/// Whoever else has the file may change it at any time, and cut it short: then it reads as zeros
/// from there on ([`crate::sigbus`]). What is read decides about this process no more than a
/// guest's memory does.
#[derive(Debug)]
pub struct SharedMemory {
    /// Address of the first byte, kept valid by `_file`.
    base: HostAddress,
    len: usize,
    _file: MappedFile,
}

impl SharedMemory {
    /// Maps `len` bytes at `offset`, a multiple of the page size, of a file that is open for
    /// reading and writing.
    ///
    /// # Errors
    /// [`Error::UnalignedOffset`], [`Error::BeyondEnd`] when the file is shorter,
    /// [`Error::ReadOnlyFile`], [`Error::WriteOnlyFile`], [`Error::FileSystem`], or the system's.
    pub fn map(fd: &OwnedFd, offset: u64, len: u64) -> Result<Self, Error> {
        let (base, file) = MappedFile::range(fd, offset, len)?;
        let len = usize::try_from(len)
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::FileTooLarge))?;
        Ok(SharedMemory { base, len, _file: file })
    }

    /// Returns the length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the length is zero.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the `len` bytes at `offset`, if they are all inside.
    #[inline]
    pub fn slice(&self, offset: usize, len: usize) -> Option<Slice<'_>> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: the range is in the mapping, which is readable and writable and which `self`,
        // borrowed by the result, keeps; nothing but slices touches it.
        Some(unsafe { Slice::from_raw(self.base.as_ptr().add(offset), len) })
    }
}
