//! Maps memory that a VMM shares with the adapter itself, outside of any domain: regions that a protocol hands over as a file
//! descriptor, such as vhost-user's record of what is in flight.

use std::os::fd::OwnedFd;

use crate::error::Error;
use crate::memory::{HostAddress, MappedFile};
use crate::slice::Slice;

/// A part of a file, mapped for reading and writing until this is dropped.
///
/// Whoever else has the file may change it at any time, and cut it short: then it reads as zeros from there on
/// ([`crate::sigbus`]). What is read decides about this process no more than a guest's memory does.
#[derive(Debug)]
pub struct SharedMemory {
    /// Address of the first byte, kept valid by `_file`.
    base: HostAddress,
    len: usize,
    _file: MappedFile,
}

impl SharedMemory {
    /// Maps `len` bytes at `offset`, a multiple of the page size, of a file that is open for reading and writing.
    ///
    /// # Errors
    /// [`Error::UnalignedOffset`], [`Error::BeyondEnd`] when the file is shorter, [`Error::ReadOnlyFile`],
    /// [`Error::WriteOnlyFile`], [`Error::FileSystem`], or the system's.
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
        // SAFETY: the range is in the mapping, which is readable and writable and which `self`, borrowed by the result,
        // keeps; nothing but slices touches it.
        Some(unsafe { Slice::from_raw(self.base.as_ptr().add(offset), len) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::GuestMemory;

    fn file(size: u64) -> Result<(GuestMemory, OwnedFd), Box<dyn std::error::Error>> {
        let memory = GuestMemory::new("shared", size)?;
        let fd = memory.file().try_clone()?.into();
        Ok((memory, fd))
    }

    #[test]
    fn what_one_side_writes_the_other_reads() -> Result<(), Box<dyn std::error::Error>> {
        let (memory, fd) = file(3 * 4096)?;
        let shared = SharedMemory::map(&fd, 4096, 5000)?;
        drop(fd);
        assert_eq!((shared.len(), shared.is_empty()), (5000, false));
        memory.write(4096 + 4990, b"abc")?;
        let mut out = [0; 10];
        assert_eq!(shared.slice(4990, 10).map(|slice| slice.read(&mut out)), Some(10));
        assert_eq!(&out, b"abc\0\0\0\0\0\0\0");
        assert_eq!(shared.slice(0, 4).map(|slice| slice.write(b"wxyz")), Some(4));
        memory.read(4096, &mut out)?;
        assert_eq!(&out, b"wxyz\0\0\0\0\0\0");
        for (offset, len) in [(4991, 10), (5001, 0), (usize::MAX, 2), (1, usize::MAX)] {
            assert!(shared.slice(offset, len).is_none(), "{len} at {offset}");
        }
        assert!(shared.slice(5000, 0).is_some_and(|slice| slice.is_empty()));
        Ok(())
    }

    #[test]
    fn files_that_do_not_fit_are_refused() -> Result<(), Box<dyn std::error::Error>> {
        let (memory, fd) = file(8192)?;
        assert!(matches!(SharedMemory::map(&fd, 1, 4096), Err(Error::UnalignedOffset(1))));
        assert!(matches!(SharedMemory::map(&fd, 4096, 4097), Err(Error::BeyondEnd { .. })));
        assert!(SharedMemory::map(&fd, u64::MAX - 4095, 4096).is_err());
        assert!(SharedMemory::map(&fd, 0, 0).is_err());
        let crate::Backing::File { fd, .. } = memory.read_only_backing(0)? else {
            return Err("not a file".into());
        };
        assert!(matches!(SharedMemory::map(&fd, 0, 4096), Err(Error::ReadOnlyFile)));
        Ok(())
    }

    #[test]
    fn a_file_that_is_cut_short_reads_as_zeros() -> Result<(), Box<dyn std::error::Error>> {
        let (memory, fd) = file(8192)?;
        memory.write(4096, b"gone")?;
        let shared = SharedMemory::map(&fd, 0, 8192)?;
        memory.file().set_len(0)?;
        let mut out = [1; 4];
        assert_eq!(shared.slice(4096, 4).map(|slice| slice.read(&mut out)), Some(4));
        assert_eq!(out, [0; 4]);
        Ok(())
    }
}
