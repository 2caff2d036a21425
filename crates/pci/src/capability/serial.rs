//! This module makes the Device Serial Number capability (PCIe Base 6.0, section 7.9.3).

use super::structure::Structure;
use crate::registers::Register;
use crate::spec::serial::*;

/// Returns the capability that names the adapter by an EUI-64.
pub(crate) fn serial_number(eui64: u64) -> Structure {
    Structure::extended(ID, VERSION, SIZE)
        .with(LOWER, Register::new(eui64 as u32))
        .with(UPPER, Register::new((eui64 >> 32) as u32))
}
