//! These tests check what a domain refuses, and what it costs.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::os::fd::OwnedFd;
use std::sync::Arc;

use manifold_dma::{Access, Backing, Domain, Error, Fault, FaultReason, PAGE_SIZE, Permissions};
use manifold_testing::GuestMemory;

const RW: Permissions = Permissions::READ_WRITE;

fn domain() -> Arc<Domain> {
    let domain = Domain::new("vf3");
    domain.set_bus_master(true);
    domain
}

#[test]
fn malformed_ranges_are_refused() {
    let memory = GuestMemory::new("malformed", 4 * PAGE_SIZE).unwrap();
    let domain = domain();
    let map = |iova, size| domain.map(iova, size, RW, memory.backing(0).unwrap());
    assert!(matches!(map(0, 0), Err(Error::Unaligned { .. })));
    assert!(matches!(map(1, PAGE_SIZE), Err(Error::Unaligned { iova: 1, .. })));
    assert!(matches!(map(0, PAGE_SIZE + 1), Err(Error::Unaligned { size: 4097, .. })));
    assert!(matches!(map(u64::MAX - 4095, 2 * PAGE_SIZE), Err(Error::Wraps { .. })));
    let none = Permissions { read: false, write: false };
    let refused = domain.map(0, PAGE_SIZE, none, memory.backing(0).unwrap());
    assert!(matches!(refused, Err(Error::NoPermission)));
    let refused = domain.map(0, PAGE_SIZE, RW, memory.backing(17).unwrap());
    assert!(matches!(refused, Err(Error::UnalignedOffset(17))));
    let refused = domain.map(0, PAGE_SIZE, RW, memory.backing(4 * PAGE_SIZE).unwrap());
    assert!(matches!(refused, Err(Error::BeyondEnd { needed: 0x5000, size: 0x4000 })));
    let refused =
        domain.map(0, PAGE_SIZE, RW, memory.backing(0u64.wrapping_sub(PAGE_SIZE)).unwrap());
    assert!(matches!(refused, Err(Error::Wraps { .. })));
    assert!(matches!(domain.unmap(0, 0), Err(Error::Unaligned { .. })));
    assert!(matches!(domain.unmap(0x800, PAGE_SIZE), Err(Error::Unaligned { .. })));
    assert!(matches!(domain.unmap(u64::MAX - 4095, 2 * PAGE_SIZE), Err(Error::Wraps { .. })));
    assert_eq!(domain.stats().maps, 0);
}

#[test]
fn overlaps_and_splits_are_refused_and_gaps_are_not() {
    let memory = GuestMemory::new("overlaps", 16 * PAGE_SIZE).unwrap();
    let domain = domain();
    let map = |page: u64, pages: u64| {
        domain.map(page * PAGE_SIZE, pages * PAGE_SIZE, RW, memory.backing(0).unwrap())
    };
    let unmap = |page: u64, pages: u64| domain.unmap(page * PAGE_SIZE, pages * PAGE_SIZE);
    map(4, 4).unwrap();
    for (page, pages) in [(4, 4), (3, 2), (7, 1), (7, 5), (5, 1), (0, 16)] {
        let refused = map(page, pages);
        assert!(matches!(refused, Err(Error::Overlap { other: 0x4000, .. })), "{page} {pages}");
    }
    map(3, 1).unwrap();
    map(8, 1).unwrap();
    for (page, pages) in [(4, 3), (5, 3), (5, 1), (0, 5), (6, 10)] {
        let refused = unmap(page, pages);
        assert!(matches!(refused, Err(Error::Splits { other: 0x4000, .. })), "{page} {pages}");
    }
    assert_eq!(domain.stats().mappings, 3);
    assert_eq!(unmap(100, 5).unwrap(), 0, "nothing there is nothing wrong");
    assert_eq!(unmap(0, 100).unwrap(), 6 * PAGE_SIZE, "gaps before, between and after");
    assert_eq!(unmap(0, 100).unwrap(), 0);
    map(4, 4).unwrap();
}

