//! This module runs a virtual machine: a QEMU process, its console in a file, an agent that runs
//! scripts in it.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::acceleration::Acceleration;
use crate::agent::{Agent, JobId, Output};
use crate::image::Image;
use crate::namespace;
use crate::qemu::Qemu;
use crate::qmp;
use crate::run::tail;

/// Time to boot, which is enough for the slowest machine under emulation, with others booting
/// beside it.
pub(crate) const BOOT_TIMEOUT: Duration = Duration::from_secs(180);
/// Time that a script in a guest gets unless told otherwise.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(60);

/// The description of a guest, made by [`crate::Lab::guest`].
#[derive(Debug, Clone)]
pub struct Builder<'a> {
    pub(crate) qemu: &'a Qemu,
    pub(crate) name: String,
    /// Folder of the console's and QEMU's log.
    pub(crate) logs: PathBuf,
    /// Folder of the sockets, whose paths must stay below 108 bytes.
    pub(crate) sockets: PathBuf,
    pub(crate) memory_mib: u32,
    pub(crate) cpus: u32,
    pub(crate) shared_memory: bool,
    pub(crate) viommu: bool,
    pub(crate) load_drivers: bool,
    /// Further arguments of the kernel, each with a space before it.
    pub(crate) more_kernel_arguments: String,
    pub(crate) devices: Vec<Device>,
    pub(crate) image: Image,
    /// Name of the network namespace that QEMU runs in; none for the machine's own.
    pub(crate) netns: Option<String>,
    pub(crate) acceleration: Acceleration,
    pub(crate) boot_timeout: Duration,
}

/// Returns the name of the root port of a guest's device.
fn port(index: usize) -> String {
    format!("port{index}")
}

fn vfio_user(socket: &Path) -> Value {
    json!({
        "driver": "vfio-user-pci",
        "id": "function",
        "socket": { "type": "unix", "path": socket },
    })
}

/// Returns the arguments of a TAP interface as QEMU's network backend of the same name.
fn tap_netdev(tap: &str) -> Vec<String> {
    let vhost = Path::new("/dev/vhost-net").exists();
    let netdev = json!({
        "type": "tap", "id": tap, "ifname": tap, "script": "no", "downscript": "no", "vhost": vhost,
    });
    vec!["-netdev".to_owned(), netdev.to_string()]
}

/// A PCIe device behind a root port of its own.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    /// Properties of `-device`, without bus; none for a port without a device.
    properties: Option<Value>,
    /// Further arguments that the device needs before it, such as its `-netdev`.
    arguments: Vec<String>,
}

