//! This module keeps buffers, their order, and which of them the device has: what both kinds of
//! ring share.

use manifold_guest::{Error, Result};

/// The buffer of one descriptor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buffer {
    pub(crate) iova: u64,
    pub(crate) len: u32,
    pub(crate) writable: bool,
}

/// Buffer IDs in the order in which they are to be posted. There is one entry per buffer, so that
/// the n-th buffer that is reclaimed is the n-th that is posted after the first round.
#[derive(Debug)]
pub(super) struct Order(Box<[u16]>);

impl Order {
    pub(super) fn new(size: u16) -> Self {
        Self((0..size).collect())
    }

    #[inline]
    pub(super) fn at(&self, position: u16) -> u16 {
        self.0.get(usize::from(position)).copied().unwrap_or_default()
    }

    #[inline]
    pub(super) fn set(&mut self, position: u16, id: u16) {
        if let Some(place) = self.0.get_mut(usize::from(position)) {
            *place = id;
        }
    }
}

/// Marks the buffers that the device has. Only rings that check every entry pay for this.
#[derive(Debug)]
pub(super) struct InFlight(Box<[bool]>);

impl InFlight {
    pub(super) fn new(size: u16) -> Self {
        Self(vec![false; size.into()].into_boxed_slice())
    }

    pub(super) fn set(&mut self, id: u16) {
        if let Some(in_flight) = self.0.get_mut(usize::from(id)) {
            *in_flight = true;
        }
    }

    pub(super) fn clear(&mut self, id: u32) -> Result<u16> {
        match self.0.get_mut(id as usize) {
            Some(in_flight) if *in_flight => {
                *in_flight = false;
                Ok(id as u16)
            }
            _ => {
                Err(Error::Device(format!("buffer {id} came back, which the device does not have")))
            }
        }
    }
}

#[cold]
pub(super) fn out_of_order(id: u32, expected: u16) -> Error {
    Error::Device(format!(
        "buffer {id} came back where {expected} was due: this device keeps no order; \
         run with assume_order off, and without in_order"
    ))
}
