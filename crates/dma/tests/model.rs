//! Random maps, unmaps and accesses, held against a model that keeps one entry per page.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::sync::Arc;

use manifold_dma::testing::GuestMemory;
use manifold_dma::{Access, Backing, Domain, Error, FaultReason, PAGE_SIZE, Permissions};
use proptest::collection::vec;
use proptest::prelude::*;

/// Pages of IOVAs the operations move in.
const PAGES: u64 = 24;
/// Pages of the file.
const FILE: u64 = 16;
const PAGE: usize = PAGE_SIZE as usize;

#[derive(Clone, Copy, Debug, PartialEq)]
enum From {
    ReadWrite,
    ReadOnly,
    NotShared,
}

#[derive(Clone, Debug)]
enum Op {
    Map { page: u64, pages: u64, read: bool, write: bool, offset: u64, from: From },
    Unmap { page: u64, pages: u64 },
    UnmapAll,
    BusMaster(bool),
    Read { at: u64, len: usize },
    Write { at: u64, data: Vec<u8> },
    Contiguous { at: u64, len: usize, access: Access },
}

fn op() -> impl Strategy<Value = Op> {
    let from = prop_oneof![8 => Just(From::ReadWrite), 2 => Just(From::ReadOnly), 1 => Just(From::NotShared)];
    let map = (
        0..PAGES,
        0..5u64,
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.8),
        0..FILE + 2,
        from,
    )
        .prop_map(|(page, pages, read, write, offset, from)| Op::Map {
            page,
            pages,
            read,
            write,
            offset,
            from,
        });
    let access = prop_oneof![Just(Access::Read), Just(Access::Write)];
    let len = prop_oneof![0..64usize, 0..4 * PAGE];
    prop_oneof![
        6 => map,
        3 => (0..PAGES, 0..6u64).prop_map(|(page, pages)| Op::Unmap { page, pages }),
        1 => prop::bool::weighted(0.2).prop_map(|all| if all { Op::UnmapAll } else { Op::BusMaster(true) }),
        1 => prop::bool::weighted(0.7).prop_map(Op::BusMaster),
        4 => (0..PAGES * PAGE_SIZE, len.clone()).prop_map(|(at, len)| Op::Read { at, len }),
        4 => (0..PAGES * PAGE_SIZE, vec(any::<u8>(), 0..9000)).prop_map(|(at, data)| Op::Write { at, data }),
        4 => (0..PAGES * PAGE_SIZE, len, access).prop_map(|(at, len, access)| Op::Contiguous { at, len, access }),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Page {
    /// First and last page of the mapping it belongs to.
    first: u64,
    last: u64,
    read: bool,
    write: bool,
    /// Page of the file; none: not shared.
    offset: Option<u64>,
}

/// What the domain should do.
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
fn step(
    op: Op,
    domain: &Arc<Domain>,
    reader: &manifold_dma::Reader,
    memory: &GuestMemory,
    model: &mut Model,
) {
    match op {
        Op::Map { page, pages, read, write, offset, from } => {
            let backing = match from {
                From::ReadWrite => memory.backing(offset * PAGE_SIZE).unwrap(),
                From::ReadOnly => memory.read_only_backing(offset * PAGE_SIZE).unwrap(),
                From::NotShared => Backing::NotShared,
            };
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

proptest! {
    #[test]
    fn a_domain_is_its_pages(
        at_the_top in any::<bool>(),
        ops in vec(op(), 1..60),
    ) {
        let memory = GuestMemory::new("model", FILE * PAGE_SIZE).unwrap();
        let file: Vec<u8> = (0..FILE as usize * PAGE).map(|at| (at / 7) as u8).collect();
        memory.write(0, &file).unwrap();
        // Against the end of the address space, or its beginning.
        let base = if at_the_top { u64::MAX - PAGES * PAGE_SIZE + 1 } else { 0 };
        let pages = vec![None; if at_the_top { PAGES as usize } else { PAGES as usize + 8 }];
        let mut model = Model { base, bus_master: true, pages, file, faults: 0 };
        let domain = Domain::new("vf0");
        domain.set_bus_master(true);
        let reader = domain.reader();
        for op in ops {
            step(op, &domain, &reader, &memory, &mut model);
            let (stats, faults) = (domain.stats(), domain.faults());
            prop_assert_eq!((stats.mappings, stats.bytes), model.mapped());
            prop_assert_eq!(stats.maps - stats.unmaps, stats.mappings as u64);
            prop_assert_eq!(faults.count, model.faults);
            prop_assert_eq!(faults.recent.len() as u64, faults.count.min(64));
        }
        let mut file = vec![0; model.file.len()];
        memory.read(0, &mut file).unwrap();
        prop_assert!(file == model.file, "only what was permitted was written");
    }
}
