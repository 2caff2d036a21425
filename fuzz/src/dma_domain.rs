//! This module maps, unmaps and accesses memory through a DMA domain, and compares it with a model
//! that keeps one entry for each page.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use manifold_dma::{Access, Backing, Domain, Error, FaultReason, PAGE_SIZE, Permissions, Reader};
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, open};

/// Number of pages of IOVAs that the operations move in.
pub(crate) const PAGES: u64 = 24;
/// Number of pages of the file.
pub(crate) const FILE: u64 = 16;
/// Size of a page in bytes.
pub(crate) const PAGE: usize = PAGE_SIZE as usize;

/// Takes the bytes for a sequence of operations and carries them out.
pub(crate) fn dma_domain(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    run(first & 1 != 0, data.chunks_exact(6).take(64).map(Op::from_bytes));
}

/// Carries out the operations in a domain and in the model, and compares them after each. The IOVAs
/// are at the end of the address space or at its beginning.
pub(crate) fn run(at_the_top: bool, ops: impl IntoIterator<Item = Op>) {
    let memory = Memory::new(FILE * PAGE_SIZE);
    let file: Vec<u8> = (0..FILE as usize * PAGE).map(|at| (at / 7) as u8).collect();
    memory.0.write_all_at(&file, 0).unwrap();
    let base = if at_the_top { u64::MAX - PAGES * PAGE_SIZE + 1 } else { 0 };
    let pages = vec![None; if at_the_top { PAGES as usize } else { PAGES as usize + 8 }];
    let mut model = Model { base, bus_master: true, pages, file, faults: 0 };
    let domain = Domain::new("vf0");
    domain.set_bus_master(true);
    let reader = domain.reader();
    for op in ops {
        step(op, &domain, &reader, &memory, &mut model);
        let (stats, faults) = (domain.stats(), domain.faults());
        assert_eq!((stats.mappings, stats.bytes), model.mapped());
        assert_eq!(stats.maps - stats.unmaps, stats.mappings as u64);
        assert_eq!(faults.count, model.faults);
        assert_eq!(faults.recent.len() as u64, faults.count.min(64));
    }
    let mut file = vec![0; model.file.len()];
    memory.0.read_exact_at(&mut file, 0).unwrap();
    assert!(file == model.file, "only what was permitted was written");
}

/// A memory file that stands for a guest's RAM.
struct Memory(File);

impl Memory {
    fn new(size: u64) -> Self {
        let file = File::from(memfd_create("model", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(size).unwrap();
        Self(file)
    }

    /// Returns what a mapping of the file from `offset` on is backed with.
    fn backing(&self, from: From, offset: u64) -> Backing {
        match from {
            From::ReadWrite => Backing::File { fd: self.0.try_clone().unwrap().into(), offset },
            From::ReadOnly => {
                let path = format!("/proc/self/fd/{}", self.0.as_raw_fd());
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                Backing::File { fd: open(path, flags, Mode::empty()).unwrap(), offset }
            }
            From::NotShared => Backing::NotShared,
        }
    }
}

/// The backing of a mapping.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum From {
    ReadWrite,
    ReadOnly,
    NotShared,
}

/// One operation, with places and lengths in pages, but `at` and `len` in bytes.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Map { page: u64, pages: u64, read: bool, write: bool, offset: u64, from: From },
    Unmap { page: u64, pages: u64 },
    UnmapAll,
    BusMaster(bool),
    Read { at: u64, len: usize },
    Write { at: u64, data: Vec<u8> },
    Contiguous { at: u64, len: usize, access: Access },
}

