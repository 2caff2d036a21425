//! Whatever header and frame a guest sends, what was judged stays and the checksums agree.
#![no_main]

#[path = "../src/offload.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::frame(data));
