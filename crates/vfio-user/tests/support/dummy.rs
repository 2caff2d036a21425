//! This module is a PCI device that does nothing: it has memory behind its BARs, a configuration
//! space good enough for QEMU, and a record of what was asked of it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use manifold_vfio_user::spec;
use manifold_vfio_user::{
    Device, DeviceInfo, Disconnect, DmaMap, DmaMemory, Errno, IoFd, IrqAction, IrqData, IrqInfo,
    MmapArea, Peer, RegionInfo, RegionMapping, SetIrqs,
};
use parking_lot::{Condvar, Mutex};

/// Size of BAR 0 in bytes.
pub const BAR0_SIZE: u64 = 64 << 10;
/// Size of BAR 2 in bytes, which holds the MSI-X table and PBA.
pub const BAR2_SIZE: u64 = 4 << 10;
/// Number of MSI-X vectors.
pub const VECTORS: u32 = 32;
/// The one part of BAR 0 that can be mapped.
pub const AREA: MmapArea = MmapArea { offset: 0x8000, size: 0x4000 };
/// Offset of BAR 0 in its file.
pub const BAR0_FILE_OFFSET: u64 = 0x1_0000;
/// Offset of BAR 0 where reads and writes fail.
pub const BAD_OFFSET: u64 = 0x7000;
/// Offset of BAR 0 where writes panic.
pub const PANIC_OFFSET: u64 = 0x7008;

/// A request that was made of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Attached(Peer),
    Detached(Disconnect),
    Map { iova: u64, size: u64, offset: Option<u64>, readable: bool, writable: bool },
    Unmap { iova: u64, size: u64 },
    UnmapAll,
    Write { region: u32, offset: u64, data: Vec<u8> },
    Irqs { index: u32, start: u32, count: u32, action: IrqAction, data: Irqs },
    Reset,
}

/// [`IrqData`] without its descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Irqs {
    None,
    Bools(Vec<bool>),
    EventFds(Vec<bool>),
}

pub struct Dummy {
    bar0: Arc<OwnedFd>,
    config: Mutex<Vec<u8>>,
    bar2: Mutex<Vec<u8>>,
    state: Mutex<State>,
    changed: Condvar,
    options: Options,
    doorbells: Vec<IoFd>,
    /// A function called by `reset`.
    pub on_reset: Mutex<Option<Box<dyn Fn() + Send>>>,
}

/// The properties that set one dummy apart from another.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// True if BAR 0 can be mapped in part.
    pub mappable: bool,
    /// The error with which clients are refused.
    pub refuse: Option<Errno>,
    /// The time that `detached` takes.
    pub slow_detach: std::time::Duration,
}

#[derive(Default)]
pub struct State {
    pub events: Vec<Event>,
    /// Eventfds by interrupt type and number.
    pub eventfds: Vec<((u32, u32), OwnedFd)>,
    pub mappings: Vec<DmaMap>,
}

impl Dummy {
    pub fn new(options: Options) -> Arc<Self> {
        let bar0 = rustix::fs::memfd_create("bar0", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&bar0, BAR0_FILE_OFFSET + BAR0_SIZE).unwrap();
        let doorbell = |n: u64, fd: &Arc<OwnedFd>, datamatch| IoFd {
            offset: 0x1000 + n * 4,
            size: 2,
            datamatch,
            fd: Arc::clone(fd),
        };
        let (a, b) = (Arc::new(eventfd()), Arc::new(eventfd()));
        Arc::new(Self {
            bar0: Arc::new(bar0),
            config: Mutex::new(config_space()),
            bar2: Mutex::new(vec![0; BAR2_SIZE as usize]),
            state: Mutex::default(),
            changed: Condvar::new(),
            options,
            doorbells: vec![doorbell(0, &a, None), doorbell(1, &b, Some(7)), doorbell(2, &a, None)],
            on_reset: Mutex::default(),
        })
    }

    pub fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Waits up to 5 s until `condition` holds.
    pub fn wait(&self, what: &str, mut condition: impl FnMut(&State) -> bool) {
        let mut state = self.state.lock();
        let timeout = std::time::Duration::from_secs(5);
        let waited = self.changed.wait_while_for(&mut state, |state| !condition(state), timeout);
        assert!(!waited.timed_out(), "{what} did not happen; events: {:#?}", state.events);
    }

    pub fn wait_for(&self, event: &Event) {
        self.wait(&format!("{event:?}"), |state| state.events.contains(event));
    }

    fn record(&self, event: Event) {
        self.state.lock().events.push(event);
        self.changed.notify_all();
    }
}

pub fn eventfd() -> OwnedFd {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap()
}

