//! DMA: mappings that make no sense, memory that goes away, addresses that are not the guest's.

use super::lab::{Answer, IOVA, Lab, QUEUE_SIZE, Rig};
use crate::memory::{Arena, PAGE};
use crate::vfio::DmaMap;
use crate::virtio::spec::ring::F_WRITE;
use crate::{Error, Result};
use std::os::fd::AsFd;

impl Rig {
    /// Fills the TX ring with good frames, publishes them, and does not ring.
    fn fill_tx(&mut self) -> Result<()> {
        let (iova, len, ..) = self.good();
        for i in 0..QUEUE_SIZE {
            self.tx.set_descriptor(i, iova, len, 0, 0)?;
            self.tx.force_offer(i)?;
        }
        self.tx.publish()?;
        Ok(())
    }

    /// Fills the RX ring with good buffers.
    fn fill_rx(&mut self) -> Result<()> {
        for i in 0..QUEUE_SIZE {
            self.rx.set_descriptor(i, self.at(8192 + 2048 * usize::from(i)), 2048, F_WRITE, 0)?;
            self.rx.force_offer(i)?;
        }
        self.rx.publish()?;
        self.device.kick(0)
    }
}

pub(super) fn map_nonsense(lab: &mut Lab) -> Result<()> {
    let mut function = lab.function()?;
    let arena = function.arena().clone();
    let null = std::fs::File::open("/dev/null").map_err(|e| Error::io("opening /dev/null", e))?;
    let (reader, _writer) = rustix::pipe::pipe().map_err(|e| Error::io("making a pipe", e))?;
    let page = PAGE as u64;
    let far = 0x9_0000_0000;
    let good = DmaMap { iova: far, size: page, offset: 0, readable: true, writable: true };
    let with = |iova, size, offset| DmaMap { iova, size, offset, ..good };
    let maps = [
        ("empty", with(far, 0, 0)),
        ("of half a page", with(far, 2048, 0)),
        ("at an odd address", with(far + 1, page, 0)),
        ("from an odd offset", with(far, page, 1)),
        ("over the existing one", with(IOVA, page, 0)),
        ("across the start of the existing one", with(IOVA - page, 2 * page, 0)),
        (
            "across the end of the existing one",
            with(IOVA + arena.size() as u64 - page, 2 * page, 0),
        ),
        ("that wraps", with(u64::MAX - page + 1, 2 * page, 0)),
        ("of the last page there is", with(u64::MAX - page + 1, page, 0)),
        ("of everything", with(0, u64::MAX, 0)),
        ("of 2^63 bytes", with(1 << 63, 1 << 63, 0)),
        ("behind the end of the file", with(far, page, arena.size() as u64)),
        ("larger than the file", with(far, 1 << 30, 0)),
        ("from an offset that wraps", with(far, page, u64::MAX - page + 1)),
        ("without permissions", DmaMap { readable: false, writable: false, ..good }),
        ("for writing only", DmaMap { readable: false, ..good }),
    ];
    let mut answers = Vec::new();
    for (what, map) in maps {
        let result = function.transport().dma_map(&map, Some(arena.fd()));
        let accepted = result.is_ok();
        answers.push((format!("a mapping {what}"), result));
        if accepted {
            let result = function.transport().dma_unmap(map.iova, map.size);
            answers.push((format!("unmapping that {what}"), result));
        }
    }
    for (what, fd) in [("/dev/null", null.as_fd()), ("a pipe", reader.as_fd())] {
        let result = function.transport().dma_map(&good, Some(fd));
        if result.is_ok() {
            function.transport().dma_unmap(good.iova, good.size)?;
        }
        answers.push((format!("a mapping of {what}"), result));
    }
    let size = arena.size() as u64;
    let unmaps = [
        ("what was never mapped", far, page),
        ("nothing", IOVA, 0),
        ("half of a mapping", IOVA, size / 2),
        ("the middle of a mapping", IOVA + page, page),
        ("more than a mapping", IOVA, size + page),
        ("what wraps", u64::MAX, 2),
    ];
    for (what, iova, size) in unmaps {
        let result = function.transport().dma_unmap(iova, size);
        answers.push((format!("unmapping {what}"), result));
    }
    for (what, result) in answers {
        match result {
            Ok(()) => lab.note(format!("{what}: accepted")),
            Err(e @ Error::Refused { .. }) => lab.note(format!("{what}: {e}")),
            Err(e) => return Err(e),
        }
    }
    drop(function);
    lab.attempt("a frame after that", |_, rig| rig.send_good())
}

