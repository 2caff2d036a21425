//! These tests run the rust-vmm `vfio_user` crate's client, which Cloud Hypervisor uses, against
//! the server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use manifold_vfio_user::{Disconnect, IrqAction, spec};
use support::Fixture;
use support::dummy::{self, AREA, BAR0_FILE_OFFSET, BAR0_SIZE, Event, Irqs, Options, VECTORS};
use vfio_user::Client;

#[test]
fn a_client_finds_the_device_and_uses_it() {
    let fixture = Fixture::default();
    let mut client = Client::new(fixture.path()).unwrap();
    let peer = fixture.endpoint.peer().expect("attached");
    assert_eq!(peer.pid, std::process::id() as i32);

    assert_eq!(client.region(0).unwrap().size, BAR0_SIZE);
    assert_eq!(client.region(1).unwrap().size, 0);
    assert_eq!(client.region(spec::PCI_CONFIG_REGION).unwrap().size, 4096);
    assert!(client.region(spec::PCI_NUM_REGIONS).is_none());
    assert!(client.region(0).unwrap().file_offset.is_none());

    let mut id = [0; 4];
    client.region_read(spec::PCI_CONFIG_REGION, 0, &mut id).unwrap();
    assert_eq!(id, [0x34, 0x12, 0x78, 0x56]);

    // The client uses every width at every alignment, and a large one.
    for (offset, length) in (0..16).flat_map(|offset| (1..=16).map(move |length| (offset, length)))
    {
        let data: Vec<u8> = (0..length).map(|i| (offset * 31 + i) as u8).collect();
        client.region_write(0, offset, &data).unwrap();
        let mut read = vec![0; data.len()];
        client.region_read(0, offset, &mut read).unwrap();
        assert_eq!(read, data);
    }
    let data: Vec<u8> = (0..0x7000_u32).map(|i| (i * 7) as u8).collect();
    client.region_write(0, 0, &data).unwrap();
    let mut read = vec![0; data.len()];
    client.region_read(0, 0, &mut read).unwrap();
    assert_eq!(read, data);

    client.reset().unwrap();
    fixture.dummy.wait_for(&Event::Reset);
    client.shutdown().unwrap();
    fixture.dummy.wait_for(&Event::Detached(Disconnect::Closed));
    assert_eq!(fixture.endpoint.peer(), None);
}

#[test]
fn a_mappable_region_comes_with_its_file_and_areas() {
    let fixture = Fixture::new(Options { mappable: true, ..Options::default() });
    let mut client = Client::new(fixture.path()).unwrap();
    let region = client.region(0).unwrap();
    assert_ne!(region.flags & spec::REGION_FLAG_MMAP, 0);
    assert_ne!(region.flags & spec::REGION_FLAG_CAPS, 0);
    let areas: Vec<_> = region.sparse_areas.iter().map(|area| (area.offset, area.size)).collect();
    assert_eq!(areas, [(AREA.offset, AREA.size)]);

    let file = region.file_offset.as_ref().unwrap();
    assert_eq!(file.start(), BAR0_FILE_OFFSET);
    let file = file.file().try_clone().unwrap();
    client.region_write(0, AREA.offset, b"by message").unwrap();
    let mut read = [0; 10];
    file.read_exact_at(&mut read, BAR0_FILE_OFFSET + AREA.offset).unwrap();
    assert_eq!(&read, b"by message");
    file.write_all_at(b"by file", BAR0_FILE_OFFSET + AREA.offset).unwrap();
    client.region_read(0, AREA.offset, &mut read).unwrap();
    assert_eq!(&read, b"by fileage");
}

#[test]
fn memory_is_mapped_and_unmapped() {
    let fixture = Fixture::default();
    let mut client = Client::new(fixture.path()).unwrap();
    let memory = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    client.dma_map(0x1000, 0x10_0000, 0x2000, memory.as_raw_fd()).unwrap();
    client.dma_map(0x3000, 0x20_0000, 0x1000, memory.as_raw_fd()).unwrap();
    client.dma_unmap(0x10_0000, 0x2000).unwrap();
    let state = fixture.dummy.state();
    assert_eq!(
        state.events[1..],
        [
            Event::Map {
                iova: 0x10_0000,
                size: 0x2000,
                offset: Some(0x1000),
                readable: true,
                writable: true
            },
            Event::Map {
                iova: 0x20_0000,
                size: 0x1000,
                offset: Some(0x3000),
                readable: true,
                writable: true
            },
            Event::Unmap { iova: 0x10_0000, size: 0x2000 },
        ]
    );
    assert_eq!(state.mappings.len(), 1);
}

#[test]
fn interrupts_reach_the_client() {
    let fixture = Fixture::default();
    let mut client = Client::new(fixture.path()).unwrap();
    let msix = client.get_irq_info(spec::PCI_MSIX_IRQ).unwrap();
    assert_eq!(
        (msix.count, msix.flags),
        (VECTORS, spec::IRQ_FLAG_EVENTFD | spec::IRQ_FLAG_MASKABLE)
    );
    let intx = client.get_irq_info(spec::PCI_INTX_IRQ).unwrap();
    assert_eq!((intx.count, intx.flags), (0, 0));

    // The client sends all at once, which is more than the server says it takes.
    let eventfds: Vec<_> = (0..VECTORS).map(|_| dummy::eventfd()).collect();
    let raw: Vec<_> = eventfds.iter().map(AsRawFd::as_raw_fd).collect();
    let flags = spec::IRQ_SET_DATA_EVENTFD | spec::IRQ_SET_ACTION_TRIGGER;
    client.set_irqs(spec::PCI_MSIX_IRQ, flags, 0, VECTORS, &raw).unwrap();
    fixture.dummy.wait_for(&Event::Irqs {
        index: spec::PCI_MSIX_IRQ,
        start: 0,
        count: VECTORS,
        action: IrqAction::Trigger,
        data: Irqs::EventFds(vec![true; VECTORS as usize]),
    });
    for ((_, number), fd) in &fixture.dummy.state().eventfds {
        rustix::io::write(fd, &u64::from(number + 1).to_ne_bytes()).unwrap();
    }
    for (number, fd) in (0_u64..).zip(&eventfds) {
        let mut value = [0; 8];
        rustix::io::read(fd, &mut value).unwrap();
        assert_eq!(u64::from_ne_bytes(value), number + 1);
    }

    let flags = spec::IRQ_SET_DATA_NONE | spec::IRQ_SET_ACTION_TRIGGER;
    client.set_irqs(spec::PCI_MSIX_IRQ, flags, 0, 0, &[]).unwrap();
    assert!(fixture.dummy.state().eventfds.is_empty());
}
