//! This module makes the Access Control Services capability (PCIe Base 6.0, section 7.7.11).

use super::structure::Structure;
use crate::spec::acs;

/// Returns the ACS capability of a function that sends no request to another function of its
/// device. Frames between functions pass through the embedded switch, never as TLPs. With nothing
/// to control all bits are clear, by which software knows that the function is isolated (section
/// 6.12.1.2).
pub(crate) fn access_control() -> Structure {
    Structure::extended(acs::ID, acs::VERSION, acs::SIZE)
}
