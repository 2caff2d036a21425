//! These tests serve an independent client: the front-end of the vhost crate.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail so")]

mod support;

use std::os::fd::{AsRawFd, OwnedFd};

use support::{Call, Fixture};
use vhost::vhost_user::message::{
    VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};

#[test]
fn the_vhost_crate_understands_every_answer() {
    let fixture = Fixture::new();
    let mut client = Frontend::connect(fixture.path(), 4).unwrap();
    let features = client.get_features().unwrap();
    client.set_owner().unwrap();
    let protocol = client.get_protocol_features().unwrap();
    assert_eq!(VhostUserProtocolFeatures::from_bits(protocol.bits()), Some(protocol));
    client.set_protocol_features(protocol).unwrap();
    client.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    client.set_features(features).unwrap();
    assert_eq!(client.get_queue_num().unwrap(), 4);
    assert_eq!(client.get_max_mem_slots().unwrap(), 512);

    let file: OwnedFd = support::memory();
    let region = |at| VhostUserMemoryRegionInfo {
        guest_phys_addr: at,
        memory_size: 0x10000,
        userspace_addr: 0x7000_0000 + at,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    };
    client.set_mem_table(&[region(0), region(0x10_0000)]).unwrap();
    client.add_mem_region(&region(0x20_0000)).unwrap();
    client.remove_mem_region(&region(0x10_0000)).unwrap();
    assert!(client.add_mem_region(&region(0)).is_err());

    let (inflight, tracked) =
        client.get_inflight_fd(&VhostUserInflight::new(0, 0, 4, 256)).unwrap();
    assert_eq!(tracked.metadata().unwrap().len(), inflight.mmap_size);
    client.set_inflight_fd(&inflight, tracked.as_raw_fd()).unwrap();

    let event = vmm_sys_util::eventfd::EventFd::new(0).unwrap();
    let addresses = VringConfigData {
        queue_max_size: 256,
        queue_size: 256,
        flags: 0,
        desc_table_addr: 0x7000_0000,
        avail_ring_addr: 0x7000_1000,
        used_ring_addr: 0x7000_2000,
        log_addr: None,
    };
    client.set_vring_num(1, 256).unwrap();
    client.set_vring_base(1, 3).unwrap();
    client.set_vring_addr(1, &addresses).unwrap();
    client.set_vring_call(1, &event).unwrap();
    client.set_vring_err(1, &event).unwrap();
    client.set_vring_kick(1, &event).unwrap();
    client.set_vring_enable(1, true).unwrap();
    let calls = fixture.dummy.take();
    assert!(calls.iter().any(|call| matches!(call, Call::Start { ring: 1, tracked: true, .. })));
    assert_eq!(client.get_vring_base(1).unwrap(), 0);
    client.reset_device().unwrap();
    assert!(client.set_vring_num(4, 256).is_err());
}
