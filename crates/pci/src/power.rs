//! This module has the device power states.

/// A device power state (PCIe Base 6.0, section 5.3.1). D1 and D2 are not supported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PowerState {
    /// The function is fully on.
    #[default]
    D0,
    /// The function answers configuration requests and nothing else. It keeps its registers.
    D3Hot,
}
