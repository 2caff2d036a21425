//! This module writes an initramfs: a "newc" cpio archive (Linux
//! Documentation/driver-api/early-userspace/buffer-format.rst). It is written here so that device
//! nodes need no root and the tool need not be installed.

use std::collections::BTreeSet;
use std::io::{self, Write};

const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const DIRECTORY: u32 = 0o040_000;
const CHARACTER: u32 = 0o020_000;

/// An archive being written. Parents of what is added are made on the way.
pub(crate) struct Writer<W> {
    out: W,
    inode: u32,
    directories: BTreeSet<String>,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, inode: 0, directories: BTreeSet::new() }
    }

    pub(crate) fn directory(&mut self, path: &str) -> io::Result<()> {
        if path.is_empty() || !self.directories.insert(path.to_owned()) {
            return Ok(());
        }
        self.parents(path)?;
        self.member(path, DIRECTORY | 0o755, (0, 0), &[])
    }

    pub(crate) fn file(&mut self, path: &str, permissions: u32, data: &[u8]) -> io::Result<()> {
        self.parents(path)?;
        self.member(path, REGULAR | permissions, (0, 0), data)
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.parents(path)?;
        self.member(path, SYMLINK | 0o777, (0, 0), target.as_bytes())
    }

    pub(crate) fn character_device(
        &mut self,
        path: &str,
        major: u32,
        minor: u32,
    ) -> io::Result<()> {
        self.parents(path)?;
        self.member(path, CHARACTER | 0o600, (major, minor), &[])
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.member("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()
    }

    fn parents(&mut self, path: &str) -> io::Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.directory(parent),
            None => Ok(()),
        }
    }

    fn member(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) -> io::Result<()> {
        let size = |len: usize| {
            u32::try_from(len)
                .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, name.to_owned()))
        };
        self.inode += 1;
        // The fields are magic, inode, mode, uid, gid, links, mtime, size, device, device node's
        // numbers, length of name, checksum.
        let fields = [
            self.inode,
            mode,
            0,
            0,
            1,
            0,
            size(data.len())?,
            0,
            0,
            device.0,
            device.1,
            size(name.len() + 1)?,
            0,
        ];
        write!(self.out, "070701")?;
        for field in fields {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(&[0])?;
        self.pad(6 + fields.len() * 8 + name.len() + 1)?;
        self.out.write_all(data)?;
        self.pad(data.len())
    }

    /// Pads to a multiple of four bytes, where header and data must each end.
    fn pad(&mut self, written: usize) -> io::Result<()> {
        let zeros = [0; 3];
        self.out.write_all(zeros.get(..(4 - written % 4) % 4).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::Writer;

    #[test]
    fn members_are_aligned_and_parents_come_first_and_once() {
        let mut bytes = Vec::new();
        let mut archive = Writer::new(&mut bytes);
        archive.file("a/b/one", 0o755, b"12345").unwrap();
        archive.symlink("a/b/two", "one").unwrap();
        archive.character_device("dev/console", 5, 1).unwrap();
        archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let mut names = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |n: usize| {
                let start = at + 6 + n * 8;
                let text = std::str::from_utf8(&bytes[start..start + 8]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (size, name_len) = (field(6), field(11));
            let name = std::str::from_utf8(&bytes[at + 110..at + 110 + name_len - 1]).unwrap();
            names.push(name.to_owned());
            at = (at + 110 + name_len).next_multiple_of(4);
            at = (at + size).next_multiple_of(4);
        }
        assert_eq!(names, ["a", "a/b", "a/b/one", "a/b/two", "dev", "dev/console", "TRAILER!!!"]);
    }
}
