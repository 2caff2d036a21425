//! These tests run a data path with the drivers of several functions.

mod driver;
mod offload;
mod uplink;
mod workers;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use manifold_dma::Slice;
use manifold_eswitch::{MacAddr, Policy, Table, TableBuilder};
use manifold_offload::Offloads;
use manifold_pci::FunctionId::{self, Vf};
use manifold_testing::GuestMemory;
use manifold_virtio::net::Steering;
use manifold_virtio::ring::QueueState;
use proptest::prelude::*;

use crate::frame::Frame;
use crate::frame::pieces::Pieces;
use crate::{Datapath, Direction, Error};
use driver::{Driver, SIZE, eventually};

const BROADCAST: [u8; 6] = [0xff; 6];
/// Length of virtio_net_hdr in bytes.
const NET_HEADER: usize = 12;

fn mac(id: FunctionId) -> [u8; 6] {
    match id {
        FunctionId::Pf => [2, 0, 0, 0, 0, 0],
        Vf(index) => [2, 0, 0, 0, 1, index as u8],
    }
}

fn table(functions: &[FunctionId]) -> Arc<Table> {
    let policies: Vec<_> = functions.iter().map(|id| Policy::new(MacAddr(mac(*id)))).collect();
    let mut builder = TableBuilder::new();
    for (id, policy) in functions.iter().zip(&policies) {
        builder.function(*id, policy);
    }
    Arc::new(builder.build())
}

/// Returns a data path with running functions vf0, vf1 ...
fn switch(count: u16, mergeable: bool) -> (Datapath, Vec<Driver>) {
    let ids: Vec<_> = (0..count).map(Vf).collect();
    let datapath = Datapath::start(&table(&ids), &[None]).unwrap();
    let drivers = ids.iter().map(|id| Driver::start(&datapath, *id, mergeable)).collect();
    (datapath, drivers)
}

fn pairs(pairs: u16) -> Steering {
    Steering { pairs, ..Steering::default() }
}

fn frame(to: [u8; 6], from: FunctionId, len: usize) -> Vec<u8> {
    let mut frame = [&to[..], &mac(from), &[0x88, 0xb5]].concat();
    frame.extend((0..len - 14).map(|i| (i * 7 + len) as u8));
    frame
}

