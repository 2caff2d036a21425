//! This module makes what a guest boots: a Debian kernel, and an initramfs with its modules,
//! busybox and the tools the tests use, unpacked from Debian's packages.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::cpio::Writer;
use crate::debian::{Archive, RELEASE};
use crate::programs::Programs;
use crate::run::output;

/// A kernel of Debian's that a guest boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// This is the build for virtual machines, which is the usual one here: small, and without most
    /// hardware's drivers.
    Cloud,
    /// This is the build for everything, which has the drivers of what QEMU emulates after real
    /// hardware.
    Generic,
}

impl Kernel {
    /// Returns the kernel's metapackage.
    fn package(self) -> &'static str {
        match self {
            Self::Cloud => "linux-image-cloud-amd64",
            Self::Generic => "linux-image-amd64",
        }
    }

    /// Modules loaded at boot, with what they depend on. `virtio_net` is the driver under test;
    /// `8021q` and `macvlan` put VLAN and MAC filters to use.
    fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Cloud => &["virtio_net", "8021q", "macvlan"],
            Self::Generic => &["virtio_pci", "virtio_net", "igb", "igbvf"],
        }
    }

    /// Returns what folders of this kernel are named after.
    fn name(self) -> &'static str {
        match self {
            Self::Cloud => "guest",
            Self::Generic => "guest-generic",
        }
    }
}

/// Names of the packages whose binaries go into the initramfs.
const PACKAGES: [&str; 7] =
    ["dash", "busybox-static", "iproute2", "pciutils", "ethtool", "iperf3", "iputils-ping"];
const BINARIES: [&str; 7] = [
    // This is not busybox's shell, which prefers busybox's own ip and ping to those below.
    "usr/bin/dash",
    "usr/bin/ip",
    "usr/bin/lspci",
    "usr/bin/setpci",
    "usr/sbin/ethtool",
    "usr/bin/iperf3",
    "usr/bin/ping",
];
/// Version of the image, to be raised when the code below packs the same things otherwise.
const LAYOUT: u32 = 3;
const INIT: &str = include_str!("../guest/init");
const AGENT: &str = include_str!("../guest/agent");

/// A kernel and an initramfs, ready to boot.
#[derive(Debug, Clone)]
pub struct Image {
    /// Path of the compressed kernel.
    pub kernel: PathBuf,
    /// Path of the initial file system, which is all the guest has.
    pub initramfs: PathBuf,
    /// The packages that the guest's programs are of.
    pub programs: Programs,
}

impl Image {
    pub(crate) fn prepare(
        kind: Kernel,
        cache: &Cache,
        archive: impl FnOnce() -> Result<Archive>,
    ) -> Result<Self> {
        let root = cache.entry(kind.name(), &(RELEASE, kind.package(), PACKAGES), |dir| {
            let archive = archive()?;
            archive.unpack(&PACKAGES, None, &dir.join("root"))?;
            archive.unpack_target_of(kind.package(), &dir.join("kernel"))
        })?;
        let (kernel, modules) = find_kernel(&root.join("kernel"))?;
        let key = (&root, INIT, AGENT, kind.modules(), BINARIES, LAYOUT);
        let initramfs = cache.entry("initramfs", &key, |dir| {
            pack(&root.join("root"), &modules, kind.modules(), &dir.join("initramfs.cpio"))
        })?;
        let programs = Programs::at(root.join("root"));
        Ok(Self { kernel, initramfs: initramfs.join("initramfs.cpio"), programs })
    }
}

