//! This module attaches the whole function over vfio-user.

use serde_json::json;

use super::recipe::{LIBVIRT_MEMORY, MACHINE, Recipe, SHARED, plain, qemu_memory, xml_escape};
use crate::cli::Vmm;
use crate::failure::advise;

pub(super) fn recipe(socket: &str, vmm: Vmm, memory: &str) -> anyhow::Result<Recipe> {
    match vmm {
        Vmm::Qemu => Ok(qemu(socket, memory)),
        Vmm::CloudHypervisor => cloud_hypervisor(socket, memory),
        Vmm::Libvirt => Ok(libvirt(socket)),
        Vmm::Crosvm => Err(advise(
            "crosvm has no vfio-user client",
            "use `--protocol vhost-user`, crosvm's default",
        )),
    }
}

/// Returns QEMU's device in the JSON form of `-device`, the only one that takes a socket address.
fn qemu_device(socket: &str) -> String {
    json!({"driver": "vfio-user-pci", "socket": {"type": "unix", "path": socket}}).to_string()
}

fn qemu(socket: &str, memory: &str) -> Recipe {
    let device = ["-device".to_owned(), qemu_device(socket)];
    let remarks = [&format!("for QEMU 10.1 or newer; {SHARED}"), MACHINE];
    Recipe::command(qemu_memory(memory).into_iter().chain(device), &remarks)
}

fn cloud_hypervisor(socket: &str, memory: &str) -> anyhow::Result<Recipe> {
    let arguments = [
        "--memory".to_owned(),
        format!("size={memory},shared=on"),
        "--user-device".to_owned(),
        format!("socket={}", plain("Cloud Hypervisor", socket)?),
    ];
    Ok(Recipe::command(arguments, &[SHARED]))
}

fn libvirt(socket: &str) -> Recipe {
    let device = xml_escape(&qemu_device(socket));
    let xml = format!(
        "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
{LIBVIRT_MEMORY}  <qemu:commandline>
    <qemu:arg value='-device'/>
    <qemu:arg value='{device}'/>
  </qemu:commandline>
</domain>
"
    );
    let remarks = [
        "merge these elements into the domain with `virsh edit`; keep the namespace on <domain>",
        "for QEMU 10.1 or newer; its user (libvirt-qemu, qemu) must be allowed to use the socket",
    ];
    Recipe::xml(xml, &remarks)
}

#[cfg(test)]
mod tests {
    use super::super::command_line;
    use super::*;

    #[test]
    fn qemu_gets_shared_memory_of_the_machines_size() {
        assert_eq!(
            command_line(&qemu("/run/manifold/vf0.sock", "512M").arguments),
            "-m 512M \\\n\
             -object memory-backend-memfd,id=manifold-memory,size=512M,share=on \\\n\
             -machine memory-backend=manifold-memory \\\n\
             -device '{\"driver\":\"vfio-user-pci\",\"socket\":{\
             \"path\":\"/run/manifold/vf0.sock\",\"type\":\"unix\"}}'\n"
        );
    }

    #[test]
    fn cloud_hypervisor_gets_shared_memory() {
        let recipe = cloud_hypervisor("/run/manifold/vf0.sock", "2G").unwrap();
        assert_eq!(
            command_line(&recipe.arguments),
            "--memory size=2G,shared=on \\\n--user-device socket=/run/manifold/vf0.sock\n"
        );
        cloud_hypervisor("/run/a,b/vf0.sock", "2G").unwrap_err();
    }

    #[test]
    fn libvirt_gets_well_formed_xml() {
        let xml = libvirt("/run/it's <&>/vf0.sock").xml.unwrap();
        assert!(xml.contains("/run/it&apos;s &lt;&amp;>/vf0.sock"), "{xml}");
        assert!(xml.contains("<access mode='shared'/>"), "{xml}");
    }
}
