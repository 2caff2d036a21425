//! This module starts an adapter, enables and disables its VFs, and stops it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use manifold_datapath::{Datapath, WorkerSnapshot};
use manifold_fabric::{PfDriver, RootComplex, SystemClock};
use manifold_pci::dump::vf_as_linux_shows;
use manifold_pci::{CONFIG_SIZE, ConfigSpace, FunctionId};
use manifold_port::Tap;
use manifold_vfio_user as vfio_user;
use manifold_vhost_user as vhost_user;
use parking_lot::Mutex;

use crate::attachment::Attachment;
use crate::config::{Config, Uplink};
use crate::device::Device;
use crate::error::Error;
use crate::factory::Factory;
use crate::function::Function;
use crate::info::{AdapterInfo, DmaInfo, FunctionInfo};
use crate::model::ModelFactory;
use crate::switch::{Switch, empty_table};
use crate::vhost::{self, VhostAttachment};
use crate::virtio_net::VirtioNet;

/// The reader for whom a configuration space is shown. Readers see a difference in VFs only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// A reader on the bus sees a VF's IDs as FFFFh and its BARs as zero.
    Bus,
    /// A user of a Linux host sees a VF's IDs, BARs and memory decoding filled in from the PF.
    Linux,
}

/// A running adapter. Dropping the adapter disconnects every VMM, removes the sockets and stops the
/// workers.
pub struct Adapter {
    config: Config,
    device: Arc<Device>,
    host: Mutex<Host>,
    vfio_user: vfio_user::Server,
    vhost_user: vhost_user::Server,
    /// The field comes last, so that queues are stopped while workers still run.
    datapath: Arc<Datapath>,
}

/// The host side, which is the hypervisor's kernel and its VFIO on real hardware.
struct Host {
    driver: PfDriver,
    sockets: BTreeMap<FunctionId, Sockets>,
}

/// The sockets on which a function can be attached. They close when they are dropped.
struct Sockets {
    _vfio_user: vfio_user::Endpoint,
    _vhost_user: vhost_user::Endpoint,
}

impl Adapter {
    /// Starts an adapter of virtio network devices; see [`Adapter::with_models`].
    ///
    /// # Errors
    /// See [`Adapter::with_models`].
    pub fn start(config: Config) -> Result<Self, Error> {
        let models = Box::new(VirtioNet::new(&config));
        Self::with_models(config, models)
    }

    /// Builds an adapter with device models from `models`, lets the PF driver enumerate it, and
    /// serves the PF's sockets. No VF is enabled.
    ///
    /// # Errors
    /// When `config` is out of range, the uplink cannot be opened, a socket is in use, or the
    /// system is out of resources. Nothing is left behind then.
    pub fn with_models(config: Config, models: Box<dyn ModelFactory>) -> Result<Self, Error> {
        config.check()?;
        let datapath = Arc::new(Datapath::start(&empty_table(), &config.workers)?);
        let uplink = match &config.uplink {
            Uplink::None => None,
            Uplink::Tap(name) => Some(open_tap(name, config.mtu)?),
        };
        let switch = Switch::new(Arc::clone(&datapath), config.mtu, uplink.is_some());
        datapath.set_uplink(uplink)?;
        let factory = Factory {
            config: config.clone(),
            models,
            datapath: Arc::clone(&datapath),
            switch: Arc::new(switch),
        };
        let device = Arc::new(Device::new(factory)?);
        let root = Arc::new(RootComplex::new(Arc::clone(&device) as Arc<_>, true));
        let driver = PfDriver::probe(root, Box::new(SystemClock))?;
        let failed = |source| Error::Socket { path: config.run_dir.clone(), source };
        let vfio_user =
            vfio_user::Server::start(Default::default(), vfio_user::VfioUser::default())
                .map_err(failed)?;
        let vhost_user =
            vhost_user::Server::start(Default::default(), vhost_user::VhostUser).map_err(failed)?;
        let host = Mutex::new(Host { driver, sockets: BTreeMap::new() });
        let adapter = Adapter { config, device, host, vfio_user, vhost_user, datapath };
        adapter.serve(&mut adapter.host.lock(), FunctionId::Pf)?;
        Ok(adapter)
    }

