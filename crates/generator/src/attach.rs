//! This module attaches a port to its device. Whatever the device is, there are virtqueues
//! afterwards.

use crate::config::{Config, Frames, Mac, Memory, PortConfig, Protocol, Rings};
use manifold_guest::memory::Arena;
use manifold_guest::vfio::{ClientKind, DmaMode, Function};
use manifold_guest::vhost_user::VhostUser;
use manifold_guest::virtio::spec::{NO_VECTOR, net_config, status};
use manifold_guest::virtio::{ControlQueue, Layout, VirtioPci, feature};
use manifold_guest::{Error, Result};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// IOVA of a port's memory. Each port has a DMA domain of its own.
const IOVA: u64 = 0x1_0000_0000;
/// Number of entries in the control queue. A command takes four, and there is one at a time.
const CONTROL_QUEUE: u16 = 8;
/// Features that large frames need.
const TSO: u64 = feature::CSUM | feature::GUEST_CSUM | feature::HOST_TSO4 | feature::GUEST_TSO4;

/// The connection to a port's device.
#[derive(Debug)]
enum Connection {
    Function(Box<VirtioPci>),
    VhostUser(VhostUser),
    Loopback { kicks: u64 },
}

/// An attached device.
#[derive(Debug)]
pub(crate) struct Device {
    connection: Connection,
    pub(crate) features: u64,
    pub(crate) mac: Mac,
}

/// An attached device, with its memory and the places of the queues in it: RX 0, TX 0, RX 1, TX 1,
/// ...
pub(crate) struct Attached {
    pub(crate) device: Device,
    pub(crate) arena: Arc<Arena>,
    pub(crate) layouts: Vec<Layout>,
}

/// Returns the features that a configuration asks for.
pub(crate) fn wanted(rings: &Rings, frames: &Frames) -> u64 {
    let mut wanted = feature::VERSION_1;
    for (on, bits) in [
        (rings.packed, feature::RING_PACKED),
        (rings.in_order, feature::IN_ORDER),
        (rings.event_idx, feature::EVENT_IDX),
        (rings.mergeable, feature::MRG_RXBUF),
        (matches!(frames, Frames::Tso { .. }), TSO),
    ] {
        if on {
            wanted |= bits;
        }
    }
    wanted
}

/// Attaches to a port's device, with `memory` bytes beside the rings.
pub(crate) fn attach(
    config: &Config,
    index: u16,
    port: &PortConfig,
    memory: usize,
) -> Result<Attached> {
    let rings = &config.rings;
    let mut wanted = wanted(rings, &config.frames);
    if port.protocol == Protocol::VfioUser && rings.pairs > 1 {
        // Over vhost-user the protocol itself enables queues.
        wanted |= feature::MQ | feature::CTRL_VQ;
    }
    let queues = 2 * rings.pairs.max(1);
    let ring_bytes = usize::from(queues) * (26 * usize::from(rings.size) + 1024);
    let size = memory + ring_bytes + 64 * 1024;
    let arena = Arc::new(match rings.memory {
        Memory::Pages => Arena::new(size, IOVA)?,
        Memory::HugePages => Arena::huge(size, IOVA)?,
    });
    arena.seal()?;
    let layout = |size| match rings.packed {
        true => Layout::alloc_packed(&arena, size),
        false => Layout::alloc(&arena, size),
    };
    let layouts = (0..queues).map(|_| layout(rings.size)).collect::<Result<Vec<_>>>()?;
    let [high, low] = index.to_be_bytes();
    let default = Mac([2, 0, 0, 0, high, low]);
    let all = |features: u64, offered: u64| match wanted & !features {
        0 => Ok(features),
        _ => Err(Error::Features { features: wanted, offered }),
    };
    let device = match port.protocol {
        Protocol::Loopback => Device {
            connection: Connection::Loopback { kicks: 0 },
            features: wanted,
            mac: port.mac.unwrap_or(default),
        },
        Protocol::VhostUser => {
            let mut device = VhostUser::connect(&port.socket, queues)?;
            let offered = device.offered();
            let features = all(device.negotiate(wanted | feature::MAC)?, offered)?;
            let mut mac = [0; 6];
            let told = match features & feature::MAC {
                0 => None,
                _ => device.config(net_config::MAC as u32, &mut mac).map(|()| Mac(mac)),
            };
            device.share(&arena)?;
            let mac = port.mac.or(told).unwrap_or(default);
            Device { connection: Connection::VhostUser(device), features, mac }
        }
        Protocol::VfioUser => {
            let function =
                Function::open(&port.socket, ClientKind::Own, DmaMode::Shared, arena.clone())?;
            let mut device = VirtioPci::probe(function)?;
            device.function().enable()?;
            let extra = feature::ACCESS_PLATFORM | feature::ORDER_PLATFORM | feature::MAC;
            let offered = device.device_features()?;
            let features = all(device.negotiate(wanted | extra | feature::MTU)?, offered)?;
            let mut mac = [0; 6];
            device.read_device(net_config::MAC, &mut mac)?;
            check_mtu(&mut device, features, &config.frames)?;
            let most = device.max_queue_pairs(features)?;
            if rings.pairs > most {
                let pairs = rings.pairs;
                return Err(Error::Command(format!("{pairs} queue pairs; the device has {most}")));
            }
            let mac = port.mac.unwrap_or(Mac(mac));
            Device { connection: Connection::Function(Box::new(device)), features, mac }
        }
    };
    Ok(Attached { device, arena, layouts })
}

