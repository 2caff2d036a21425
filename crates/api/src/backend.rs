//! What the server serves: an adapter, whatever it is made of.

use manifold_pci::{CONFIG_SIZE, FunctionId};

use crate::problem::Problem;
use crate::types::{Adapter, Function, VfsDisabled, View, Worker};

/// An adapter as the API sees it.
///
/// The software adapter is one (`Software`); SR-IOV hardware behind sysfs can be
/// another. Calls may block (enabling VFs waits as long as the PCIe specification demands), so the
/// server makes them away from its asynchronous tasks.
pub trait Backend: Send + Sync + 'static {
    /// The adapter as a whole.
    fn adapter(&self) -> Adapter;

    /// The threads that move frames; none where the adapter has no such thing.
    fn workers(&self) -> Vec<Worker>;

    /// The functions there are now: the PF, then the VFs by index.
    fn functions(&self) -> Vec<Function>;

    /// One function, or `None` where the adapter has no such function now.
    fn function(&self, id: FunctionId) -> Option<Function>;

    /// A function's configuration space in `view`, or `None` where there is no such function now.
    fn config_space(&self, id: FunctionId, view: View) -> Option<Box<[u8; CONFIG_SIZE]>>;

    /// Enables `count` VFs through the PF.
    ///
    /// # Errors
    /// [`Problem`] where `count` is out of range, VFs are enabled already, or the PF refused.
    fn enable_vfs(&self, count: u32) -> Result<(), Problem>;

    /// Disables all VFs, whoever uses them; with none enabled, does nothing.
    ///
    /// # Errors
    /// [`Problem`] where the PF refused.
    fn disable_vfs(&self) -> Result<VfsDisabled, Problem>;
}
