//! These attacks misuse DMA: mappings that make no sense, memory that goes away, addresses that are
//! not the guest's.

use crate::attack::{Answer, Attack, IOVA, QUEUE_SIZE, Target, descriptor};
use manifold_guest::memory::{Arena, PAGE};
use manifold_guest::vfio::DmaMap;
use manifold_guest::virtio::spec::ring::F_WRITE;
use manifold_guest::{Error, Result};
use std::os::fd::AsFd;

impl Target {
    /// Fills the TX ring with good frames, publishes them, and does not ring.
    fn fill_tx(&mut self) -> Result<()> {
        for i in 0..QUEUE_SIZE {
            self.tx.set_descriptor(i, descriptor(&self.good()))?;
            self.tx.force_offer(i)?;
        }
        self.tx.publish()?;
        Ok(())
    }

    /// Fills the RX ring with good buffers.
    fn fill_rx(&mut self) -> Result<()> {
        for i in 0..QUEUE_SIZE {
            let buffer = (self.at(8192 + 2048 * usize::from(i)), 2048, F_WRITE, 0);
            self.rx.set_descriptor(i, descriptor(&buffer))?;
            self.rx.force_offer(i)?;
        }
        self.rx.publish()?;
        self.device.kick(0)
    }
}

pub(crate) fn map_nonsense(attack: &mut Attack) -> Result<()> {
    let mut function = attack.function()?;
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
            Ok(()) => attack.note(format!("{what}: accepted")),
            Err(e @ Error::Refused { .. }) => attack.note(format!("{what}: {e}")),
            Err(e) => return Err(e),
        }
    }
    drop(function);
    attack.attempt("a frame after that", |_, target| target.send_good())
}

pub(crate) fn map_many(attack: &mut Attack) -> Result<()> {
    const COUNT: u64 = 10_000;
    let mut function = attack.function()?;
    let arena = function.arena().clone();
    let page = PAGE as u64;
    // Only every other page is mapped, so that nothing can be merged.
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
    attack.note(format!("{mapped} of {COUNT} mappings accepted"));
    // Half of the mappings are removed in an orderly way, the rest go with the connection.
    for i in (0..mapped).step_by(2) {
        function.transport().dma_unmap(iova(i), page)?;
    }
    drop(function);
    attack.attempt("a frame after that", |_, target| target.send_good())
}

pub(crate) fn unmap_in_flight(attack: &mut Attack) -> Result<()> {
    for round in 0..10 {
        attack.attempt(&format!("unmapped under traffic, round {round}"), |attack, target| {
            let size = target.arena.size() as u64;
            target.fill_rx()?;
            target.fill_tx()?;
            target.device.kick(1)?;
            attack.frames_in(8)?;
            target.device.function().transport().dma_unmap(IOVA, size)?;
            target.device.kick(1)?;
            attack.frames_in(8)?;
            let answer = target.observe_status();
            let map = DmaMap { iova: IOVA, size, offset: 0, readable: true, writable: true };
            let arena = target.arena.clone();
            target.device.function().transport().dma_map(&map, Some(arena.fd()))?;
            answer
        })?;
    }
    Ok(())
}

/// Returns addresses that were not mapped: the given one, and those next to mapped memory.
fn rogue_addresses(attack: &Attack) -> [u64; 4] {
    // The arena is this scenario's own and of a known size.
    [attack.rogue_iova, IOVA - 4096, IOVA + (1 << 20), 0]
}

pub(crate) fn rogue_read(attack: &mut Attack) -> Result<()> {
    for iova in rogue_addresses(attack) {
        attack.attempt(&format!("TX from {iova:#x}"), |_, target| {
            target.tx_chain(&[(iova, 72, 0, 0)])?;
            target.send(&[0])
        })?;
        attack.attempt(&format!("TX with its second part from {iova:#x}"), |_, target| {
            target.tx_chain(&[(target.at(0), 12 + 14, 1, 1), (iova, 1000, 0, 0)])?;
            target.send(&[0])
        })?;
    }
    attack.attempt("TX from the last mapped bytes on", |_, target| {
        let end = IOVA + target.arena.size() as u64;
        target.tx_chain(&[(end - 72, 73, 0, 0)])?;
        target.send(&[0])
    })
}