impl<'a> Builder<'a> {
    /// Sets the memory in MiB; it is 256 otherwise.
    #[must_use]
    pub fn memory(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Sets the number of virtual processors, which is one unless told. A machine with hundreds of
    /// functions needs several for their interrupt vectors alone.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// Keeps the guest's memory to QEMU, so that the adapter cannot reach it.
    #[must_use]
    pub fn private_memory(mut self) -> Self {
        self.shared_memory = false;
        self
    }

    /// Attaches the PCIe function served at a vfio-user socket.
    #[must_use]
    pub fn vfio_user(self, socket: &Path) -> Self {
        self.device(vfio_user(socket))
    }

    /// Attaches any device of QEMU's, given as `-device` takes it in JSON, without its bus.
    #[must_use]
    pub fn device(mut self, properties: Value) -> Self {
        self.devices.push(Device { properties: Some(properties), arguments: Vec::new() });
        self
    }

    /// Adds what `manifold attach --json` printed for QEMU, but for the memory, which every guest
    /// shares anyway.
    ///
    /// # Errors
    /// When it printed something else.
    pub fn attach(mut self, recipe: &Value) -> Result<Self> {
        let arguments: Option<Vec<String>> = recipe["arguments"]
            .as_array()
            .map(|words| words.iter().filter_map(Value::as_str).map(str::to_owned).collect());
        let arguments = arguments.context("no arguments")?;
        let devices = arguments.chunks(2).filter(|pair| {
            !["-m", "-object", "-machine"]
                .iter()
                .any(|option| pair.first().is_some_and(|word| word == option))
        });
        self.devices
            .push(Device { properties: None, arguments: devices.flatten().cloned().collect() });
        Ok(self)
    }

    /// Adds a root port without a device, for [`Guest::plug`].
    #[must_use]
    pub fn spare_port(mut self) -> Self {
        self.devices.push(Device { properties: None, arguments: Vec::new() });
        self
    }

    /// Attaches QEMU's own virtio-net device; two guests given the two ends of one socket are
    /// connected.
    #[must_use]
    pub fn qemu_nic(mut self, mac: &str, listen: bool, socket: &Path) -> Self {
        let netdev = json!({
            "type": "stream", "id": "wire", "server": listen,
            "addr": { "type": "unix", "path": socket },
        });
        self.devices.push(Device {
            properties: Some(json!({
                "driver": "virtio-net-pci", "netdev": "wire", "mac": mac, "romfile": "",
            })),
            arguments: vec!["-netdev".to_owned(), netdev.to_string()],
        });
        self
    }

    /// Boots another image than [`crate::Setup::image`].
    #[must_use]
    pub fn image(mut self, image: &Image) -> Self {
        self.image = image.clone();
        self
    }

    /// Runs QEMU in a network namespace, named as `ip netns` knows it: the one of its TAP
    /// interfaces.
    #[must_use]
    pub fn netns(mut self, name: &str) -> Self {
        self.netns = Some(name.to_owned());
        self
    }

    /// Attaches QEMU's own virtio-net device on a TAP interface, with vhost-net where the machine
    /// has it.
    #[must_use]
    pub fn tap_nic(mut self, mac: &str, tap: &str) -> Self {
        self.devices.push(Device {
            properties: Some(json!({
                "driver": "virtio-net-pci", "netdev": tap, "mac": mac, "romfile": "",
            })),
            arguments: tap_netdev(tap),
        });
        self
    }

    /// Attaches an Intel 82576 of QEMU's own on a TAP interface. Its VFs, which the guest enables,
    /// share it.
    #[must_use]
    pub fn igb_nic(mut self, mac: &str, tap: &str) -> Self {
        self.devices.push(Device {
            properties: Some(json!({
                "driver": "igb", "netdev": tap, "mac": mac, "romfile": "",
            })),
            arguments: tap_netdev(tap),
        });
        self
    }

    /// Attaches a virtio-net PF of QEMU's own with one VF, which the guest enables: each on a TAP
    /// interface.
    #[must_use]
    pub fn sriov_nic(mut self, pf: (&str, &str), vf: (&str, &str)) -> Self {
        let mut arguments = [tap_netdev(pf.1), tap_netdev(vf.1)].concat();
        // QEMU wants the VF before its PF.
        arguments.push("-device".to_owned());
        let bus = port(self.devices.len());
        arguments.push(
            json!({
                "driver": "virtio-net-pci", "bus": bus, "addr": "0.1", "sriov-pf": "pf",
                "netdev": vf.1, "mac": vf.0, "romfile": "",
            })
            .to_string(),
        );
        self.devices.push(Device {
            properties: Some(json!({
                "driver": "virtio-net-pci", "id": "pf", "addr": "0.0", "netdev": pf.1,
                "mac": pf.0, "romfile": "",
            })),
            arguments,
        });
        self
    }

    /// Puts an Intel IOMMU between the devices and memory, and has the kernel use it strictly:
    /// every DMA mapping is made for one transfer and gone, with its IOTLB entry, when the transfer
    /// is done.
    #[must_use]
    pub fn viommu(mut self) -> Self {
        self.viommu = true;
        self
    }

    /// Loads no drivers at boot. Those of an ordinary guest are in /modules, /modules/order says in
    /// what order.
    #[must_use]
    pub fn without_drivers(mut self) -> Self {
        self.load_drivers = false;
        self
    }

    /// Gives the kernel one more argument.
    #[must_use]
    pub fn kernel_argument(mut self, argument: &str) -> Self {
        self.more_kernel_arguments.push(' ');
        self.more_kernel_arguments.push_str(argument);
        self
    }

    /// Boots it and waits until the agent answers.
    ///
    /// # Errors
    /// When QEMU refuses its arguments or the guest does not come up; the error quotes console and
    /// QEMU.
    pub fn boot(self) -> Result<Guest<'a>> {
        Guest::boot(self)
    }