/// Refuses frames that a function would drop.
fn check_mtu(device: &mut VirtioPci, features: u64, frames: &Frames) -> Result<()> {
    if features & feature::MTU == 0 || matches!(frames, Frames::Tso { .. }) {
        return Ok(());
    }
    let mtu = device.read_device_u16(net_config::MTU)?;
    if frames.largest() > usize::from(mtu) + 14 {
        return Err(Error::Command(format!(
            "frames of {} bytes do not fit an MTU of {mtu}",
            frames.largest()
        )));
    }
    Ok(())
}

impl Attached {
    /// Has the device start on the queues. Their descriptors have been written.
    pub(crate) fn start(&mut self) -> Result<()> {
        match &mut self.device.connection {
            Connection::Loopback { .. } => Ok(()),
            Connection::VhostUser(device) => device.start(&self.arena, &self.layouts),
            Connection::Function(device) => {
                let queues = self.layouts.len() as u16;
                let vectors = device.function().enable_msix(1 + queues)?;
                for (index, layout) in (0..).zip(&self.layouts) {
                    let largest = device.select_queue(index)?;
                    if layout.size > largest {
                        return Err(Error::Command(format!(
                            "queues of {} entries; the device takes {largest}",
                            layout.size
                        )));
                    }
                    device.enable_queue(index, *layout, (1 + index).min(vectors - 1))?;
                }
                match self.device.features & feature::MQ {
                    0 => device.add_status(status::DRIVER_OK),
                    _ => start_pairs(device, queues / 2, self.device.features),
                }
            }
        }
    }
}

/// Has a function start with `pairs` queue pairs, where after a reset it would use one (5.1.6.5.5).
fn start_pairs(device: &mut VirtioPci, pairs: u16, features: u64) -> Result<()> {
    let index = 2 * device.max_queue_pairs(features)?;
    let queue = device.setup_queue(index, CONTROL_QUEUE, NO_VECTOR, features)?;
    let mut control = ControlQueue::new(index, queue, device)?;
    device.add_status(status::DRIVER_OK)?;
    control.set_queue_pairs(device, pairs)
}

impl Device {
    /// Rings a queue's doorbell.
    pub(crate) fn kick(&mut self, index: u16) -> Result<()> {
        match &mut self.connection {
            Connection::Function(device) => device.kick(index),
            Connection::VhostUser(device) => device.kick(index),
            Connection::Loopback { kicks } => {
                *kicks += 1;
                Ok(())
            }
        }
    }

    /// Returns how many doorbells were rung.
    pub(crate) fn kicks(&self) -> u64 {
        match &self.connection {
            Connection::Function(device) => device.kicks(),
            Connection::VhostUser(device) => device.kicks(),
            Connection::Loopback { kicks } => *kicks,
        }
    }

    /// Returns the eventfd of a queue's interrupts.
    pub(crate) fn interrupt(&self, index: u16) -> Option<RawFd> {
        match &self.connection {
            Connection::Function(device) => {
                let fds = device.function_ref().interrupts();
                fds.get(usize::from(index) + 1).or(fds.last()).map(AsRawFd::as_raw_fd)
            }
            Connection::VhostUser(device) => device.call(index),
            Connection::Loopback { .. } => None,
        }
    }

    /// Forgets a queue's interrupts so far.
    pub(crate) fn clear_interrupt(&self, index: u16) {
        match &self.connection {
            Connection::Function(device) => {
                let fds = device.function_ref().interrupts();
                if let Some(fd) = fds.get(usize::from(index) + 1).or(fds.last()) {
                    let _ = rustix::io::read(fd, &mut [0; 8]);
                }
            }
            Connection::VhostUser(device) => {
                device.clear_call(index);
            }
            Connection::Loopback { .. } => {}
        }
    }
}
