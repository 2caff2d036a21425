//! This module writes configuration space as text that `lspci -F FILE` reads, and fills in what
//! Linux knows.

use std::fmt::Write as _;

use crate::capability::SriovView;
use crate::config::ConfigSpace;
use crate::function::FunctionSpec;
use crate::registers::Write;
use crate::routing_id::RoutingId;
use crate::spec::CONFIG_SIZE;
use crate::spec::header;

/// Returns one function as `lspci -xxxx` prints it: a line with routing ID and title, 256 lines of
/// 16 bytes, an empty line. Functions follow each other in a file.
pub fn lspci(rid: RoutingId, title: &str, space: &[u8; CONFIG_SIZE]) -> String {
    let mut text = String::with_capacity(256 * 54 + 64);
    // A title of several lines would begin several functions.
    let title = title.replace(char::is_control, " ");
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{rid} {title}");
    for (line, bytes) in space.chunks(16).enumerate() {
        let _ = write!(text, "{:02x}:", line * 16);
        for byte in bytes {
            let _ = write!(text, " {byte:02x}");
        }
        text.push('\n');
    }
    text.push('\n');
    text
}

/// Returns a VF's configuration space with what a Linux host adds to it: the IDs that Linux derives
/// from the PF, the BARs where the PF's VF BARs put them, and memory decoding where VF MSE enables
/// it.
///
/// On such a host `lspci` takes these from sysfs, because the VF's own registers lack them. A dump
/// has only registers, so here they are filled in. `pf` is the PF's SR-IOV capability and `vf` the
/// VF's index.
pub fn vf_as_linux_shows(
    space: &ConfigSpace,
    spec: &FunctionSpec,
    pf: &SriovView,
    vf: u16,
) -> Box<[u8; CONFIG_SIZE]> {
    let mut bars = space.bars().clone();
    bars.reset();
    for index in 0..6 {
        if let Some(address) = pf.vf_bar_address(index, vf) {
            bars.write(index, Write::dword(address as u32));
            bars.write(index + 1, Write::dword((address >> 32) as u32));
        }
    }
    let mut bytes = space.to_bytes();
    let mut fill = |offset: u16, value: &[u8]| {
        for (place, byte) in bytes.iter_mut().skip(offset.into()).zip(value) {
            *place = *byte;
        }
    };
    fill(header::VENDOR_ID, &spec.identity.vendor_id.to_le_bytes());
    fill(header::DEVICE_ID, &spec.identity.device_id.to_le_bytes());
    for (index, offset) in (header::BAR0..=header::BAR5).step_by(4).enumerate() {
        fill(offset, &bars.read(index, pf.system_page_size).to_le_bytes());
    }
    if pf.vf_memory {
        let command = u16::from(space.bus_master()) * header::COMMAND_BUS_MASTER;
        fill(header::COMMAND, &(command | header::COMMAND_MEMORY).to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_has_lspcis_form() {
        let rid = RoutingId::new(0x81, 0x1f, 7).unwrap();
        let mut space = Box::new([0; CONFIG_SIZE]);
        space[0] = 0xf4;
        space[0x10f] = 0x1a;
        let text = lspci(rid, "two\nlines", &space);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 258);
        assert_eq!(lines[0], "81:1f.7 two lines");
        assert_eq!(lines[1], format!("00: f4{}", " 00".repeat(15)));
        assert_eq!(lines[17], format!("100:{} 1a", " 00".repeat(15)));
        assert_eq!(lines[256], format!("ff0:{}", " 00".repeat(16)));
        assert_eq!(lines[257], "");
    }
}