/// Returns the kernel and the folder of its modules in an unpacked kernel package.
fn find_kernel(package: &Path) -> Result<(PathBuf, PathBuf)> {
    let boot = package.join("boot");
    for entry in fs::read_dir(&boot).with_context(|| format!("cannot read {}", boot.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(version) = name.and_then(|name| name.strip_prefix("vmlinuz-")) {
            let modules = ["usr/lib/modules", "lib/modules"]
                .map(|dir| package.join(dir).join(version))
                .into_iter()
                .find(|dir| dir.is_dir())
                .with_context(|| format!("no modules of {version} in {}", package.display()))?;
            return Ok((path.clone(), modules));
        }
    }
    bail!("no kernel in {}", boot.display())
}

fn pack(root: &Path, modules: &Path, wanted: &[&str], path: &Path) -> Result<()> {
    let busybox = root.join("usr/bin/busybox");
    let mut archive = Writer::new(BufWriter::new(File::create(path)?));
    for dir in ["proc", "sys", "dev", "run", "tmp", "root", "usr/sbin"] {
        archive.directory(dir)?;
    }
    for (link, target) in
        [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")]
    {
        archive.symlink(link, target)?;
    }
    archive.character_device("dev/console", 5, 1)?;
    archive.file("init", 0o755, INIT.as_bytes())?;
    archive.file("agent", 0o755, AGENT.as_bytes())?;

    let libraries = libraries(root)?;
    let files = BINARIES.map(str::to_owned).into_iter().chain(libraries);
    let mut names = BTreeSet::new();
    for file in files.chain(["usr/bin/busybox".to_owned()]) {
        let source = root.join(&file);
        let data =
            fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
        archive.file(&file, 0o755, &data)?;
        names.extend(file.rsplit('/').next().map(str::to_owned));
    }
    archive.symlink("usr/bin/sh", "dash")?;
    names.insert("sh".to_owned());
    for applet in output(Command::new(&busybox).arg("--list"))?.lines() {
        if names.insert(applet.to_owned()) {
            archive.symlink(&format!("usr/bin/{applet}"), "busybox")?;
        }
    }

    let mut order = Vec::new();
    for module in wanted {
        add_module(&busybox, modules, module, &mut order)?;
    }
    let list: String = order.iter().map(|(name, _)| format!("{name}.ko\n")).collect();
    archive.file("modules/order", 0o644, list.as_bytes())?;
    for (name, data) in &order {
        archive.file(&format!("modules/{name}.ko"), 0o644, data)?;
    }
    archive.finish()?;
    Ok(())
}

/// Returns the shared libraries [`BINARIES`] need and their loader, relative to `root`.
fn libraries(root: &Path) -> Result<BTreeSet<String>> {
    const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
    // The C library loads this one by itself when a thread is cancelled, which iperf3 does.
    const UNWINDER: &str = "usr/lib/x86_64-linux-gnu/libgcc_s.so.1";
    let mut found = BTreeSet::from([LOADER.to_owned(), UNWINDER.to_owned()]);
    for binary in BINARIES {
        // The packages' own loader lists what a binary would load, and from where.
        let list = output(
            Command::new(root.join(LOADER))
                .arg("--library-path")
                .arg(root.join("usr/lib/x86_64-linux-gnu"))
                .arg("--list")
                .arg(root.join(binary)),
        )?;
        for line in list.lines() {
            let path = line.split(" => ").nth(1).and_then(|rest| rest.split(' ').next());
            if let Some(path) = path.and_then(|path| Path::new(path).strip_prefix(root).ok()) {
                found.insert(path.to_string_lossy().into_owned());
            }
        }
    }
    Ok(found)
}

/// Adds `name` behind everything it depends on, uncompressed; a module that is built in has no file
/// and needs none.
fn add_module(
    busybox: &Path,
    modules: &Path,
    name: &str,
    order: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    let name = name.replace('-', "_");
    if order.iter().any(|(known, _)| *known == name) {
        return Ok(());
    }
    let Some(path) = find_module(&modules.join("kernel"), &name)? else {
        let builtin = fs::read_to_string(modules.join("modules.builtin")).unwrap_or_default();
        if builtin.lines().any(|line| module_name(Path::new(line)).as_deref() == Some(&name)) {
            return Ok(());
        }
        bail!("the kernel has no module {name} in {}", modules.display());
    };
    let data = if path.extension().is_some_and(|extension| extension == "xz") {
        let output = Command::new(busybox).args(["xz", "-dc"]).arg(&path).output()?;
        if !output.status.success() {
            bail!("cannot decompress {}", path.display());
        }
        output.stdout
    } else {
        fs::read(&path)?
    };
    for dependency in dependencies(&data) {
        add_module(busybox, modules, &dependency, order)?;
    }
    order.push((name, data));
    Ok(())
}

/// Returns the names in a module's `depends=` entry (section .modinfo: strings that end in zero).
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module.get(start + KEY.len()..).unwrap_or_default();
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn find_module(dir: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = find_module(&path, name)? {
                return Ok(Some(found));
            }
        } else if module_name(&path).as_deref() == Some(name) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Returns a module's name: `kernel/net/802/mrp.ko.xz` is the module `mrp`.
fn module_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let (stem, _) = name.split_once(".ko")?;
    Some(stem.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{dependencies, module_name};

    #[test]
    fn modules_are_named_and_their_dependencies_read() {
        assert_eq!(module_name(Path::new("a/virtio-net.ko.xz")).as_deref(), Some("virtio_net"));
        assert_eq!(module_name(Path::new("a/modules.dep")), None);
        let module = b"\x7fELF..license=GPL\0depends=failover,net_failover\0name=virtio_net\0";
        assert_eq!(dependencies(module), ["failover", "net_failover"]);
        assert!(dependencies(b"x\0depends=\0y").is_empty());
        assert!(dependencies(b"none").is_empty());
    }
}
