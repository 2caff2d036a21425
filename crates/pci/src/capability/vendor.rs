//! This module makes the vendor-specific capability (PCIe Base 6.0, section 7.9.4).

use super::structure::Structure;
use crate::function::VendorCapability;
use crate::registers::Register;
use crate::spec::vendor;

/// Returns the capability of a spec that was found valid: bytes whose meaning the device model
/// knows.
pub(crate) fn vendor_specific(spec: &VendorCapability) -> Structure {
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
    let structure = Structure::standard(vendor::ID, body.len() as u16);
    let registers = body.chunks(4).zip(writable.chunks(4)).zip((0..).step_by(4));
    registers.fold(structure, |structure, ((value, mask), offset)| {
        structure.with(offset, Register::new(dword(value)).writable(dword(mask)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::structure::Capability;
    use crate::registers::Write;

    #[test]
    fn bytes_and_masks_land_after_id_and_next() {
        let spec = VendorCapability { body: vec![5, 0x11, 0x22], writable: vec![0, 0, 0xf0] };
        let mut vendor = vendor_specific(&spec);
        assert_eq!(vendor.size(), 8);
        assert_eq!(vendor.read(0), 0x1105_0000);
        assert_eq!(vendor.read(4), 0x22);
        vendor.write(0, Write::dword(u32::MAX));
        vendor.write(4, Write::dword(u32::MAX));
        assert_eq!((vendor.read(0), vendor.read(4)), (0x1105_0000, 0xf2));
    }
}
