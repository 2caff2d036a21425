//! Access Control Services (PCIe Base 6.0, section 7.7.11).

use super::{Capability, CapabilityId};
use crate::registers::Bank;
use crate::spec::acs;

/// ACS of a function that sends no request to another function of its device: frames between
/// functions pass through the embedded switch, never as TLPs. With nothing to control all bits are
/// clear, by which software knows that the function is isolated (section 6.12.1.2).
#[derive(Debug)]
pub(crate) struct AccessControl {
    bank: Bank,
}

impl AccessControl {
    pub(crate) fn new() -> Self {
        Self { bank: Bank::new(acs::SIZE) }
    }
}

impl Capability for AccessControl {
    fn id(&self) -> CapabilityId {
        CapabilityId::Extended { id: acs::ID, version: acs::VERSION }
    }

    super::bank!();
}