/// Returns a type 0 header with an MSI-X capability.
fn config_space() -> Vec<u8> {
    let mut config = vec![0; 4096];
    let mut put = |offset: usize, bytes: &[u8]| {
        config[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(0x00, &0x1234_u16.to_le_bytes());
    put(0x02, &0x5678_u16.to_le_bytes());
    put(0x06, &0x0010_u16.to_le_bytes());
    put(0x09, &[0x00, 0x00, 0xff]);
    put(0x10, &[0x04]);
    put(0x18, &[0x04]);
    put(0x34, &[0x40]);
    put(0x40, &[0x11, 0x00]);
    put(0x42, &(VECTORS as u16 - 1).to_le_bytes());
    put(0x44, &2_u32.to_le_bytes());
    put(0x48, &(0x800_u32 | 2).to_le_bytes());
    config
}

impl Device for Dummy {
    fn info(&self) -> DeviceInfo {
        DeviceInfo::pci()
    }

    fn region_info(&self, index: u32) -> Option<RegionInfo> {
        match index {
            0 => Some(RegionInfo {
                mapping: self.options.mappable.then(|| RegionMapping {
                    fd: Arc::clone(&self.bar0),
                    offset: BAR0_FILE_OFFSET,
                    areas: vec![AREA],
                }),
                ..RegionInfo::messages(BAR0_SIZE)
            }),
            2 => Some(RegionInfo::messages(BAR2_SIZE)),
            spec::PCI_CONFIG_REGION => Some(RegionInfo::messages(4096)),
            _ => None,
        }
    }

    fn irq_info(&self, index: u32) -> Option<IrqInfo> {
        match index {
            spec::PCI_MSIX_IRQ => Some(IrqInfo { maskable: true, ..IrqInfo::eventfds(VECTORS) }),
            spec::PCI_REQ_IRQ => Some(IrqInfo::eventfds(1)),
            _ => None,
        }
    }

    fn region_read(&self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        let at = offset as usize..offset as usize + data.len();
        match region {
            0 if offset == BAD_OFFSET => return Err(Errno::IO),
            0 => File::from(self.bar0.try_clone().unwrap())
                .read_exact_at(data, BAR0_FILE_OFFSET + offset)
                .unwrap(),
            2 => data.copy_from_slice(&self.bar2.lock()[at]),
            _ => data.copy_from_slice(&self.config.lock()[at]),
        }
        Ok(())
    }

    fn region_write(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let at = offset as usize..offset as usize + data.len();
        match region {
            0 if offset == BAD_OFFSET => return Err(Errno::IO),
            0 if offset == PANIC_OFFSET => panic!("asked to panic"),
            0 => File::from(self.bar0.try_clone().unwrap())
                .write_all_at(data, BAR0_FILE_OFFSET + offset)
                .unwrap(),
            2 => self.bar2.lock()[at].copy_from_slice(data),
            _ => self.config.lock()[at].copy_from_slice(data),
        }
        self.record(Event::Write { region, offset, data: data.to_vec() });
        Ok(())
    }

    fn region_io_fds(&self, region: u32) -> Result<Vec<IoFd>, Errno> {
        Ok(if region == 0 { self.doorbells.clone() } else { Vec::new() })
    }

    fn set_irqs(&self, request: SetIrqs) -> Result<(), Errno> {
        let SetIrqs { index, start, count, action, .. } = request;
        let disable = request.is_disable_all();
        let mut state = self.state.lock();
        let data = match request.data {
            IrqData::None => {
                if disable {
                    state.eventfds.retain(|((kind, _), _)| *kind != index);
                }
                Irqs::None
            }
            IrqData::Bools(bools) => Irqs::Bools(bools),
            IrqData::EventFds(fds) => {
                let present = fds.iter().map(Option::is_some).collect();
                for (number, fd) in (start..).zip(fds) {
                    state.eventfds.retain(|(key, _)| *key != (index, number));
                    state.eventfds.extend(fd.map(|fd| ((index, number), fd)));
                }
                Irqs::EventFds(present)
            }
        };
        drop(state);
        self.record(Event::Irqs { index, start, count, action, data });
        Ok(())
    }

    fn dma_map(&self, map: DmaMap) -> Result<(), Errno> {
        let mut state = self.state.lock();
        if state.mappings.iter().any(|other| other.iova == map.iova) {
            return Err(Errno::EXIST);
        }
        let offset = match &map.memory {
            DmaMemory::File { offset, .. } => Some(*offset),
            DmaMemory::NotShared => None,
        };
        let DmaMap { iova, size, readable, writable, .. } = map;
        state.mappings.push(map);
        drop(state);
        self.record(Event::Map { iova, size, offset, readable, writable });
        Ok(())
    }

    fn dma_unmap(&self, iova: u64, size: u64) -> Result<(), Errno> {
        let mut state = self.state.lock();
        let before = state.mappings.len();
        state.mappings.retain(|map| (map.iova, map.size) != (iova, size));
        if state.mappings.len() == before {
            return Err(Errno::NOENT);
        }
        drop(state);
        self.record(Event::Unmap { iova, size });
        Ok(())
    }

    fn dma_unmap_all(&self) -> Result<(), Errno> {
        self.state.lock().mappings.clear();
        self.record(Event::UnmapAll);
        Ok(())
    }

    fn reset(&self) -> Result<(), Errno> {
        if let Some(call) = &*self.on_reset.lock() {
            call();
        }
        self.record(Event::Reset);
        Ok(())
    }

    fn attached(&self, peer: &Peer) -> Result<(), Errno> {
        if let Some(errno) = self.options.refuse {
            return Err(errno);
        }
        self.record(Event::Attached(*peer));
        Ok(())
    }

    fn detached(&self, how: &Disconnect) {
        std::thread::sleep(self.options.slow_detach);
        let mut state = self.state.lock();
        state.mappings.clear();
        state.eventfds.clear();
        drop(state);
        self.record(Event::Detached(how.clone()));
    }
}
