//! This module offers the virtio network device as a device model. No other file of this crate
//! knows its registers.

use std::error::Error;
use std::sync::Arc;

use manifold_pci::{FunctionId, FunctionSpec};
use manifold_virtio::net::{NetConfig, NetDevice};
use manifold_virtio::spec::feature::VERSION_1;
use manifold_virtio::transport::layout;

use crate::config::{Config, serial};
use crate::model::{Doorbell, Model, ModelFactory, Resources, Virtqueues};

/// Makes virtio network devices, all with the same offer to their drivers.
pub(crate) struct VirtioNet {
    mtu: u16,
    queue_pairs: u16,
    queue_size: u16,
}

impl VirtioNet {
    pub(crate) fn new(config: &Config) -> Self {
        let Config { mtu, queue_pairs, queue_size, .. } = *config;
        VirtioNet { mtu, queue_pairs, queue_size }
    }

    fn config(&self, id: FunctionId, mac: [u8; 6]) -> NetConfig {
        NetConfig {
            mtu: self.mtu,
            queue_pairs: self.queue_pairs,
            queue_size: self.queue_size,
            serial: serial(mac),
            sr_iov: id == FunctionId::Pf,
            ..NetConfig::new(id.to_string(), mac)
        }
    }
}

impl ModelFactory for VirtioNet {
    fn spec(&self, id: FunctionId, mac: [u8; 6]) -> FunctionSpec {
        self.config(id, mac).function_spec()
    }

    fn build(&self, resources: &Resources) -> Result<Model, Box<dyn Error + Send + Sync>> {
        let config = self.config(resources.id, resources.mac);
        let (features, pairs) = (config.offer | VERSION_1, config.queue_pairs);
        let queues = resources.queues(pairs)?;
        let (domain, host) = (Arc::clone(&resources.domain), Arc::clone(&queues) as Arc<_>);
        let doorbell = |(queue, kick)| {
            let offset = layout::doorbell_offset(queue);
            Doorbell { bar: layout::BAR, offset, kick }
        };
        Ok(Model {
            nic: Box::new(NetDevice::new(config, domain, &resources.msix, host)?),
            doorbells: queues.doorbells().map(doorbell).collect(),
            virtqueues: Some(Virtqueues { features, pairs, queues }),
        })
    }
}
