//! This module is VIRTIO_PCI_CAP_PCI_CFG: it reaches the structures of a BAR through configuration
//! space (4.1.4.9).

use crate::spec::pci::cap;

const SIZE: usize = cap::PCI_CFG_DATA as usize + 4;
const DATA: usize = cap::PCI_CFG_DATA as usize;

/// Returns whether the driver may write this byte of the capability.
pub(super) fn is_writable(offset: u8) -> bool {
    offset == cap::BAR || (cap::OFFSET..SIZE as u8).contains(&offset)
}

/// The access to a BAR that the capability stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) bar: u8,
    pub(super) offset: u64,
    /// Length of the access in bytes: 1, 2 or 4.
    pub(super) len: usize,
}

/// The capability's bytes, as far as the driver writes them.
#[derive(Debug)]
pub(super) struct PciCfg {
    bytes: [u8; SIZE],
}

impl PciCfg {
    pub(super) fn new() -> Self {
        PciCfg { bytes: [0; SIZE] }
    }

    /// Stores a write at `offset` (counted from the capability's ID byte). Returns what is to be
    /// written and where, if the write touched the data.
    pub(super) fn write(&mut self, offset: u8, data: &[u8]) -> Option<(Target, [u8; 4])> {
        let mut touched = false;
        for (at, byte) in (usize::from(offset)..).zip(data) {
            if let Some(stored) = self.bytes.get_mut(at)
                && u8::try_from(at).is_ok_and(is_writable)
            {
                *stored = *byte;
                touched |= at >= DATA;
            }
        }
        self.target().filter(|_| touched).map(|target| (target, self.data()))
    }

    /// Returns where to read for an answer to a read of `len` bytes at `offset`; `None` when it
    /// does not read the data, or the capability does not point anywhere.
    pub(super) fn reads(&self, offset: u8, len: usize) -> Option<Target> {
        let start = usize::from(offset);
        self.target().filter(|_| start >= DATA && start + len <= SIZE)
    }

    /// Stores what was read from the target, and copies the bytes at `offset` to `out`.
    pub(super) fn fill(&mut self, value: &[u8], offset: u8, out: &mut [u8]) {
        for (stored, byte) in self.bytes.iter_mut().skip(DATA).zip(value) {
            *stored = *byte;
        }
        for (byte, stored) in out.iter_mut().zip(self.bytes.iter().skip(usize::from(offset))) {
            *byte = *stored;
        }
    }

    fn target(&self) -> Option<Target> {
        let len = self.word(cap::LENGTH);
        let offset = self.word(cap::OFFSET);
        // The driver must not ask for anything but an aligned access of 1, 2 or 4 bytes
        // (4.1.4.9.2).
        if !matches!(len, 1 | 2 | 4) || !offset.is_multiple_of(len) {
            return None;
        }
        let bar = self.bytes[usize::from(cap::BAR)];
        Some(Target { bar, offset: u64::from(offset), len: len as usize })
    }

    fn data(&self) -> [u8; 4] {
        self.word(cap::PCI_CFG_DATA).to_le_bytes()
    }

    /// Returns the le32 at `offset`, a field of the capability.
    fn word(&self, offset: u8) -> u32 {
        let mut word = [0; 4];
        for (byte, stored) in word.iter_mut().zip(self.bytes.iter().skip(usize::from(offset))) {
            *byte = *stored;
        }
        u32::from_le_bytes(word)
    }
}
