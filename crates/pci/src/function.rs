//! This module has a function's name in the adapter, and the facts its configuration space is built
//! from.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// A function of the adapter: the physical function or one virtual function.
///
/// A name is displayed and parsed as `pf`, `vf0`, `vf1` and so on. VF indices start at 0 here and
/// on the command line; PCIe Base 6.0 (section 9.2.1.2) counts from VF 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FunctionId {
    /// The function is physical.
    Pf,
    /// The function is the virtual one of this index, from 0.
    Vf(u16),
}

impl FunctionId {
    /// Returns the function's place in a list of all functions: 0 for the PF, n + 1 for VF n.
    #[inline]
    pub const fn index(self) -> usize {
        match self {
            Self::Pf => 0,
            Self::Vf(n) => n as usize + 1,
        }
    }
}

impl fmt::Display for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pf => f.pad("pf"),
            Self::Vf(index) => f.pad(&format!("vf{index}")),
        }
    }
}

impl FromStr for FunctionId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::InvalidFunctionId(text.to_owned());
        if text == "pf" {
            return Ok(Self::Pf);
        }
        let digits = text.strip_prefix("vf").ok_or_else(invalid)?;
        // A function has one spelling, without sign and leading zeros.
        let canonical = digits.bytes().all(|b| b.is_ascii_digit())
            && (digits == "0" || !digits.starts_with('0'));
        match digits.parse() {
            Ok(index) if canonical && index < MAX_VFS => Ok(Self::Vf(index)),
            _ => Err(invalid()),
        }
    }
}

/// Largest number of virtual functions that one physical function can have.
pub const MAX_VFS: u16 = 256;

/// The identification registers of a type 0 header (PCIe Base 6.0, sections 7.5.1.1 and 7.5.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor_id: u16,
    /// Device ID.
    pub device_id: u16,
    /// Revision ID.
    pub revision: u8,
    /// Class Code, 24 bits: base class 23:16, subclass 15:8, programming interface 7:0.
    pub class_code: u32,
    /// Subsystem Vendor ID.
    pub subsystem_vendor_id: u16,
    /// Subsystem ID.
    pub subsystem_id: u16,
}

/// One memory base address register (PCIe Base 6.0, section 7.5.1.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarSpec {
    /// Number of bytes decoded: a power of two, at least 4096; at most 2 GiB for a 32-bit BAR.
    pub size: u64,
    /// True if the BAR takes two registers and decodes 64-bit addresses.
    pub width64: bool,
    /// True if reads have no side effects.
    pub prefetchable: bool,
}

/// The places of a function's MSI-X table and pending bit array (PCIe Base 6.0, section 7.7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixSpec {
    /// Number of vectors, 1 to 2048.
    pub vectors: u16,
    /// BAR that holds the table: the register's index, 0 to 5.
    pub table_bar: u8,
    /// Byte offset of the table in its BAR, a multiple of 8.
    pub table_offset: u32,
    /// BAR that holds the pending bit array.
    pub pba_bar: u8,
    /// Byte offset of the pending bit array in its BAR, a multiple of 8.
    pub pba_offset: u32,
}

impl MsixSpec {
    /// Returns the table's length in bytes: 16 for each vector.
    pub fn table_size(&self) -> u32 {
        u32::from(self.vectors) * 16
    }

    /// Returns the pending bit array's length in bytes: one bit for each vector, in quadwords.
    pub fn pba_size(&self) -> u32 {
        u32::from(self.vectors).div_ceil(64) * 8
    }
}

/// A vendor-specific capability (ID 09h; PCIe Base 6.0, section 7.9.4), such as virtio's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VendorCapability {
    /// Bytes after capability ID and next pointer. The first is the capability's length, counted
    /// from the ID: `body.len() + 2`.
    pub body: Vec<u8>,
    /// Bits of each byte of `body` that software can write.
    pub writable: Vec<u8>,
}

/// The facts that a function's configuration space is built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionSpec {
    /// Identification registers. Those of a VF are what software that knows the PF takes it for;
    /// its own Vendor ID and Device ID registers read FFFFh.
    pub identity: Identity,
    /// Memory BARs. A 64-bit BAR leaves the next place `None`. Those of a VF are decoded through
    /// the VF BARs of the PF and read zero on the bus.
    pub bars: [Option<BarSpec>; 6],
    /// Places of the MSI-X structures.
    pub msix: MsixSpec,
    /// Vendor-specific capabilities, in the order of the list.
    pub vendor: Vec<VendorCapability>,
    /// Device Serial Number of a PF, as an EUI-64 (PCIe Base 6.0, section 7.9.3).
    pub serial: u64,
}

/// The facts that a PF's SR-IOV capability is built from (PCIe Base 6.0, section 9.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SriovSpec {
    /// Value of TotalVFs, 1 to 256. InitialVFs is the same, as VF migration is not supported.
    pub total_vfs: u16,
    /// Value of VF Device ID.
    pub vf_device_id: u16,
    /// VF BARs with the size that one VF gets. A 64-bit BAR leaves the next place `None`.
    pub vf_bars: [Option<BarSpec>; 6],
    /// Value of Supported Page Sizes: bit n set for pages of 2^(n+12) bytes, at least
    /// [`REQUIRED_PAGE_SIZES`](crate::spec::sriov::REQUIRED_PAGE_SIZES).
    pub supported_page_sizes: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn function_ids_round_trip() {
        for id in [FunctionId::Pf, FunctionId::Vf(0), FunctionId::Vf(10), FunctionId::Vf(255)] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!(format!("{:<6}|", FunctionId::Vf(3)), "vf3   |");
    }

    #[test]
    fn other_words_are_not_function_ids() {
        for text in ["", "PF", "vf", "vf256", "vf-1", "vf+1", "vf01", "vf65536", "0"] {
            assert_eq!(text.parse::<FunctionId>(), Err(Error::InvalidFunctionId(text.into())));
        }
    }

    #[test]
    fn msix_structures_are_counted_in_entries_and_quadwords() {
        let spec =
            MsixSpec { vectors: 65, table_bar: 2, table_offset: 0, pba_bar: 2, pba_offset: 0x800 };
        assert_eq!(spec.table_size(), 65 * 16);
        assert_eq!(spec.pba_size(), 16);
    }
}
