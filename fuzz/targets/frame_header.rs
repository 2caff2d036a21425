//! Whatever bytes a guest sends, the eswitch decides as its reference model does.
#![no_main]

#[path = "../src/frame_header/mod.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::classify(data));