#[test]
fn a_unicast_frame_arrives_whole_with_a_clean_header() {
    let (_datapath, mut vfs) = switch(3, true);
    for len in [14, 60, 63, 64, 65, 1514] {
        for vf in &mut vfs {
            vf.post(4096);
        }
        let sent = frame(mac(Vf(1)), Vf(0), len);
        vfs[0].send(&sent);
        let received = vfs[1].receive();
        assert_eq!(received[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(received[12..], sent);
        vfs[0].wait_sent();
    }
    assert!(vfs[2].take_received().is_none());
    let (tx, rx) = (vfs[0].counters.total(), vfs[1].counters.total());
    assert_eq!((tx.tx.frames, tx.rx.frames), (6, 0));
    assert_eq!((rx.rx.frames, rx.rx.bytes), (6, tx.tx.bytes));
    assert!(rx.drops.is_empty());
    assert!(vfs[1].rx.events.interrupts.load(Ordering::Relaxed) > 0);
}

#[test]
fn broadcast_reaches_all_but_the_sender_and_keeps_its_place() {
    let (_datapath, mut vfs) = switch(4, true);
    for vf in &mut vfs {
        for _ in 0..8 {
            vf.post(2048);
        }
    }
    let unicast = frame(mac(Vf(3)), Vf(0), 100);
    let broadcast = frame(BROADCAST, Vf(0), 200);
    for sent in [&unicast, &broadcast, &unicast, &broadcast] {
        vfs[0].send(sent);
    }
    for expected in [&unicast, &broadcast, &unicast, &broadcast] {
        assert_eq!(vfs[3].receive()[12..], expected[..]);
    }
    for vf in &mut vfs[1..3] {
        assert_eq!(vf.receive()[12..], broadcast[..]);
        assert_eq!(vf.receive()[12..], broadcast[..]);
    }
    vfs[0].wait_sent();
    assert!(vfs.iter_mut().all(|vf| vf.take_received().is_none()));
}

#[test]
fn a_long_frame_spans_merged_buffers() {
    let (_datapath, mut vfs) = switch(2, true);
    for _ in 0..5 {
        vfs[1].post(2000);
    }
    let sent = frame(mac(Vf(1)), Vf(0), 9014);
    vfs[0].send(&sent);
    let first = vfs[1].receive();
    assert_eq!(u16::from_le_bytes([first[10], first[11]]), 5);
    let mut whole = first[12..].to_vec();
    for _ in 1..5 {
        whole.extend(vfs[1].receive());
    }
    assert_eq!(whole, sent);
}

#[test]
fn more_buffers_than_a_frame_may_span_stay_where_they_are() {
    let (_datapath, mut vfs) = switch(2, true);
    for _ in 0..128 {
        vfs[1].post(12);
    }
    // The frame would fit with the 129th buffer.
    vfs[1].post(4096);
    vfs[0].send(&frame(mac(Vf(1)), Vf(0), 1600));
    vfs[0].wait_sent();
    assert_eq!(vfs[1].drops("receive_buffer_too_small"), 1);
    vfs[0].send(&frame(mac(Vf(1)), Vf(0), 60));
    assert_eq!(vfs[1].receive(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0]);
}

#[test]
fn what_does_not_fit_is_dropped_and_counted_at_the_receiver() {
    // Without merged buffers each frame needs one that is large enough.
    let (_datapath, mut vfs) = switch(2, false);
    vfs[1].post(100);
    vfs[0].send(&frame(mac(Vf(1)), Vf(0), 500));
    vfs[0].wait_sent();
    assert_eq!(vfs[1].drops("receive_buffer_too_small"), 1);
    // The buffer is still there for a frame that fits.
    vfs[0].send(&frame(mac(Vf(1)), Vf(0), 60));
    assert_eq!(vfs[1].receive().len(), 72);
    vfs[0].send(&frame(mac(Vf(1)), Vf(0), 60));
    vfs[0].wait_sent();
    assert_eq!(vfs[1].drops("no_receive_buffer"), 1);

    // With merged buffers too few are the same as none, and no buffer is lost.
    let (_datapath, mut vfs) = switch(2, true);
    vfs[1].post(1000);
    vfs[1].post(1000);
    vfs[0].send(&frame(mac(Vf(1)), Vf(0), 4000));
    vfs[0].wait_sent();
    assert_eq!(vfs[1].drops("no_receive_buffer"), 1);
    vfs[0].send(&frame(mac(Vf(1)), Vf(0), 1500));
    assert_eq!(vfs[1].receive().len(), 1000);
    assert_eq!(vfs[1].receive().len(), 512);
}

#[test]
fn an_offload_that_was_not_negotiated_is_refused() {
    let (_datapath, mut vfs) = switch(2, true);
    vfs[1].post(2048);
    let good = frame(mac(Vf(1)), Vf(0), 60);
    let gso = [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    vfs[0].send_with_header(gso, &good);
    // The chain is shorter than the header.
    vfs[0].descriptor(&vfs[0].tx, 1, (0x10_0000, 11, 0, 0));
    vfs[0].offer_tx(1);
    vfs[0].send(&good);
    assert_eq!(vfs[1].receive()[12..], good[..]);
    vfs[0].wait_sent();
    assert_eq!(vfs[0].drops("bad_net_header"), 2);
}

#[test]
fn a_malformed_ring_stops_its_own_queue_only() {
    let (_datapath, mut vfs) = switch(4, true);
    for _ in 0..SIZE {
        vfs[3].post(2048);
    }
    // A good frame before the bad chain still arrives.
    let good = frame(mac(Vf(3)), Vf(0), 60);
    vfs[0].send(&good);
    assert_eq!(vfs[3].receive()[12..], good[..]);
    // vf0's transmit chain loops.
    vfs[0].descriptor(&vfs[0].tx, 1, (0x10_0000, 16, 1, 1));
    vfs[0].offer_tx(1);
    eventually("vf0's failure", || vfs[0].tx.events.failure.lock().is_some());
    assert!(vfs[0].tx.events.failure.lock().as_ref().unwrap().contains("loops"));

    // vf1's receive buffer is not its memory.
    vfs[1].descriptor(&vfs[1].rx, 0, (1 << 40, 2048, 2, 0));
    vfs[1].write(vfs[1].rx.split.addresses.driver + 0x04, &0u16.to_le_bytes());
    vfs[1].write(vfs[1].rx.split.addresses.driver + 0x02, &1u16.to_le_bytes());
    vfs[2].send(&frame(mac(Vf(1)), Vf(2), 60));
    eventually("vf1's failure", || vfs[1].rx.events.failure.lock().is_some());
    assert_eq!(vfs[1].drops("no_driver"), 1);
    assert_eq!(vfs[1].domain.faults().count, 1);
    assert_eq!(vfs[1].domain.faults().recent[0].iova, 1 << 40);

    // The other functions go on.
    for len in 60..90 {
        let sent = frame(mac(Vf(3)), Vf(2), len);
        vfs[2].send(&sent);
        assert_eq!(vfs[3].receive()[12..], sent[..]);
    }
    assert!(vfs[2].tx.events.failure.lock().is_none());
}

#[test]
fn a_ring_that_is_gone_is_a_fault_once_and_only_when_a_frame_comes() {
    let (_datapath, mut vfs) = switch(3, true);
    vfs[1].post(2048);
    vfs[0].send(&frame(mac(Vf(1)), Vf(0), 60));
    vfs[1].receive();
    // All of vf1's memory goes, once its own transmit queue is not polled any more; vf0 still
    // remembers the way there.
    std::thread::sleep(Duration::from_millis(20));
    vfs[1].domain.unmap(0, driver::MEMORY).unwrap();
    for _ in 0..3 {
        vfs[0].send(&frame(mac(Vf(9)), Vf(0), 60));
        vfs[0].wait_sent();
        assert_eq!(vfs[1].domain.faults().count, 0, "nothing was for it");
    }
    for frames in 1..4 {
        vfs[0].send(&frame(mac(Vf(1)), Vf(0), 60));
        vfs[0].wait_sent();
        assert_eq!((vfs[1].drops("no_driver"), vfs[1].domain.faults().count), (frames, 1));
    }
    assert!(vfs[1].rx.events.failure.lock().is_some());
}

#[test]
fn a_receiver_without_a_driver_drops() {
    let ids = [Vf(0), Vf(1)];
    let datapath = Datapath::start(&table(&ids), &[None]).unwrap();
    let mut sender = Driver::start(&datapath, Vf(0), true);
    let receiver = Driver::new(&datapath, Vf(1));
    sender.send(&frame(mac(Vf(1)), Vf(0), 60));
    sender.wait_sent();
    assert_eq!(receiver.drops("no_driver"), 1);
}

#[test]
fn frames_go_to_the_active_queue_pairs() {
    let ids = [Vf(0), Vf(1)];
    let datapath = Datapath::start(&table(&ids), &[None]).unwrap();
    let (mut sender, mut receiver) = (Driver::new(&datapath, Vf(0)), Driver::new(&datapath, Vf(1)));
    sender.tx.pair = 1;
    receiver.rx.pair = 1;
    sender.start_queue(&datapath, Direction::Transmit, true, QueueState::default());
    receiver.start_queue(&datapath, Direction::Receive, true, QueueState::default());
    receiver.post(2048);
    // The receiver begins with one pair, the first, which it has not set up.
    sender.send(&frame(mac(Vf(1)), Vf(0), 60));
    sender.wait_sent();
    assert_eq!(receiver.drops("no_driver"), 1);
    // Of two pairs, the frame goes to the one on which the receiver sends to the other side.
    datapath.set_steering(Vf(1), &pairs(2)).unwrap();
    receiver.tx.pair = 1;
    receiver.start_queue(&datapath, Direction::Transmit, true, QueueState::default());
    receiver.send(&frame(mac(Vf(0)), Vf(1), 60));
    receiver.wait_sent();
    sender.send(&frame(mac(Vf(1)), Vf(0), 61));
    assert_eq!(receiver.receive().len(), 12 + 61);
    datapath.set_steering(Vf(1), &pairs(1)).unwrap();
    sender.send(&frame(mac(Vf(1)), Vf(0), 62));
    sender.wait_sent();
    assert_eq!(receiver.drops("no_driver"), 2);
    let frames: Vec<_> = receiver.counters.pairs().map(|pair| pair.rx.frames).collect();
    assert_eq!(frames, [0, 1]);
    let frames: Vec<_> = sender.counters.pairs().map(|pair| pair.tx.frames).collect();
    assert_eq!(frames, [0, 3]);
}

#[test]
fn a_function_that_was_removed_gets_no_queue() {
    let (datapath, mut vfs) = switch(2, true);
    datapath.remove_function(Vf(1)).unwrap();
    for direction in [Direction::Receive, Direction::Transmit] {
        let error = datapath.start_queue(vfs[1].config(direction, true, QueueState::default()));
        assert!(matches!(error, Err(Error::NoFunction(Vf(1)))), "{error:?}");
    }
    // The next function with this number starts without queues.
    let next = Driver::new(&datapath, Vf(1));
    vfs[0].send(&frame(mac(Vf(1)), Vf(0), 60));
    vfs[0].wait_sent();
    assert_eq!(next.drops("no_driver"), 1);
}

#[test]
fn nobody_waits_for_a_worker_that_has_ended() {
    let (datapath, mut vfs) = switch(2, true);
    vfs[1].post(2048);
    let (busy, wait) = std::sync::mpsc::channel();
    *vfs[1].rx.events.then.lock() = Some(Box::new(move || {
        busy.send(()).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        // This panics without a message.
        std::panic::resume_unwind(Box::new(()));
    }));
    vfs[0].send(&frame(mac(Vf(1)), Vf(0), 60));
    wait.recv().unwrap();
    // This command waits already when the worker ends, the next one comes too late.
    assert!(matches!(datapath.set_steering(Vf(0), &pairs(1)), Err(Error::WorkerGone)));
    assert!(matches!(datapath.stop_queue(Vf(0), 0, Direction::Receive), Err(Error::WorkerGone)));
}

#[test]
fn a_stopped_queue_goes_on_where_it_was() {
    let (datapath, mut vfs) = switch(2, true);
    for _ in 0..20 {
        vfs[1].post(2048);
    }
    let mut state = QueueState::default();
    for len in 60..80 {
        if len == 70 {
            let stopped = datapath.stop_queue(Vf(0), 0, Direction::Transmit).unwrap();
            state = stopped.unwrap();
            assert_eq!(state, QueueState { next_avail: 10, next_used: 10 });
            // Nobody serves the queue now.
            vfs[0].send(&frame(mac(Vf(1)), Vf(0), len));
            std::thread::sleep(Duration::from_millis(20));
            assert!(vfs[1].take_received().is_none());
            vfs[0].start_queue(&datapath, Direction::Transmit, true, state);
        } else {
            vfs[0].send(&frame(mac(Vf(1)), Vf(0), len));
        }
        assert_eq!(vfs[1].receive().len(), 12 + len);
        vfs[0].wait_sent();
    }
    assert_ne!(state, QueueState::default());
    assert_eq!(datapath.stop_queue(Vf(9), 0, Direction::Receive).unwrap(), None);
}

#[test]
fn an_idle_worker_sleeps_and_a_kick_wakes_it() {
    let (_datapath, mut vfs) = switch(2, true);
    for round in 0..50 {
        vfs[1].post(2048);
        vfs[0].send(&frame(mac(Vf(1)), Vf(0), 60 + round));
        assert_eq!(vfs[1].receive().len(), 72 + round);
        vfs[0].wait_sent();
        vfs[0].wait_armed();
    }
}

#[test]
fn a_flood_of_broadcasts_does_not_keep_others_waiting() {
    let (_datapath, mut vfs) = switch(40, true);
    for _ in 0..SIZE {
        vfs[2].post(128);
    }
    vfs[3].post(128);
    for index in 0..2 {
        vfs[index].send(&frame(mac(Vf(2)), Vf(index as u16), 60));
        assert_eq!(vfs[2].receive().len(), 72);
        vfs[index].wait_armed();
    }
    // vf1 is kicked while the worker is busy with the first of seven bursts.
    let patient = frame(mac(Vf(2)), Vf(1), 61);
    vfs[1].prepare(&patient);
    let kick = vfs[1].tx.kick.clone();
    *vfs[3].rx.events.then.lock() = Some(Box::new(move || {
        rustix::io::write(&kick, &1u64.to_ne_bytes()).unwrap();
    }));
    for _ in 0..200 {
        vfs[0].prepare(&frame(BROADCAST, Vf(0), 60));
    }
    vfs[0].tx.ring();
    let before = (0..).take_while(|_| vfs[2].receive()[12..] != patient[..]).count();
    assert!((32..=64).contains(&before), "{before} broadcasts went first");
}

#[test]
fn a_doorbell_that_its_holder_filled_up_blocks_nobody() {
    let (datapath, mut vfs) = switch(2, true);
    let bell = vfs[0].tx.kick.clone();
    let flags = rustix::fs::fcntl_getfl(&bell).unwrap();
    rustix::fs::fcntl_setfl(&bell, flags - rustix::fs::OFlags::NONBLOCK).unwrap();
    for round in 0..20 {
        vfs[1].post(2048);
        if round > 0 {
            rustix::io::read(&bell, &mut [0; 8]).unwrap();
        }
        // send() signals once more, and then it is full.
        rustix::io::write(&bell, &(u64::MAX - 2).to_ne_bytes()).unwrap();
        vfs[0].send(&frame(mac(Vf(1)), Vf(0), 60 + round));
        assert_eq!(vfs[1].receive().len(), 72 + round);
        // The adapter's own kick does not go through the full eventfd.
        for _ in 0..3 {
            datapath.kick(&bell);
        }
        vfs[0].wait_sent();
    }
}

#[test]
fn after_unmap_nothing_is_written() {
    let (_datapath, mut vfs) = switch(2, true);
    let watch = GuestMemory::new("unmapped", 1 << 20).unwrap();
    let at = 1 << 32;
    let backing = watch.backing(0).unwrap();
    let both = manifold_dma::Permissions::READ_WRITE;
    vfs[1].domain.map(at, 1 << 20, both, backing).unwrap();
    for index in 0..SIZE {
        let iova = at + u64::from(index) * 4096;
        vfs[1].descriptor(&vfs[1].rx, index, (iova, 2048, 2, 0));
        let slot = vfs[1].rx.split.addresses.driver + 0x04 + 2 * u64::from(index);
        vfs[1].write(slot, &index.to_le_bytes());
    }
    vfs[1].write(vfs[1].rx.split.addresses.driver + 0x02, &SIZE.to_le_bytes());
    for _ in 0..32 {
        vfs[0].send(&frame(mac(Vf(1)), Vf(0), 1000));
    }
    vfs[1].domain.unmap(at, 1 << 20).unwrap();
    // Everything that was delivered was delivered before unmap returned.
    let zeros = vec![0; 1 << 20];
    watch.write(0, &zeros).unwrap();
    vfs[0].wait_sent();
    let mut now = vec![1; 1 << 20];
    watch.read(0, &mut now).unwrap();
    assert_eq!(now, zeros);
}

proptest! {
    /// The frame read from a chain is the same however the chain is cut into pieces.
    #[test]
    fn the_cut_of_a_chain_does_not_matter(
        len in 0usize..300,
        cuts in proptest::collection::vec(0usize..312, 0..12),
    ) {
        let body: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let mut bytes = [&[0; NET_HEADER][..], &body].concat();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Pieces::new();
        let (mut rest, mut at) = (&mut bytes[..], 0);
        for cut in cuts {
            let (piece, tail) = rest.split_at_mut(cut - at);
            pieces.push(Slice::from_mut(piece));
            (rest, at) = (tail, cut);
        }
        pieces.push(Slice::from_mut(rest));
        let extent = (0, pieces.len());
        let total = (NET_HEADER + len) as u32;
        let mut frame = Frame::EMPTY;
        frame.read(&pieces, extent, NET_HEADER, Offloads::NONE, total).unwrap();
        frame.set_buffers(7);
        prop_assert_eq!(frame.len(), len);
        let mut out = frame.plain_head().to_vec();
        prop_assert_eq!(&out[..NET_HEADER], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0]);
        for piece in frame.rest(&pieces) {
            let mut part = vec![0; piece.len()];
            piece.read(&mut part);
            out.extend(part);
        }
        prop_assert_eq!(&out[NET_HEADER..], &body[..]);
    }
}
