//! These attacks do wrong what can be done wrong between reset and the first frame: addresses,
//! sizes, order, doorbells.

use crate::attack::{Answer, Attack, IOVA, QUEUE_SIZE, Target};
use manifold_guest::Result;
use manifold_guest::vfio::DmaMap;
use manifold_guest::virtio::spec::{NO_VECTOR, common, ring::F_WRITE};
use manifold_guest::virtio::{Layout, status};
use rand::{Rng, RngExt};
use std::time::{Duration, Instant};

/// IOVA of a second view of guest memory.
const ELSEWHERE: u64 = 0x7_0000_0000;

/// Re-creates queue 0 or 1 with other addresses (descriptors, available, used), then uses it.
fn with_addresses(
    attack: &mut Attack,
    target: &mut Target,
    queue: u16,
    addresses: [u64; 3],
) -> Result<Answer> {
    let layout = if queue == 0 { target.rx.layout() } else { target.tx.layout() };
    restart_without(target, queue)?;
    let device = &mut target.device;
    device.write(common::QUEUE_SELECT, &queue.to_le_bytes())?;
    device.write(common::QUEUE_SIZE, &layout.size.to_le_bytes())?;
    device.write(common::QUEUE_MSIX_VECTOR, &NO_VECTOR.to_le_bytes())?;
    device.set_queue_addresses(addresses)?;
    device.find_bell(queue)?;
    device.write(common::QUEUE_ENABLE, &1u16.to_le_bytes())?;
    device.add_status(status::DRIVER_OK)?;
    target.use_both(attack, queue)
}

/// Takes the device back to just before DRIVER_OK, with every queue but one enabled.
fn restart_without(target: &mut Target, queue: u16) -> Result<()> {
    let features = target.device.device_features()?;
    target.device.negotiate(features & !manifold_guest::virtio::feature::INDIRECT_DESC)?;
    let other = 1 - queue.min(1);
    let layout = if other == 0 { target.rx.layout() } else { target.tx.layout() };
    target.device.enable_queue(other, layout, NO_VECTOR)
}

