//! This module is a function through the eyes of software: registers by offset, capabilities by
//! walking the lists.

use manifold_pci::spec::{header, list};
use manifold_pci::{CONFIG_SIZE, RoutingId};

use crate::error::Error;
use crate::root_complex::RootComplex;

/// Number of capabilities that fit a 256-byte space; more hops than this are a loop.
const MAX_CAPABILITIES: usize = 48;
/// Number of extended capabilities that fit configuration space; more hops than this are a loop.
const MAX_EXTENDED: usize = 960;

/// A routing ID whose registers software reads and writes. No function need be there.
#[derive(Clone, Copy)]
pub(super) struct Function<'a> {
    root: &'a RootComplex,
    pub(super) id: RoutingId,
}

impl<'a> Function<'a> {
    pub(super) fn new(root: &'a RootComplex, id: RoutingId) -> Self {
        Self { root, id }
    }

    pub(super) fn read_u8(self, offset: u16) -> u8 {
        u8::from_le_bytes(self.read(offset))
    }

    pub(super) fn read_u16(self, offset: u16) -> u16 {
        u16::from_le_bytes(self.read(offset))
    }

    pub(super) fn read_u32(self, offset: u16) -> u32 {
        u32::from_le_bytes(self.read(offset))
    }

    fn read<const N: usize>(self, offset: u16) -> [u8; N] {
        let mut data = [0; N];
        self.root.config_read(self.id, offset, &mut data);
        data
    }

    pub(super) fn write_u8(self, offset: u16, value: u8) {
        self.root.config_write(self.id, offset, &[value]);
    }

    pub(super) fn write_u16(self, offset: u16, value: u16) {
        self.root.config_write(self.id, offset, &value.to_le_bytes());
    }

    pub(super) fn write_u32(self, offset: u16, value: u32) {
        self.root.config_write(self.id, offset, &value.to_le_bytes());
    }

    /// Writes a register and makes sure that it took the value.
    pub(super) fn write_u16_checked(
        self,
        offset: u16,
        value: u16,
        register: &'static str,
    ) -> Result<(), Error> {
        self.write_u16(offset, value);
        match self.read_u16(offset) {
            read if read == value => Ok(()),
            read => Err(self.not_taken(register, value.into(), read.into())),
        }
    }

    /// Writes a register and makes sure that it took the value.
    pub(super) fn write_u32_checked(
        self,
        offset: u16,
        value: u32,
        register: &'static str,
    ) -> Result<(), Error> {
        self.write_u32(offset, value);
        match self.read_u32(offset) {
            read if read == value => Ok(()),
            read => Err(self.not_taken(register, value, read)),
        }
    }

    fn not_taken(self, register: &'static str, written: u32, read: u32) -> Error {
        Error::NotTaken { routing_id: self.id, register, written, read }
    }

    /// Returns whether a function answers here that has a Vendor ID; a VF does not (section 9.3.4).
    pub(super) fn exists(self) -> bool {
        self.read_u16(header::VENDOR_ID) != 0xffff
    }

    /// Returns whether anything answers here, a VF included: all ones are no header type.
    pub(super) fn answers(self) -> bool {
        self.read_u8(header::HEADER_TYPE) != 0xff
    }

    /// Returns the layout of the header.
    pub(super) fn header_type(self) -> u8 {
        self.read_u8(header::HEADER_TYPE) & header::HEADER_TYPE_LAYOUT
    }

    /// Returns the offset of the capability `id`, if the function has it.
    pub(super) fn find_capability(self, id: u8) -> Result<Option<u16>, Error> {
        if self.read_u16(header::STATUS) & header::STATUS_CAPABILITIES == 0 {
            return Ok(None);
        }
        let mut pointer = header::CAPABILITIES;
        for _ in 0..=MAX_CAPABILITIES {
            // The two low bits are reserved (section 7.5.1.1.11).
            let offset = u16::from(self.read_u8(pointer) & !3);
            if offset < header::SIZE {
                return Ok(None);
            }
            if self.read_u8(offset) == id {
                return Ok(Some(offset));
            }
            pointer = offset + list::NEXT;
        }
        Err(Error::CapabilityLoop(self.id))
    }

    /// Returns the offset of the capability `id`.
    ///
    /// # Errors
    /// [`Error::NoCapability`] where the function lacks it.
    pub(super) fn capability(self, id: u8, name: &'static str) -> Result<u16, Error> {
        self.find_capability(id)?.ok_or(Error::NoCapability { routing_id: self.id, name })
    }

    /// Returns the offset of the extended capability `id`, if the function has it.
    pub(super) fn find_extended(self, id: u16) -> Result<Option<u16>, Error> {
        let mut offset = list::EXTENDED;
        for _ in 0..=MAX_EXTENDED {
            // Bits 15:0 are the ID, 19:16 the version, 31:20 the next pointer (section 7.6.3).
            let value = self.read_u32(offset);
            if matches!(value, 0 | u32::MAX) {
                return Ok(None);
            }
            if value as u16 == id {
                return Ok(Some(offset));
            }
            offset = (value >> list::EXTENDED_NEXT_SHIFT) as u16 & !3;
            if !(list::EXTENDED..CONFIG_SIZE as u16).contains(&offset) {
                return Ok(None);
            }
        }
        Err(Error::CapabilityLoop(self.id))
    }
}
