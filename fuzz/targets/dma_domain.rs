//! Whatever is mapped, unmapped and accessed, a DMA domain does what a page table would do.
#![no_main]

#[path = "../src/dma_domain.rs"]
mod dma_domain;

libfuzzer_sys::fuzz_target!(|data: &[u8]| dma_domain::dma_domain(data));
