//! libvirt makes a machine of what `manifold attach` prints for it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use manifold_vm::{Acceleration, Lab, Libvirt, Signal, end_process};

/// A QEMU that libvirt has started. Dropping it kills it.
struct Machine(u32);

impl Drop for Machine {
    fn drop(&mut self) {
        // QEMU may have ended already.
        let _ = end_process(self.0, Signal::KILL);
    }
}

/// Returns what is between two marks, with them.
fn part<'a>(xml: &'a str, from: &str, to: &str) -> Result<&'a str> {
    let rest = xml.find(from).and_then(|at| xml.get(at..));
    let end = rest.and_then(|rest| Some(rest.find(to)? + to.len()));
    rest.zip(end).and_then(|(rest, end)| rest.get(..end)).with_context(|| xml.to_owned())
}

#[test]
fn a_domain_with_two_functions() -> Result<()> {
    let lab = Lab::new("libvirt")?;
    let adapter = lab.adapter(&["--num-vfs", "2"])?;
    let libvirt = Libvirt::prepare(lab.sockets().join("libvirt"))?;
    let vhost = adapter.cli(&["attach", "vf0", "--vmm", "libvirt", "--protocol", "vhost-user"])?;
    let vfio = adapter.cli(&["attach", "vf1", "--vmm", "libvirt"])?;
    let image = lab.setup().image();
    let kind = match lab.setup().acceleration() {
        Acceleration::Kvm => "kvm",
        Acceleration::Tcg => "qemu",
    };
    let domain = format!(
        "<domain type='{kind}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>lisa</name>
  <memory unit='MiB'>256</memory>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initramfs}</initrd>
    <cmdline>console=ttyS0 no_timer_check manifold.name=lisa</cmdline>
  </os>
  <features><acpi/></features>
  {memory}
  <devices>
    <emulator>{emulator}</emulator>
    <serial type='file'><source path='{console}'/></serial>
    <serial type='null'/>
    <memballoon model='none'/>
  {interface}
  </devices>
  {command_line}
</domain>
",
        kernel = image.kernel.display(),
        initramfs = image.initramfs.display(),
        emulator = libvirt.emulator(lab.setup().qemu())?.display(),
        console = lab.logs().join("lisa.console.log").display(),
        memory = part(&vhost, "<memoryBacking>", "</memoryBacking>")?,
        interface = part(&vhost, "<interface", "</interface>")?,
        command_line = part(&vfio, "<qemu:commandline>", "</qemu:commandline>")?,
    );
    let file = lab.logs().join("lisa.xml");
    std::fs::write(&file, &domain)?;
    libvirt.validate(&file)?;
    libvirt.virsh(&["create", &file.to_string_lossy()])?;
    let pid = adapter.vf("vf0")?["attached"]["pid"].as_u64().context("nobody attached")?;
    let machine = Machine(u32::try_from(pid)?);

    // The machine's kernel has found both functions, and drives them.
    for (vf, protocol) in [("vf0", "vhost-user"), ("vf1", "vfio-user")] {
        let deadline = Instant::now() + Duration::from_secs(60);
        while adapter.vf(vf)?["driver"]["state"] != "running" {
            ensure!(Instant::now() < deadline, "no driver: {}", adapter.vf(vf)?);
            std::thread::sleep(Duration::from_millis(200));
        }
        let info = adapter.vf(vf)?;
        ensure!(info["attached"]["protocol"] == protocol, "{info}");
    }
    drop(machine);
    adapter.wait_attached("vf0", false)?;
    adapter.stop()
}
