//! This module writes functions as people read them.

use std::fmt::Write as _;

use manifold_api::types::{Bar, Function, Identity};

use crate::output::exact_size;

/// Returns what the PCI ID database calls a function's class and device.
fn names(identity: Identity) -> (&'static str, &'static str) {
    let class = match identity.class_code >> 8 {
        0x0200 => "Ethernet controller",
        _ => "Device",
    };
    let device = match (identity.vendor_id, identity.device_id) {
        (0x1af4, 0x1041) => "Red Hat, Inc. Virtio 1.0 network device",
        _ => "unnamed",
    };
    (class, device)
}

/// Returns the function in one line, as `lspci -nn` has it, without its routing ID.
pub(crate) fn title(identity: Identity) -> String {
    let (class, device) = names(identity);
    let Identity { vendor_id, device_id, class_code, revision, .. } = identity;
    format!(
        "{class} [{:04x}]: {device} [{vendor_id:04x}:{device_id:04x}] (rev {revision:02x})",
        class_code >> 8
    )
}

/// Returns a BAR as `lspci -v` has it.
pub(crate) fn bar(bar: Bar) -> String {
    format!(
        "Memory at {:x} ({}, {}prefetchable) [size={}]",
        bar.address,
        if bar.width64 { "64-bit" } else { "32-bit" },
        if bar.prefetchable { "" } else { "non-" },
        exact_size(bar.size)
    )
}

/// Returns the function as `lspci -nnv` has it: a line, and a line for each BAR.
pub(crate) fn lspci(function: &Function) -> String {
    let mut text = format!("{} {}\n", function.bdf, title(function.identity));
    for &region in &function.bars {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "        Region {}: {}", region.index, bar(region));
    }
    text
}
