//! This module makes functions: a configuration space, a DMA domain, counters and a device model
//! for each.

use std::sync::Arc;

use manifold_datapath::{Datapath, FunctionCounters};
use manifold_dma::Domain;
use manifold_pci::spec::sriov::REQUIRED_PAGE_SIZES;
use manifold_pci::{ConfigSpace, FunctionId, FunctionSpec, SriovSpec};

use crate::config::{Config, function_mac};
use crate::error::Error;
use crate::function::Function;
use crate::model::{ModelFactory, Resources};
use crate::switch::Switch;

/// The parts that all functions are made from.
pub(crate) struct Factory {
    pub(crate) config: Config,
    pub(crate) models: Box<dyn ModelFactory>,
    pub(crate) datapath: Arc<Datapath>,
    pub(crate) switch: Arc<Switch>,
}

impl Factory {
    /// Makes the PF, with TotalVFs as configured.
    pub(crate) fn pf(&self) -> Result<Arc<Function>, Error> {
        let spec = self.spec(FunctionId::Pf);
        let vf = self.spec(FunctionId::Vf(0));
        let sriov = SriovSpec {
            total_vfs: self.config.total_vfs,
            vf_device_id: vf.identity.device_id,
            vf_bars: vf.bars,
            supported_page_sizes: REQUIRED_PAGE_SIZES,
        };
        let space = ConfigSpace::physical(&spec, Some(&sriov))?;
        self.function(FunctionId::Pf, spec, space)
    }

    /// Makes a VF.
    pub(crate) fn vf(&self, index: u16) -> Result<Arc<Function>, Error> {
        let id = FunctionId::Vf(index);
        let spec = self.spec(id);
        let space = ConfigSpace::virtual_function(&spec)?;
        self.function(id, spec, space)
    }

    fn mac(&self, id: FunctionId) -> [u8; 6] {
        function_mac(self.config.base_mac(), id)
    }

    fn spec(&self, id: FunctionId) -> FunctionSpec {
        self.models.spec(id, self.mac(id))
    }

    fn function(
        &self,
        id: FunctionId,
        spec: FunctionSpec,
        space: ConfigSpace,
    ) -> Result<Arc<Function>, Error> {
        let resources = Resources {
            id,
            mac: self.mac(id),
            domain: Domain::new(id.to_string()),
            msix: space.msix().clone(),
            datapath: Arc::clone(&self.datapath),
            switch: Arc::clone(&self.switch),
            counters: FunctionCounters::new(self.config.queue_pairs),
        };
        let model = self.models.build(&resources).map_err(Error::Model)?;
        // This step comes last, so that a function that cannot be made leaves nothing behind.
        self.datapath.add_function(id, &resources.domain, &resources.counters)?;
        Ok(Arc::new(Function::new(resources, spec, space, model)))
    }
}
