//! The guest that nobody wants: everything a driver or a VMM can do wrong, on purpose.
//!
//! Each [`Scenario`] connects to a function of its own, misbehaves in one way and its variations, and reports
//! what the device said. What counts is judged elsewhere: the adapter must live, and the other functions must
//! lose no frame. A server that stops answering is an error here, not an outcome.
//!
//! ```text
//!   run ── Lab ── fresh Rig per try: probe, negotiate, queues ── misuse ── observe: status, used ring
//!            └─── at the end: a well-behaved driver on a new connection; does the function still work?
//! ```

mod control;
mod lab;
mod memory;
mod offloads;
mod packed;
mod registers;
mod rings;
mod setup;
mod wire;

use crate::Result;
use lab::Lab;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Declares the scenarios once: name on the command line, variant, what it does.
macro_rules! scenarios {
    ($($variant:ident $name:literal $about:literal,)*) => {
        /// One way to misbehave.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Scenario {
            $(#[doc = $about] #[serde(rename = $name)] $variant,)*
        }

        impl Scenario {
            /// Every scenario.
            pub const ALL: &[Scenario] = &[$(Scenario::$variant,)*];

            /// The name on the command line and in JSON.
            pub fn name(self) -> &'static str {
                match self { $(Scenario::$variant => $name,)* }
            }

            /// What it does, in a sentence.
            pub fn about(self) -> &'static str {
                match self { $(Scenario::$variant => $about,)* }
            }
        }
    };
}

scenarios! {
    DescriptorLoop "descriptor-loop" "TX descriptor chains that loop back to themselves.",
    DescriptorLoopLong "descriptor-loop-long" "A TX chain as long as the ring whose last descriptor points at the first.",
    DescriptorLoopRx "descriptor-loop-rx" "RX buffer chains that loop.",
    NextOutOfRange "next-out-of-range" "A next index beyond the queue size.",
    HeadOutOfRange "head-out-of-range" "An available ring entry beyond the queue size.",
    HeadTwice "head-twice" "One descriptor chain made available several times at once.",
    AvailJump "avail-jump" "The available index jumps ahead by more than the queue size.",
    AvailBackwards "avail-backwards" "The available index runs backwards.",
    IndirectInIndirect "indirect-in-indirect" "An indirect table with an entry that is indirect again.",
    IndirectSizes "indirect-sizes" "Indirect tables of 0, 8, 17 and 4294967280 bytes.",
    IndirectLoop "indirect-loop" "Indirect tables that loop, or point outside themselves.",
    IndirectAndNext "indirect-and-next" "A descriptor with both INDIRECT and NEXT.",
    IndirectUnasked "indirect-unasked" "Indirect descriptors without the feature.",
    LengthOverflow "length-overflow" "Addresses and lengths that wrap past 2^64.",
    LengthHuge "length-huge" "Chains of descriptors of 4 GiB each.",
    LengthZero "length-zero" "Descriptors of zero bytes, alone and in chains.",
    HeaderShort "header-short" "TX chains with no room for the virtio-net header, or with nothing after it.",
    FrameSizes "frame-sizes" "Frames from 1 byte to 256 KiB.",
    WrongDirection "wrong-direction" "Device-writable descriptors for TX, device-readable ones for RX.",
    HeaderGarbage "header-garbage" "Virtio-net headers and Ethernet frames of random bytes.",
    RingUnmapped "ring-unmapped" "Rings at addresses that were never mapped.",
    RingStraddles "ring-straddles" "Rings that begin in mapped memory and end outside of it.",
    RingUnaligned "ring-unaligned" "Rings at odd addresses.",
    RingOverlap "ring-overlap" "All parts of a ring, and both rings, at one address.",
    RingScribbled "ring-scribbled" "Random bytes all over the rings while the device uses them.",
    UsedReadOnly "used-read-only" "A used ring on memory that the device may only read.",
    BufferReadOnly "buffer-read-only" "RX buffers on memory that the device may only read.",
    QueueSizes "queue-sizes" "Queue sizes that are zero, huge, or no power of two.",
    QueueOrder "queue-order" "Queues, features and status set in every wrong order.",
    KickNowhere "kick-nowhere" "Doorbells for queues that do not exist or are not enabled, with odd widths.",
    ConfigAccess "config-access" "Configuration space reads and writes of every size at every alignment.",
    BarAccess "bar-access" "BAR reads and writes of every size and alignment, at the ends and beyond.",
    RegionNowhere "region-nowhere" "Accesses to regions that do not exist.",
    IrqNonsense "irq-nonsense" "Interrupt set-up with ranges, flags and descriptors that make no sense.",
    MapNonsense "map-nonsense" "DMA mappings that overlap, wrap, are empty, or have no memory behind them.",
    MapMany "map-many" "Ten thousand mappings of one page.",
    UnmapInFlight "unmap-in-flight" "DMA_UNMAP of memory that the device is using.",
    RogueRead "rogue-read" "TX descriptors whose address was never mapped.",
    RogueWrite "rogue-write" "RX buffers whose address was never mapped.",
    TruncateMemory "truncate-memory" "The guest truncates its memory's file while the device uses it.",
    BusMasterOff "bus-master-off" "Bus Master Enable off while traffic runs.",
    ResetStorm "reset-storm" "Function level resets and device resets in a tight loop, under traffic.",
    ControlGarbage "control-garbage" "Random commands, and chains of every wrong shape, on the control queue.",
    OffloadHeaders "offload-headers" "Checksums and segments asked for where there can be none.",
    OffloadUnasked "offload-unasked" "Offloads that were never agreed on.",
    OffloadFrames "offload-frames" "Frames to be segmented whose headers are cut off or lie.",
    SteeringGarbage "steering-garbage" "RSS, hash, coalescing and statistics commands out of all ranges.",
    PackedChains "packed-chains" "Packed rings with chains that have no end, lead nowhere or go the wrong way.",
    PackedIdentities "packed-identities" "Packed rings with buffer IDs that are impossible or not unique.",
    PackedIndirect "packed-indirect" "Packed rings with indirect tables of impossible sizes, and tables in tables.",
    PackedWraps "packed-wraps" "Packed rings with wrong wrap counters, odd event suppression, random bytes.",
    HalfMessage "half-message" "Messages cut in half, then silence, then the end of the connection.",
    MessageGarbage "message-garbage" "Impossible sizes, unknown commands, wrong types, too many descriptors, random bytes.",
    DisconnectMidway "disconnect-midway" "The connection ends in the middle of traffic and of a DMA_MAP.",
    SecondClient "second-client" "A second client on the same socket.",
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .copied()
            .find(|scenario| scenario.name() == name)
            .ok_or_else(|| format!("no scenario is called {name:?}"))
    }
}

