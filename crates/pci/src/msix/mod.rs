//! This module has MSI-X vectors with their table and pending bits (PCIe Base 6.0, sections 6.1.4
//! and 7.7.2).
//!
//! ```text
//!   guest or host                          worker thread
//!   table_write, pba_read, set_control     Vector::raise
//!          │                                     │
//!          ▼                                     ▼
//!   ┌ Msix ──────────────────────────────────────────┐
//!   │ vector 0: address, data, mask, pending │ sink ─┼──▶ MsiSink::deliver
//!   │ vector 1: ...                                  │     (eventfd, memory write)
//!   └────────────────────────────────────────────────┘
//! ```
//!
//! Each vector has a lock and a cache line of its own, and carries a copy of what holds for the
//! whole function (Enable, Function Mask, Bus Master Enable). So raising takes one lock that nobody
//! else wants in the common case, and still no message slips past a mask: when a call that masks
//! returns, no message is on its way.

mod vector;

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::Error;
use crate::registers::Write;
use crate::spec::msix as spec;
use vector::{Cell, Gate};
pub use vector::{MsiSink, Vector};

/// The MSI-X table and pending bits of a function, shared by register access and whoever raises
/// interrupts. Clones are handles to the same vectors.
#[derive(Clone)]
pub struct Msix(Arc<Shared>);

struct Shared {
    /// State of the whole function. It is locked before any vector, so that two changes cannot
    /// reach the vectors in different orders.
    gate: Mutex<Gate>,
    cells: Box<[Arc<Cell>]>,
}

impl Msix {
    /// Returns `vectors` vectors, all masked, with MSI-X disabled.
    ///
    /// # Errors
    /// [`Error::MsixVectors`] unless there are 1 to 2048.
    pub fn new(vectors: u16) -> Result<Self, Error> {
        if vectors == 0 || vectors > spec::MAX_VECTORS {
            return Err(Error::MsixVectors(vectors));
        }
        let gate = Gate { enabled: false, masked: false, bus_master: true };
        let cells = (0..vectors).map(|_| Arc::new(Cell::new(gate))).collect();
        Ok(Self(Arc::new(Shared { gate: Mutex::new(gate), cells })))
    }

    /// Returns the number of vectors, 1 to 2048.
    pub fn vectors(&self) -> u16 {
        self.0.cells.len() as u16
    }

    /// Returns the vector of this number, for whoever raises it.
    pub fn vector(&self, number: u16) -> Option<Vector> {
        self.0.cells.get(usize::from(number)).cloned().map(Vector)
    }

    /// Reads any bytes of the table, `offset` counted from its start. Bytes outside read as zero.
    pub fn table_read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        for (cell, piece) in self.pieces(offset, data.len()) {
            let value = cell.table_read(piece.register).to_le_bytes();
            if let (Some(place), Some(value)) =
                (data.get_mut(piece.range), value.get(piece.first..))
            {
                for (place, byte) in place.iter_mut().zip(value) {
                    *place = *byte;
                }
            }
        }
    }

    /// Writes any bytes of the table, `offset` counted from its start. A vector that this unmasks
    /// with a message pending sends it.
    pub fn table_write(&self, offset: u64, data: &[u8]) {
        for (cell, piece) in self.pieces(offset, data.len()) {
            if let Some(bytes) = data.get(piece.range) {
                cell.table_write(piece.register, Write::bytes(piece.first, bytes));
            }
        }
    }

    /// Reads any bytes of the pending bit array, `offset` counted from its start. Bytes outside
    /// read as zero. (Writes to it have no effect.)
    pub fn pba_read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Some(first) = offset.checked_mul(8).and_then(|bit| usize::try_from(bit).ok()) else {
            return;
        };
        let Some(cells) = self.0.cells.get(first..) else { return };
        for (byte, cells) in data.iter_mut().zip(cells.chunks(8)) {
            for (bit, cell) in cells.iter().enumerate() {
                *byte |= u8::from(cell.pending()) << bit;
            }
        }
    }

    /// Sets MSI-X Enable and Function Mask, as Message Control has them.
    /// [`ConfigSpace`](crate::ConfigSpace) does this for its own vectors.
    pub fn set_control(&self, enabled: bool, masked: bool) {
        self.change(|gate| {
            gate.enabled = enabled;
            gate.masked = masked;
        });
    }

    /// Sets Bus Master Enable, without which no message is sent. It is set to begin with.
    /// [`ConfigSpace`](crate::ConfigSpace) does this for its own vectors.
    pub fn set_bus_master(&self, on: bool) {
        self.change(|gate| gate.bus_master = on);
    }

    /// Resets the vectors: table entries as after power-on (masked, zero), nothing pending. Sinks
    /// and host control belong to the host and stay. [`ConfigSpace`](crate::ConfigSpace) does this
    /// for its own vectors.
    pub fn reset(&self) {
        for cell in &self.0.cells {
            cell.reset();
        }
    }

    fn change(&self, change: impl FnOnce(&mut Gate)) {
        let mut gate = self.0.gate.lock();
        change(&mut gate);
        for cell in &self.0.cells {
            cell.set_gate(*gate);
        }
    }

    /// Returns the parts of table entries that an access touches.
    fn pieces(&self, offset: u64, len: usize) -> impl Iterator<Item = (&Arc<Cell>, Piece)> {
        let table = self.0.cells.len() as u64 * spec::ENTRY_SIZE;
        let mut at = offset;
        let end = offset.saturating_add(len as u64).min(table);
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let stop = ((at & !3) + 4).min(end);
            let cell = self.0.cells.get((at / spec::ENTRY_SIZE) as usize)?;
            let piece = Piece {
                register: (at % spec::ENTRY_SIZE / 4) as u8,
                first: (at % 4) as usize,
                range: (at - offset) as usize..(stop - offset) as usize,
            };
            at = stop;
            Some((cell, piece))
        })
    }
}

/// One dword of a table entry as an access touches it.
struct Piece {
    /// Index of the dword in its entry, 0 to 3.
    register: u8,
    /// The first byte accessed, counted from the dword's start.
    first: usize,
    /// Place of the dword's bytes in the access.
    range: std::ops::Range<usize>,
}

impl fmt::Debug for Msix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Msix").field("vectors", &self.vectors()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