#[test]
fn the_last_page_of_the_address_space_is_a_page() {
    let memory = GuestMemory::new("last", PAGE_SIZE).unwrap();
    let domain = domain();
    let last = u64::MAX - PAGE_SIZE + 1;
    domain.map(last, PAGE_SIZE, RW, memory.backing(0).unwrap()).unwrap();
    let reader = domain.reader();
    reader.pin().write(u64::MAX, &[7]).unwrap();
    let mut byte = [0];
    memory.read(PAGE_SIZE - 1, &mut byte).unwrap();
    assert_eq!(byte, [7]);
    let fault = reader.pin().write(u64::MAX, &[7, 7]).unwrap_err();
    assert_eq!(fault.reason, FaultReason::AddressOverflow);
    assert_eq!(domain.unmap(last, PAGE_SIZE).unwrap(), PAGE_SIZE);
}

#[test]
fn what_a_file_does_not_permit_is_refused() {
    let memory = GuestMemory::new("readonly", 2 * PAGE_SIZE).unwrap();
    let domain = domain();
    let refused = domain.map(0, PAGE_SIZE, RW, memory.read_only_backing(0).unwrap());
    assert!(matches!(refused, Err(Error::ReadOnlyFile)));
    domain.map(0, PAGE_SIZE, Permissions::READ, memory.read_only_backing(0).unwrap()).unwrap();
    // The file is mapped again, this time writable, and a third time for reading.
    domain.map(PAGE_SIZE, PAGE_SIZE, RW, memory.backing(PAGE_SIZE).unwrap()).unwrap();
    domain.map(0x8000, PAGE_SIZE, Permissions::READ, memory.read_only_backing(0).unwrap()).unwrap();
    let reader = domain.reader();
    let pin = reader.pin();
    pin.write(PAGE_SIZE, b"yes").unwrap();
    assert_eq!(pin.write(0x8000, b"no").unwrap_err().reason, FaultReason::NotPermitted);
    let fault = pin.write(PAGE_SIZE - 1, b"no").unwrap_err();
    assert_eq!(fault.reason, FaultReason::NotPermitted);
    let mut found = [0; 4];
    memory.read(PAGE_SIZE - 1, &mut found).unwrap();
    assert_eq!(&found, b"\0yes", "a refused write writes nothing");
}

#[test]
fn a_file_sealed_against_writing_can_be_read() {
    let memory = GuestMemory::new("sealed", PAGE_SIZE).unwrap();
    memory.write(0, b"sealed").unwrap();
    rustix::fs::fcntl_add_seals(memory.file(), rustix::fs::SealFlags::WRITE).unwrap();
    let domain = domain();
    let refused = domain.map(0, PAGE_SIZE, RW, memory.backing(0).unwrap());
    assert!(matches!(refused, Err(Error::Map(_))));
    // A kernel older than 6.7 does not map it at all.
    if domain.map(0, PAGE_SIZE, Permissions::READ, memory.backing(0).unwrap()).is_ok() {
        let mut found = [0; 6];
        domain.reader().pin().read(0, &mut found).unwrap();
        assert_eq!(&found, b"sealed");
    }
}

#[test]
fn write_only_permission_writes_only() {
    let memory = GuestMemory::new("writeonly", PAGE_SIZE).unwrap();
    let domain = domain();
    let write = Permissions { read: false, write: true };
    domain.map(0, PAGE_SIZE, write, memory.backing(0).unwrap()).unwrap();
    let reader = domain.reader();
    let pin = reader.pin();
    // The test does each twice: the second time from what is remembered.
    for _ in 0..2 {
        pin.write(0, b"x").unwrap();
        assert_eq!(pin.read(0, &mut [0]).unwrap_err().reason, FaultReason::NotPermitted);
    }
}