/// What a scenario is run with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// An address that the guest does not map, for rogue DMA; where another guest keeps its memory, say.
    pub rogue_iova: u64,
    /// Seeds what is random.
    pub seed: u64,
    /// A second function, on which an accomplice sends broadcast frames so that something arrives at the
    /// first. Scenarios about receiving do little without.
    pub accomplice: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { rogue_iova: 0xdead_beef_0000, seed: 1, accomplice: None }
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
    /// The server ended a connection.
    pub disconnected: bool,
    /// A well-behaved driver could use the function afterwards.
    pub recovered: bool,
}

/// Runs one scenario against the function behind `socket`, which no other client may hold.
pub fn run(socket: &Path, scenario: Scenario, options: &Options) -> Result<Outcome> {
    let mut lab = Lab::new(socket, options)?;
    let run = match scenario {
        Scenario::DescriptorLoop => rings::descriptor_loop,
        Scenario::DescriptorLoopLong => rings::descriptor_loop_long,
        Scenario::DescriptorLoopRx => rings::descriptor_loop_rx,
        Scenario::NextOutOfRange => rings::next_out_of_range,
        Scenario::HeadOutOfRange => rings::head_out_of_range,
        Scenario::HeadTwice => rings::head_twice,
        Scenario::AvailJump => rings::avail_jump,
        Scenario::AvailBackwards => rings::avail_backwards,
        Scenario::IndirectInIndirect => rings::indirect_in_indirect,
        Scenario::IndirectSizes => rings::indirect_sizes,
        Scenario::IndirectLoop => rings::indirect_loop,
        Scenario::IndirectAndNext => rings::indirect_and_next,
        Scenario::IndirectUnasked => rings::indirect_unasked,
        Scenario::LengthOverflow => rings::length_overflow,
        Scenario::LengthHuge => rings::length_huge,
        Scenario::LengthZero => rings::length_zero,
        Scenario::HeaderShort => rings::header_short,
        Scenario::FrameSizes => rings::frame_sizes,
        Scenario::WrongDirection => rings::wrong_direction,
        Scenario::HeaderGarbage => rings::header_garbage,
        Scenario::RingUnmapped => setup::ring_unmapped,
        Scenario::RingStraddles => setup::ring_straddles,
        Scenario::RingUnaligned => setup::ring_unaligned,
        Scenario::RingOverlap => setup::ring_overlap,
        Scenario::RingScribbled => setup::ring_scribbled,
        Scenario::UsedReadOnly => setup::used_read_only,
        Scenario::BufferReadOnly => setup::buffer_read_only,
        Scenario::QueueSizes => setup::queue_sizes,
        Scenario::QueueOrder => setup::queue_order,
        Scenario::KickNowhere => setup::kick_nowhere,
        Scenario::ConfigAccess => registers::config_access,
        Scenario::BarAccess => registers::bar_access,
        Scenario::RegionNowhere => registers::region_nowhere,
        Scenario::IrqNonsense => registers::irq_nonsense,
        Scenario::MapNonsense => memory::map_nonsense,
        Scenario::MapMany => memory::map_many,
        Scenario::UnmapInFlight => memory::unmap_in_flight,
        Scenario::RogueRead => memory::rogue_read,
        Scenario::RogueWrite => memory::rogue_write,
        Scenario::TruncateMemory => memory::truncate_memory,
        Scenario::BusMasterOff => memory::bus_master_off,
        Scenario::ResetStorm => memory::reset_storm,
        Scenario::ControlGarbage => control::control_garbage,
        Scenario::OffloadHeaders => offloads::offload_headers,
        Scenario::OffloadUnasked => offloads::offload_unasked,
        Scenario::OffloadFrames => offloads::offload_frames,
        Scenario::SteeringGarbage => offloads::steering_garbage,
        Scenario::PackedChains => packed::packed_chains,
        Scenario::PackedIdentities => packed::packed_identities,
        Scenario::PackedIndirect => packed::packed_indirect,
        Scenario::PackedWraps => packed::packed_wraps,
        Scenario::HalfMessage => wire::half_message,
        Scenario::MessageGarbage => wire::message_garbage,
        Scenario::DisconnectMidway => wire::disconnect_midway,
        Scenario::SecondClient => wire::second_client,
    };
    run(&mut lab)?;
    lab.finish(scenario)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_read_back() {
        for scenario in Scenario::ALL {
            assert_eq!(scenario.name().parse(), Ok(*scenario));
            let json = serde_json::to_string(scenario).unwrap();
            assert_eq!(json, format!("\"{}\"", scenario.name()));
        }
        assert!("no-such".parse::<Scenario>().is_err());
    }
}