    /// Boots it with its console on this terminal and a shell in it, and waits for its end.
    ///
    /// # Errors
    /// When QEMU cannot be started or fails.
    pub fn interactive(&self) -> Result<()> {
        let mut command = self.qemu();
        command.args(["-serial", "mon:stdio", "-no-reboot"]);
        command.arg("-append").arg(self.kernel_arguments() + " manifold.shell");
        let status = command.status().context("cannot start QEMU")?;
        if !status.success() {
            bail!("QEMU ended with {status}");
        }
        Ok(())
    }

    fn kernel_arguments(&self) -> String {
        // Warnings and worse messages go to the console; the rest is there for dmesg. On a busy
        // machine an emulated timer may be too late for the kernel's check of it.
        let mut arguments =
            format!("console=ttyS0 loglevel=5 no_timer_check manifold.name={}", self.name);
        if !self.load_drivers {
            arguments.push_str(" manifold.bare");
        }
        if self.viommu {
            arguments.push_str(" intel_iommu=on iommu.passthrough=0 iommu.strict=1");
        }
        arguments + &self.more_kernel_arguments
    }

    /// Returns QEMU's command with the machine's hardware, without serial ports and kernel
    /// arguments.
    fn qemu(&self) -> Command {
        let mut command = match &self.netns {
            None => self.qemu.command(),
            Some(name) => namespace::inside(name, &self.qemu.command()),
        };
        command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
        command.args(["-M", "q35,memory-backend=ram,usb=off,sata=off,smbus=off,vmport=off"]);
        command.args(self.acceleration.arguments());
        command.args(["-smp", &self.cpus.to_string(), "-m", &format!("{}M", self.memory_mib)]);
        // The adapter reads and writes guest memory, so that should be a file it can share.
        let size = self.memory_mib;
        let memory = if self.shared_memory {
            format!("memory-backend-memfd,id=ram,share=on,size={size}M")
        } else {
            format!("memory-backend-ram,id=ram,size={size}M")
        };
        command.args(["-object", &memory]);
        if self.viommu {
            // In caching mode the guest also flushes what becomes valid, which is how QEMU learns
            // of new mappings.
            command.args(["-device", "intel-iommu,caching-mode=on"]);
        }
        for (index, device) in self.devices.iter().enumerate() {
            let port = port(index);
            let slot = index + 1;
            let properties = format!("pcie-root-port,id={port},chassis={slot},slot={slot}");
            command.args(["-device", &properties]);
            command.args(&device.arguments);
            if let Some(mut properties) = device.properties.clone() {
                properties["bus"] = port.into();
                command.arg("-device").arg(properties.to_string());
            }
        }
        command.arg("-kernel").arg(&self.image.kernel).arg("-initrd").arg(&self.image.initramfs);
        command
    }
}

/// A running guest. Dropping it kills it.
#[derive(Debug)]
pub struct Guest<'a> {
    builder: Builder<'a>,
    child: Child,
    agent: Agent,
    boot_time: Duration,
}

/// A script running in a guest.
#[derive(Debug)]
pub struct Job<'a> {
    guest: &'a Guest<'a>,
    id: JobId,
}

