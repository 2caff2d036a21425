//! Device Serial Number (PCIe Base 6.0, section 7.9.3).

use super::{Capability, CapabilityId};
use crate::registers::{Bank, Register};
use crate::spec::serial;

/// An EUI-64 that names the adapter.
#[derive(Debug)]
pub(crate) struct SerialNumber {
    bank: Bank,
}

impl SerialNumber {
    pub(crate) fn new(eui64: u64) -> Self {
        let bank = Bank::new(serial::SIZE)
            .with(serial::LOWER, Register::new(eui64 as u32))
            .with(serial::UPPER, Register::new((eui64 >> 32) as u32));
        Self { bank }
    }
}

impl Capability for SerialNumber {
    fn id(&self) -> CapabilityId {
        CapabilityId::Extended { id: serial::ID, version: serial::VERSION }
    }

    super::bank!();
}
