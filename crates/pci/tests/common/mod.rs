//! This module makes the function that the tests and fuzz targets of the PCIe crates work on.

#![allow(dead_code, reason = "not every test needs all of it")]

use manifold_pci::spec::sriov::REQUIRED_PAGE_SIZES;
use manifold_pci::spec::{header, list};
use manifold_pci::{
    BarSpec, ConfigSpace, FunctionSpec, Identity, MsixSpec, SriovSpec, VendorCapability,
};

/// Returns a network function with 64-bit BARs, ten vectors, and the five vendor-specific
/// capabilities of virtio 1.3 (section 4.1.4). The last of them can be written.
pub(crate) fn function_spec() -> FunctionSpec {
    let bar = Some(BarSpec { size: 0x4000, width64: true, prefetchable: true });
    let virtio = |kind: u8, bar: u8, offset: u32, length: u32, more: &[u8]| {
        let mut body = vec![16 + more.len() as u8, kind, bar, 0, 0, 0];
        body.extend(offset.to_le_bytes());
        body.extend(length.to_le_bytes());
        body.extend(more);
        let mut writable = vec![if kind == 5 { 0xff } else { 0 }; body.len()];
        writable[..2].fill(0);
        VendorCapability { writable, body }
    };
    FunctionSpec {
        identity: Identity {
            vendor_id: 0x1af4,
            device_id: 0x1041,
            revision: 1,
            class_code: 0x02_0000,
            subsystem_vendor_id: 0x1af4,
            subsystem_id: 0x1100,
        },
        bars: [bar, None, bar, None, None, None],
        msix: MsixSpec {
            vectors: 10,
            table_bar: 2,
            table_offset: 0,
            pba_bar: 2,
            pba_offset: 0x2000,
        },
        vendor: vec![
            virtio(1, 0, 0, 0x40, &[]),
            virtio(2, 0, 0x1000, 0x400, &4_u32.to_le_bytes()),
            virtio(3, 0, 0x2000, 1, &[]),
            virtio(4, 0, 0x3000, 0x18, &[]),
            virtio(5, 0, 0, 0, &[0; 4]),
        ],
        serial: 0x5254_00ff_fe12_3456,
    }
}

/// Returns an SR-IOV capability of 256 VFs with BARs like the PF's.
pub(crate) fn sriov_spec() -> SriovSpec {
    SriovSpec {
        total_vfs: 256,
        vf_device_id: 0x1041,
        vf_bars: function_spec().bars,
        supported_page_sizes: REQUIRED_PAGE_SIZES,
    }
}

/// Returns the offset of a capability of the first list, found by walking the list.
pub(crate) fn capability(space: &ConfigSpace, id: u8) -> Option<u16> {
    let bytes = space.to_bytes();
    let mut at = bytes[usize::from(header::CAPABILITIES)];
    while at != 0 && bytes[usize::from(at)] != id {
        at = bytes[usize::from(u16::from(at) + list::NEXT)];
    }
    (at != 0).then_some(u16::from(at))
}

/// Returns the offset of an extended capability as Linux's `pci_find_ext_capability` finds it, down
/// to giving up.
pub(crate) fn extended_capability(space: &ConfigSpace, id: u16) -> Option<u16> {
    let mut at = list::EXTENDED;
    for _ in 0..960 {
        let mut header = [0; 4];
        space.read(at, &mut header);
        let header = u32::from_le_bytes(header);
        if header as u16 == id && header != 0 {
            return Some(at);
        }
        at = (header >> list::EXTENDED_NEXT_SHIFT) as u16 & 0xffc;
        if header == 0 || at < list::EXTENDED {
            return None;
        }
    }
    None
}
