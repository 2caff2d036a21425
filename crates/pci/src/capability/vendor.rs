//! Vendor-specific capability (PCIe Base 6.0, section 7.9.4).

use super::{Capability, CapabilityId};
use crate::VendorCapability;
use crate::registers::{Bank, Register};
use crate::spec::vendor;

/// Bytes whose meaning the device model knows.
#[derive(Debug)]
pub(crate) struct Vendor {
    bank: Bank,
}

impl Vendor {
    /// From a spec that was found valid.
    pub(crate) fn new(spec: &VendorCapability) -> Self {
        // The body starts after ID and next pointer, in the middle of the first dword.
        let padded = |bytes: &[u8]| [&[0; vendor::LENGTH as usize], bytes].concat();
        let (body, writable) = (padded(&spec.body), padded(&spec.writable));
        let dword = |bytes: &[u8]| {
            let mut dword = [0; 4];
            for (place, byte) in dword.iter_mut().zip(bytes) {
                *place = *byte;
            }
            u32::from_le_bytes(dword)
        };
        let mut bank = Bank::new(body.len() as u16);
        for (index, (value, mask)) in body.chunks(4).zip(writable.chunks(4)).enumerate() {
            let register = Register::new(dword(value)).writable(dword(mask));
            bank = bank.with(index as u16 * 4, register);
        }
        Self { bank }
    }
}

impl Capability for Vendor {
    fn id(&self) -> CapabilityId {
        CapabilityId::Standard(vendor::ID)
    }

    super::bank!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registers::Write;

    #[test]
    fn bytes_and_masks_land_after_id_and_next() {
        let spec = VendorCapability { body: vec![5, 0x11, 0x22], writable: vec![0, 0, 0xf0] };
        let mut vendor = Vendor::new(&spec);
        assert_eq!(vendor.bank.size(), 8);
        assert_eq!(vendor.read(0), 0x1105_0000);
        assert_eq!(vendor.read(4), 0x22);
        vendor.write(0, Write::bytes(0, &[0xff; 4]));
        vendor.write(4, Write::bytes(0, &[0xff; 4]));
        assert_eq!((vendor.read(0), vendor.read(4)), (0x1105_0000, 0xf2));
    }
}
