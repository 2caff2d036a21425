//! This module lists sizes that hold for every domain.

/// Granularity of mappings in bytes.
pub const PAGE_SIZE: u64 = 4096;
/// Largest number of files that one domain may have mapped at once. A VMM has one per memory
/// device. The process as a whole can have 65,530 mappings, so what one client can take is limited.
pub(crate) const MAX_FILES: usize = 64;
/// Largest part of this process's address space (128 TiB) that one domain may take up, in bytes.
pub(crate) const MAX_ADDRESS_SPACE: u64 = 4 << 40;
