//! This module makes the MSI-X capability, which says where the table is and has Message Control
//! (PCIe Base 6.0, section 7.7.2).

use super::structure::{Capability, Structure, structure};
use crate::function::MsixSpec;
use crate::registers::{Register, high, in_high};
use crate::spec::msix;

/// MSI-X's registers in configuration space. The vectors themselves are [`Msix`](crate::Msix).
#[derive(Debug)]
pub(crate) struct MsixControl {
    structure: Structure,
}

impl MsixControl {
    /// Returns the registers of a spec that was found valid.
    pub(crate) fn new(spec: &MsixSpec) -> Self {
        let last = spec.vectors.saturating_sub(1) & msix::CONTROL_TABLE_SIZE;
        let place = |bar: u8, offset: u32| Register::new(offset & !msix::BIR | u32::from(bar));
        let structure = Structure::standard(msix::ID, msix::SIZE)
            .with(
                msix::CONTROL,
                Register::new(in_high(last))
                    .writable(in_high(msix::CONTROL_MASK | msix::CONTROL_ENABLE)),
            )
            .with(msix::TABLE, place(spec.table_bar, spec.table_offset))
            .with(msix::PBA, place(spec.pba_bar, spec.pba_offset));
        Self { structure }
    }

    pub(crate) fn enabled(&self) -> bool {
        high(self.structure.read(msix::CONTROL)) & msix::CONTROL_ENABLE != 0
    }

    pub(crate) fn masked(&self) -> bool {
        high(self.structure.read(msix::CONTROL)) & msix::CONTROL_MASK != 0
    }
}

impl Capability for MsixControl {
    structure!();
}
