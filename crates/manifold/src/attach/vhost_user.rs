//! This module attaches the queues of a function over vhost-user: the VMM has a virtio-net device
//! of its own in front of them.

use manifold_api::types::{Adapter, Function, MacAddr};

use super::recipe::{
    LIBVIRT_MEMORY, MACHINE, Recipe, SHARED, plain, qemu_memory, utf8, xml_escape,
};
use crate::cli::Vmm;

/// Number of entries of QEMU's and libvirt's rings, as many as they take; the default of 256 does
/// not hold a burst.
const RING_SIZE: u16 = 1024;

/// MTU that a guest begins with unless it is told another.
const USUAL_MTU: u16 = 1500;

/// Properties that a VMM's device must share with the function behind it.
pub(super) struct Nic<'a> {
    name: String,
    socket: &'a str,
    /// MAC address that the function receives; a machine with another one would hear nothing.
    mac: MacAddr,
    queue_pairs: u16,
    mtu: u16,
}

impl<'a> Nic<'a> {
    pub(super) fn new(function: &'a Function, adapter: &Adapter) -> anyhow::Result<Self> {
        Ok(Self {
            name: format!("manifold-{}", function.id),
            socket: utf8(&function.vhost_socket)?,
            mac: function.mac,
            queue_pairs: adapter.queue_pairs,
            mtu: function.mtu,
        })
    }

    /// Returns QEMU's back end and the properties of the device in front of it, which begin with
    /// `device`.
    pub(super) fn qemu(&self, device: &str) -> [String; 6] {
        let Self { name, mac, queue_pairs, mtu, .. } = self;
        // QEMU writes a comma in a value twice.
        let socket = self.socket.replace(',', ",,");
        // There is a vector for each queue, the control queue and the configuration.
        let vectors = 2 * queue_pairs + 2;
        [
            "-chardev".to_owned(),
            format!("socket,id={name}-socket,path={socket}"),
            "-netdev".to_owned(),
            format!("vhost-user,id={name}-net,chardev={name}-socket,queues={queue_pairs}"),
            "-device".to_owned(),
            format!(
                "{device},netdev={name}-net,mac={mac},mq=on,vectors={vectors},packed=on,\
                 rx_queue_size={RING_SIZE},tx_queue_size={RING_SIZE},host_mtu={mtu}"
            ),
        ]
    }
}

pub(super) fn recipe(nic: &Nic<'_>, vmm: Vmm, memory: &str) -> anyhow::Result<Recipe> {
    let Nic { mac, queue_pairs, mtu, socket, .. } = nic;
    // Each direction has a queue.
    let queues = 2 * queue_pairs;
    match vmm {
        Vmm::Qemu => {
            let arguments = qemu_memory(memory).into_iter().chain(nic.qemu("virtio-net-pci"));
            Ok(Recipe::command(arguments, &[SHARED, MACHINE]))
        }
        Vmm::CloudHypervisor => {
            let socket = plain("Cloud Hypervisor", socket)?;
            let arguments = [
                "--memory".to_owned(),
                format!("size={memory},shared=on"),
                "--net".to_owned(),
                format!(
                    "vhost_user=true,socket={socket},num_queues={queues},queue_size=256,\
                     mac={mac},mtu={mtu}"
                ),
            ];
            let remarks =
                [SHARED, "each queue pair takes a virtual processor: start it with `--cpus`"];
            Ok(Recipe::command(arguments, &remarks))
        }
        Vmm::Crosvm => {
            let socket = plain("crosvm", socket)?;
            let arguments = ["--vhost-user".to_owned(), format!("net,socket={socket}")];
            Ok(Recipe::command(arguments, &["crosvm shares its memory without being told"]))
        }
        Vmm::Libvirt => {
            let socket = xml_escape(socket);
            let xml = format!(
                "<domain type='kvm'>
{LIBVIRT_MEMORY}  <devices>
    <interface type='vhostuser'>
      <mac address='{mac}'/>
      <source type='unix' path='{socket}' mode='client'/>
      <model type='virtio'/>
      <driver queues='{queue_pairs}' \
                 rx_queue_size='{RING_SIZE}' tx_queue_size='{RING_SIZE}' packed='on'/>
    </interface>
  </devices>
</domain>
"
            );
            // There is no <mtu>, because libvirt would set it on an interface of the machine's as
            // well, and there is none.
            let mtu = format!(
                "in the guest `ip link set eth0 mtu {mtu}`: libvirt does not tell the machine the \
                 function's MTU"
            );
            let mut remarks = vec![
                "merge these elements into the domain with `virsh edit`",
                "QEMU's user (libvirt-qemu, qemu) must be allowed to use the socket",
            ];
            if nic.mtu != USUAL_MTU {
                remarks.push(&mtu);
            }
            Ok(Recipe::xml(xml, &remarks))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::command_line;
    use super::*;

    fn nic(socket: &str) -> Nic<'_> {
        Nic {
            name: "manifold-vf0".to_owned(),
            socket,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            queue_pairs: 4,
            mtu: 1500,
        }
    }

    #[test]
    fn qemu_gets_a_device_that_matches_the_function() {
        let recipe = recipe(&nic("/run/a,b/vf0.vhost.sock"), Vmm::Qemu, "512M").unwrap();
        assert_eq!(
            command_line(&recipe.arguments),
            "-m 512M \\\n\
             -object memory-backend-memfd,id=manifold-memory,size=512M,share=on \\\n\
             -machine memory-backend=manifold-memory \\\n\
             -chardev socket,id=manifold-vf0-socket,path=/run/a,,b/vf0.vhost.sock \\\n\
             -netdev vhost-user,id=manifold-vf0-net,chardev=manifold-vf0-socket,queues=4 \\\n\
             -device virtio-net-pci,netdev=manifold-vf0-net,mac=02:00:00:00:00:01,mq=on,vectors=10,\
             packed=on,rx_queue_size=1024,tx_queue_size=1024,host_mtu=1500\n"
        );
    }

    #[test]
    fn other_vmms_name_socket_address_and_queues() {
        let nic = nic("/run/m/vf0.vhost.sock");
        let line = |vmm| command_line(&recipe(&nic, vmm, "2G").unwrap().arguments);
        assert_eq!(
            line(Vmm::CloudHypervisor),
            "--memory size=2G,shared=on \\\n\
             --net vhost_user=true,socket=/run/m/vf0.vhost.sock,num_queues=8,queue_size=256,\
             mac=02:00:00:00:00:01,mtu=1500\n"
        );
        assert_eq!(line(Vmm::Crosvm), "--vhost-user net,socket=/run/m/vf0.vhost.sock\n");
        let libvirt = recipe(&nic, Vmm::Libvirt, "2G").unwrap();
        assert_eq!(libvirt.remarks.len(), 2, "{:?}", libvirt.remarks);
        let jumbo = recipe(&Nic { mtu: 9000, ..nic }, Vmm::Libvirt, "2G").unwrap();
        assert!(jumbo.remarks[2].contains("mtu 9000"), "{:?}", jumbo.remarks);
        let xml = libvirt.xml.unwrap();
        for part in ["vhostuser", "path='/run/m/vf0.vhost.sock' mode='client'", "queues='4'"] {
            assert!(xml.contains(part), "{xml}");
        }
    }
}
