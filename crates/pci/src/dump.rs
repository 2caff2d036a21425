//! Configuration space as text that `lspci -F FILE` reads.

use crate::{CONFIG_SIZE, RoutingId};

/// One function as `lspci -xxxx` prints it: a line with routing ID and title, then 256 lines of 16
/// bytes, then an empty line. Several functions in one file follow each other.
pub fn lspci(rid: RoutingId, title: &str, space: &[u8; CONFIG_SIZE]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(CONFIG_SIZE * 3 + CONFIG_SIZE / 16 * 6 + 64);
    // One line, whatever the title holds.
    let title = title.replace(char::is_control, " ");
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
