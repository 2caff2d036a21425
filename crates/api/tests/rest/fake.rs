//! The fake adapter only remembers how many VFs it has; `vf0` is always in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use manifold_api::types::{
    Adapter, Counters, Dma, DriverStatus, Function, Identity, Link, MacAddr, Peer, Protocol,
    Uplink, VfsDisabled, View, Worker,
};
use manifold_api::{Backend, Problem};
use manifold_pci::{CONFIG_SIZE, FunctionId, RoutingId};
use tokio::sync::Notify;

const PF: u16 = 0x0100;

pub(crate) struct Fake {
    total_vfs: u16,
    num_vfs: AtomicU16,
    delay: Duration,
    begun: Arc<Notify>,
}

impl Fake {
    pub(crate) fn new(total_vfs: u16) -> Self {
        Self {
            total_vfs,
            num_vfs: AtomicU16::new(0),
            delay: Duration::ZERO,
            begun: Arc::new(Notify::new()),
        }
    }

    /// Returns an adapter that takes its time to enable VFs, as the specification demands.
    pub(crate) fn slow(total_vfs: u16) -> Self {
        Self { delay: Duration::from_millis(200), ..Self::new(total_vfs) }
    }

    /// Returns what is notified when VFs begin to be enabled.
    pub(crate) fn begun(&self) -> Arc<Notify> {
        self.begun.clone()
    }

    fn num_vfs(&self) -> u16 {
        self.num_vfs.load(Ordering::SeqCst)
    }
}

impl Backend for Fake {
    fn adapter(&self) -> Adapter {
        Adapter {
            version: "0".into(),
            pid: 1,
            bdf: RoutingId::from_raw(PF),
            total_vfs: self.total_vfs,
            num_vfs: self.num_vfs(),
            first_vf_offset: 1,
            vf_stride: 1,
            uplink: Uplink::None,
            mtu: 9000,
            queue_pairs: 4,
            run_dir: "/run/manifold".into(),
        }
    }

    fn workers(&self) -> Vec<Worker> {
        let stages = [("take".to_owned(), 10), ("copy".to_owned(), 20)].into();
        vec![Worker {
            worker: 0,
            core: Some(3),
            queue_pairs: 2,
            frames: 64,
            handed_over: 0,
            busy_cycles: 1000,
            idle_cycles: 500,
            sleeps: 1,
            frequency_hz: 1_000_000_000,
            sampled_frames: 32,
            stages,
        }]
    }

    fn functions(&self) -> Vec<Function> {
        let vfs = (0..self.num_vfs()).map(FunctionId::Vf);
        std::iter::once(FunctionId::Pf).chain(vfs).filter_map(|id| self.function(id)).collect()
    }

    fn function(&self, id: FunctionId) -> Option<Function> {
        let index = u16::try_from(id.index()).ok().filter(|index| *index <= self.num_vfs())?;
        let [high, low] = index.to_be_bytes();
        let peer = Peer { protocol: Protocol::VhostUser, pid: Some(4242) };
        Some(Function {
            id,
            bdf: RoutingId::from_raw(PF + index),
            identity: Identity {
                vendor_id: 0x1af4,
                device_id: 0x1041,
                subsystem_vendor_id: 0x1af4,
                subsystem_id: 0x1100,
                class_code: 0x02_0000,
                revision: 1,
            },
            bars: Vec::new(),
            socket: format!("/run/manifold/{id}.sock").into(),
            vhost_socket: format!("/run/manifold/{id}.vhost.sock").into(),
            mac: MacAddr([2, 0, 0, 0, high, low]),
            mtu: 9000,
            link: Link::Up,
            attached: (id == FunctionId::Vf(0)).then_some(peer),
            driver: DriverStatus::from(0),
            counters: Counters::default(),
            dma: Dma::default(),
        })
    }

    fn config_space(&self, id: FunctionId, view: View) -> Option<Box<[u8; CONFIG_SIZE]>> {
        self.function(id)?;
        let mut bytes = Box::new([0; CONFIG_SIZE]);
        bytes[..4].copy_from_slice(match view {
            View::Bus => &[0xff; 4],
            View::Linux => &[0xf4, 0x1a, 0x41, 0x10],
        });
        Some(bytes)
    }

    fn enable_vfs(&self, count: u32) -> Result<(), Problem> {
        self.begun.notify_one();
        std::thread::sleep(self.delay);
        let num_vfs = u16::try_from(count)
            .ok()
            .filter(|count| (1..=self.total_vfs).contains(count))
            .ok_or_else(|| Problem::vf_count_out_of_range(count, self.total_vfs))?;
        self.num_vfs
            .compare_exchange(0, num_vfs, Ordering::SeqCst, Ordering::SeqCst)
            .map_err(|enabled| Problem::vfs_already_enabled(enabled.into(), count))?;
        Ok(())
    }

    fn disable_vfs(&self) -> Result<VfsDisabled, Problem> {
        let disabled = self.num_vfs.swap(0, Ordering::SeqCst);
        let detached = if disabled > 0 { vec![FunctionId::Vf(0)] } else { Vec::new() };
        Ok(VfsDisabled { disabled, detached })
    }
}
