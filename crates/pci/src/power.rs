//! Power states.

/// A device power state (PCIe Base 6.0, section 5.3.1). D1 and D2 are not supported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PowerState {
    /// Fully on.
    #[default]
    D0,
    /// Answers configuration requests and nothing else; keeps its registers.
    D3Hot,
}
