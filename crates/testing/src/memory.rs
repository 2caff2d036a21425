//! Guest memory is a file that a domain has mapped.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use manifold_dma::{Backing, Reader};
use rustix::fs::{MemfdFlags, OFlags, memfd_create};

/// Memory as a driver in it reads and writes it, by IOVA. It panics where nothing is mapped.
pub trait Memory {
    /// Fills `out` from `iova` on.
    fn get_into(&self, iova: u64, out: &mut [u8]);

    /// Writes `data` at `iova`.
    fn put(&self, iova: u64, data: &[u8]);

    /// Returns the `N` bytes at `iova`.
    fn get<const N: usize>(&self, iova: u64) -> [u8; N] {
        let mut out = [0; N];
        self.get_into(iova, &mut out);
        out
    }

    /// Returns the little-endian word at `iova`.
    fn get16(&self, iova: u64) -> u16 {
        u16::from_le_bytes(self.get(iova))
    }
}

impl Memory for Reader {
    fn get_into(&self, iova: u64, out: &mut [u8]) {
        self.pin().read(iova, out).unwrap();
    }

    fn put(&self, iova: u64, data: &[u8]) {
        self.pin().write(iova, data).unwrap();
    }
}

/// A memory file that stands for a guest's RAM. Reads and writes here go through the file, as the
/// guest's own accesses would go through a mapping of it: a domain that has it mapped sees them at
/// once.
#[derive(Debug)]
pub struct GuestMemory {
    file: File,
    name: String,
}

impl GuestMemory {
    /// Makes a file of `size` bytes, all zero. `name` is what `/proc/self/maps` shows.
    ///
    /// # Errors
    /// The system's.
    pub fn new(name: &str, size: u64) -> io::Result<Self> {
        let file = File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        file.set_len(size)?;
        Ok(GuestMemory { file, name: name.to_owned() })
    }

    /// Returns the file itself, to resize or seal it.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Returns a backing that begins `offset` bytes into the file.
    ///
    /// # Errors
    /// When the file descriptor cannot be duplicated.
    pub fn backing(&self, offset: u64) -> io::Result<Backing> {
        Ok(Backing::File { fd: self.file.try_clone()?.into(), offset })
    }

    /// Returns a backing that begins `offset` bytes into the file, through a descriptor that is
    /// open for reading only.
    ///
    /// # Errors
    /// When the file cannot be opened again.
    pub fn read_only_backing(&self, offset: u64) -> io::Result<Backing> {
        use std::os::fd::AsRawFd;
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
        Ok(Backing::File { fd, offset })
    }

    /// Fills `out` from `offset` on.
    ///
    /// # Errors
    /// The system's; reading past the end.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    /// Returns the lines of this process's memory map that show the file.
    ///
    /// # Errors
    /// When `/proc/self/maps` cannot be read.
    pub fn host_mappings(&self) -> io::Result<Vec<String>> {
        let needle = format!("/memfd:{} ", self.name);
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        Ok(maps.lines().filter(|line| line.contains(&needle)).map(str::to_owned).collect())
    }
}