impl Op {
    /// Returns the operation that six bytes describe.
    fn from_bytes(bytes: &[u8]) -> Self {
        let &[kind, page, pages, low, high, flags] = bytes else { return Op::BusMaster(true) };
        let (page, pages) = (u64::from(page) % PAGES, u64::from(pages) % 6);
        let value = u16::from_le_bytes([low, high]);
        let at = page * PAGE_SIZE + u64::from(value) % PAGE_SIZE;
        let len = match flags & 0x80 {
            0 => usize::from(flags) % 64,
            _ => (pages as usize % 4) * PAGE + usize::from(value >> 12),
        };
        let access = if flags & 1 != 0 { Access::Write } else { Access::Read };
        match kind % 16 {
            0..6 => Op::Map {
                page,
                pages: pages % 5,
                read: flags & 1 == 0,
                write: flags & 2 == 0,
                offset: u64::from(value) % (FILE + 2),
                from: match flags >> 2 & 7 {
                    0 => From::NotShared,
                    1 => From::ReadOnly,
                    _ => From::ReadWrite,
                },
            },
            6..8 => Op::Unmap { page, pages },
            8 => Op::UnmapAll,
            9 => Op::BusMaster(flags & 7 != 0),
            10..12 => Op::Read { at, len },
            12..14 => Op::Write { at, data: vec![flags ^ low; len] },
            _ => Op::Contiguous { at, len, access },
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Page {
    /// First and last page of the mapping that the page belongs to.
    first: u64,
    last: u64,
    read: bool,
    write: bool,
    /// Page of the file; `None` for memory that is not shared.
    offset: Option<u64>,
}

/// The model of a domain as it should be.
struct Model {
    base: u64,
    bus_master: bool,
    pages: Vec<Option<Page>>,
    file: Vec<u8>,
    faults: u64,
}

impl Model {
    fn page(&self, page: u64) -> Option<Page> {
        self.pages.get(usize::try_from(page).unwrap()).copied().flatten()
    }

    /// Offsets into the file of each byte of an access, or why it is refused.
    fn access(&mut self, at: u64, len: usize, access: Access) -> Result<Vec<usize>, FaultReason> {
        let result = self.check(at, len, access);
        self.faults += u64::from(result.is_err());
        result
    }

    fn check(&self, at: u64, len: usize, access: Access) -> Result<Vec<usize>, FaultReason> {
        if !self.bus_master {
            return Err(FaultReason::BusMasterDisabled);
        }
        if len > 0 && (self.base + at).checked_add(len as u64 - 1).is_none() {
            return Err(FaultReason::AddressOverflow);
        }
        (at..at + len as u64)
            .map(|at| {
                let page = self.page(at / PAGE_SIZE).ok_or(FaultReason::NotMapped)?;
                let allowed = if access == Access::Read { page.read } else { page.write };
                if !allowed {
                    return Err(FaultReason::NotPermitted);
                }
                let offset = page.offset.ok_or(FaultReason::NotShared)?;
                Ok((offset * PAGE_SIZE + at % PAGE_SIZE) as usize)
            })
            .collect()
    }

    fn mapped(&self) -> (usize, u64) {
        let pages =
            self.pages.iter().enumerate().filter_map(|(n, page)| Some((n as u64, (*page)?)));
        let pages: Vec<(u64, Page)> = pages.collect();
        let mappings = pages.iter().filter(|(n, page)| *n == page.first).count();
        (mappings, pages.len() as u64 * PAGE_SIZE)
    }
}

/// Carries out one operation in both and compares.
fn step(op: Op, domain: &Domain, reader: &Reader, memory: &Memory, model: &mut Model) {
    match op {
        Op::Map { page, pages, read, write, offset, from } => {
            let backing = memory.backing(from, offset * PAGE_SIZE);
            let iova = model.base + page * PAGE_SIZE;
            let result = domain.map(iova, pages * PAGE_SIZE, Permissions { read, write }, backing);
            let taken = (page..page + pages).any(|page| model.page(page).is_some());
            let beyond = page + pages > PAGES && model.base != 0;
            match result {
                Err(Error::Unaligned { .. }) => assert_eq!(pages, 0),
                Err(Error::Wraps { .. }) => assert!(beyond),
                Err(Error::NoPermission) => assert!(!read && !write),
                Err(Error::Overlap { other, .. }) => {
                    assert!(taken);
                    let other = (other - model.base) / PAGE_SIZE;
                    let in_the_way = model.page(other).unwrap();
                    assert_eq!(in_the_way.first, other);
                    assert!(in_the_way.last >= page && in_the_way.first < page + pages);
                }
                Err(Error::ReadOnlyFile) => assert!(write && from == From::ReadOnly),
                Err(Error::BeyondEnd { needed, size }) => {
                    assert_eq!((needed, size), ((offset + pages) * PAGE_SIZE, FILE * PAGE_SIZE));
                    assert!(needed > size && from != From::NotShared);
                }
                Err(other) => panic!("{other}"),
                Ok(()) => {
                    assert!(pages > 0 && !beyond && !taken && (read || write));
                    assert!(from == From::NotShared || offset + pages <= FILE);
                    assert!(from != From::ReadOnly || !write);
                    for n in 0..pages {
                        let offset = (from != From::NotShared).then_some(offset + n);
                        let (first, last) = (page, page + pages - 1);
                        if let Some(entry) = model.pages.get_mut((page + n) as usize) {
                            *entry = Some(Page { first, last, read, write, offset });
                        }
                    }
                }
            }
        }
        Op::Unmap { page, pages } => {
            let result = domain.unmap(model.base + page * PAGE_SIZE, pages * PAGE_SIZE);
            let inside: Vec<Page> =
                (page..page + pages).filter_map(|page| model.page(page)).collect();
            let splits =
                inside.iter().any(|entry| entry.first < page || entry.last >= page + pages);
            match result {
                Err(Error::Unaligned { .. }) => assert_eq!(pages, 0),
                Err(Error::Wraps { .. }) => assert!(page + pages > PAGES && model.base != 0),
                Err(Error::Splits { .. }) => assert!(splits),
                Err(other) => panic!("{other}"),
                Ok(bytes) => {
                    assert!(pages > 0 && !splits);
                    assert_eq!(bytes, inside.len() as u64 * PAGE_SIZE);
                    for page in page..(page + pages).min(model.pages.len() as u64) {
                        model.pages[page as usize] = None;
                    }
                }
            }
        }
        Op::UnmapAll => {
            domain.unmap_all();
            model.pages.fill(None);
        }
        Op::BusMaster(on) => {
            domain.set_bus_master(on);
            model.bus_master = on;
        }
        Op::Read { at, len } => {
            let mut out = vec![0; len];
            let result = reader.pin().read(model.base + at, &mut out).map_err(|fault| fault.reason);
            let expected = model.access(at, len, Access::Read);
            assert_eq!(result, expected.clone().map(|_| ()));
            if let Ok(offsets) = expected {
                assert!(out.iter().zip(offsets).all(|(byte, offset)| *byte == model.file[offset]));
            }
        }
        Op::Write { at, data } => {
            let result = reader.pin().write(model.base + at, &data).map_err(|fault| fault.reason);
            let expected = model.access(at, data.len(), Access::Write);
            assert_eq!(result, expected.clone().map(|_| ()));
            for (byte, offset) in data.iter().zip(expected.unwrap_or_default()) {
                model.file[offset] = *byte;
            }
        }
        Op::Contiguous { at, len, access } => {
            let pin = reader.pin();
            let whole = pin.contiguous(model.base + at, len, access).map_err(|fault| fault.reason);
            let expected = model.access(at, len, access);
            let runs = expected.map(|offsets| {
                1 + offsets.windows(2).filter(|pair| pair[1] != pair[0] + 1).count()
            });
            match (whole, runs) {
                (Ok(Some(slice)), Ok(runs)) => assert!(slice.len() == len && runs == 1),
                (Ok(None), Ok(runs)) => assert!(runs > 1),
                (whole, runs) => assert_eq!(whole.map(|_| ()), runs.map(|_| ())),
            }
            let mut pieces = Vec::new();
            let result = pin.slices(model.base + at, len, access, |slice| pieces.push(slice));
            let again = model.access(at, len, access);
            assert_eq!(result.map_err(|fault| fault.reason), again.clone().map(|_| ()));
            let mut bytes = vec![0; len];
            let mut done = 0;
            for piece in &pieces {
                done += piece.read(&mut bytes[done..]);
            }
            if let Ok(offsets) = again {
                assert_eq!(done, len);
                let breaks = offsets.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
                assert_eq!(pieces.len(), if len == 0 { 0 } else { breaks + 1 });
                assert!(bytes.iter().zip(offsets).all(|(byte, at)| *byte == model.file[at]));
            } else {
                assert!(pieces.is_empty());
            }
        }
    }
}
