//! This module records DMA faults: accesses of a function that were refused.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Number of faults that a domain keeps, the latest ones.
const KEPT: usize = 64;

/// The direction of an access, seen from the function: `Read` fetches from guest memory, `Write`
/// stores into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// The function reads memory.
    Read,
    /// The function writes memory.
    Write,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Read => "read",
            Access::Write => "write",
        })
    }
}

/// The reason why an access was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultReason {
    /// Bus Master Enable is clear: the function may issue no memory requests (PCIe Base 6.0,
    /// section 7.5.1.1.3).
    BusMasterDisabled,
    /// No mapping covers the whole range.
    NotMapped,
    /// The range is mapped without the permission needed.
    NotPermitted,
    /// The sum `iova + len` exceeds 64 bits.
    AddressOverflow,
    /// The range is mapped, but its memory was not shared with a file descriptor, so there is no
    /// direct path to it.
    NotShared,
    /// A ring is not naturally aligned.
    Misaligned,
    /// The file behind the range was made shorter while it was mapped.
    Lost,
}

impl fmt::Display for FaultReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FaultReason::BusMasterDisabled => "bus master disabled",
            FaultReason::NotMapped => "not mapped",
            FaultReason::NotPermitted => "not permitted",
            FaultReason::AddressOverflow => "address overflow",
            FaultReason::NotShared => "memory not shared (start the VMM with share=on)",
            FaultReason::Misaligned => "misaligned",
            FaultReason::Lost => "memory lost (its file was truncated while mapped)",
        })
    }
}

/// A DMA fault is one refused access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("DMA fault: {access} of {len} bytes at IOVA {iova:#x}: {reason}")]
pub struct Fault {
    /// First I/O virtual address of the access.
    pub iova: u64,
    /// Length of the access in bytes.
    pub len: u64,
    /// Direction of the access, seen from the function.
    pub access: Access,
    /// Reason why the access was refused.
    pub reason: FaultReason,
}

/// The faults of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultReport {
    /// Number of faults since the domain was made.
    pub count: u64,
    /// The latest faults, oldest first.
    pub recent: Vec<Fault>,
}

#[derive(Debug, Default)]
pub(crate) struct FaultLog {
    count: AtomicU64,
    recent: Mutex<VecDeque<Fault>>,
}

impl FaultLog {
    pub(crate) fn record(&self, fault: Fault) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut recent = self.recent.lock();
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(fault);
    }

    pub(crate) fn report(&self) -> FaultReport {
        let recent = self.recent.lock();
        FaultReport {
            count: self.count.load(Ordering::Relaxed),
            recent: recent.iter().copied().collect(),
        }
    }
}
