//! Alternative Routing-ID Interpretation (PCIe Base 6.0, section 7.8.8).

use super::{Capability, CapabilityId};
use crate::registers::Bank;
use crate::spec::ari;

/// ARI of the one PF and its VFs. Next Function Number is 0: no PF follows, and VFs are found by
/// First VF Offset and VF Stride instead. There are no function groups.
#[derive(Debug)]
pub(crate) struct AlternativeRoutingId {
    bank: Bank,
}

impl AlternativeRoutingId {
    pub(crate) fn new() -> Self {
        Self { bank: Bank::new(ari::SIZE) }
    }
}

impl Capability for AlternativeRoutingId {
    fn id(&self) -> CapabilityId {
        CapabilityId::Extended { id: ari::ID, version: ari::VERSION }
    }

    super::bank!();
}
