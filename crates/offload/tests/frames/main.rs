//! These tests judge random frames with other implementations: etherparse builds them, etherparse
//! and smoltcp sum them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail so")]

mod any_bytes;
mod checksums;
mod packets;
mod parsing;
mod segments;
mod steering;
