//! This module is the guest's memory.

use std::sync::Arc;

use manifold_dma::{Domain, Permissions};
use manifold_testing::GuestMemory;

/// Address of the guest's memory for the device: not zero, so that an address left unset finds
/// nothing.
pub const BASE: u64 = 0x1_0000_0000;
pub const SIZE: u64 = 1 << 20;
/// Address of memory that the device can only read.
pub const READ_ONLY: u64 = BASE + SIZE;
pub const READ_ONLY_SIZE: u64 = 0x1000;

#[derive(Clone)]
pub struct Memory {
    file: Arc<GuestMemory>,
    next: u64,
}

impl Memory {
    pub fn new(domain: &Arc<Domain>) -> Self {
        let file = GuestMemory::new("guest", SIZE + READ_ONLY_SIZE).unwrap();
        domain.map(BASE, SIZE, Permissions::READ_WRITE, file.backing(0).unwrap()).unwrap();
        let read_only = file.backing(SIZE).unwrap();
        domain.map(READ_ONLY, READ_ONLY_SIZE, Permissions::READ, read_only).unwrap();
        Memory { file: Arc::new(file), next: BASE }
    }

    /// Allocates fresh memory, page aligned.
    pub fn allocate(&mut self, size: u64) -> u64 {
        let address = self.next;
        self.next += size.next_multiple_of(0x1000);
        assert!(self.next <= BASE + SIZE, "guest out of memory");
        address
    }

    pub fn write(&self, address: u64, data: &[u8]) {
        self.file.write(address - BASE, data).unwrap();
    }

    pub fn read<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut data = [0; N];
        self.file.read(address - BASE, &mut data).unwrap();
        data
    }

    pub fn read_vec(&self, address: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.file.read(address - BASE, &mut data).unwrap();
        data
    }

    pub fn read16(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.read(address))
    }

    pub fn read32(&self, address: u64) -> u32 {
        u32::from_le_bytes(self.read(address))
    }
}

impl manifold_testing::Memory for Memory {
    fn get_into(&self, iova: u64, out: &mut [u8]) {
        self.file.read(iova - BASE, out).unwrap();
    }

    fn put(&self, iova: u64, data: &[u8]) {
        self.write(iova, data);
    }
}
