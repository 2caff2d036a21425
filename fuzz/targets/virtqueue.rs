//! Virtqueues: whatever a guest writes into its rings, the device stays inside the guest's memory and comes to an end.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| manifold_virtio::ring::fuzzing::virtqueue(data));