impl<'a> Guest<'a> {
    fn boot(builder: Builder<'a>) -> Result<Self> {
        let begin = Instant::now();
        for dir in [&builder.logs, &builder.sockets] {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let path = |name: &str| builder.sockets.join(format!("{}.{name}", builder.name));
        let agent_path = path("agent");
        let mut command = builder.qemu();
        command.arg("-append").arg(builder.kernel_arguments());
        command.arg("-serial").arg(format!("file:{}", builder.log("console").display()));
        command.arg("-serial").arg(format!("unix:{},server=on,wait=off", agent_path.display()));
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", path("qmp").display()));
        let log = File::create(builder.log("qemu"))?;
        let line: Vec<_> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        fs::write(builder.log("command"), line.join(" \\\n  "))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn().context("cannot start QEMU")?;
        let agent = connect(&mut child, &agent_path)
            .and_then(Agent::new)
            .and_then(|agent| builder.wait_boot(&agent, 0).map(|()| agent));
        match agent {
            Ok(agent) => Ok(Self { builder, child, agent, boot_time: begin.elapsed() }),
            Err(error) => {
                let status = child.try_wait().ok().flatten();
                // A process that has ended already is as good.
                let _ = child.kill();
                let _ = child.wait();
                let status = status.map_or_else(String::new, |status| format!(", QEMU: {status}"));
                Err(error.context(format!(
                    "guest {} did not come up{status}\n{}",
                    builder.name,
                    builder.last_words()
                )))
            }
        }
    }

    /// Returns the name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.builder.name
    }

    /// Returns the time from QEMU's start until the agent answered.
    #[must_use]
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// Returns the process ID of its QEMU.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs a shell script in the guest and returns how it ended, within a minute.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub fn run(&self, script: &str) -> Result<Output> {
        self.spawn(script)?.wait(SCRIPT_TIMEOUT)
    }

    /// Runs a shell script that must succeed and returns what it printed.
    ///
    /// # Errors
    /// When it fails or the guest does not answer.
    pub fn sh(&self, script: &str) -> Result<String> {
        let output = self.run(script)?;
        self.expect_success(script, output)
    }

    /// Starts a shell script in the guest.
    ///
    /// # Errors
    /// When QEMU has ended.
    pub fn spawn(&self, script: &str) -> Result<Job<'_>> {
        let id = self
            .agent
            .start(script)
            .with_context(|| format!("cannot start \"{script}\" in {}", self.name()))?;
        Ok(Job { guest: self, id })
    }

    /// Kills QEMU with SIGKILL: the machine is gone without a goodbye to anything attached.
    ///
    /// # Errors
    /// When the process cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("cannot kill QEMU")?;
        self.child.wait().context("cannot wait for QEMU")?;
        Ok(())
    }

    /// Has the guest's kernel restart the machine, as `reboot` does, and waits until it is up
    /// again.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn reboot(&mut self) -> Result<()> {
        let script = "sync; (sleep 0.2; reboot -f) </dev/null >/dev/null 2>&1 &";
        self.restart(|guest| guest.sh(script).map(drop))
    }

    /// Presses the machine's reset button and waits until it is up again.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn reset(&mut self) -> Result<()> {
        self.restart(|guest| guest.monitor("system_reset", &json!({})).map(drop))
    }

    fn restart(&mut self, trigger: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let begin = Instant::now();
        let boots = self.agent.boots();
        trigger(self)?;
        self.builder.wait_boot(&self.agent, boots).with_context(|| {
            format!("{} did not come back\n{}", self.name(), self.builder.last_words())
        })?;
        self.boot_time = begin.elapsed();
        Ok(())
    }

    /// Attaches the function served at a vfio-user socket while the machine runs, to its
    /// [`Builder::spare_port`], and waits until the guest's driver has it. (Unplugging is not to be
    /// had: QEMU up to 11.1 at least aborts when a vfio-user device with MSI-X goes.)
    ///
    /// # Errors
    /// When QEMU refuses or no driver takes it.
    pub fn plug(&self, socket: &Path) -> Result<()> {
        let spare = self.builder.devices.iter().position(|device| device.properties.is_none());
        let mut device = vfio_user(socket);
        device["bus"] = port(spare.context("the guest has no spare port")?).into();
        self.monitor("device_add", &device)?;
        self.sh("until ip link show eth0; do sleep 0.2; done")?;
        Ok(())
    }

    /// Runs a command of QEMU's monitor (QMP).
    ///
    /// # Errors
    /// Fails with what QEMU complains about.
    pub fn monitor(&self, command: &str, arguments: &Value) -> Result<Value> {
        let socket = self.builder.sockets.join(format!("{}.qmp", self.name()));
        qmp::execute(&socket, command, arguments)
    }

    /// Returns what the kernel said on the console: warnings and worse.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn console(&self) -> Result<String> {
        let bytes =
            fs::read(self.builder.log("console")).context("cannot read the console's log")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Fails if the kernel has found a fault in itself, a driver or a device.
    ///
    /// # Errors
    /// The console's lines about it.
    pub fn expect_quiet_kernel(&self) -> Result<()> {
        const SIGNS: [&str; 8] = [
            "Call Trace",
            "WARNING:",
            "BUG:",
            "Oops",
            "Kernel panic",
            "DMAR: DRHD: handling fault",
            "NETDEV WATCHDOG",
            "is not a head!",
        ];
        let console = self.console()?;
        if let Some(line) =
            console.lines().find(|line| SIGNS.iter().any(|sign| line.contains(sign)))
        {
            bail!("the kernel of {} complains: {line}\n{}", self.name(), tail(&console, 40));
        }
        Ok(())
    }

    fn expect_success(&self, script: &str, output: Output) -> Result<String> {
        if output.status != 0 {
            bail!(
                "in {}: \"{script}\" ended with status {}\n{}\n{}",
                self.name(),
                output.status,
                tail(&output.stdout, 30),
                tail(&output.stderr, 30)
            );
        }
        Ok(output.stdout)
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        // QEMU may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Job<'_> {
    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end in time, the guest reboots or QEMU ends.
    pub fn wait(self, timeout: Duration) -> Result<Output> {
        self.guest.agent.wait(&self.id, timeout).with_context(|| {
            format!(
                "waiting for a script in {}\n{}",
                self.guest.name(),
                self.guest.builder.last_words()
            )
        })
    }

    /// Waits for its end, which must be a good one, and returns what it printed.
    ///
    /// # Errors
    /// Fails as [`Job::wait`] does, and if the script fails.
    pub fn success(self, timeout: Duration) -> Result<String> {
        let guest = self.guest;
        let output = self.wait(timeout)?;
        guest.expect_success("a script", output)
    }

    /// Returns whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.guest.agent.is_finished(&self.id)
    }

    /// Sends SIGTERM to the script and all it started.
    ///
    /// # Errors
    /// When QEMU has ended.
    pub fn terminate(&self) -> Result<()> {
        self.guest.agent.kill(&self.id)
    }
}

