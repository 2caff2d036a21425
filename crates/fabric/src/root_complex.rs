use std::ops::Range;
use std::sync::Arc;

use manifold_pci::RoutingId;

use crate::Endpoint;

/// The memory addresses the host bridge forwards, as firmware tells software (ACPI `_CRS`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryRanges {
    /// Below 4 GiB: for 32-bit and non-prefetchable BARs.
    pub below_4g: Range<u64>,
    /// Above 4 GiB: for 64-bit prefetchable BARs.
    pub above_4g: Range<u64>,
}

/// Bus 0, the root port on it, and the endpoint behind.
pub struct RootComplex {
    endpoint: Arc<dyn Endpoint>,
}

impl RootComplex {
    /// A root complex out of reset: no bus numbers, no windows.
    pub fn new(endpoint: Arc<dyn Endpoint>) -> Self {
        Self { endpoint }
    }

    /// The memory addresses that reach bus 0.
    pub fn memory_ranges(&self) -> MemoryRanges {
        MemoryRanges { below_4g: 0..0, above_4g: 0..0 }
    }

    /// Reads a configuration space at any offset and length; what nobody answers reads all ones.
    pub fn config_read(&self, target: RoutingId, offset: u16, data: &mut [u8]) {
        let _ = (target, offset, &self.endpoint);
        data.fill(0xff);
    }

    /// Writes a configuration space at any offset and length; what nobody claims is dropped.
    pub fn config_write(&self, target: RoutingId, offset: u16, data: &[u8]) {
        let _ = (target, offset, data);
    }

    /// Reads memory at any address and length; what nobody answers reads all ones.
    pub fn mem_read(&self, address: u64, data: &mut [u8]) {
        let _ = address;
        data.fill(0xff);
    }

    /// Writes memory at any address and length; what nobody claims is dropped.
    pub fn mem_write(&self, address: u64, data: &[u8]) {
        let _ = (address, data);
    }
}
