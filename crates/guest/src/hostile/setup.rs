//! What can be done wrong between reset and the first frame: addresses, sizes, order, doorbells.

use super::lab::{Answer, IOVA, Lab, QUEUE_SIZE, Rig};
use crate::Result;
use crate::vfio::DmaMap;
use crate::virtio::spec::{NO_VECTOR, common, ring::F_WRITE};
use crate::virtio::{Layout, status};
use rand::{Rng, RngExt};
use std::time::{Duration, Instant};

/// Where a second view of guest memory is put.
const ELSEWHERE: u64 = 0x7_0000_0000;

/// Re-creates queue 0 or 1 with other addresses (descriptors, available, used), then uses it.
fn with_addresses(lab: &mut Lab, rig: &mut Rig, queue: u16, addresses: [u64; 3]) -> Result<Answer> {
    let layout = if queue == 0 { rig.rx.layout() } else { rig.tx.layout() };
    restart_without(rig, queue)?;
    let device = &mut rig.device;
    device.write(common::QUEUE_SELECT, &queue.to_le_bytes())?;
    device.write(common::QUEUE_SIZE, &layout.size.to_le_bytes())?;
    device.write(common::QUEUE_MSIX_VECTOR, &NO_VECTOR.to_le_bytes())?;
    device.set_queue_addresses(addresses)?;
    device.find_bell(queue)?;
    device.write(common::QUEUE_ENABLE, &1u16.to_le_bytes())?;
    device.add_status(status::DRIVER_OK)?;
    rig.use_both(lab, queue)
}

/// Takes the device back to just before DRIVER_OK, with every queue but one enabled.
fn restart_without(rig: &mut Rig, queue: u16) -> Result<()> {
    let features = rig.device.device_features()?;
    rig.device.negotiate(features & !crate::virtio::feature::INDIRECT_DESC)?;
    let other = 1 - queue.min(1);
    let layout = if other == 0 { rig.rx.layout() } else { rig.tx.layout() };
    rig.device.enable_queue(other, layout, NO_VECTOR)
}

impl Rig {
    /// Puts buffers into RX or a frame into TX and waits for what happens.
    fn use_both(&mut self, lab: &mut Lab, queue: u16) -> Result<Answer> {
        if queue == 0 {
            self.rx_chain(&[(self.at(8192), 2048, F_WRITE, 0)])?;
            self.receive(lab, &[0])
        } else {
            self.send_good()
        }
    }

    fn addresses(&self, queue: u16) -> [u64; 3] {
        let layout = if queue == 0 { self.rx.layout() } else { self.tx.layout() };
        [layout.desc, layout.avail, layout.used].map(|offset| self.arena.iova_of(offset))
    }
}

const PARTS: [&str; 3] = ["descriptors", "available ring", "used ring"];
const QUEUES: [&str; 2] = ["RX", "TX"];

/// Moves each part of each queue in turn to where `to` says, given where it was.
fn move_parts(lab: &mut Lab, how: &str, to: impl Fn(&Rig, u64) -> u64) -> Result<()> {
    for (queue, name) in (0..).zip(QUEUES) {
        for (part, part_name) in PARTS.iter().enumerate() {
            lab.attempt(&format!("{name} {part_name} {how}"), |lab, rig| {
                let mut addresses = rig.addresses(queue);
                if let Some(address) = addresses.get_mut(part) {
                    *address = to(rig, *address);
                }
                with_addresses(lab, rig, queue, addresses)
            })?;
        }
    }
    Ok(())
}

pub(super) fn ring_unmapped(lab: &mut Lab) -> Result<()> {
    let rogue = lab.rogue_iova;
    move_parts(lab, "nowhere", |_, _| rogue)?;
    move_parts(lab, "at zero", |_, _| 0)?;
    move_parts(lab, "at the end of the address space", |_, _| !0xfff)
}

pub(super) fn ring_straddles(lab: &mut Lab) -> Result<()> {
    move_parts(lab, "half outside", |rig, _| IOVA + rig.arena.size() as u64 - 16)
}

pub(super) fn ring_unaligned(lab: &mut Lab) -> Result<()> {
    move_parts(lab, "at an odd address", |_, old| old + 1)?;
    move_parts(lab, "off by two", |_, old| old + 2)
}

