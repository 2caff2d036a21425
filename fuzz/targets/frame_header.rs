//! Frame headers: whatever bytes a guest sends, the eswitch decides as its reference model does.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| manifold_eswitch::fuzzing::classify(data));