#[test]
fn files_that_cannot_be_guest_memory_are_refused() {
    let domain = domain();
    let open = |path: &str, write: bool| -> OwnedFd {
        std::fs::File::options().read(!write).write(write).open(path).unwrap().into()
    };
    let map = |fd| domain.map(0, PAGE_SIZE, Permissions::READ, Backing::File { fd, offset: 0 });
    // The content of this file is made up by somebody's code.
    assert!(matches!(map(open("/proc/self/maps", false)), Err(Error::FileSystem(0x9fa0))));
    assert!(matches!(map(open("/dev/null", true)), Err(Error::WriteOnlyFile)));
    assert!(matches!(map(open("/dev/null", false)), Err(Error::Map(_))));
    assert!(matches!(map(open("/", false)), Err(Error::Map(_))));
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    assert!(matches!(map(socket.into()), Err(Error::Map(_))));
    assert_eq!(domain.stats(), Default::default());
}

#[test]
fn one_client_cannot_take_what_all_need() {
    let domain = domain();
    let mut refused = None;
    for n in 0..100 {
        let memory = GuestMemory::new("greedy", PAGE_SIZE).unwrap();
        let result = domain.map(n * PAGE_SIZE, PAGE_SIZE, RW, memory.backing(0).unwrap());
        if let Err(error) = result {
            refused = Some((n, error));
            break;
        }
    }
    assert!(matches!(refused, Some((64, Error::TooManyFiles(64)))), "{refused:?}");
    domain.unmap(0, PAGE_SIZE).unwrap();
    let huge = GuestMemory::new("huge", 1 << 50).unwrap();
    let refused = domain.map(1 << 50, 1 << 43, RW, huge.backing(0).unwrap());
    assert!(matches!(refused, Err(Error::AddressSpace { .. })));
    // This maps a little of a file that is too large to be mapped whole.
    domain.map(0, PAGE_SIZE, RW, huge.backing(1 << 49).unwrap()).unwrap();
    domain.reader().pin().write(0, b"here").unwrap();
    let mut found = [0; 4];
    huge.read(1 << 49, &mut found).unwrap();
    assert_eq!(&found, b"here");
}

#[test]
fn a_file_that_grew_is_mapped_again() {
    let memory = GuestMemory::new("grows", PAGE_SIZE).unwrap();
    let domain = domain();
    domain.map(0, PAGE_SIZE, RW, memory.backing(0).unwrap()).unwrap();
    memory.file().set_len(3 * PAGE_SIZE).unwrap();
    domain.map(PAGE_SIZE, PAGE_SIZE, RW, memory.backing(2 * PAGE_SIZE).unwrap()).unwrap();
    domain.reader().pin().write(PAGE_SIZE - 2, b"both").unwrap();
    let mut found = [0; 2];
    memory.read(PAGE_SIZE - 2, &mut found).unwrap();
    assert_eq!(&found, b"bo");
    memory.read(2 * PAGE_SIZE, &mut found).unwrap();
    assert_eq!(&found, b"th");
}

#[test]
fn neighbours_need_not_be_neighbours_in_the_file() {
    let memory = GuestMemory::new("scattered", 4 * PAGE_SIZE).unwrap();
    let domain = domain();
    for (page, offset) in [(0, 2), (1, 0), (2, 1)] {
        let backing = memory.backing(offset * PAGE_SIZE).unwrap();
        domain.map(page * PAGE_SIZE, PAGE_SIZE, RW, backing).unwrap();
    }
    let data: Vec<u8> = (0..3 * PAGE_SIZE).map(|at| (at / 16) as u8).collect();
    let reader = domain.reader();
    let pin = reader.pin();
    pin.write(0, &data).unwrap();
    assert!(pin.contiguous(0, data.len(), Access::Read).unwrap().is_none());
    // Pages 1 and 2 are neighbours in the file, too.
    let second = pin.contiguous(PAGE_SIZE, 2 * PAGE_SIZE as usize, Access::Write).unwrap();
    assert_eq!(second.unwrap().len(), 8192);
    let mut lengths = Vec::new();
    pin.slices(0xff0, 0x1020, Access::Read, |slice| lengths.push(slice.len())).unwrap();
    assert_eq!(lengths, [0x10, 0x1010]);
    let mut back = vec![0; data.len()];
    pin.read(0, &mut back).unwrap();
    assert!(back == data);
    let mut file = vec![0; PAGE_SIZE as usize];
    memory.read(0, &mut file).unwrap();
    assert!(file == data[4096..8192]);
}

