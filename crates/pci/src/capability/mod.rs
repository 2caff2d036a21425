//! Capabilities: one file each, behind one trait.

mod acs;
mod aer;
mod ari;
mod express;
mod msix;
mod power;
mod serial;
mod sriov;
mod vendor;

use std::fmt::Debug;

pub(crate) use acs::AccessControl;
pub(crate) use aer::AdvancedErrorReporting;
pub(crate) use ari::AlternativeRoutingId;
pub(crate) use express::Express;
pub(crate) use msix::MsixControl;
pub(crate) use power::PowerManagement;
pub(crate) use serial::SerialNumber;
pub(crate) use sriov::Sriov;
pub use sriov::{SriovView, VfBar};
pub(crate) use vendor::Vendor;

use crate::Reset;
use crate::registers::{Bank, Write};

/// How a capability is named in its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CapabilityId {
    /// In the list that starts in the header.
    Standard(u8),
    /// In the list that starts at 100h.
    Extended { id: u16, version: u8 },
}

/// Whether the function is physical or virtual: many registers of a VF are reserved because the
/// PF's govern it (PCIe Base 6.0, sections 9.3.4 to 9.3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Physical,
    Virtual,
}

/// What a write asks of the function as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Nothing,
    FunctionLevelReset,
}

/// One capability structure.
///
/// Offsets are bytes from the capability's start and name whole dwords. The ID and the next pointer
/// belong to the list, not to the capability, and are laid over what it reads.
pub(crate) trait Capability: Debug {
    /// ID, and version of an extended one.
    fn id(&self) -> CapabilityId;

    /// The registers.
    fn bank(&self) -> &Bank;

    /// The registers, to change.
    fn bank_mut(&mut self) -> &mut Bank;

    /// Reads a dword.
    fn read(&self, offset: u16) -> u32 {
        self.bank().get(offset)
    }

    /// Software writes to a dword.
    fn write(&mut self, offset: u16, write: Write) -> Request {
        self.bank_mut().write(offset, write);
        Request::Nothing
    }

    /// A reset reaches the function.
    fn reset(&mut self, kind: Reset) {
        self.bank_mut().reset(kind);
    }
}

/// The parts of [`Capability`] that are the same wherever the registers are in a field `bank`.
macro_rules! bank {
    () => {
        fn bank(&self) -> &crate::registers::Bank {
            &self.bank
        }

        fn bank_mut(&mut self) -> &mut crate::registers::Bank {
            &mut self.bank
        }
    };
}
pub(crate) use bank;