pub(super) fn ring_overlap(lab: &mut Lab) -> Result<()> {
    for (queue, name) in (0..).zip(QUEUES) {
        lab.attempt(&format!("{name}: all parts at one address"), |lab, rig| {
            let [descriptors, ..] = rig.addresses(queue);
            with_addresses(lab, rig, queue, [descriptors; 3])
        })?;
        lab.attempt(&format!("{name} on top of the other queue"), |lab, rig| {
            let other = rig.addresses(1 - queue);
            with_addresses(lab, rig, queue, other)
        })?;
    }
    lab.attempt("frames on top of the rings", |_, rig| {
        let [descriptors, available, used] = rig.addresses(1);
        rig.tx_chain(&[(descriptors, 72, 0, 0), (available, 72, 0, 0), (used, 72, 0, 0)])?;
        rig.send(&[0, 1, 2])
    })?;
    lab.attempt("buffers on top of the rings", |lab, rig| {
        let [descriptors, available, used] = rig.addresses(0);
        let buffer = |at| (at, 2048, F_WRITE, 0);
        rig.rx_chain(&[buffer(used), buffer(available), buffer(descriptors)])?;
        rig.receive(lab, &[0, 1, 2])
    })
}

pub(super) fn ring_scribbled(lab: &mut Lab) -> Result<()> {
    for round in 0..8 {
        lab.attempt(&format!("random bytes in the rings, round {round}"), |lab, rig| {
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(40) {
                for layout in [rig.rx.layout(), rig.tx.layout()] {
                    let span = layout.used + 200 - layout.desc;
                    for _ in 0..8 {
                        let at = layout.desc + lab.rng.random_range(0..span);
                        let mut bytes = [0; 4];
                        lab.rng.fill_bytes(&mut bytes);
                        rig.arena.write(at, &bytes)?;
                    }
                }
                rig.device.kick(0)?;
                rig.device.kick(1)?;
            }
            lab.frames_in(1)?;
            rig.observe_status()
        })?;
    }
    Ok(())
}

/// Maps guest memory a second time, for the device to read only.
fn map_read_only(rig: &mut Rig) -> Result<u64> {
    let arena = rig.arena.clone();
    let map = DmaMap {
        iova: ELSEWHERE,
        size: arena.size() as u64,
        offset: 0,
        readable: true,
        writable: false,
    };
    rig.device.function().transport().dma_map(&map, Some(arena.fd()))?;
    Ok(ELSEWHERE - IOVA)
}

fn unmap_read_only(rig: &mut Rig) -> Result<()> {
    let size = rig.arena.size() as u64;
    rig.device.function().transport().dma_unmap(ELSEWHERE, size)
}

pub(super) fn used_read_only(lab: &mut Lab) -> Result<()> {
    for (queue, name) in (0..).zip(QUEUES) {
        lab.attempt(&format!("{name} used ring on read-only memory"), |lab, rig| {
            let distance = map_read_only(rig)?;
            let [descriptors, available, used] = rig.addresses(queue);
            let addresses = [descriptors, available, used + distance];
            let answer = with_addresses(lab, rig, queue, addresses);
            unmap_read_only(rig)?;
            answer
        })?;
    }
    lab.attempt("all but the used ring on read-only memory, which is fine", |lab, rig| {
        let distance = map_read_only(rig)?;
        let [descriptors, available, used] = rig.addresses(1);
        let addresses = [descriptors + distance, available + distance, used];
        let answer = with_addresses(lab, rig, 1, addresses);
        unmap_read_only(rig)?;
        answer
    })
}

pub(super) fn buffer_read_only(lab: &mut Lab) -> Result<()> {
    lab.attempt("an RX buffer on read-only memory", |lab, rig| {
        let distance = map_read_only(rig)?;
        rig.rx_chain(&[(rig.at(0) + distance, 2048, F_WRITE, 0)])?;
        let answer = rig.receive(lab, &[0]);
        unmap_read_only(rig)?;
        answer
    })?;
    lab.attempt("a TX frame from read-only memory, which is fine", |_, rig| {
        let distance = map_read_only(rig)?;
        rig.tx_chain(&[(rig.at(0) + distance, 72, 0, 0)])?;
        let answer = rig.send(&[0]);
        unmap_read_only(rig)?;
        answer
    })
}

pub(super) fn queue_sizes(lab: &mut Lab) -> Result<()> {
    for size in [0u16, 1, 3, 100, 257, 0x4000, 0x8000, 0xffff] {
        lab.attempt(&format!("a TX queue of {size}"), |_, rig| {
            restart_without(rig, 1)?;
            let addresses = rig.addresses(1);
            let device = &mut rig.device;
            device.write(common::QUEUE_SELECT, &1u16.to_le_bytes())?;
            device.write(common::QUEUE_SIZE, &size.to_le_bytes())?;
            device.set_queue_addresses(addresses)?;
            device.find_bell(1)?;
            device.write(common::QUEUE_ENABLE, &1u16.to_le_bytes())?;
            device.add_status(status::DRIVER_OK)?;
            rig.send_good()
        })?;
    }
    Ok(())
}

