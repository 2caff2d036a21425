//! This crate has drivers and clients that attack: they do on purpose everything that a guest or a
//! VMM can do wrong.
//!
//! Each [`Scenario`] connects to a function of its own, misbehaves in one way and its variations,
//! and reports what the device answered. The tests judge the rest: the adapter must live, the
//! function must work again, and the other functions must lose no frame. A server that stops
//! answering is an error here, not an outcome.
//!
//! This crate is for tests only: no binary of ours depends on it. It is not a fuzzer: each attack
//! is written by hand, and what is random in it comes from a seed. It uses the driver of
//! `manifold-guest` for what is right and breaks one thing at a time.
//!
//! ```text
//!   Scenario::run ── Attack ── a fresh Target per try: probe, negotiate, queues
//!                      │                 └── misuse ── status? used ring?
//!                      └────── at the end: a well-behaved driver on a new connection works?
//! ```
#![forbid(unsafe_code)]

mod attack;
mod control;
mod memory;
mod offloads;
mod packed;
mod registers;
mod rings;
mod setup;
mod wire;

pub use attack::{Options, Outcome};

use attack::Attack;
use manifold_guest::Result;
use std::path::Path;

/// Declares the scenarios once: the variant, the function that carries it out, and what it does.
macro_rules! scenarios {
    ($($variant:ident $module:ident::$function:ident $about:literal,)*) => {
        /// One way to misbehave.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Scenario {
            $(#[doc = $about] $variant,)*
        }

        impl Scenario {
            /// Every scenario.
            pub const ALL: &[Scenario] = &[$(Scenario::$variant,)*];

            /// Runs the scenario against the function behind `socket`, which no other client may
            /// hold.
            pub fn run(self, socket: &Path, options: &Options) -> Result<Outcome> {
                let mut attack = Attack::new(socket, options)?;
                match self { $(Scenario::$variant => $module::$function(&mut attack)?,)* }
                attack.finish()
            }
        }
    };
}

scenarios! {
    DescriptorLoop rings::descriptor_loop "TX descriptor chains that loop back to themselves.",
    DescriptorLoopLong rings::descriptor_loop_long
        "A TX chain as long as the ring whose last descriptor points at the first.",
    DescriptorLoopRx rings::descriptor_loop_rx "RX buffer chains that loop.",
    NextOutOfRange rings::next_out_of_range "A next index beyond the queue size.",
    HeadOutOfRange rings::head_out_of_range "An available ring entry beyond the queue size.",
    HeadTwice rings::head_twice "One descriptor chain made available several times at once.",
    AvailJump rings::avail_jump "The available index jumps ahead by more than the queue size.",
    AvailBackwards rings::avail_backwards "The available index runs backwards.",
    IndirectInIndirect rings::indirect_in_indirect
        "An indirect table with an entry that is indirect again.",
    IndirectSizes rings::indirect_sizes "Indirect tables of 0, 8, 17 and 4294967280 bytes.",
    IndirectLoop rings::indirect_loop "Indirect tables that loop, or point outside themselves.",
    IndirectAndNext rings::indirect_and_next "A descriptor with both INDIRECT and NEXT.",
    IndirectUnasked rings::indirect_unasked "Indirect descriptors without the feature.",
    LengthOverflow rings::length_overflow "Addresses and lengths that wrap past 2^64.",
    LengthHuge rings::length_huge "Chains of descriptors of 4 GiB each.",
    LengthZero rings::length_zero "Descriptors of zero bytes, alone and in chains.",
    HeaderShort rings::header_short
        "TX chains with no room for the virtio-net header, or with nothing after it.",
    FrameSizes rings::frame_sizes "Frames from 1 byte to 256 KiB.",
    WrongDirection rings::wrong_direction
        "Device-writable descriptors for TX, device-readable ones for RX.",
    HeaderGarbage rings::header_garbage "Virtio-net headers and Ethernet frames of random bytes.",
    RingUnmapped setup::ring_unmapped "Rings at addresses that were never mapped.",
    RingStraddles setup::ring_straddles "Rings that begin in mapped memory and end outside of it.",
    RingUnaligned setup::ring_unaligned "Rings at odd addresses.",
    RingOverlap setup::ring_overlap "All parts of a ring, and both rings, at one address.",
    RingScribbled setup::ring_scribbled
        "Random bytes all over the rings while the device uses them.",
    UsedReadOnly setup::used_read_only "A used ring on memory that the device may only read.",
    BufferReadOnly setup::buffer_read_only "RX buffers on memory that the device may only read.",
    QueueSizes setup::queue_sizes "Queue sizes that are zero, huge, or no power of two.",
    QueueOrder setup::queue_order "Queues, features and status set in every wrong order.",
    KickNowhere setup::kick_nowhere
        "Doorbells for queues that do not exist or are not enabled, with odd widths.",
    ConfigAccess registers::config_access
        "Configuration space reads and writes of every size at every alignment.",
    BarAccess registers::bar_access
        "BAR reads and writes of every size and alignment, at the ends and beyond.",
    RegionNowhere registers::region_nowhere "Accesses to regions that do not exist.",
    IrqNonsense registers::irq_nonsense
        "Interrupt set-up with ranges, flags and descriptors that make no sense.",
    MapNonsense memory::map_nonsense
        "DMA mappings that overlap, wrap, are empty, or have no memory behind them.",
    MapMany memory::map_many "Ten thousand mappings of one page.",
    UnmapInFlight memory::unmap_in_flight "DMA_UNMAP of memory that the device is using.",
    RogueRead memory::rogue_read "TX descriptors whose address was never mapped.",
    RogueWrite memory::rogue_write "RX buffers whose address was never mapped.",
    TruncateMemory memory::truncate_memory
        "The guest truncates its memory's file while the device uses it.",
    BusMasterOff memory::bus_master_off "Bus Master Enable off while traffic runs.",
    ResetStorm memory::reset_storm
        "Function level resets and device resets in a tight loop, under traffic.",
    ControlGarbage control::control_garbage
        "Random commands, and chains of every wrong shape, on the control queue.",
    OffloadHeaders offloads::offload_headers
        "Checksums and segments asked for where there can be none.",
    OffloadUnasked offloads::offload_unasked "Offloads that were never agreed on.",
    OffloadFrames offloads::offload_frames
        "Frames to be segmented whose headers are cut off or lie.",
    SteeringGarbage offloads::steering_garbage
        "RSS, hash, coalescing and statistics commands out of all ranges.",
    PackedChains packed::packed_chains
        "Packed rings with chains that have no end, lead nowhere or go the wrong way.",
    PackedIdentities packed::packed_identities
        "Packed rings with buffer IDs that are impossible or not unique.",
    PackedIndirect packed::packed_indirect
        "Packed rings with indirect tables of impossible sizes, and tables in tables.",
    PackedWraps packed::packed_wraps
        "Packed rings with wrong wrap counters, odd event suppression, random bytes.",
    HalfMessage wire::half_message
        "Messages cut in half, then silence, then the end of the connection.",
    MessageGarbage wire::message_garbage
        "Impossible sizes, unknown commands, wrong types, too many descriptors, random bytes.",
    DisconnectMidway wire::disconnect_midway
        "The connection ends in the middle of traffic and of a DMA_MAP.",
    SecondClient wire::second_client "A second client on the same socket.",
}