pub(crate) fn rogue_write(attack: &mut Attack) -> Result<()> {
    for iova in rogue_addresses(attack) {
        attack.attempt(&format!("RX to {iova:#x}"), |attack, target| {
            target.rx_chain(&[(iova, 2048, F_WRITE, 0)])?;
            target.receive(attack, &[0])
        })?;
        attack.attempt(&format!("RX with its second part to {iova:#x}"), |attack, target| {
            target.rx_chain(&[(target.at(0), 16, F_WRITE | 1, 1), (iova, 2048, F_WRITE, 0)])?;
            target.receive(attack, &[0])
        })?;
    }
    Ok(())
}

pub(crate) fn truncate_memory(attack: &mut Attack) -> Result<()> {
    for (what, keep) in [("everything", 0u64), ("all but the rings", 8192)] {
        attack.attempt(&format!("{what} cut off"), |attack, target| {
            let arena = target.arena.clone();
            target.fill_rx()?;
            target.fill_tx()?;
            // From here to the restoration, this side must not access guest memory.
            arena.truncate(keep)?;
            let answer = target
                .device
                .kick(1)
                .and_then(|()| attack.frames_in(4))
                .and_then(|()| target.observe_status());
            arena.restore()?;
            answer
        })?;
    }
    attack.attempt("cut off and restored, over and over", |attack, target| {
        let arena = target.arena.clone();
        target.fill_rx()?;
        for _ in 0..50 {
            target.fill_tx()?;
            target.device.kick(1)?;
            arena.truncate(0)?;
            let result = target.device.kick(1).and_then(|()| attack.frames_in(1));
            arena.restore()?;
            result?;
        }
        target.observe_status()
    })?;
    let arena = Arena::new(PAGE, 0)?;
    arena.truncate(0)?;
    let mut function = attack.function()?;
    let map = DmaMap {
        iova: 0x9_0000_0000,
        size: PAGE as u64,
        offset: 0,
        readable: true,
        writable: true,
    };
    match function.transport().dma_map(&map, Some(arena.fd())) {
        Ok(()) => attack.note("memory without a byte in it, mapped: accepted"),
        Err(e @ Error::Refused { .. }) => attack.note(format!("memory without a byte in it: {e}")),
        Err(e) => return Err(e),
    }
    Ok(())
}

pub(crate) fn bus_master_off(attack: &mut Attack) -> Result<()> {
    attack.attempt("TX with Bus Master Enable off", |attack, target| {
        target.fill_rx()?;
        target.fill_tx()?;
        target.device.function().set_bus_master(false)?;
        target.device.kick(1)?;
        attack.frames_in(4)?;
        target.observe_status()
    })?;
    attack.attempt("Bus Master Enable off and on under traffic", |attack, target| {
        target.fill_rx()?;
        for _ in 0..50 {
            target.fill_tx()?;
            target.device.kick(1)?;
            target.device.function().set_bus_master(false)?;
            target.device.function().set_bus_master(true)?;
            attack.frames_in(1)?;
        }
        target.observe(1)
    })
}

pub(crate) fn reset_storm(attack: &mut Attack) -> Result<()> {
    attack.attempt("300 resets of three kinds", |attack, target| {
        for round in 0..100 {
            target.device.set_status(0)?;
            target.device.function().flr()?;
            target.device.function().transport().reset()?;
            if round % 20 == 0 {
                attack.frames_in(1)?;
            }
        }
        target.device.function().enable()?;
        Ok(Answer::Silence)
    })?;
    for round in 0..20 {
        attack.attempt(&format!("reset under traffic, round {round}"), |attack, target| {
            target.fill_rx()?;
            target.fill_tx()?;
            target.device.kick(1)?;
            attack.frames_in(2)?;
            match round % 3 {
                0 => target.device.set_status(0)?,
                1 => target.device.function().flr()?,
                _ => target.device.function().transport().reset()?,
            }
            target.device.kick(1)?;
            Ok(Answer::Silence)
        })?;
    }
    Ok(())
}
