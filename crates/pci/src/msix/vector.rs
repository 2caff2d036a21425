//! This module is one vector with its table entry and pending bit, which decides when a message is
//! sent.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::registers::Write;
use crate::spec::msix as spec;

/// The receiver of messages, such as an eventfd of a VMM or a write to memory.
pub trait MsiSink: Send + Sync {
    /// Takes one message: the address and the data of the vector's table entry, which mean nothing
    /// under host control.
    ///
    /// It is called with the vector locked: an implementation must not block, and must not call
    /// into the function's MSI-X.
    fn deliver(&self, address: u64, data: u32);
}

/// One MSI-X vector: a cheap handle for whoever raises it.
///
/// A vector obeys the guest, through MSI-X Enable, Function Mask and the mask bit of its table
/// entry, until a host takes control of it. A VMM that gets a function passed through never lets
/// the guest near the real table; like vfio-pci it arms and masks vectors by
/// [`host_unmask`](Self::host_unmask) and [`host_mask`](Self::host_mask) instead.
#[derive(Clone)]
pub struct Vector(pub(super) Arc<Cell>);

impl Vector {
    /// Sends the message, or leaves it pending if the vector is masked, has no sink, or Bus Master
    /// Enable is clear. Nothing happens with MSI-X disabled, unless under host control.
    ///
    /// Messages raised while one is pending become one. Made for the end of a burst: an uncontended
    /// lock and the sink's call.
    pub fn raise(&self) {
        let mut state = self.0.state.lock();
        if state.signals() {
            state.pending = true;
            state.settle();
        }
    }

    /// Sets where messages go from now on, starting with a pending one. When this returns, the sink
    /// before is not used any more.
    pub fn set_sink(&self, sink: Option<Arc<dyn MsiSink>>) {
        self.0.change(|state| state.sink = sink);
    }

    /// Takes the vector under host control and masks it.
    pub fn host_mask(&self) {
        self.0.change(|state| state.control = Control::Host { masked: true });
    }

    /// Takes the vector under host control and unmasks it; a pending message is sent.
    pub fn host_unmask(&self) {
        self.0.change(|state| state.control = Control::Host { masked: false });
    }

    /// Ends host control: MSI-X Enable, Function Mask and the table entry count again.
    pub fn host_release(&self) {
        self.0.change(|state| state.control = Control::Guest);
    }

    /// Returns whether a message is pending: the vector's bit in the pending bit array.
    pub fn pending(&self) -> bool {
        self.0.pending()
    }
}

impl fmt::Debug for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.lock();
        f.debug_struct("Vector")
            .field("address", &state.address)
            .field("data", &state.data)
            .field("masked", &state.masked)
            .field("pending", &state.pending)
            .field("control", &state.control)
            .field("sink", &state.sink.is_some())
            .finish()
    }
}

/// The state of a function that holds for all its vectors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate {
    pub(super) enabled: bool,
    pub(super) masked: bool,
    pub(super) bus_master: bool,
}

/// The state of a vector, apart from its neighbours' so that workers do not share cache lines.
#[repr(align(64))]
pub(super) struct Cell {
    state: Mutex<State>,
}

struct State {
    gate: Gate,
    control: Control,
    address: u64,
    data: u32,
    /// Value of the mask bit of the table entry.
    masked: bool,
    pending: bool,
    sink: Option<Arc<dyn MsiSink>>,
}

/// The side that decides whether the vector may send.
#[derive(Clone, Copy, Debug)]
enum Control {
    /// The function's own registers decide.
    Guest,
    /// A host that passes the function through decides.
    Host { masked: bool },
}

impl State {
    /// Returns whether an interrupt of this vector has any effect.
    fn signals(&self) -> bool {
        match self.control {
            Control::Guest => self.gate.enabled,
            Control::Host { .. } => true,
        }
    }

    fn masked(&self) -> bool {
        match self.control {
            Control::Guest => self.masked || self.gate.masked,
            Control::Host { masked } => masked,
        }
    }

    /// Returns one of the entry's four dwords (sections 7.7.2.5 to 7.7.2.8).
    fn register(&self, register: u8) -> u32 {
        match register {
            0 => self.address as u32,
            1 => (self.address >> 32) as u32,
            2 => self.data,
            _ => u32::from(self.masked) * spec::VECTOR_MASKED,
        }
    }

    /// Sends what is pending if nothing stands against it any more.
    fn settle(&mut self) {
        if !self.signals() {
            // A message of a disabled function is not for whoever enables it next.
            self.pending = false;
        }
        if !self.pending || self.masked() || !self.gate.bus_master {
            return;
        }
        if let Some(sink) = &self.sink {
            self.pending = false;
            sink.deliver(self.address, self.data);
        }
    }
}

impl Cell {
    pub(super) fn new(gate: Gate) -> Self {
        let state = State {
            gate,
            control: Control::Guest,
            address: 0,
            data: 0,
            masked: true,
            pending: false,
            sink: None,
        };
        Self { state: Mutex::new(state) }
    }

    pub(super) fn set_gate(&self, gate: Gate) {
        self.change(|state| state.gate = gate);
    }

    pub(super) fn reset(&self) {
        let mut state = self.state.lock();
        state.address = 0;
        state.data = 0;
        state.masked = true;
        state.pending = false;
    }

    pub(super) fn pending(&self) -> bool {
        self.state.lock().pending
    }

    pub(super) fn table_read(&self, register: u8) -> u32 {
        self.state.lock().register(register)
    }

    pub(super) fn table_write(&self, register: u8, write: Write) {
        self.change(|state| {
            let value = write.over(state.register(register));
            let (low, high) = (state.address & 0xffff_ffff, state.address >> 32 << 32);
            match register {
                // The message is a dword: the two lowest address bits are zero.
                0 => state.address = high | u64::from(value & !0b11),
                1 => state.address = u64::from(value) << 32 | low,
                2 => state.data = value,
                _ => state.masked = value & spec::VECTOR_MASKED != 0,
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        state.settle();
    }
}
