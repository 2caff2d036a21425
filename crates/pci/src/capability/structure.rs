//! This module has the parts that all capabilities have in common.

use std::fmt::Debug;

use crate::registers::{Bank, Register, Reset, Write};

/// The name of a capability in its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CapabilityId {
    /// The capability is in the list that starts in the header.
    Standard(u8),
    /// The capability is in the list that starts at 100h.
    Extended { id: u16, version: u8 },
}

/// The kind of a function, physical or virtual. Many registers of a VF are reserved because the
/// PF's govern it (PCIe Base 6.0, sections 9.3.4 to 9.3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Physical,
    Virtual,
}

/// The action that a write asks of the function as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Nothing,
    FunctionLevelReset,
}

/// The registers of a capability and its name in the list. Most capabilities are nothing more:
/// their registers say by themselves what a write and a reset do.
///
/// Offsets are bytes from the capability's start and name whole dwords. The ID and the next pointer
/// belong to the list, not to the capability, and are laid over what it reads.
#[derive(Debug)]
pub(crate) struct Structure {
    id: CapabilityId,
    pub(super) bank: Bank,
}

impl Structure {
    /// Returns a capability of the first list, of `size` reserved bytes.
    pub(crate) fn standard(id: u8, size: u16) -> Self {
        Self { id: CapabilityId::Standard(id), bank: Bank::new(size) }
    }

    /// Returns an extended capability of `size` reserved bytes.
    pub(crate) fn extended(id: u16, version: u8, size: u16) -> Self {
        Self { id: CapabilityId::Extended { id, version }, bank: Bank::new(size) }
    }

    /// Adds a register at `offset`, the first byte of a dword or its lower half.
    pub(crate) fn with(self, offset: u16, register: Register) -> Self {
        Self { bank: self.bank.with(offset, register), ..self }
    }

    /// Returns the capability's ID, and its version if it is an extended one.
    pub(crate) fn id(&self) -> CapabilityId {
        self.id
    }

    /// Returns the capability's length in bytes, whole dwords.
    pub(crate) fn size(&self) -> u16 {
        self.bank.size()
    }
}

/// The access to a capability. One whose registers have further effects has a type of its own
/// around its [`Structure`] and replaces the methods that differ.
pub(crate) trait Capability: Debug {
    /// Returns the registers.
    fn structure(&self) -> &Structure;

    /// Returns the registers, to change them.
    fn structure_mut(&mut self) -> &mut Structure;

    /// Reads the dword at `offset`.
    fn read(&self, offset: u16) -> u32 {
        self.structure().bank.get(offset)
    }

    /// Carries out software's write to the dword at `offset`.
    fn write(&mut self, offset: u16, write: Write) -> Request {
        self.structure_mut().bank.write(offset, write);
        Request::Nothing
    }

    /// Resets the registers.
    fn reset(&mut self, kind: Reset) {
        self.structure_mut().bank.reset(kind);
    }
}

impl Capability for Structure {
    fn structure(&self) -> &Structure {
        self
    }

    fn structure_mut(&mut self) -> &mut Structure {
        self
    }
}

/// Implements the two required methods of [`Capability`] for a type with a field `structure`.
macro_rules! structure {
    () => {
        fn structure(&self) -> &Structure {
            &self.structure
        }

        fn structure_mut(&mut self) -> &mut Structure {
            &mut self.structure
        }
    };
}
pub(super) use structure;