pub(super) fn map_many(lab: &mut Lab) -> Result<()> {
    const COUNT: u64 = 10_000;
    let mut function = lab.function()?;
    let arena = function.arena().clone();
    let page = PAGE as u64;
    // Every other page, so that nothing can be merged.
    let iova = |i: u64| 0x20_0000_0000 + 2 * i * page;
    let mut mapped = 0;
    for i in 0..COUNT {
        let offset = i * page % arena.size() as u64;
        let map = DmaMap { iova: iova(i), size: page, offset, readable: true, writable: true };
        match function.transport().dma_map(&map, Some(arena.fd())) {
            Ok(()) => mapped += 1,
            Err(Error::Refused { .. }) => break,
            Err(e) => return Err(e),
        }
    }
    lab.note(format!("{mapped} of {COUNT} mappings accepted"));
    // Half of them are taken back in an orderly way, the rest go with the connection.
    for i in (0..mapped).step_by(2) {
        function.transport().dma_unmap(iova(i), page)?;
    }
    drop(function);
    lab.attempt("a frame after that", |_, rig| rig.send_good())
}

pub(super) fn unmap_in_flight(lab: &mut Lab) -> Result<()> {
    for round in 0..10 {
        lab.attempt(&format!("unmapped under traffic, round {round}"), |lab, rig| {
            let size = rig.arena.size() as u64;
            rig.fill_rx()?;
            rig.fill_tx()?;
            rig.device.kick(1)?;
            lab.frames_in(8)?;
            rig.device.function().transport().dma_unmap(IOVA, size)?;
            rig.device.kick(1)?;
            lab.frames_in(8)?;
            let answer = rig.observe_status();
            let map = DmaMap { iova: IOVA, size, offset: 0, readable: true, writable: true };
            let arena = rig.arena.clone();
            rig.device.function().transport().dma_map(&map, Some(arena.fd()))?;
            answer
        })?;
    }
    Ok(())
}

/// Addresses that were not mapped: the given one, and those next to what was.
fn rogue_addresses(lab: &Lab) -> [u64; 4] {
    // The arena is this scenario's own and of a known size.
    [lab.rogue_iova, IOVA - 4096, IOVA + (1 << 20), 0]
}

pub(super) fn rogue_read(lab: &mut Lab) -> Result<()> {
    for iova in rogue_addresses(lab) {
        lab.attempt(&format!("TX from {iova:#x}"), |_, rig| {
            rig.tx_chain(&[(iova, 72, 0, 0)])?;
            rig.send(&[0])
        })?;
        lab.attempt(&format!("TX with its second part from {iova:#x}"), |_, rig| {
            rig.tx_chain(&[(rig.at(0), 12 + 14, 1, 1), (iova, 1000, 0, 0)])?;
            rig.send(&[0])
        })?;
    }
    lab.attempt("TX from the last mapped bytes on", |_, rig| {
        let end = IOVA + rig.arena.size() as u64;
        rig.tx_chain(&[(end - 72, 73, 0, 0)])?;
        rig.send(&[0])
    })
}

