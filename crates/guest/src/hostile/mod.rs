//! The guest that nobody wants: everything a driver or a VMM can do wrong, on purpose.
//!
//! Each [`Scenario`] connects to a function of its own, misbehaves in one way, and reports what the device
//! said. What counts is judged elsewhere: the adapter must live, and the other functions must lose no frame.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// A TX descriptor chain that loops back to itself.
    DescriptorLoop,
    /// A TX chain as long as the ring whose last descriptor points at the first.
    DescriptorLoopLong,
    /// An RX buffer chain that loops.
    DescriptorLoopRx,
    /// A next index beyond the queue size.
    NextOutOfRange,
    /// An available ring entry beyond the queue size.
    HeadOutOfRange,
    /// The available index jumps ahead by more than the queue size.
    AvailJump,
    /// The available index runs backwards.
    AvailBackwards,
    /// An indirect table whose entry is indirect again.
    IndirectInIndirect,
    /// An indirect table whose size is not a multiple of 16, or zero.
    IndirectOddSize,
    /// An indirect table of 4 GiB.
    IndirectHuge,
    /// An indirect table that loops.
    IndirectLoop,
    /// A descriptor with both INDIRECT and NEXT.
    IndirectAndNext,
    /// An address plus a length that wraps past 2^64.
    LengthOverflow,
    /// Descriptors of 4 GiB - 1 in a chain.
    LengthHuge,
    /// Descriptors of zero bytes.
    LengthZero,
    /// A TX chain with no room for the virtio-net header.
    HeaderShort,
    /// A frame of 64 KiB and one of 1 byte.
    FrameSizes,
    /// A device-writable descriptor in a TX chain, a device-readable one in an RX chain.
    WrongDirection,
    /// Virtio-net headers with every field set to nonsense.
    HeaderGarbage,
    /// Rings at addresses that were never mapped.
    RingUnmapped,
    /// Rings that begin in mapped memory and end outside of it.
    RingStraddles,
    /// A used ring on memory that the device may only read.
    UsedReadOnly,
    /// A buffer on memory that the device may only read, offered for writing.
    BufferReadOnly,
    /// Rings at odd addresses.
    RingUnaligned,
    /// Queue sizes that are zero, huge or no power of two.
    QueueSizeBad,
    /// All three parts of a ring at one address.
    RingOverlap,
    /// Doorbells for queues that do not exist, were not enabled, or with odd widths.
    KickNowhere,
    /// A queue enabled before DRIVER_OK, twice, or with its size changed afterwards.
    QueueOrder,
    /// Configuration space reads and writes of every size at every alignment.
    ConfigAccess,
    /// BAR reads and writes of every size and alignment, at the ends and beyond.
    BarAccess,
    /// DMA_UNMAP of memory that the device is using.
    UnmapInFlight,
    /// Overlapping, empty, unaligned and huge DMA mappings; unmapping what was never mapped.
    MapNonsense,
    /// A TX descriptor whose address was never mapped.
    RogueRead,
    /// An RX buffer whose address was never mapped.
    RogueWrite,
    /// The guest truncates its memory's file while the device uses it.
    TruncateMemory,
    /// Garbage and short chains on the control queue.
    ControlGarbage,
    /// Function level resets and device resets in a tight loop, under traffic.
    ResetStorm,
    /// Bus Master Enable off while traffic runs.
    BusMasterOff,
    /// Messages cut in half, then silence, then the end of the connection.
    HalfMessage,
    /// Messages with impossible sizes, unknown commands, wrong types, and too many descriptors.
    MessageGarbage,
    /// The connection ends in the middle of traffic and of a DMA_MAP.
    DisconnectMidway,
    /// Interrupt set-up with ranges, flags and descriptors that make no sense.
    IrqNonsense,
}

/// What a scenario is run with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// An address that the guest does not map, for rogue DMA; where another guest keeps its memory, say.
    pub rogue_iova: u64,
    /// Seeds what is random.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { rogue_iova: 0xdead_beef_0000, seed: 1 }
    }
}

/// What the device said to a scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which scenario.
    pub scenario: Scenario,
    /// What was tried and how the device answered, a line each.
    pub steps: Vec<String>,
    /// DEVICE_NEEDS_RESET was seen.
    pub needs_reset: bool,
    /// The server ended the connection.
    pub disconnected: bool,
    /// A well-behaved driver could use the function afterwards.
    pub recovered: bool,
}

impl Scenario {
    /// Every scenario.
    pub const ALL: &[Scenario] = &[Scenario::DescriptorLoop];
}

/// Runs one scenario against the function behind `socket`, which no other client may hold.
pub fn run(socket: &Path, scenario: Scenario, options: &Options) -> Result<Outcome> {
    let _ = (socket, scenario, options);
    Err(Error::Unsupported("hostile"))
}
