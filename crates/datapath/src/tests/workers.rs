//! These tests run several workers: frames between them, queues that move, and the end of either.

use std::sync::atomic::Ordering;

use manifold_pci::FunctionId::Vf;
use manifold_virtio::net::Coalescing;

use super::driver::{Driver, SIZE, eventually};
use super::*;

/// Returns a data path of two workers; neighbours among its functions are on different ones.
fn two_workers(count: u16, mergeable: bool) -> (Datapath, Vec<Driver>) {
    let ids: Vec<_> = (0..count).map(Vf).collect();
    let datapath = Datapath::start(&table(&ids), &[None, None]).unwrap();
    let drivers: Vec<_> = ids.iter().map(|id| Driver::start(&datapath, *id, mergeable)).collect();
    assert!(datapath.workers().iter().all(|worker| worker.pairs == usize::from(count) / 2));
    (datapath, drivers)
}

#[test]
fn frames_cross_whole_and_in_order() {
    let (datapath, mut vfs) = two_workers(2, true);
    // The sizes stay within the head, are carried along, are left in place, and are left in place
    // for merged buffers.
    let sizes = [60, 64, 65, 200, 256, 257, 300, 1514, 9014, 60, 9014, 61];
    for round in 0..20 {
        for _ in 0..40 {
            vfs[1].post(2048);
        }
        let sent: Vec<_> = sizes.iter().map(|len| frame(mac(Vf(1)), Vf(0), len + round)).collect();
        for frame in &sent {
            vfs[0].prepare(frame);
        }
        vfs[0].tx.ring();
        for frame in &sent {
            assert_eq!(&vfs[1].receive_whole(), frame);
        }
        vfs[0].wait_sent();
        // The remaining buffers are used up, so that the next round begins without any.
        while vfs[1].rx_left() > 0 {
            let filler = self::frame(mac(Vf(1)), Vf(0), 60);
            vfs[0].send(&filler);
            vfs[1].receive();
        }
        vfs[0].wait_sent();
    }
    let handed_over: u64 = datapath.workers().iter().map(|worker| worker.handed_over).sum();
    assert_eq!(handed_over, vfs[1].counters.total().rx.frames);
    assert!(vfs[0].counters.total().drops.is_empty());
}

#[test]
fn broadcasts_cross_too() {
    let (_datapath, mut vfs) = two_workers(4, true);
    for vf in &mut vfs {
        for _ in 0..8 {
            vf.post(2048);
        }
    }
    let sent = [frame(BROADCAST, Vf(0), 1000), frame(BROADCAST, Vf(0), 100)];
    for frame in &sent {
        vfs[0].send(frame);
    }
    for vf in &mut vfs[1..] {
        for frame in &sent {
            assert_eq!(vf.receive()[12..], frame[..]);
        }
    }
    vfs[0].wait_sent();
    assert!(vfs[0].take_received().is_none());
}

#[test]
fn a_queue_stops_when_nothing_of_it_is_in_flight() {
    let (datapath, mut vfs) = two_workers(2, true);
    let mut state = QueueState::default();
    for _ in 0..50 {
        for _ in 0..4 {
            vfs[1].post(2048);
        }
        for _ in 0..4 {
            vfs[0].prepare(&frame(mac(Vf(1)), Vf(0), 1500));
        }
        vfs[0].tx.ring();
        let stopped = datapath.stop_queue(Vf(0), 0, Direction::Transmit).unwrap().unwrap();
        assert_eq!(stopped.next_avail, stopped.next_used, "all given back");
        assert!(stopped.next_avail.wrapping_sub(state.next_avail) <= 8, "of two rounds");
        state = stopped;
        vfs[0].start_queue(&datapath, Direction::Transmit, true, state);
        vfs[0].wait_sent();
        for _ in 0..4 {
            assert_eq!(vfs[1].receive().len(), 12 + 1500);
        }
    }
}

#[test]
fn a_receiver_that_is_gone_gives_the_sender_its_buffers_back() {
    let (datapath, mut vfs) = two_workers(2, true);
    datapath.stop_queue(Vf(1), 0, Direction::Receive).unwrap();
    vfs[0].send(&frame(mac(Vf(1)), Vf(0), 1500));
    vfs[0].wait_sent();
    assert_eq!(vfs[1].drops("no_driver"), 1);
    datapath.remove_function(Vf(1)).unwrap();
    vfs[0].send(&frame(mac(Vf(1)), Vf(0), 1500));
    vfs[0].wait_sent();
}

#[test]
fn memory_unmapped_in_flight_is_a_fault_and_nothing_worse() {
    let (_datapath, mut vfs) = two_workers(2, true);
    let at = 1 << 32;
    for _ in 0..100 {
        let backing = GuestMemory::new("unmapped", 1 << 16).unwrap().backing(0).unwrap();
        vfs[0].domain.map(at, 1 << 16, manifold_dma::Permissions::READ_WRITE, backing).unwrap();
        let sent = [&[0; 12][..], &frame(mac(Vf(1)), Vf(0), 3000)].concat();
        vfs[0].write(at, &sent);
        vfs[1].post(4096);
        let index = vfs[0].tx.split.next_avail % SIZE;
        vfs[0].descriptor(&vfs[0].tx, index, (at, sent.len() as u32, 0, 0));
        vfs[0].offer_tx(index);
        vfs[0].domain.unmap(at, 1 << 16).unwrap();
        if vfs[0].tx.events.failure.lock().is_some() {
            // The sender's own worker came too late: its queue has failed, as on any fault.
            return;
        }
        eventually("the frame or its loss", || {
            vfs[0].domain.faults().count > 0 || vfs[1].rx_pending() > 0
        });
        if let Some(received) = vfs[1].take_received() {
            assert_eq!(received[12..], sent[12..]);
        }
    }
}

