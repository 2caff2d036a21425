//! This module is the seam between functions and device models: what a model is built from, and
//! what it hands over. It is explained in `docs/device-model.md`.
//!
//! A function holds its model as `dyn` [`Nic`]. The PF and its VFs may have different models, and
//! the choice is made when an adapter starts, so a type parameter would run through every type here
//! and end nowhere. The price is one indirect call for each register access, which costs a VMM
//! microseconds; frames do not pass this seam.

use std::error::Error;
use std::io;
use std::sync::Arc;

use manifold_datapath::{Datapath, FunctionCounters, Kick};
use manifold_dma::Domain;
use manifold_pci::{FunctionId, FunctionSpec, Msix, Nic};

use crate::queues::Queues;
use crate::switch::Switch;

/// Makes the device models of an adapter's functions.
///
/// For each function, first `spec` is called, then `build`. VFs are made and removed as the PF
/// driver sets and clears VF Enable.
pub trait ModelFactory: Send + Sync {
    /// Returns what the configuration space of a function is built from; `mac` is the address the
    /// PF assigns to it. All VFs have the same BARs and IDs.
    fn spec(&self, id: FunctionId, mac: [u8; 6]) -> FunctionSpec;

    /// Builds the model of a function, as after power-on.
    ///
    /// # Errors
    /// When the adapter's settings do not suit the model, or the system is out of resources.
    fn build(&self, resources: &Resources) -> Result<Model, Box<dyn Error + Send + Sync>>;
}

/// The parts of a function that its device model may use.
pub struct Resources {
    /// The function.
    pub id: FunctionId,
    /// The MAC address that the PF assigns to it.
    pub mac: [u8; 6],
    /// Memory that the function may access; every access fails while Bus Master Enable is clear.
    pub domain: Arc<Domain>,
    /// The function's interrupt vectors, as many as its `spec` names.
    pub msix: Msix,
    pub(crate) datapath: Arc<Datapath>,
    pub(crate) switch: Arc<Switch>,
    pub(crate) counters: FunctionCounters,
}

impl Resources {
    /// Makes the function's way to the data path, which serves virtqueues in pairs.
    pub(crate) fn queues(&self, pairs: u16) -> io::Result<Arc<Queues>> {
        let (datapath, switch) = (Arc::clone(&self.datapath), Arc::clone(&self.switch));
        Queues::new(self.id, pairs, datapath, switch, self.counters.clone()).map(Arc::new)
    }
}

/// A device model, and those of its parts that work without register accesses.
pub struct Model {
    pub(crate) nic: Box<dyn Nic>,
    /// Registers that a VMM may replace by eventfds.
    pub(crate) doorbells: Vec<Doorbell>,
    /// Queues that vhost-user attaches; `None` for a model without virtqueues, which can be
    /// attached over vfio-user only.
    pub(crate) virtqueues: Option<Virtqueues>,
}

impl Model {
    /// Returns a model that is reached through its registers alone.
    pub fn new(nic: Box<dyn Nic>) -> Self {
        Model { nic, doorbells: Vec::new(), virtqueues: None }
    }
}

/// A register whose only effect is to wake a worker, whatever is written.
pub(crate) struct Doorbell {
    pub(crate) bar: u8,
    /// Offset in bytes into the BAR.
    pub(crate) offset: u64,
    pub(crate) kick: Kick,
}

/// The virtqueues of a virtio network device, for a VMM that keeps the registers to itself.
pub(crate) struct Virtqueues {
    /// Virtio's feature bits that the device offers.
    pub(crate) features: u64,
    /// Number of queue pairs.
    pub(crate) pairs: u16,
    pub(crate) queues: Arc<Queues>,
}
