//! This module has what a worker knows of the functions and of the switch while it forwards a
//! burst.

use std::sync::Arc;

use manifold_dma::Reader;
use manifold_eswitch::Table;
use manifold_pci::FunctionId;

use super::steering::Steering;
use super::tap_port::TapPort;
use crate::counters::{FunctionCounters, PairCounters};
use crate::handover::message::FunctionInstance;

/// A function as a worker knows it.
pub(crate) struct Function {
    pub(crate) instance: FunctionInstance,
    pub(crate) reader: Reader,
    pub(crate) counters: FunctionCounters,
    pub(crate) steering: Arc<Steering>,
    /// Receive offloads that the driver has chosen since it started, as masks of feature bits.
    pub(crate) offloads: Option<u64>,
}

/// The switch with everything that decides where a frame goes. It does not change during a burst.
pub(crate) struct Switch {
    pub(crate) table: Arc<Table>,
    /// Version, which grows with every change to the table, the functions and their steering, so
    /// that what is derived from them can be recognized as old.
    pub(crate) version: u64,
    /// The functions by [`FunctionId::index`].
    functions: Vec<Option<Function>>,
    pub(crate) port: Option<TapPort>,
}

impl Switch {
    pub(crate) fn new(table: Arc<Table>) -> Self {
        Switch { table, version: 1, functions: Vec::new(), port: None }
    }

    /// Returns the function of an index, if it has been added.
    #[inline]
    pub(crate) fn function(&self, index: usize) -> Option<&Function> {
        self.functions.get(index)?.as_ref()
    }

    /// Returns the function with the counters of one of its queue pairs.
    #[inline]
    pub(crate) fn queue(&self, index: usize, pair: u16) -> Option<(&Function, &PairCounters)> {
        let function = self.function(index)?;
        Some((function, function.counters.pair(pair)?))
    }

    /// Returns the function if it is still this instance.
    pub(crate) fn instance(&self, instance: FunctionInstance) -> Option<&Function> {
        self.function(usize::from(instance.index)).filter(|f| f.instance == instance)
    }

    /// Returns the place of a function, for changes.
    pub(crate) fn function_mut(&mut self, id: FunctionId) -> &mut Option<Function> {
        let index = id.index();
        if self.functions.len() <= index {
            self.functions.resize_with(index + 1, || None);
        }
        &mut self.functions[index]
    }
}