#[test]
fn queues_move_and_no_frame_is_lost_or_overtaken() {
    let (datapath, mut vfs) = two_workers(4, true);
    let (mut sent, mut received) = (0u32, 0u32);
    let mut others = vfs.split_off(2);
    for step in 0..6u64 {
        let until = std::time::Instant::now() + Duration::from_millis(120);
        while std::time::Instant::now() < until {
            while sent - received < 100 {
                let mut next = frame(mac(Vf(1)), Vf(0), 60 + (sent % 1400) as usize);
                next[14..18].copy_from_slice(&sent.to_le_bytes());
                vfs[1].post(2048);
                vfs[0].prepare(&next);
                sent += 1;
            }
            vfs[0].tx.ring();
            while let Some(got) = vfs[1].take_received() {
                assert_eq!(got[12 + 14..12 + 18], received.to_le_bytes(), "in order");
                received += 1;
            }
        }
        // With both gone from one worker, one of the two that talk has to move; with both back, it
        // has to move again.
        if step.is_multiple_of(2) {
            for vf in &others {
                datapath.remove_function(vf.id).unwrap();
            }
        } else {
            others = [2, 3].map(|n| Driver::start(&datapath, Vf(n), true)).into();
        }
        if step == 0 {
            datapath.remove_function(Vf(9)).unwrap();
        }
    }
    eventually("the last frame", || {
        while let Some(got) = vfs[1].take_received() {
            assert_eq!(got[12 + 14..12 + 18], received.to_le_bytes(), "in order");
            received += 1;
        }
        received == sent
    });
    assert!(vfs[0].counters.total().drops.is_empty());
    let pairs: Vec<_> = datapath.workers().iter().map(|worker| worker.pairs).collect();
    assert_eq!(pairs.iter().sum::<usize>(), 4);
}

#[test]
fn nobody_waits_for_frames_in_flight_at_a_worker_that_has_ended() {
    let (datapath, mut vfs) = two_workers(2, true);
    vfs[1].post(2048);
    *vfs[1].rx.events.then.lock() = Some(Box::new(|| std::panic::resume_unwind(Box::new(()))));
    vfs[0].send(&frame(mac(Vf(1)), Vf(0), 1500));
    let handed_over = || datapath.workers().iter().map(|worker| worker.handed_over).sum::<u64>();
    eventually("the frame's leaving", || handed_over() == 1);
    assert!(datapath.stop_queue(Vf(0), 0, Direction::Transmit).unwrap().is_some());
    eventually("the other worker's end", || {
        matches!(datapath.set_steering(Vf(0), &pairs(1)), Err(Error::WorkerGone))
    });
}

#[test]
fn interrupts_wait_for_frames_or_time() {
    let (datapath, mut vfs) = two_workers(2, true);
    for _ in 0..200 {
        vfs[1].post(2048);
    }
    let raised = |vf: &Driver| vf.rx.events.interrupts.load(Ordering::Relaxed);
    let coalescing = Coalescing { max_packets: 8, max_usecs: 30_000_000 };
    datapath.set_coalescing(Vf(1), 0, Direction::Receive, coalescing).unwrap();
    vfs[1].want_every_interrupt();
    for count in 1..=16 {
        vfs[0].send(&frame(mac(Vf(1)), Vf(0), 60));
        vfs[1].receive();
        if count % 8 == 0 {
            eventually("an interrupt", || raised(&vfs[1]) == count / 8);
        }
    }
    assert_eq!(raised(&vfs[1]), 2);
    let coalescing = Coalescing { max_packets: 1000, max_usecs: 20_000 };
    datapath.set_coalescing(Vf(1), 0, Direction::Receive, coalescing).unwrap();
    vfs[0].send(&frame(mac(Vf(1)), Vf(0), 60));
    vfs[1].receive();
    assert_eq!(raised(&vfs[1]), 2, "not yet");
    eventually("the interrupt, after 20 ms", || raised(&vfs[1]) == 3);
    datapath.set_coalescing(Vf(1), 0, Direction::Receive, Coalescing::default()).unwrap();
    vfs[0].send(&frame(mac(Vf(1)), Vf(0), 60));
    eventually("an interrupt", || raised(&vfs[1]) == 4);
}

#[test]
fn a_processor_that_does_not_exist_is_refused() {
    let error = Datapath::start(&table(&[]), &[Some(0), Some(1000)]).unwrap_err();
    assert!(matches!(error, Error::Core { core: 1000, .. }), "{error}");
    assert!(matches!(Datapath::start(&table(&[]), &[]), Err(Error::Workers(0))));
    assert!(matches!(Datapath::start(&table(&[]), &[None; 65]), Err(Error::Workers(65))));
}
