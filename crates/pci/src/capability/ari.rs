//! This module makes the Alternative Routing-ID Interpretation capability (PCIe Base 6.0, section
//! 7.8.8).

use super::structure::Structure;
use crate::spec::ari;

/// Returns the ARI capability of the PF and of each VF. Next Function Number is 0: no PF follows,
/// and VFs are found by First VF Offset and VF Stride instead. There are no function groups.
pub(crate) fn alternative_routing_id() -> Structure {
    Structure::extended(ari::ID, ari::VERSION, ari::SIZE)
}
