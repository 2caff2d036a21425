//! This module lists the faults of a function's description or name.

/// The error for a description of a function that no configuration space can be built from, or a
/// name of none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is not a routing ID.
    #[error("`{0}` is not a routing ID: write bus:device.function in hexadecimal, such as 01:00.0")]
    InvalidRoutingId(String),
    /// The text does not name a function.
    #[error("`{0}` is not a function: write pf, or vf0 to vf255")]
    InvalidFunctionId(String),
    /// The class code has more than 24 bits.
    #[error("class code {0:#x} does not fit 24 bits")]
    ClassCode(u32),
    /// The BAR has a size that no BAR can express.
    #[error(
        "BAR {index} of {size:#x} bytes: a BAR's size is a power of two of at least 4096, and \
             at most 2 GiB for a 32-bit BAR"
    )]
    BarSize {
        /// Index of the BAR.
        index: usize,
        /// The size asked for.
        size: u64,
    },
    /// The 64-bit BAR has no register for its upper half.
    #[error("64-bit BAR {index} needs the register after it, which is taken or does not exist")]
    BarWidth {
        /// Index of the BAR.
        index: usize,
    },
    /// The MSI-X table has an impossible length.
    #[error("{0} MSI-X vectors: a function has 1 to 2048")]
    MsixVectors(u16),
    /// The MSI-X structure is misaligned or not inside a BAR.
    #[error(
        "the MSI-X {structure} at offset {offset:#x} of BAR {bar} is not 8-byte aligned inside \
             a BAR of the function, or overlaps the other structure"
    )]
    MsixPlacement {
        /// Name of the structure: `table` or `pending bit array`.
        structure: &'static str,
        /// The BAR named.
        bar: u8,
        /// The offset named.
        offset: u32,
    },
    /// The parts of the vendor-specific capability disagree.
    #[error(
        "vendor-specific capability {0}: its first byte must be its length (body + 2), and the \
             write mask as long as the body"
    )]
    VendorCapability(usize),
    /// The capabilities need more than the 192 bytes after the header.
    #[error("the capabilities need {0} bytes; the space after the header has 192")]
    CapabilitySpace(usize),
    /// The number of VFs is out of range.
    #[error("{0} VFs: TotalVFs is 1 to 256")]
    TotalVfs(u16),
    /// The Supported Page Sizes are without those that every PF must support.
    #[error("supported page sizes {0:#x} lack some of 4K, 8K, 64K, 256K, 1M and 4M (bits 0x553)")]
    PageSizes(u32),
}
