//! This module finds or prepares everything that guests need, once for all.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};

use crate::acceleration::Acceleration;
use crate::cache::Cache;
use crate::debian::Archive;
use crate::guest::{BOOT_TIMEOUT, Builder};
use crate::image::{Image, Kernel};
use crate::qemu::Qemu;
use crate::scratch;

/// Name of the variable that forces `tcg` or `kvm` if the probe's choice is not wanted.
const ACCELERATION_VARIABLE: &str = "MANIFOLD_VM_ACCEL";
/// Time in which a guest must be up on a KVM that works; it takes a second or two.
const PROBE_TIMEOUT: Duration = Duration::from_secs(15);

/// A QEMU, a kernel with its initramfs, and what makes guests fast here.
#[derive(Debug)]
pub struct Setup {
    cache: Cache,
    qemu: Qemu,
    image: Image,
    acceleration: Acceleration,
}

impl Setup {
    /// Returns this process's setup. The very first call in a build tree downloads packages and
    /// takes about a minute.
    ///
    /// # Errors
    /// Fails with what could not be prepared, and what would help.
    pub fn get() -> Result<&'static Self> {
        static SETUP: OnceLock<Setup> = OnceLock::new();
        static PREPARING: Mutex<()> = Mutex::new(());
        let _one = PREPARING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(setup) = SETUP.get() {
            return Ok(setup);
        }
        let setup = Self::prepare()?;
        Ok(SETUP.get_or_init(|| setup))
    }

    fn prepare() -> Result<Self> {
        if !cfg!(target_arch = "x86_64") {
            bail!("the VM tests run on x86-64 only");
        }
        let cache = Cache::open()?;
        // The archive is opened only where something has to be fetched.
        let archive = || Archive::open(&cache.dir().join("apt"));
        let qemu = Qemu::prepare(&cache, archive)?;
        let image = Image::prepare(Kernel::Cloud, &cache, archive)?;
        let mut setup = Self { cache, qemu, image, acceleration: Acceleration::Tcg };
        setup.acceleration = setup.choose_acceleration()?;
        Ok(setup)
    }

    /// Chooses KVM if it boots a guest, else TCG. A KVM device that is there need not work (nested
    /// or restricted virtualisation), so it is tried, once per build tree.
    fn choose_acceleration(&self) -> Result<Acceleration> {
        if let Ok(name) = std::env::var(ACCELERATION_VARIABLE) {
            return Acceleration::parse(&name)
                .ok_or_else(|| anyhow!("{ACCELERATION_VARIABLE} is \"{name}\": say tcg or kvm"));
        }
        if fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
            return Ok(Acceleration::Tcg);
        }
        let dir = self.cache.entry("acceleration", &self.image.kernel.file_name(), |dir| {
            let builder = Builder {
                acceleration: Acceleration::Kvm,
                boot_timeout: PROBE_TIMEOUT,
                ..self.builder("kvm-probe", &dir.join("logs"), &scratch::folder("probe")?)
            };
            let sockets = builder.sockets.clone();
            let chosen = match builder.boot() {
                Ok(_) => Acceleration::Kvm,
                Err(_) => Acceleration::Tcg,
            };
            fs::remove_dir_all(sockets)?;
            Ok(fs::write(dir.join("chosen"), chosen.name())?)
        })?;
        let chosen = fs::read_to_string(dir.join("chosen"))?;
        Ok(Acceleration::parse(&chosen).unwrap_or(Acceleration::Tcg))
    }

    pub(crate) fn builder(&self, name: &str, logs: &Path, sockets: &Path) -> Builder<'_> {
        Builder {
            qemu: &self.qemu,
            name: name.to_owned(),
            logs: logs.to_owned(),
            sockets: sockets.to_owned(),
            memory_mib: 256,
            cpus: 1,
            shared_memory: true,
            viommu: false,
            load_drivers: true,
            more_kernel_arguments: String::new(),
            devices: Vec::new(),
            image: self.image.clone(),
            netns: None,
            acceleration: self.acceleration,
            boot_timeout: BOOT_TIMEOUT,
        }
    }

    /// Returns the QEMU that runs guests.
    #[must_use]
    pub fn qemu(&self) -> &Qemu {
        &self.qemu
    }

    /// Returns what guests boot.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Returns a kernel with the drivers of hardware that QEMU emulates, for [`Builder::image`];
    /// the first time in a build tree downloads about 110 MB.
    ///
    /// # Errors
    /// Fails with what could not be prepared.
    pub fn generic_image(&self) -> Result<Image> {
        let archive = || Archive::open(&self.cache.dir().join("apt"));
        Image::prepare(Kernel::Generic, &self.cache, archive)
    }

    /// Returns what runs the guests' instructions.
    #[must_use]
    pub fn acceleration(&self) -> Acceleration {
        self.acceleration
    }

    /// Returns the folder for the logs of `test`.
    pub(crate) fn logs(&self, test: &str) -> PathBuf {
        self.cache.dir().join("logs").join(test)
    }
}
