//! A function as Linux's vfio-pci presents it to a VMM.

use crate::{CONFIG_SIZE, ConfigSpace, Events, FunctionSpec};

/// How Linux's vfio-pci presents a function to a VMM.
#[derive(Debug)]
pub struct Passthrough;

impl Passthrough {
    /// The view of a function whose device model has this spec.
    pub fn new(space: &ConfigSpace, spec: &FunctionSpec) -> Self {
        let _ = (space, spec);
        Self
    }

    /// Reads as [`ConfigSpace::read`] does.
    pub fn read(&self, space: &ConfigSpace, offset: u16, data: &mut [u8]) {
        space.read(offset, data);
    }

    /// Writes as [`ConfigSpace::write`] does; what Linux lets through reaches the function.
    pub fn write(&mut self, space: &mut ConfigSpace, offset: u16, data: &[u8]) -> Events {
        space.write(offset, data)
    }

    /// Resets the function as VFIO_DEVICE_RESET does: FLR, then the registers that Linux saves and
    /// restores around it.
    pub fn reset(&mut self, space: &mut ConfigSpace) -> Events {
        space.reset(crate::Reset::Flr)
    }

    /// Memory Space Enable as the VMM set it.
    pub fn memory_enable(&self) -> bool {
        false
    }

    /// The address the VMM put in the BAR of this index, if there is one.
    pub fn bar_address(&self, index: usize) -> Option<u64> {
        let _ = index;
        None
    }

    /// The whole space as it reads now.
    pub fn to_bytes(&self, space: &ConfigSpace) -> Box<[u8; CONFIG_SIZE]> {
        let mut bytes = Box::new([0; CONFIG_SIZE]);
        self.read(space, 0, bytes.as_mut_slice());
        bytes
    }
}