#[test]
fn pieces_stop_where_there_is_no_room_and_work_stops_with_them() {
    let memory = GuestMemory::new("pieces", 400 * PAGE_SIZE).unwrap();
    let domain = domain();
    for page in 0..200 {
        let backing = memory.backing(2 * page * PAGE_SIZE).unwrap();
        domain.map(page * PAGE_SIZE, PAGE_SIZE, RW, backing).unwrap();
    }
    let reader = domain.reader();
    let pin = reader.pin();
    let mut pieces = 0;
    let mut take = |most: usize, iova: u64, len: usize| {
        pieces = 0;
        let result = pin.slices_while(iova, len, Access::Read, |slice| {
            assert_eq!(slice.len(), 4096);
            pieces += 1;
            pieces < most
        });
        (result.map_err(|fault| fault.reason), pieces)
    };
    assert_eq!(take(3, 0, usize::MAX), (Ok(false), 3), "what is not asked for is not looked at");
    assert_eq!(take(300, 0, 200 * 4096), (Ok(true), 200));
    assert_eq!(take(300, 0, 201 * 4096), (Err(FaultReason::NotMapped), 199));
    assert_eq!(take(300, 0, 0), (Ok(true), 0));
}

#[test]
fn faults_are_counted_and_the_latest_are_kept() {
    let memory = GuestMemory::new("faults", PAGE_SIZE).unwrap();
    let domain = Domain::new("vf7");
    domain.map(0x10000, PAGE_SIZE, Permissions::READ, memory.backing(0).unwrap()).unwrap();
    domain.map(0x20000, PAGE_SIZE, RW, Backing::NotShared).unwrap();
    let reader = domain.reader();
    let fault = |iova, len, access, reason| Fault { iova, len, access, reason };
    let mut expected = Vec::new();
    let mut refuse = |iova: u64, data: &mut [u8], access, reason| {
        let pin = reader.pin();
        let got = match access {
            Access::Read => pin.read(iova, data),
            Access::Write => pin.write(iova, data),
        };
        let wanted = fault(iova, data.len() as u64, access, reason);
        assert_eq!(got, Err(wanted));
        expected.push(wanted);
    };
    refuse(0x10000, &mut [0; 9], Access::Read, FaultReason::BusMasterDisabled);
    domain.set_bus_master(true);
    refuse(0x10ff8, &mut [0; 9], Access::Read, FaultReason::NotMapped);
    refuse(0x0fff8, &mut [0; 9], Access::Read, FaultReason::NotMapped);
    refuse(0x10000, &mut [0; 1], Access::Write, FaultReason::NotPermitted);
    refuse(0x20000, &mut [0; 1], Access::Write, FaultReason::NotShared);
    refuse(u64::MAX, &mut [0; 2], Access::Write, FaultReason::AddressOverflow);
    domain.set_bus_master(false);
    refuse(0x10000, &mut [0; 9], Access::Read, FaultReason::BusMasterDisabled);
    let report = domain.faults();
    assert_eq!((report.count, report.recent), (7, expected));
    for n in 0..1000 {
        domain.record(fault(n, 1, Access::Read, FaultReason::Misaligned));
    }
    let report = domain.faults();
    assert_eq!((report.count, report.recent.len()), (1007, 64));
    assert_eq!(report.recent.first().map(|fault| fault.iova), Some(936));
    assert_eq!(report.recent.last().map(|fault| fault.iova), Some(999));
    let said = fault(0x20000, 1, Access::Write, FaultReason::NotShared).to_string();
    assert!(said.ends_with("memory not shared (start the VMM with share=on)"), "{said}");
    let said = fault(0x1000, 64, Access::Write, FaultReason::NotMapped).to_string();
    assert_eq!(said, "DMA fault: write of 64 bytes at IOVA 0x1000: not mapped");
}

