//! This module is the interface to the device at the far end of the link.

use manifold_pci::RoutingId;

/// The type of a configuration request, by which it reaches a device (PCIe Base 6.0, section
/// 7.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigType {
    /// The request is for the device on this link. A function that completes a Type 0 write
    /// captures the request's bus number as its own (section 2.2.6.2).
    Type0,
    /// The request is for a bus beyond the link, one of those that an SR-IOV device's VFs reach
    /// into (section 9.2.1.2).
    Type1,
}

/// The device at the far end of a root port's link: several functions with one configuration
/// space for each function.
///
/// The methods say whether a function claimed the request; an unclaimed read leaves `data` alone.
/// They are called without a lock held and may be called from several threads at once.
pub trait Endpoint: Send + Sync {
    /// Reads 1 to 4 bytes within one dword of a configuration space.
    fn config_read(
        &self,
        kind: ConfigType,
        target: RoutingId,
        offset: u16,
        data: &mut [u8],
    ) -> bool;

    /// Writes 1 to 4 bytes within one dword of a configuration space.
    fn config_write(&self, kind: ConfigType, target: RoutingId, offset: u16, data: &[u8]) -> bool;

    /// Reads memory. The range crosses no 4 KiB boundary, so no BAR's end.
    fn mem_read(&self, address: u64, data: &mut [u8]) -> bool;

    /// Writes memory. The range crosses no 4 KiB boundary, so no BAR's end.
    fn mem_write(&self, address: u64, data: &[u8]) -> bool;

    /// Resets every function and removes all VFs, because the link went into hot reset (PCIe Base
    /// 6.0, section 6.6.1).
    fn hot_reset(&self);
}