    /// Enables `count` VFs through the PF and serves their sockets.
    ///
    /// # Errors
    /// When VFs are enabled already, `count` is 0 or above TotalVFs, or a socket cannot be served
    /// (no VF is enabled then).
    pub fn enable_vfs(&self, count: u16) -> Result<(), Error> {
        let mut host = self.host.lock();
        host.driver.enable(count)?;
        for index in 0..count {
            if let Err(error) = self.serve(&mut host, FunctionId::Vf(index)) {
                Self::disable(&mut host);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Disables all VFs and disconnects the VMMs that hold one. Returns how many VFs there were,
    /// and how many of them were attached.
    pub fn disable_vfs(&self) -> (u16, u16) {
        let mut host = self.host.lock();
        let vfs = host.driver.vfs().len() as u16;
        let functions = self.device.functions();
        let held =
            |function: &Arc<Function>| function.id != FunctionId::Pf && function.holder().is_some();
        let attached = functions.into_iter().filter(held).count() as u16;
        Self::disable(&mut host);
        (vfs, attached)
    }

    fn disable(host: &mut Host) {
        drop(host.sockets.split_off(&FunctionId::Vf(0)));
        host.driver.disable();
    }

    fn serve(&self, host: &mut Host, id: FunctionId) -> Result<(), Error> {
        let Some(function) = self.device.function(id) else { return Ok(()) };
        let name = id.to_string();
        let failed = |path: PathBuf| move |source| Error::Socket { path, source };
        let path = self.socket_path(id);
        let attachment = Arc::new(Attachment::new(Arc::clone(&function)));
        let vfio_user = self.vfio_user.serve(&path, &name, attachment).map_err(failed(path))?;
        let path = self.vhost_socket_path(id);
        let attachment = Arc::new(VhostAttachment::new(function));
        let vhost_user = self.vhost_user.serve(&path, &name, attachment).map_err(failed(path))?;
        host.sockets.insert(id, Sockets { _vfio_user: vfio_user, _vhost_user: vhost_user });
        Ok(())
    }

    fn socket_path(&self, id: FunctionId) -> PathBuf {
        self.config.run_dir.join(format!("{id}.sock"))
    }

    fn vhost_socket_path(&self, id: FunctionId) -> PathBuf {
        self.config.run_dir.join(format!("{id}.vhost.sock"))
    }

    /// Describes the adapter as a whole.
    pub fn info(&self) -> AdapterInfo {
        let host = self.host.lock();
        let pf = host.driver.info().routing_id;
        let sriov =
            self.device.function(FunctionId::Pf).and_then(|pf| pf.with_space(ConfigSpace::sriov));
        AdapterInfo {
            pf,
            total_vfs: host.driver.info().total_vfs,
            num_vfs: host.driver.vfs().len() as u16,
            first_vf_offset: sriov.map_or(0, |sriov| sriov.first_vf_offset),
            vf_stride: sriov.map_or(0, |sriov| sriov.vf_stride),
            uplink: self.config.uplink.clone(),
            mtu: self.config.mtu,
            queue_pairs: self.config.queue_pairs,
            run_dir: self.config.run_dir.clone(),
        }
    }

    /// Describes all functions: the PF, then the VFs in order.
    pub fn functions(&self) -> Vec<FunctionInfo> {
        let host = self.host.lock();
        self.device.functions().iter().filter_map(|f| self.describe(&host, f)).collect()
    }

    /// Describes one function, if it exists now.
    pub fn function(&self, id: FunctionId) -> Option<FunctionInfo> {
        let host = self.host.lock();
        self.describe(&host, &*self.device.function(id)?)
    }

    fn describe(&self, host: &Host, function: &Function) -> Option<FunctionInfo> {
        let id = function.id;
        let info = host.driver.info();
        let (routing_id, bars) = match id {
            FunctionId::Pf => (info.routing_id, info.bars),
            FunctionId::Vf(index) => {
                let vf = host.driver.vfs().get(usize::from(index))?;
                (vf.routing_id, vf.bars)
            }
        };
        let (driver, link_up, mac, mtu) =
            function.with_model(|nic| (nic.driver(), nic.link_up(), nic.mac(), nic.mtu()));
        let holder = function.holder();
        let status = holder.as_ref().and_then(|holder| holder.status.as_deref());
        let driver = status.map_or(driver, vhost::driver);
        Some(FunctionInfo {
            id,
            routing_id,
            identity: function.spec.identity,
            bars,
            socket: self.socket_path(id),
            vhost_socket: self.vhost_socket_path(id),
            mac,
            mtu,
            link_up,
            attached: holder.map(|holder| holder.info),
            driver,
            counters: function.counters.total(),
            dma: DmaInfo { stats: function.domain.stats(), faults: function.domain.faults() },
        })
    }

    /// Returns the host's side of the bus, for a program that drives functions as a host's kernel
    /// would.
    pub fn root_complex(&self) -> Arc<RootComplex> {
        Arc::clone(self.host.lock().driver.root())
    }

    /// Returns what each worker has done.
    pub fn workers(&self) -> Vec<WorkerSnapshot> {
        self.datapath.workers()
    }

    /// Returns a function's configuration space, if the function exists now.
    pub fn config_space(&self, id: FunctionId, view: View) -> Option<Box<[u8; CONFIG_SIZE]>> {
        let function = self.device.function(id)?;
        match (view, id) {
            (View::Linux, FunctionId::Vf(index)) => {
                let pf = self.device.function(FunctionId::Pf)?.with_space(ConfigSpace::sriov)?;
                let fill = |space: &_| vf_as_linux_shows(space, &function.spec, &pf, index);
                Some(function.with_space(fill))
            }
            _ => Some(function.with_space(ConfigSpace::to_bytes)),
        }
    }

    /// Disconnects every VMM, disables the VFs, removes the sockets and stops the workers.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        let mut host = self.host.lock();
        Self::disable(&mut host);
        host.sockets.clear();
    }
}

/// Opens the uplink. A setting of the interface that would lose frames gets a warning: it is the
/// administrator's to change.
fn open_tap(name: &str, mtu: u16) -> Result<Tap, Error> {
    let tap = Tap::open(name)?;
    if matches!(tap.is_up(), Ok(false)) {
        tracing::warn!("the uplink {name} is down: take it up with `ip link set {name} up`");
    }
    if let Ok(offered) = tap.mtu()
        && offered < u32::from(mtu)
    {
        tracing::warn!(
            "the uplink {name} has an MTU of {offered}, the functions {mtu}: `ip link set {name} \
             mtu {mtu}`"
        );
    }
    Ok(tap)
}
