//! This program declares a new capability, adds it to a function, writes, reads and dumps it.
//!
//! A device model adds vendor-specific capabilities, as here, and needs nothing but its
//! `FunctionSpec`. One that the PCIe standard defines is added in this crate: see
//! `src/capability/mod.rs`.
//!
//! `cargo run -p manifold-pci --example capability | lspci -F /dev/stdin -vvv` shows the function.

use manifold_pci::{
    BarSpec, ConfigSpace, Event, FunctionSpec, Identity, MsixSpec, RoutingId, VendorCapability,
    dump,
};

/// The example's registers, by offset from the capability's ID: a lamp's brightness, which software
/// sets, and the lamp's temperature, which it can only read.
const BRIGHTNESS: u16 = 4;
const TEMPERATURE: u16 = 5;

/// Declares the capability. The core adds the ID and the next pointer, so the body begins with the
/// length, which counts them too. A byte of padding and the two registers follow. For each byte of
/// the body, `writable` has the bits that software can write.
fn lamp() -> VendorCapability {
    VendorCapability { body: vec![6, 0, 0, 21], writable: vec![0, 0, 0x7f, 0] }
}

fn main() -> Result<(), manifold_pci::Error> {
    let bar = BarSpec { size: 0x4000, width64: true, prefetchable: true };
    let spec = FunctionSpec {
        identity: Identity {
            vendor_id: 0x1234,
            device_id: 0x0001,
            revision: 0,
            class_code: 0xff_0000,
            subsystem_vendor_id: 0x1234,
            subsystem_id: 0,
        },
        bars: [Some(bar), None, None, None, None, None],
        msix: MsixSpec { vectors: 1, table_bar: 0, table_offset: 0, pba_bar: 0, pba_offset: 0x800 },
        vendor: vec![lamp()],
        serial: 1,
    };
    // A function checks its description once, here; afterwards no access can fail.
    let mut space = ConfigSpace::physical(&spec, None)?;

    // Software finds the capability by walking the list. The device model knows it by its index.
    let at = space.vendor_capability_offset(0).unwrap_or_default();
    // Software may write any bytes at once, and reserved or read-only bits among them keep their
    // value.
    let events = space.write(at + BRIGHTNESS, &[0xff, 0xff]);
    // Whoever owns the function acts on the events; a device model would set its lamp here.
    for event in &events {
        if let Event::VendorWrite { capability, offset, len } = event {
            eprintln!("software wrote {len} bytes at {offset} of capability {capability}");
        }
    }

    let [mut brightness, mut temperature] = [[0]; 2];
    space.read(at + BRIGHTNESS, &mut brightness);
    space.read(at + TEMPERATURE, &mut temperature);
    assert_eq!(brightness, [0x7f], "the top bit is reserved");
    assert_eq!(temperature, [21], "software cannot write the temperature");

    // The dump is what `lspci -F` reads.
    let routing_id: RoutingId = "01:00.0".parse()?;
    print!("{}", dump::lspci(routing_id, "a lamp", &space.to_bytes()));
    Ok(())
}
