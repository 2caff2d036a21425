//! This module lists the reasons why a mapping could not be made or removed.

use std::io;

use crate::limits::PAGE_SIZE;

/// The reason why a mapping could not be made or removed. The conditions are those of Linux's VFIO
/// type 1 (v2) IOMMU, and limits that keep one client from taking what others need.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The size is zero, or address or size is not a multiple of [`PAGE_SIZE`].
    #[error(
        "IOVA {iova:#x}, size {size:#x}: both must be multiples of {PAGE_SIZE:#x} and the size not \
         zero"
    )]
    Unaligned {
        /// IOVA asked for.
        iova: u64,
        /// Size asked for, in bytes.
        size: u64,
    },
    /// The file offset is not a multiple of [`PAGE_SIZE`].
    #[error("file offset {0:#x} is not a multiple of {PAGE_SIZE:#x}")]
    UnalignedOffset(u64),
    /// The range ends beyond 64 bits.
    #[error("IOVA {iova:#x}, size {size:#x}: the range wraps around")]
    Wraps {
        /// IOVA asked for.
        iova: u64,
        /// Size asked for, in bytes.
        size: u64,
    },
    /// Neither reading nor writing was permitted.
    #[error("a mapping needs read or write permission")]
    NoPermission,
    /// Part of the range is mapped already.
    #[error("IOVA {iova:#x}, size {size:#x}: overlaps the mapping at {other:#x}")]
    Overlap {
        /// IOVA asked for.
        iova: u64,
        /// Size asked for, in bytes.
        size: u64,
        /// First IOVA of a mapping in the way.
        other: u64,
    },
    /// The range to unmap begins or ends inside a mapping.
    #[error("IOVA {iova:#x}, size {size:#x}: would cut the mapping at {other:#x} in two")]
    Splits {
        /// IOVA asked for.
        iova: u64,
        /// Size asked for, in bytes.
        size: u64,
        /// First IOVA of the mapping.
        other: u64,
    },
    /// The file is shorter than the mapping needs.
    #[error("the mapping needs {needed:#x} bytes of a file that has {size:#x}")]
    BeyondEnd {
        /// Offset plus size, in bytes.
        needed: u64,
        /// Size of the file in bytes.
        size: u64,
    },
    /// The function is to write the mapping, but the file is open for reading only.
    #[error("the file is open for reading only and the mapping is to be written")]
    ReadOnlyFile,
    /// The file is open for writing only: the processor cannot map it so.
    #[error("the file is open for writing only; open it for reading and writing")]
    WriteOnlyFile,
    /// The file is on a file system whose server could withhold its pages.
    #[error(
        "the file is on a file system (type {0:#x}) that may block whoever touches its memory; \
         use a memfd (memory-backend-memfd), tmpfs, hugetlbfs or a local disk"
    )]
    FileSystem(u64),
    /// The domain has as many mappings as it takes.
    #[error("more than {0} mappings")]
    TooMany(usize),
    /// The domain has as many files mapped as it takes.
    #[error("more than {0} files mapped at once")]
    TooManyFiles(usize),
    /// The mapping needs more of the adapter's address space than a domain may have.
    #[error("no room to map {size:#x} bytes: a function may have {limit:#x} bytes mapped")]
    AddressSpace {
        /// Size asked for, in bytes.
        size: u64,
        /// Bytes that a domain may have.
        limit: u64,
    },
    /// The file cannot be mapped.
    #[error("cannot map the file: {0}")]
    Map(#[from] io::Error),
}
