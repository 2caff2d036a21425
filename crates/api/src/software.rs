//! This module serves the software adapter as a [`Backend`].

use std::sync::Arc;

use manifold_adapter::{Adapter, DmaInfo, Error, FunctionInfo, Protocol};
use manifold_dma::{Access, Fault};
use manifold_fabric::{BarInfo, Error as FabricError};
use manifold_pci::{CONFIG_SIZE, FunctionId};

use crate::backend::Backend;
use crate::problem::{Code, Problem};
use crate::types;

/// An adapter of this project, as the API serves it.
pub struct Software {
    adapter: Arc<Adapter>,
}

impl Software {
    /// Makes `adapter` a backend of the API.
    pub fn new(adapter: Arc<Adapter>) -> Self {
        Self { adapter }
    }
}

impl Backend for Software {
    fn adapter(&self) -> types::Adapter {
        let info = self.adapter.info();
        types::Adapter {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            bdf: info.pf,
            total_vfs: info.total_vfs,
            num_vfs: info.num_vfs,
            first_vf_offset: info.first_vf_offset,
            vf_stride: info.vf_stride,
            uplink: info.uplink,
            mtu: info.mtu,
            queue_pairs: info.queue_pairs,
            run_dir: info.run_dir,
        }
    }

    fn workers(&self) -> Vec<types::Worker> {
        let workers = self.adapter.workers().into_iter().enumerate();
        workers
            .map(|(worker, snapshot)| types::Worker {
                worker,
                core: snapshot.core,
                queue_pairs: snapshot.pairs,
                frames: snapshot.frames,
                handed_over: snapshot.handed_over,
                busy_cycles: snapshot.busy,
                idle_cycles: snapshot.idle,
                sleeps: snapshot.sleeps,
                frequency_hz: snapshot.frequency,
                sampled_frames: snapshot.sampled,
                stages: snapshot
                    .stages
                    .iter()
                    .map(|(stage, cycles)| (stage.name().to_owned(), *cycles))
                    .collect(),
            })
            .collect()
    }

    fn functions(&self) -> Vec<types::Function> {
        self.adapter.functions().into_iter().map(function).collect()
    }

    fn function(&self, id: FunctionId) -> Option<types::Function> {
        self.adapter.function(id).map(function)
    }

    fn config_space(&self, id: FunctionId, view: types::View) -> Option<Box<[u8; CONFIG_SIZE]>> {
        let view = match view {
            types::View::Linux => manifold_adapter::View::Linux,
            types::View::Bus => manifold_adapter::View::Bus,
        };
        self.adapter.config_space(id, view)
    }

    fn enable_vfs(&self, count: u32) -> Result<(), Problem> {
        let out_of_range = |total_vfs| Problem::vf_count_out_of_range(count, total_vfs);
        // A count that can never be right is refused as such, whatever is enabled now.
        let total_vfs = self.adapter.info().total_vfs;
        let num_vfs = u16::try_from(count).ok().filter(|n| (1..=total_vfs).contains(n));
        let num_vfs = num_vfs.ok_or_else(|| out_of_range(total_vfs))?;
        let enabled = self.adapter.enable_vfs(num_vfs);
        enabled.inspect(|()| tracing::info!(count, "VFs enabled")).map_err(|error| match error {
            Error::Fabric(FabricError::AlreadyEnabled { enabled }) => {
                Problem::vfs_already_enabled(enabled, count)
            }
            Error::Fabric(
                FabricError::ZeroVfs { total_vfs } | FabricError::TooManyVfs { total_vfs, .. },
            ) => out_of_range(total_vfs),
            error => {
                tracing::error!(%error, count, "cannot enable VFs");
                Problem::new(Code::Internal, format!("cannot enable {count} VFs: {error}"))
                    .with_hint(
                        "the daemon's log says more; with too many open files, raise its limit \
                         (`ulimit -n`, LimitNOFILE= in a systemd unit)",
                    )
            }
        })
    }

    fn disable_vfs(&self) -> Result<types::VfsDisabled, Problem> {
        // A VMM that attaches between these two calls is disconnected without being named.
        let holds = |f: &FunctionInfo| f.attached.is_some() && f.id != FunctionId::Pf;
        let functions = self.adapter.functions();
        let detached = functions.iter().filter(|f| holds(f)).map(|f| f.id).collect();
        let (disabled, _) = self.adapter.disable_vfs();
        tracing::info!(count = disabled, "VFs disabled");
        Ok(types::VfsDisabled { disabled, detached })
    }
}

fn function(info: FunctionInfo) -> types::Function {
    let identity = info.identity;
    types::Function {
        id: info.id,
        bdf: info.routing_id,
        identity: types::Identity {
            vendor_id: identity.vendor_id,
            device_id: identity.device_id,
            subsystem_vendor_id: identity.subsystem_vendor_id,
            subsystem_id: identity.subsystem_id,
            class_code: identity.class_code,
            revision: identity.revision,
        },
        bars: (0..).zip(info.bars).filter_map(bar).collect(),
        socket: info.socket,
        vhost_socket: info.vhost_socket,
        mac: types::MacAddr(info.mac),
        mtu: info.mtu,
        link: if info.link_up { types::Link::Up } else { types::Link::Down },
        attached: info.attached.map(|peer| types::Peer {
            protocol: match peer.protocol {
                Protocol::VfioUser => types::Protocol::VfioUser,
                Protocol::VhostUser => types::Protocol::VhostUser,
            },
            pid: peer.pid,
        }),
        driver: types::DriverStatus {
            features: info.driver.features.into_iter().map(str::to_owned).collect(),
            failure: info.driver.failure,
            ..types::DriverStatus::from(info.driver.status)
        },
        counters: types::Counters {
            rx_frames: info.counters.rx.frames,
            rx_bytes: info.counters.rx.bytes,
            tx_frames: info.counters.tx.frames,
            tx_bytes: info.counters.tx.bytes,
            rx_partial_checksums: info.counters.rx.partial,
            rx_gso_frames: info.counters.rx.gso_frames,
            tx_partial_checksums: info.counters.tx.partial,
            tx_gso_frames: info.counters.tx.gso_frames,
            interrupts: info.counters.rx.interrupts + info.counters.tx.interrupts,
            drops: info
                .counters
                .drops
                .into_iter()
                .map(|(reason, frames)| types::Drops { reason: reason.to_string(), frames })
                .collect(),
        },
        dma: dma(info.dma),
    }
}

fn bar((index, info): (u8, Option<BarInfo>)) -> Option<types::Bar> {
    let BarInfo { address, size, width64, prefetchable } = info?;
    Some(types::Bar { index, address, size, width64, prefetchable })
}

fn dma(info: DmaInfo) -> types::Dma {
    let fault = |fault: Fault| types::DmaFault {
        iova: fault.iova,
        len: fault.len,
        direction: match fault.access {
            Access::Read => types::Direction::Read,
            Access::Write => types::Direction::Write,
        },
        reason: fault.reason.to_string(),
    };
    types::Dma {
        mappings: info.stats.mappings as u64,
        bytes: info.stats.bytes,
        faults: info.faults.count,
        recent_faults: info.faults.recent.into_iter().map(fault).collect(),
    }
}
