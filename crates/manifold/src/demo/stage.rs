//! This module has what the demo consists of, and its first steps: adapter, VFs, machines.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use manifold_adapter::Adapter;
use manifold_api::types::Function;
use manifold_api::{Backend as _, Software};
use manifold_guest::protocol::{Command, Config, Event, Neighbour};
use manifold_pci::FunctionId;

use super::folder::Folder;
use super::interrupt::Interrupt;
use super::machines::Machines;
use super::narrator::Narrator;
use super::plan;
use super::report::{Report, Vf};
use crate::listing;

/// Time to wait for a step, which is long because a demo that gives up on a slow machine shows
/// nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Largest number of functions that are all listed.
const LISTED: usize = 8;

/// Everything the demo consists of. Fields are dropped in this order: first the machines, then the
/// adapter, then its folder.
pub(super) struct Stage<'a> {
    pub(super) machines: Machines<'a>,
    pub(super) adapter: Software,
    folder: Folder,
    pub(super) vms: u16,
    pub(super) narrator: &'a mut Narrator,
    pub(super) report: &'a mut Report,
}

impl<'a> Stage<'a> {
    /// Starts the adapter.
    pub(super) fn new(
        vms: u16,
        interrupt: &'a Interrupt,
        narrator: &'a mut Narrator,
        report: &'a mut Report,
    ) -> anyhow::Result<Self> {
        let folder = Folder::new()?;
        let config = manifold_adapter::Config::new(folder.path());
        let adapter = Adapter::start(config).context("cannot start the adapter")?;
        let adapter = Software::new(Arc::new(adapter));
        Ok(Self { machines: Machines::new(interrupt), adapter, folder, vms, narrator, report })
    }

    /// Performs step 1: the PF is a plain NIC.
    pub(super) fn show_pf(&mut self) -> anyhow::Result<()> {
        self.narrator
            .step("An adapter starts. It is one PCIe function, the PF: an ordinary NIC.")?;
        let adapter = self.adapter.adapter();
        self.report.pf = adapter.bdf.into();
        self.list(&self.adapter.functions())?;
        self.narrator.say(&format!(
            "SR-IOV capability: TotalVFs {}, NumVFs {}: it can become {} more, and is none so far.",
            adapter.total_vfs, adapter.num_vfs, adapter.total_vfs
        ))?;
        if adapter.num_vfs != 0 {
            bail!("the PF begins with {} VFs enabled instead of none", adapter.num_vfs);
        }
        Ok(())
    }

    /// Performs step 2: VFs appear.
    pub(super) fn enable_vfs(&mut self) -> anyhow::Result<()> {
        let vms = self.vms;
        self.narrator.step(&format!(
            "The PF's driver writes NumVFs = {vms} and sets VF Enable: virtual functions appear."
        ))?;
        self.adapter.enable_vfs(u32::from(vms)).context("cannot enable the VFs")?;
        self.list(&self.adapter.functions())?;
        for (function, index) in self.functions()?.iter().zip(0..) {
            let (bdf, mac) = (function.bdf.to_string(), function.mac.to_string());
            self.report.vfs.push(Vf { index, bdf, mac });
        }
        self.narrator.done("each has configuration space, BARs, MSI-X and a DMA domain of its own")
    }

    /// Performs step 3: each machine gets a process.
    pub(super) fn start_machines(&mut self) -> anyhow::Result<()> {
        let vms = self.vms;
        self.narrator.step(&match vms {
            1 => "A guest process starts; it stands for a virtual machine.".to_owned(),
            _ => format!("{vms} guest processes start, each standing for a virtual machine."),
        })?;
        for vm in 0..vms {
            let function = self.vf(vm)?;
            let mut config = Config::new(function.socket);
            config.iova = plan::iova(vm);
            self.machines.start(&config)?;
        }
        self.gather(vms, "the guests' drivers", |event| matches!(event, Event::Ready { .. }))?;

        // A few machines find each other by ARP. Were 256 to ask all others for 16 of them, a
        // million broadcast frames would be all that is seen for a while.
        let neighbours: Vec<Neighbour> = if vms <= 16 {
            Vec::new()
        } else {
            let mac = |vm: u16| self.vf(vm).map(|function| function.mac.0);
            let neighbour =
                |vm: u16| mac(vm).map(|mac| Neighbour { address: plan::address(vm), mac });
            (0..vms).map(neighbour).collect::<Result<_, _>>()?
        };
        for vm in 0..vms {
            let others =
                neighbours.iter().filter(|neighbour| neighbour.address != plan::address(vm));
            let command = Command::Configure {
                address: plan::address(vm),
                prefix: plan::PREFIX,
                neighbours: others.copied().collect(),
            };
            self.machines.tell(vm, &command)?;
        }
        self.gather(vms, "the guests' addresses", |event| {
            matches!(event, Event::Configured { .. })
        })?;
        let (first, last) = (plan::address(0), plan::address(vms.saturating_sub(1)));
        self.narrator.done(&match vms {
            1 => format!("it drives its VF through registers and is {first}"),
            _ => format!("each drives its VF through registers; they are {first} to {last}"),
        })
    }

    /// Ends the machines and the adapter in order.
    pub(super) fn strike(self) -> anyhow::Result<()> {
        self.machines.stop(Instant::now() + PATIENCE)?;
        let gone = self.adapter.disable_vfs().context("cannot disable the VFs")?;
        if gone.disabled != self.vms {
            bail!("{} VFs were there at the end instead of {}", gone.disabled, self.vms);
        }
        drop(self.adapter);
        drop(self.folder);
        Ok(())
    }

    /// Waits for `count` events that `wanted` accepts.
    pub(super) fn gather(
        &mut self,
        count: u16,
        what: &str,
        wanted: impl Fn(&Event) -> bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut got = 0;
        while got < count {
            let (vm, event) = self.machines.next(deadline, what)?;
            if wanted(&event) {
                got += 1;
                self.narrator.progress(|| format!("{got} of {count}"))?;
            } else if let Event::Failed { message, .. } = event {
                bail!("VM {vm} failed: {message}");
            }
        }
        Ok(())
    }

    /// Returns the machines' VFs, by index.
    pub(super) fn functions(&self) -> anyhow::Result<Vec<Function>> {
        let is_vf = |function: &Function| matches!(function.id, FunctionId::Vf(_));
        let vfs: Vec<_> = self.adapter.functions().into_iter().filter(is_vf).collect();
        if vfs.len() != usize::from(self.vms) {
            bail!("there are {} VFs instead of {}", vfs.len(), self.vms);
        }
        Ok(vfs)
    }

    /// Returns a machine's VF.
    pub(super) fn vf(&self, vm: u16) -> anyhow::Result<Function> {
        self.adapter.function(FunctionId::Vf(vm)).with_context(|| format!("vf{vm} is gone"))
    }

    /// Prints functions as `lspci` would; of many, the first and the last.
    fn list(&mut self, functions: &[Function]) -> anyhow::Result<()> {
        let left_out = functions.len().saturating_sub(LISTED);
        for (index, function) in functions.iter().enumerate() {
            if left_out > 1 && index == LISTED - 1 {
                self.narrator.say(&format!("... and {left_out} more ..."))?;
            }
            if left_out <= 1 || index < LISTED - 1 || index + 1 == functions.len() {
                self.narrator.say(&listing::lspci(function))?;
            }
        }
        Ok(())
    }
}
