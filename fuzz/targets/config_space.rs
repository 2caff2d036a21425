//! Configuration space: any accesses, by bus and VMM, leave lists whole, read-only bits alone and events true.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| manifold_pci::fuzzing::config_space(data));