pub(super) fn rogue_write(lab: &mut Lab) -> Result<()> {
    for iova in rogue_addresses(lab) {
        lab.attempt(&format!("RX to {iova:#x}"), |lab, rig| {
            rig.rx_chain(&[(iova, 2048, F_WRITE, 0)])?;
            rig.receive(lab, &[0])
        })?;
        lab.attempt(&format!("RX with its second part to {iova:#x}"), |lab, rig| {
            rig.rx_chain(&[(rig.at(0), 16, F_WRITE | 1, 1), (iova, 2048, F_WRITE, 0)])?;
            rig.receive(lab, &[0])
        })?;
    }
    Ok(())
}

pub(super) fn truncate_memory(lab: &mut Lab) -> Result<()> {
    for (what, keep) in [("everything", 0u64), ("all but the rings", 8192)] {
        lab.attempt(&format!("{what} cut off"), |lab, rig| {
            let arena = rig.arena.clone();
            rig.fill_rx()?;
            rig.fill_tx()?;
            // From here to the restoration, no access to guest memory on this side.
            arena.truncate(keep)?;
            let answer = rig
                .device
                .kick(1)
                .and_then(|()| lab.frames_in(4))
                .and_then(|()| rig.observe_status());
            arena.restore()?;
            answer
        })?;
    }
    lab.attempt("cut off and restored, over and over", |lab, rig| {
        let arena = rig.arena.clone();
        rig.fill_rx()?;
        for _ in 0..50 {
            rig.fill_tx()?;
            rig.device.kick(1)?;
            arena.truncate(0)?;
            let result = rig.device.kick(1).and_then(|()| lab.frames_in(1));
            arena.restore()?;
            result?;
        }
        rig.observe_status()
    })?;
    let arena = Arena::new(PAGE, 0)?;
    arena.truncate(0)?;
    let mut function = lab.function()?;
    let map = DmaMap {
        iova: 0x9_0000_0000,
        size: PAGE as u64,
        offset: 0,
        readable: true,
        writable: true,
    };
    match function.transport().dma_map(&map, Some(arena.fd())) {
        Ok(()) => lab.note("memory without a byte in it, mapped: accepted"),
        Err(e @ Error::Refused { .. }) => lab.note(format!("memory without a byte in it: {e}")),
        Err(e) => return Err(e),
    }
    Ok(())
}

pub(super) fn bus_master_off(lab: &mut Lab) -> Result<()> {
    lab.attempt("TX with Bus Master Enable off", |lab, rig| {
        rig.fill_rx()?;
        rig.fill_tx()?;
        rig.device.function().set_bus_master(false)?;
        rig.device.kick(1)?;
        lab.frames_in(4)?;
        rig.observe_status()
    })?;
    lab.attempt("Bus Master Enable off and on under traffic", |lab, rig| {
        rig.fill_rx()?;
        for _ in 0..50 {
            rig.fill_tx()?;
            rig.device.kick(1)?;
            rig.device.function().set_bus_master(false)?;
            rig.device.function().set_bus_master(true)?;
            lab.frames_in(1)?;
        }
        rig.observe(1)
    })
}

pub(super) fn reset_storm(lab: &mut Lab) -> Result<()> {
    lab.attempt("300 resets of three kinds", |lab, rig| {
        for round in 0..100 {
            rig.device.set_status(0)?;
            rig.device.function().flr()?;
            rig.device.function().transport().reset()?;
            if round % 20 == 0 {
                lab.frames_in(1)?;
            }
        }
        rig.device.function().enable()?;
        Ok(Answer::Silence)
    })?;
    for round in 0..20 {
        lab.attempt(&format!("reset under traffic, round {round}"), |lab, rig| {
            rig.fill_rx()?;
            rig.fill_tx()?;
            rig.device.kick(1)?;
            lab.frames_in(2)?;
            match round % 3 {
                0 => rig.device.set_status(0)?,
                1 => rig.device.function().flr()?,
                _ => rig.device.function().transport().reset()?,
            }
            rig.device.kick(1)?;
            Ok(Answer::Silence)
        })?;
    }
    Ok(())
}
