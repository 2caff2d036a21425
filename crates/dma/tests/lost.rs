//! These tests show that a client that truncates the memory it shared harms itself only.

#![allow(clippy::unwrap_used, reason = "a test")]

use manifold_dma::{Access, Domain, FaultReason, PAGE_SIZE, Permissions};
use manifold_testing::GuestMemory;

const RW: Permissions = Permissions::READ_WRITE;
const PAGES: u64 = 64;

#[test]
fn truncation_is_survived_reported_and_refused() {
    let memory = GuestMemory::new("truncated", PAGES * PAGE_SIZE).unwrap();
    let other = GuestMemory::new("bystander", PAGE_SIZE).unwrap();
    memory.write(0, &[0xaa; 4096]).unwrap();
    let domain = Domain::new("vf0");
    domain.set_bus_master(true);
    domain.map(0, PAGES * PAGE_SIZE, RW, memory.backing(0).unwrap()).unwrap();
    let bystander = Domain::new("vf1");
    bystander.set_bus_master(true);
    bystander.map(0, PAGE_SIZE, RW, other.backing(0).unwrap()).unwrap();
    let (reader, undisturbed) = (domain.reader(), bystander.reader());
    reader.pin().read(0, &mut [0; 64]).unwrap();
    assert_eq!(domain.stats().truncated_files, 0);

    memory.file().set_len(0).unwrap();
    {
        // The burst that finds it reads zeros, and its writes go nowhere.
        let pin = reader.pin();
        let mut found = [1; 64];
        pin.read(0, &mut found).unwrap();
        assert_eq!(found, [0; 64]);
        for page in (0..PAGES).step_by(2) {
            pin.write(page * PAGE_SIZE, b"nowhere").unwrap();
        }
        let slice = pin.contiguous(0, 7, Access::Read).unwrap().unwrap();
        let mut found = [0; 7];
        slice.read(&mut found);
        assert_eq!(&found, b"nowhere");
    }
    assert_eq!(domain.stats().truncated_files, 1);
    // All bursts from the next on fault, from whatever reader.
    for reader in [&reader, &domain.reader()] {
        let fault = reader.pin().read(0, &mut [0; 64]).unwrap_err();
        assert_eq!(fault.reason, FaultReason::Lost);
    }
    assert_eq!(domain.faults().count, 2);
    // However many pages were touched, the lost mapping is one.
    assert!(memory.host_mappings().unwrap().is_empty());

    undisturbed.pin().write(0, b"fine").unwrap();
    let mut found = [0; 4];
    other.read(0, &mut found).unwrap();
    assert_eq!(&found, b"fine");
    assert_eq!((bystander.stats().truncated_files, bystander.faults().count), (0, 0));

    // A client that maps the file anew, large enough again, starts afresh.
    memory.file().set_len(PAGES * PAGE_SIZE).unwrap();
    domain.map(1 << 30, PAGE_SIZE, RW, memory.backing(0).unwrap()).unwrap();
    reader.pin().write(1 << 30, b"anew").unwrap();
    memory.read(0, &mut found).unwrap();
    assert_eq!(&found, b"anew");
    assert!(reader.pin().read(0, &mut [0]).is_err(), "the old mapping stays lost");
    domain.unmap_all();
    assert_eq!(domain.stats().truncated_files, 0);
    assert!(memory.host_mappings().unwrap().is_empty());
}

#[test]
fn part_of_a_file_can_be_lost() {
    let memory = GuestMemory::new("half", PAGES * PAGE_SIZE).unwrap();
    let domain = Domain::new("vf0");
    domain.set_bus_master(true);
    domain.map(0, PAGES * PAGE_SIZE, RW, memory.backing(0).unwrap()).unwrap();
    let reader = domain.reader();
    memory.file().set_len(PAGES / 2 * PAGE_SIZE).unwrap();
    reader.pin().write(0, b"there").unwrap();
    assert_eq!(domain.stats().truncated_files, 0, "what is there still works");
    reader.pin().write(PAGES / 2 * PAGE_SIZE, b"not there").unwrap();
    assert_eq!(domain.stats().truncated_files, 1);
    assert_eq!(reader.pin().read(0, &mut [0]).unwrap_err().reason, FaultReason::Lost);
}

#[test]
fn threads_that_find_it_at_once_all_survive() {
    let memory = GuestMemory::new("crowd", PAGES * PAGE_SIZE).unwrap();
    let domain = Domain::new("vf0");
    domain.set_bus_master(true);
    domain.map(0, PAGES * PAGE_SIZE, RW, memory.backing(0).unwrap()).unwrap();
    let start = std::sync::Barrier::new(5);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let reader = domain.reader();
            let start = &start;
            scope.spawn(move || {
                let pin = reader.pin();
                pin.read(0, &mut [0]).unwrap();
                start.wait();
                start.wait();
                for page in 0..PAGES {
                    pin.write((page + 16 * thread) % PAGES * PAGE_SIZE, b"x").unwrap();
                }
            });
        }
        start.wait();
        memory.file().set_len(0).unwrap();
        start.wait();
    });
    assert_eq!(domain.stats().truncated_files, 1);
}

/// The handler must not swallow a SIGBUS that is not about guest memory. The test runs itself as
/// another process, which is to die.
#[test]
fn other_bus_errors_still_end_the_process() {
    const CHILD: &str = "MANIFOLD_TEST_BUS_ERROR";
    if std::env::var_os(CHILD).is_some() {
        let memory = GuestMemory::new("child", PAGE_SIZE).unwrap();
        let domain = Domain::new("vf0");
        domain.map(0, PAGE_SIZE, RW, memory.backing(0).unwrap()).unwrap();
        let itself = rustix::process::getpid();
        rustix::process::kill_process(itself, rustix::process::Signal::BUS).unwrap();
        std::thread::sleep(std::time::Duration::from_secs(5));
        return;
    }
    use std::os::unix::process::ExitStatusExt;
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "other_bus_errors_still_end_the_process"])
        .env(CHILD, "1")
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(rustix::process::Signal::BUS.as_raw()));
}
