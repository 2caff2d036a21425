//! A backend is an adapter, in software or not, that the server can serve.

use manifold_pci::{CONFIG_SIZE, FunctionId};

use crate::problem::Problem;
use crate::types::{Adapter, Function, VfsDisabled, View, Worker};

/// An adapter as the API sees it.
///
/// The software adapter is one (`Software`); SR-IOV hardware behind sysfs can be
/// another. Calls may block (enabling VFs waits as long as the PCIe specification demands), so the
/// server makes them away from its asynchronous tasks.
pub trait Backend: Send + Sync + 'static {
    /// Describes the adapter as a whole.
    fn adapter(&self) -> Adapter;

    /// Lists the threads that move frames; empty for an adapter that has none.
    fn workers(&self) -> Vec<Worker>;

    /// Lists the functions that exist now: the PF, then the VFs by index.
    fn functions(&self) -> Vec<Function>;

    /// Describes one function. `None` says that the adapter has no such function now.
    fn function(&self, id: FunctionId) -> Option<Function>;

    /// Returns a function's configuration space in `view`. `None` says that there is no such
    /// function now.
    fn config_space(&self, id: FunctionId, view: View) -> Option<Box<[u8; CONFIG_SIZE]>>;

    /// Enables `count` VFs through the PF.
    ///
    /// # Errors
    /// When `count` is out of range, VFs are enabled already, or the PF refused.
    fn enable_vfs(&self, count: u32) -> Result<(), Problem>;

    /// Disables all VFs, whoever uses them. With none enabled it does nothing.
    ///
    /// # Errors
    /// When the PF refused.
    fn disable_vfs(&self) -> Result<VfsDisabled, Problem>;
}