#[test]
fn a_hundred_thousand_pages_are_one_mmap() {
    const PAGES: u64 = 100_000;
    let memory = GuestMemory::new("hundred-thousand", PAGES * PAGE_SIZE).unwrap();
    let domain = domain();
    let reader = domain.reader();
    // Each page of IOVAs is at another place in the file, so that nothing can be merged.
    let offset = |page: u64| page * 7919 % PAGES * PAGE_SIZE;
    for page in 0..PAGES {
        let backing = memory.backing(offset(page)).unwrap();
        domain.map(page * PAGE_SIZE, PAGE_SIZE, RW, backing).unwrap();
    }
    assert_eq!(memory.host_mappings().unwrap().len(), 1);
    let stats = domain.stats();
    assert_eq!((stats.mappings, stats.bytes), (100_000, PAGES * PAGE_SIZE));
    {
        let pin = reader.pin();
        for page in (0..PAGES).step_by(97) {
            pin.write(page * PAGE_SIZE + 8, &page.to_le_bytes()).unwrap();
        }
        pin.write(9 * PAGE_SIZE - 4, b"straddle").unwrap();
    }
    for page in (0..PAGES).step_by(97) {
        let mut found = [0; 8];
        memory.read(offset(page) + 8, &mut found).unwrap();
        assert_eq!(u64::from_le_bytes(found), page);
    }
    for page in (0..PAGES).step_by(2) {
        assert_eq!(domain.unmap(page * PAGE_SIZE, PAGE_SIZE).unwrap(), PAGE_SIZE);
    }
    let reason = reader.pin().read(4 * PAGE_SIZE, &mut [0]).unwrap_err().reason;
    assert_eq!(reason, FaultReason::NotMapped);
    reader.pin().read(5 * PAGE_SIZE, &mut [0]).unwrap();
    assert_eq!(domain.unmap(0, PAGES * PAGE_SIZE).unwrap(), PAGES / 2 * PAGE_SIZE);
    assert_eq!(memory.host_mappings().unwrap().len(), 0);
}

#[test]
fn every_file_is_unmapped_in_the_end() {
    let memory = GuestMemory::new("released", 8 * PAGE_SIZE).unwrap();
    let mapped = || memory.host_mappings().unwrap().len();
    let domain = domain();
    let idle = domain.reader();
    for page in 0..4 {
        domain.map(page * PAGE_SIZE, PAGE_SIZE, RW, memory.backing(0).unwrap()).unwrap();
    }
    idle.pin().write(0, b"x").unwrap();
    assert_eq!(mapped(), 1);
    domain.unmap(0, 3 * PAGE_SIZE).unwrap();
    assert_eq!(mapped(), 1);
    domain.unmap(3 * PAGE_SIZE, PAGE_SIZE).unwrap();
    assert_eq!(mapped(), 0, "an idle reader keeps nothing");
    domain.map(0, PAGE_SIZE, RW, memory.backing(0).unwrap()).unwrap();
    domain.unmap_all();
    assert_eq!(mapped(), 0);
    domain.map(0, PAGE_SIZE, RW, memory.backing(0).unwrap()).unwrap();
    drop(domain);
    assert_eq!(mapped(), 1, "the reader is one of its owners");
    idle.pin().write(0, b"y").unwrap();
    drop(idle);
    assert_eq!(mapped(), 0);
}
