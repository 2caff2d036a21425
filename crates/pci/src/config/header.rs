//! This module makes the type 0 header (PCIe Base 6.0, sections 7.5.1.1 and 7.5.1.2; of a VF,
//! section 9.3.4).

use crate::bars::{Bar, Bars};
use crate::capability::Role;
use crate::error::Error;
use crate::function::FunctionSpec;
use crate::registers::{Bank, Register, Reset, Write, in_high, in_low, low};
use crate::spec::header::*;

/// The first 64 bytes of configuration space.
///
/// There is no I/O space, no expansion ROM and no INTx. A VF's IDs read FFFFh (software derives
/// them from the PF's and from VF Device ID), its BARs read zero and of its Command register only
/// Bus Master Enable is there.
#[derive(Debug)]
pub(super) struct Header {
    role: Role,
    bank: Bank,
    /// The BARs, which only a PF has in its header.
    bars: Bars,
}

impl Header {
    /// Returns the header of a function. `first_capability` is the value of the Capabilities
    /// Pointer.
    pub(super) fn new(
        spec: &FunctionSpec,
        role: Role,
        first_capability: u8,
    ) -> Result<Self, Error> {
        let id = &spec.identity;
        if id.class_code >> 24 != 0 {
            return Err(Error::ClassCode(id.class_code));
        }
        let command = match role {
            Role::Physical => COMMAND_PHYSICAL,
            Role::Virtual => COMMAND_BUS_MASTER,
        };
        let mut bank = Bank::new(SIZE)
            .with(
                COMMAND,
                Register::pair(0, STATUS_CAPABILITIES)
                    .writable(in_low(command))
                    .clearable(in_high(STATUS_CLEARABLE)),
            )
            .with(CLASS_REVISION, Register::new(id.class_code << 8 | u32::from(id.revision)))
            .with(SUBSYSTEM, Register::pair(id.subsystem_vendor_id, id.subsystem_id))
            .with(CAPABILITIES, Register::new(u32::from(first_capability)));
        bank = match role {
            Role::Physical => bank
                .with(VENDOR_ID, Register::pair(id.vendor_id, id.device_id))
                .with(CACHE_LINE_SIZE, Register::new(0).writable(0xff))
                .with(INTERRUPT_LINE, Register::new(0).writable(0xff)),
            Role::Virtual => bank.with(VENDOR_ID, Register::pair(0xffff, 0xffff)),
        };
        Ok(Self { role, bank, bars: Bars::new(&spec.bars)? })
    }

    pub(super) fn read(&self, offset: u16) -> u32 {
        match self.implemented_bar(offset) {
            Some(index) => self.bars.read(index, 1),
            None => self.bank.get(offset),
        }
    }

    pub(super) fn write(&mut self, offset: u16, write: Write) {
        match self.implemented_bar(offset) {
            Some(index) => self.bars.write(index, write),
            None => self.bank.write(offset, write),
        }
    }

    pub(super) fn reset(&mut self, kind: Reset) {
        self.bank.reset(kind);
        self.bars.reset();
    }

    /// Returns the BARs; for a VF, what its BARs would be if they were here.
    pub(super) fn bars(&self) -> &Bars {
        &self.bars
    }

    fn implemented_bar(&self, offset: u16) -> Option<usize> {
        bar_index(offset).filter(|_| self.role == Role::Physical)
    }

    /// Returns whether a bit of the Command register is set.
    pub(super) fn command(&self, bit: u16) -> bool {
        low(self.bank.get(COMMAND)) & bit != 0
    }

    pub(super) fn bar(&self, index: usize) -> Option<Bar> {
        if self.role == Role::Virtual {
            return None;
        }
        Some(Bar { address: self.bars.address(index, 1)?, size: self.bars.size(index, 1)? })
    }
}

const COMMAND_PHYSICAL: u16 =
    COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_PARITY | COMMAND_SERR | COMMAND_INTX_DISABLE;

/// Returns the BAR whose register is at `offset`.
pub(crate) fn bar_index(offset: u16) -> Option<usize> {
    (BAR0..BAR5 + 4).contains(&offset).then(|| usize::from((offset - BAR0) / 4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registers::high;
    use crate::test_functions::function_spec;

    #[test]
    fn status_is_cleared_by_ones_and_by_resets() {
        for role in [Role::Physical, Role::Virtual] {
            let mut header = Header::new(&function_spec(), role, 0x40).unwrap();
            let bits = in_high(STATUS_CLEARABLE);
            header.bank.set(COMMAND, bits, u32::MAX);
            header.write(COMMAND, Write::bytes(2, &[0, 0]));
            assert_eq!(high(header.read(COMMAND)), STATUS_CAPABILITIES | STATUS_CLEARABLE);
            header.write(COMMAND, Write::bytes(3, &[0x80]));
            let rest = STATUS_CLEARABLE & !0x8000;
            assert_eq!(high(header.read(COMMAND)), STATUS_CAPABILITIES | rest);
            for reset in [Reset::Flr, Reset::Conventional] {
                header.bank.set(COMMAND, bits, u32::MAX);
                header.reset(reset);
                assert_eq!(high(header.read(COMMAND)), STATUS_CAPABILITIES, "no bit is sticky");
            }
        }
    }
}
