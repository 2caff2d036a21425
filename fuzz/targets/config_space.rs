//! This target makes any accesses to configuration space, by bus and VMM, which must leave lists
//! whole, read-only bits alone and events true.
#![no_main]

#[path = "../src/config_space.rs"]
mod config_space;

libfuzzer_sys::fuzz_target!(|data: &[u8]| config_space::config_space(data));
