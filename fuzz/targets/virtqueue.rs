//! Whatever a guest writes into its rings, the device stays inside the guest's memory and comes to
//! an end.
#![no_main]

#[path = "../src/virtqueue.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::virtqueue(data));