pub(super) fn queue_order(lab: &mut Lab) -> Result<()> {
    lab.attempt("a queue enabled before any status bit", |_, rig| {
        let layout = rig.tx.layout();
        rig.device.reset()?;
        rig.device.enable_queue(1, layout, NO_VECTOR)?;
        rig.send_good()
    })?;
    lab.attempt("DRIVER_OK at once", |_, rig| {
        let layout = rig.tx.layout();
        rig.device.reset()?;
        rig.device.set_status(0xf)?;
        rig.device.enable_queue(1, layout, NO_VECTOR)?;
        rig.send_good()
    })?;
    lab.attempt("DRIVER_OK without a queue", |_, rig| {
        let features = rig.device.device_features()?;
        rig.device.negotiate(features)?;
        rig.device.add_status(status::DRIVER_OK)?;
        rig.observe_status()
    })?;
    lab.attempt("a queue enabled twice, moved and resized meanwhile", |_, rig| {
        let arena = rig.arena.clone();
        let other = Layout::alloc(&arena, QUEUE_SIZE / 2)?;
        rig.device.enable_queue(1, other, NO_VECTOR)?;
        rig.send_good()
    })?;
    lab.attempt("a queue disabled by writing 0", |_, rig| {
        rig.device.write(common::QUEUE_SELECT, &1u16.to_le_bytes())?;
        rig.device.write(common::QUEUE_ENABLE, &0u16.to_le_bytes())?;
        rig.send_good()
    })?;
    lab.attempt("features after FEATURES_OK", |_, rig| {
        for select in 0..8u32 {
            rig.device.write(common::DRIVER_FEATURE_SELECT, &select.to_le_bytes())?;
            rig.device.write(common::DRIVER_FEATURE, &u32::MAX.to_le_bytes())?;
        }
        rig.send_good()
    })?;
    lab.attempt("every feature bit there is", |_, rig| {
        let answer = rig.device.negotiate(u64::MAX);
        rig.device.reset()?;
        answer.map(|_| Answer::Silence)
    })?;
    lab.attempt("every status there is", |_, rig| {
        for value in (0..=255).chain([0, 4, 8, 64, 0xff]) {
            rig.device.set_status(value)?;
            rig.device.status()?;
        }
        rig.observe_status()
    })?;
    lab.attempt("queues that do not exist, set up and enabled", |_, rig| {
        let layout = rig.tx.layout();
        for queue in [rig.control_index + 1, 100, 0x7fff, 0xffff] {
            // Most of these have no doorbell to find.
            let _ = rig.device.enable_queue(queue, layout, NO_VECTOR);
        }
        rig.send_good()
    })?;
    lab.attempt("vectors that do not exist", |_, rig| {
        for vector in [100u16, 2048, 0xfffe] {
            rig.device.write(common::QUEUE_SELECT, &1u16.to_le_bytes())?;
            rig.device.write(common::QUEUE_MSIX_VECTOR, &vector.to_le_bytes())?;
            rig.device.write(common::CONFIG_MSIX_VECTOR, &vector.to_le_bytes())?;
        }
        rig.send_good()
    })
}

pub(super) fn kick_nowhere(lab: &mut Lab) -> Result<()> {
    lab.attempt("doorbells of every width, all over the notify structure", |_, rig| {
        let (bar, offset, len) = rig.device.notify_window();
        let transport = rig.device.function().transport();
        for at in 0..len.min(2048) {
            for width in [1, 2, 4, 8] {
                let value = (at as u16).to_le_bytes().repeat(4);
                let data = value.get(..width).unwrap_or_default();
                transport.region_post(bar.into(), offset + at, data)?;
            }
        }
        rig.send_good()
    })?;
    lab.attempt("doorbells with random values", |lab, rig| {
        let (bar, offset, len) = rig.device.notify_window();
        for _ in 0..2000 {
            let at = lab.rng.random_range(0..len);
            let value: u16 = lab.rng.random();
            let transport = rig.device.function().transport();
            transport.region_post(bar.into(), offset + at, &value.to_le_bytes())?;
        }
        rig.send_good()
    })?;
    lab.attempt("doorbells before DRIVER_OK and after a reset", |_, rig| {
        let (bar, offset, _) = rig.device.notify_window();
        rig.device.reset()?;
        for bits in [0, status::ACKNOWLEDGE, status::DRIVER, status::FEATURES_OK] {
            rig.device.add_status(bits)?;
            let transport = rig.device.function().transport();
            for at in 0..64 {
                transport.region_post(bar.into(), offset + at, &[1, 0])?;
            }
        }
        rig.observe_status()
    })
}
