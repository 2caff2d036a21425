//! Off-loads: whatever header and frame a guest sends, what was judged stays and the checksums agree.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| manifold_offload::fuzzing::frame(data));
