//! These tests run every hostile scenario against a real adapter: the adapter lives, the function
//! can be used again, and two other guests' traffic loses no frame.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../../guest/tests/support/bed.rs"]
mod bed;
mod bystanders;

use bed::Bed;
use bystanders::Bystanders;
use manifold_hostile::{Options, Outcome, Scenario};
use std::time::{Duration, Instant};

fn survives(scenario: Scenario) -> Outcome {
    let bed = Bed::new(4, 1500);
    let bystanders = Bystanders::start(&bed.socket(0), &bed.socket(1));
    let options = Options { accomplice: Some(bed.socket(3)), ..Options::default() };
    let begin = Instant::now();
    let before = bystanders.received();
    let outcome = scenario.run(&bed.socket(2), &options).unwrap();
    let during = bystanders.received() - before;
    println!("{scenario:?}: {:?}, {during} frames of others meanwhile", begin.elapsed());
    for step in &outcome.steps {
        println!("    {step}");
    }
    assert!(outcome.recovered, "the function did not recover: {outcome:#?}");
    let seen = bystanders.received();
    let begin = Instant::now();
    while bystanders.received() == seen && begin.elapsed() < bed::LONG {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(bystanders.received() > seen, "the others' traffic stands still");
    bystanders.stop();
    outcome
}

/// Declares one test per scenario, and one that fails if one is missing.
macro_rules! scenarios {
    ($($name:ident $scenario:ident $check:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let check: fn(&Outcome) -> bool = $check;
                let outcome = survives(Scenario::$scenario);
                assert!(check(&outcome), "{outcome:#?}");
            }
        )*

        #[test]
        fn none_is_missing() {
            let tested = [$(Scenario::$scenario),*];
            for scenario in Scenario::ALL {
                assert!(tested.contains(scenario), "{scenario:?} has no test");
            }
        }
    };
}

/// Returns whether the device noticed the attack, as it must have.
fn noticed(outcome: &Outcome) -> bool {
    outcome.needs_reset
}

/// Accepts any outcome: the device may ignore this or not.
fn either(_: &Outcome) -> bool {
    true
}

/// Returns whether the first and only connection held, as it must have.
fn held(outcome: &Outcome) -> bool {
    !outcome.disconnected
}

scenarios! {
    descriptor_loop DescriptorLoop noticed;
    descriptor_loop_long DescriptorLoopLong noticed;
    descriptor_loop_rx DescriptorLoopRx noticed;
    next_out_of_range NextOutOfRange noticed;
    head_out_of_range HeadOutOfRange noticed;
    head_twice HeadTwice held;
    avail_jump AvailJump noticed;
    avail_backwards AvailBackwards noticed;
    indirect_in_indirect IndirectInIndirect noticed;
    indirect_sizes IndirectSizes noticed;
    indirect_loop IndirectLoop noticed;
    indirect_and_next IndirectAndNext noticed;
    indirect_unasked IndirectUnasked noticed;
    length_overflow LengthOverflow noticed;
    length_huge LengthHuge noticed;
    length_zero LengthZero held;
    header_short HeaderShort held;
    frame_sizes FrameSizes held;
    wrong_direction WrongDirection noticed;
    header_garbage HeaderGarbage held;
    ring_unmapped RingUnmapped noticed;
    ring_straddles RingStraddles noticed;
    ring_unaligned RingUnaligned held;
    ring_overlap RingOverlap held;
    ring_scribbled RingScribbled noticed;
    used_read_only UsedReadOnly noticed;
    buffer_read_only BufferReadOnly noticed;
    queue_sizes QueueSizes held;
    queue_order QueueOrder held;
    kick_nowhere KickNowhere held;
    config_access ConfigAccess held;
    bar_access BarAccess held;
    region_nowhere RegionNowhere held;
    irq_nonsense IrqNonsense either;
    map_nonsense MapNonsense held;
    map_many MapMany held;
    unmap_in_flight UnmapInFlight noticed;
    rogue_read RogueRead noticed;
    rogue_write RogueWrite noticed;
    truncate_memory TruncateMemory noticed;
    bus_master_off BusMasterOff held;
    reset_storm ResetStorm held;
    control_garbage ControlGarbage held;
    offload_headers OffloadHeaders held;
    offload_unasked OffloadUnasked held;
    offload_frames OffloadFrames held;
    steering_garbage SteeringGarbage held;
    packed_chains PackedChains noticed;
    packed_identities PackedIdentities held;
    packed_indirect PackedIndirect noticed;
    packed_wraps PackedWraps held;
    half_message HalfMessage either;
    message_garbage MessageGarbage either;
    disconnect_midway DisconnectMidway held;
    second_client SecondClient held;
}