impl Target {
    /// Puts buffers into RX or a frame into TX and waits for what happens.
    fn use_both(&mut self, attack: &mut Attack, queue: u16) -> Result<Answer> {
        if queue == 0 {
            self.rx_chain(&[(self.at(8192), 2048, F_WRITE, 0)])?;
            self.receive(attack, &[0])
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
fn move_parts(attack: &mut Attack, how: &str, to: impl Fn(&Target, u64) -> u64) -> Result<()> {
    for (queue, name) in (0..).zip(QUEUES) {
        for (part, part_name) in PARTS.iter().enumerate() {
            attack.attempt(&format!("{name} {part_name} {how}"), |attack, target| {
                let mut addresses = target.addresses(queue);
                if let Some(address) = addresses.get_mut(part) {
                    *address = to(target, *address);
                }
                with_addresses(attack, target, queue, addresses)
            })?;
        }
    }
    Ok(())
}

pub(crate) fn ring_unmapped(attack: &mut Attack) -> Result<()> {
    let rogue = attack.rogue_iova;
    move_parts(attack, "nowhere", |_, _| rogue)?;
    move_parts(attack, "at zero", |_, _| 0)?;
    move_parts(attack, "at the end of the address space", |_, _| !0xfff)
}

pub(crate) fn ring_straddles(attack: &mut Attack) -> Result<()> {
    move_parts(attack, "half outside", |target, _| IOVA + target.arena.size() as u64 - 16)
}

pub(crate) fn ring_unaligned(attack: &mut Attack) -> Result<()> {
    move_parts(attack, "at an odd address", |_, old| old + 1)?;
    move_parts(attack, "off by two", |_, old| old + 2)
}

pub(crate) fn ring_overlap(attack: &mut Attack) -> Result<()> {
    for (queue, name) in (0..).zip(QUEUES) {
        attack.attempt(&format!("{name}: all parts at one address"), |attack, target| {
            let [descriptors, ..] = target.addresses(queue);
            with_addresses(attack, target, queue, [descriptors; 3])
        })?;
        attack.attempt(&format!("{name} on top of the other queue"), |attack, target| {
            let other = target.addresses(1 - queue);
            with_addresses(attack, target, queue, other)
        })?;
    }
    attack.attempt("frames on top of the rings", |_, target| {
        let [descriptors, available, used] = target.addresses(1);
        target.tx_chain(&[(descriptors, 72, 0, 0), (available, 72, 0, 0), (used, 72, 0, 0)])?;
        target.send(&[0, 1, 2])
    })?;
    attack.attempt("buffers on top of the rings", |attack, target| {
        let [descriptors, available, used] = target.addresses(0);
        let buffer = |at| (at, 2048, F_WRITE, 0);
        target.rx_chain(&[buffer(used), buffer(available), buffer(descriptors)])?;
        target.receive(attack, &[0, 1, 2])
    })
}

pub(crate) fn ring_scribbled(attack: &mut Attack) -> Result<()> {
    for round in 0..8 {
        attack.attempt(
            &format!("random bytes in the rings, round {round}"),
            |attack, target| {
                let begin = Instant::now();
                while begin.elapsed() < Duration::from_millis(40) {
                    for layout in [target.rx.layout(), target.tx.layout()] {
                        let span = layout.used + 200 - layout.desc;
                        for _ in 0..8 {
                            let at = layout.desc + attack.rng.random_range(0..span);
                            let mut bytes = [0; 4];
                            attack.rng.fill_bytes(&mut bytes);
                            target.arena.write(at, &bytes)?;
                        }
                    }
                    target.device.kick(0)?;
                    target.device.kick(1)?;
                }
                attack.frames_in(1)?;
                target.observe_status()
            },
        )?;
    }
    Ok(())
}

/// Maps guest memory a second time, for the device to read only.
fn map_read_only(target: &mut Target) -> Result<u64> {
    let arena = target.arena.clone();
    let map = DmaMap {
        iova: ELSEWHERE,
        size: arena.size() as u64,
        offset: 0,
        readable: true,
        writable: false,
    };
    target.device.function().transport().dma_map(&map, Some(arena.fd()))?;
    Ok(ELSEWHERE - IOVA)
}

fn unmap_read_only(target: &mut Target) -> Result<()> {
    let size = target.arena.size() as u64;
    target.device.function().transport().dma_unmap(ELSEWHERE, size)
}

pub(crate) fn used_read_only(attack: &mut Attack) -> Result<()> {
    for (queue, name) in (0..).zip(QUEUES) {
        attack.attempt(&format!("{name} used ring on read-only memory"), |attack, target| {
            let distance = map_read_only(target)?;
            let [descriptors, available, used] = target.addresses(queue);
            let addresses = [descriptors, available, used + distance];
            let answer = with_addresses(attack, target, queue, addresses);
            unmap_read_only(target)?;
            answer
        })?;
    }
    attack.attempt("all but the used ring on read-only memory, which is fine", |attack, target| {
        let distance = map_read_only(target)?;
        let [descriptors, available, used] = target.addresses(1);
        let addresses = [descriptors + distance, available + distance, used];
        let answer = with_addresses(attack, target, 1, addresses);
        unmap_read_only(target)?;
        answer
    })
}

pub(crate) fn buffer_read_only(attack: &mut Attack) -> Result<()> {
    attack.attempt("an RX buffer on read-only memory", |attack, target| {
        let distance = map_read_only(target)?;
        target.rx_chain(&[(target.at(0) + distance, 2048, F_WRITE, 0)])?;
        let answer = target.receive(attack, &[0]);
        unmap_read_only(target)?;
        answer
    })?;
    attack.attempt("a TX frame from read-only memory, which is fine", |_, target| {
        let distance = map_read_only(target)?;
        target.tx_chain(&[(target.at(0) + distance, 72, 0, 0)])?;
        let answer = target.send(&[0]);
        unmap_read_only(target)?;
        answer
    })
}

pub(crate) fn queue_sizes(attack: &mut Attack) -> Result<()> {
    for size in [0u16, 1, 3, 100, 257, 0x4000, 0x8000, 0xffff] {
        attack.attempt(&format!("a TX queue of {size}"), |_, target| {
            restart_without(target, 1)?;
            let addresses = target.addresses(1);
            let device = &mut target.device;
            device.write(common::QUEUE_SELECT, &1u16.to_le_bytes())?;
            device.write(common::QUEUE_SIZE, &size.to_le_bytes())?;
            device.set_queue_addresses(addresses)?;
            device.find_bell(1)?;
            device.write(common::QUEUE_ENABLE, &1u16.to_le_bytes())?;
            device.add_status(status::DRIVER_OK)?;
            target.send_good()
        })?;
    }
    Ok(())
}

pub(crate) fn queue_order(attack: &mut Attack) -> Result<()> {
    attack.attempt("a queue enabled before any status bit", |_, target| {
        let layout = target.tx.layout();
        target.device.reset()?;
        target.device.enable_queue(1, layout, NO_VECTOR)?;
        target.send_good()
    })?;
    attack.attempt("DRIVER_OK at once", |_, target| {
        let layout = target.tx.layout();
        target.device.reset()?;
        target.device.set_status(0xf)?;
        target.device.enable_queue(1, layout, NO_VECTOR)?;
        target.send_good()
    })?;
    attack.attempt("DRIVER_OK without a queue", |_, target| {
        let features = target.device.device_features()?;
        target.device.negotiate(features)?;
        target.device.add_status(status::DRIVER_OK)?;
        target.observe_status()
    })?;
    attack.attempt("a queue enabled twice, moved and resized meanwhile", |_, target| {
        let arena = target.arena.clone();
        let other = Layout::alloc(&arena, QUEUE_SIZE / 2)?;
        target.device.enable_queue(1, other, NO_VECTOR)?;
        target.send_good()
    })?;
    attack.attempt("a queue disabled by writing 0", |_, target| {
        target.device.write(common::QUEUE_SELECT, &1u16.to_le_bytes())?;
        target.device.write(common::QUEUE_ENABLE, &0u16.to_le_bytes())?;
        target.send_good()
    })?;
    attack.attempt("features after FEATURES_OK", |_, target| {
        for select in 0..8u32 {
            target.device.write(common::DRIVER_FEATURE_SELECT, &select.to_le_bytes())?;
            target.device.write(common::DRIVER_FEATURE, &u32::MAX.to_le_bytes())?;
        }
        target.send_good()
    })?;
    attack.attempt("every feature bit there is", |_, target| {
        let answer = target.device.negotiate(u64::MAX);
        target.device.reset()?;
        answer.map(|_| Answer::Silence)
    })?;
    attack.attempt("every status there is", |_, target| {
        for value in (0..=255).chain([0, 4, 8, 64, 0xff]) {
            target.device.set_status(value)?;
            target.device.status()?;
        }
        target.observe_status()
    })?;
    attack.attempt("queues that do not exist, set up and enabled", |_, target| {
        let layout = target.tx.layout();
        for queue in [target.control_index + 1, 100, 0x7fff, 0xffff] {
            // Most of these queues have no doorbell to find.
            let _ = target.device.enable_queue(queue, layout, NO_VECTOR);
        }
        target.send_good()
    })?;
    attack.attempt("vectors that do not exist", |_, target| {
        for vector in [100u16, 2048, 0xfffe] {
            target.device.write(common::QUEUE_SELECT, &1u16.to_le_bytes())?;
            target.device.write(common::QUEUE_MSIX_VECTOR, &vector.to_le_bytes())?;
            target.device.write(common::CONFIG_MSIX_VECTOR, &vector.to_le_bytes())?;
        }
        target.send_good()
    })
}

pub(crate) fn kick_nowhere(attack: &mut Attack) -> Result<()> {
    attack.attempt("doorbells of every width, all over the notify structure", |_, target| {
        let (bar, offset, len) = target.device.notify_window();
        let transport = target.device.function().transport();
        for at in 0..len.min(2048) {
            for width in [1, 2, 4, 8] {
                let value = (at as u16).to_le_bytes().repeat(4);
                let data = value.get(..width).unwrap_or_default();
                transport.region_post(bar.into(), offset + at, data)?;
            }
        }
        target.send_good()
    })?;
    attack.attempt("doorbells with random values", |attack, target| {
        let (bar, offset, len) = target.device.notify_window();
        for _ in 0..2000 {
            let at = attack.rng.random_range(0..len);
            let value: u16 = attack.rng.random();
            let transport = target.device.function().transport();
            transport.region_post(bar.into(), offset + at, &value.to_le_bytes())?;
        }
        target.send_good()
    })?;
    attack.attempt("doorbells before DRIVER_OK and after a reset", |_, target| {
        let (bar, offset, _) = target.device.notify_window();
        target.device.reset()?;
        for bits in [0, status::ACKNOWLEDGE, status::DRIVER, status::FEATURES_OK] {
            target.device.add_status(bits)?;
            let transport = target.device.function().transport();
            for at in 0..64 {
                transport.region_post(bar.into(), offset + at, &[1, 0])?;
            }
        }
        target.observe_status()
    })
}
