//! The interface between a function's PCIe side and the device behind it.

use crate::FunctionSpec;

/// A device model: what is behind a function's BARs and vendor-specific capabilities.
///
/// The PCIe core knows devices through this trait alone. Whoever owns the function routes accesses
/// here and acts on the [`Events`](crate::Events) of its configuration space; register state of the
/// standard (BARs, MSI-X table, power state) never reaches the model.
pub trait DeviceModel: Send {
    /// Returns the facts that configuration space is built from. They never change in a model's life.
    fn spec(&self) -> FunctionSpec;

    /// Reads from a BAR. Ranges of the MSI-X table and pending bit array never get here. Bytes the
    /// device does not define read as zero.
    fn read(&mut self, bar: u8, offset: u64, data: &mut [u8]);

    /// Writes to a BAR. Ranges of the MSI-X table and pending bit array never get here.
    fn write(&mut self, bar: u8, offset: u64, data: &[u8]);

    /// Offers a read of a vendor-specific capability (an index into
    /// [`FunctionSpec::vendor`]; `offset` counts from its ID byte). `true` if the model filled
    /// `data`; otherwise the configuration space answers.
    fn config_read(&mut self, _capability: usize, _offset: u8, _data: &mut [u8]) -> bool {
        false
    }

    /// Tells of a write to a vendor-specific capability, after the configuration space has stored
    /// what is writable. `offset` counts from the capability's ID byte.
    fn config_write(&mut self, _capability: usize, _offset: u8, _data: &[u8]) {}

    /// Returns to the state after power-on (FLR, VF Enable cleared, VMM gone). When it returns, all
    /// queues are stopped and nothing touches the function's DMA domain any more.
    fn reset(&mut self);

    /// Tells whether the function may send memory requests from now on.
    fn bus_master_changed(&mut self, _on: bool) {}
}