impl Builder<'_> {
    /// Waits until the guest has come up more than `boots` times.
    fn wait_boot(&self, agent: &Agent, boots: u32) -> Result<()> {
        let deadline = Instant::now() + self.boot_timeout;
        while !agent.wait_boot(boots, Duration::from_secs(2))? {
            let console = fs::read(self.log("console")).unwrap_or_default();
            if String::from_utf8_lossy(&console).contains("Kernel panic") {
                bail!("the guest's kernel panicked");
            }
            if Instant::now() > deadline {
                bail!("no sign of the guest in {} s", self.boot_timeout.as_secs());
            }
        }
        Ok(())
    }

    fn log(&self, kind: &str) -> PathBuf {
        self.logs.join(format!("{}.{kind}.log", self.name))
    }

    fn last_words(&self) -> String {
        ["console", "qemu"]
            .map(|kind| {
                let bytes = fs::read(self.log(kind)).unwrap_or_default();
                format!("--- end of {kind} ---\n{}", tail(&String::from_utf8_lossy(&bytes), 15))
            })
            .join("\n")
    }
}

/// Connects to a socket that QEMU is about to make.
fn connect(child: &mut Child, path: &Path) -> Result<UnixStream> {
    let deadline = Instant::now() + BOOT_TIMEOUT;
    loop {
        if let Ok(stream) = UnixStream::connect(path) {
            return Ok(stream);
        }
        if child.try_wait().context("cannot wait for QEMU")?.is_some() {
            bail!("QEMU ended at once");
        }
        if Instant::now() > deadline {
            bail!("QEMU does not open {}", path.display());
        }
        thread::sleep(Duration::from_millis(20));
    }
}
