//! MSI-X.

use std::sync::Arc;

use crate::Error;

/// Where a message goes: a doorbell of the host, an eventfd, a memory write.
pub trait MsiSink: Send + Sync {
    /// Delivers one message. Called with the vector locked: it must not block, nor touch the same
    /// vector.
    fn deliver(&self, address: u64, data: u32);
}

/// A function's MSI-X table and pending bits, shared by register access and whoever raises
/// interrupts. Clones are handles to the same vectors.
#[derive(Clone, Debug)]
pub struct Msix;

impl Msix {
    /// So many vectors (1 to 2048), all masked.
    pub fn new(vectors: u16) -> Result<Self, Error> {
        let _ = vectors;
        Ok(Self)
    }

    /// Number of vectors.
    pub fn vectors(&self) -> u16 {
        0
    }

    /// Reads the table; `offset` in bytes from its start. Bytes outside read as zero.
    pub fn table_read(&self, offset: u64, data: &mut [u8]) {
        let _ = (offset, data);
    }

    /// Writes the table; a vector unmasked with an interrupt pending delivers it.
    pub fn table_write(&self, offset: u64, data: &[u8]) {
        let _ = (offset, data);
    }

    /// Reads the pending bit array; `offset` in bytes from its start.
    pub fn pba_read(&self, offset: u64, data: &mut [u8]) {
        let _ = (offset, data);
    }

    /// MSI-X Enable and Function Mask. A [`ConfigSpace`](crate::ConfigSpace) does this for its own.
    pub fn set_control(&self, enabled: bool, masked: bool) {
        let _ = (enabled, masked);
    }

    /// Whether the function may send messages at all (Bus Master Enable). True to begin with; a
    /// [`ConfigSpace`](crate::ConfigSpace) does this for its own.
    pub fn set_bus_master(&self, on: bool) {
        let _ = on;
    }

    /// Table and pending bits as after power-on; sinks and host control stay.
    pub fn reset(&self) {}

    /// The vector of this number.
    pub fn vector(&self, number: u16) -> Option<Vector> {
        let _ = number;
        None
    }
}

/// One MSI-X vector: a cheap handle for whoever raises it.
#[derive(Clone)]
pub struct Vector(Arc<()>);

impl Vector {
    /// Sends the message, or leaves it pending while the vector is masked or may not send. Without
    /// MSI-X enabled (and not under host control) nothing happens.
    pub fn raise(&self) {
        let _ = &self.0;
    }

    /// Where messages go from now on. On return the previous sink is not in use any more.
    pub fn set_sink(&self, sink: Option<Arc<dyn MsiSink>>) {
        let _ = sink;
    }

    /// Takes the vector under host control, as VFIO_DEVICE_SET_IRQS does, and masks it. MSI-X
    /// Enable, Function Mask and the table's mask bit do not apply until [`Self::host_release`].
    pub fn host_mask(&self) {}

    /// Takes the vector under host control and unmasks it, delivering what is pending.
    pub fn host_unmask(&self) {}

    /// Gives the vector back to the table.
    pub fn host_release(&self) {}
}
