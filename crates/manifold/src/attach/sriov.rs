//! This module attaches a whole adapter to one machine, by QEMU's composable SR-IOV in front of the
//! vhost-user sockets.
//!
//! What QEMU asks for (its docs/system/sriov.rst): the PF and its VFs are functions of one device
//! behind a PCIe root port, the PF function 0, each VF named after the PF with `sriov-pf` and above
//! it by a constant stride, and the PF last on the command line. With ARI a device has 256
//! functions, so at most 255 of them are VFs.

use manifold_api::types::Function;
use manifold_pci::FunctionId;

use super::recipe::{MACHINE, Recipe, SHARED, Subject, qemu_memory};
use super::vhost_user::Nic;
use crate::cli::Vmm;
use crate::failure::advise;

/// Name of the PF in QEMU, which the VFs refer to.
const PF: &str = "manifold-pf";

pub(super) fn recipe(
    subject: &Subject,
    vfs: u16,
    vmm: Vmm,
    memory: &str,
) -> anyhow::Result<Recipe> {
    if vmm != Vmm::Qemu {
        return Err(advise(
            "only QEMU can compose an SR-IOV device of virtio-net functions",
            "use `--vmm qemu`",
        ));
    }
    let enabled = subject.functions.len().saturating_sub(1);
    if enabled < usize::from(vfs) {
        return Err(advise(
            format!("the machine's {vfs} VFs need as many here, and {enabled} are enabled"),
            format!("run `manifold vf disable` and `manifold vf enable {vfs}`"),
        ));
    }
    let mut arguments: Vec<String> = qemu_memory(memory).into();
    let port = "pcie-root-port,id=manifold-port,chassis=100,slot=100";
    arguments.extend(["-device".to_owned(), port.to_owned()]);
    // The PF comes first here but must come last for QEMU.
    for function in subject.functions.iter().take(usize::from(vfs) + 1).rev() {
        let nic = Nic::new(function, &subject.adapter)?;
        arguments.extend(nic.qemu(&device(function)));
    }
    let remarks = [
        "for QEMU 10.1 or newer with `-machine q35` or another that has PCI Express",
        SHARED,
        MACHINE,
        "many VFs take many interrupt vectors, two for each queue pair and one; a processor has \
         about 200: see `-smp`, and `manifold serve --queue-pairs`",
        "in the machine: echo N >/sys/bus/pci/devices/.../sriov_numvfs, on the PF",
    ];
    Ok(Recipe::command(arguments, &remarks))
}

/// Returns a function of the device behind the port.
fn device(function: &Function) -> String {
    let (number, of) = match function.id {
        FunctionId::Pf => (0, format!("id={PF}")),
        FunctionId::Vf(index) => (u32::from(index) + 1, format!("sriov-pf={PF}")),
    };
    // QEMU writes an ARI function number as a device and one of its eight functions.
    format!("virtio-net-pci,bus=manifold-port,addr={:#x}.{:#x},{of}", number / 8, number % 8)
}
