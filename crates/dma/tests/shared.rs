//! These tests check memory shared with a VMM through a file.

use std::os::fd::OwnedFd;

use manifold_dma::{Backing, Error, SharedMemory};
use manifold_testing::GuestMemory;

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
    let Backing::File { fd, .. } = memory.read_only_backing(0)? else {
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
