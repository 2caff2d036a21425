//! These tests put a device model that is not virtio into an adapter: enumerated, driven over the
//! fabric and over vfio-user, refused over vhost-user. `docs/device-model.md` goes through it step
//! by step.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail so")]

mod nic;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use manifold_adapter::{Adapter, Config, FunctionInfo, View};
use manifold_pci::FunctionId::{self, Pf, Vf};
use vhost::VhostBackend;
use vhost::vhost_user::Frontend;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use nic::{ADDRESS, LINK, MESSAGE, Mailboxes, READY, RING};

/// Region indices of vfio-pci for BAR0 and configuration space.
const BAR0: u32 = 0;
const CONFIG: u32 = 7;
/// Interrupt index of MSI-X, and the flags that trigger an eventfd (vfio-user,
/// VFIO_USER_DEVICE_SET_IRQS).
const MSIX: u32 = 2;
const EVENTFD_TRIGGER: u32 = 1 << 2 | 1 << 5;
const COMMAND: u64 = 4;
const BUS_MASTER_AND_MEMORY: [u8; 2] = [0b110, 0];
const TABLE: u64 = 0x400;
const IOVA: u64 = 0x10_0000;

fn start(folder: &Path) -> Adapter {
    let adapter = Adapter::with_models(Config::new(folder), Box::new(Mailboxes)).unwrap();
    adapter.enable_vfs(2).unwrap();
    adapter
}

fn info(adapter: &Adapter, id: FunctionId) -> FunctionInfo {
    adapter.function(id).unwrap()
}

#[test]
fn it_is_enumerated_and_listed() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = start(folder.path());
    assert_eq!(adapter.info().num_vfs, 2);
    let functions = adapter.functions();
    let ids: Vec<_> = functions.iter().map(|f| (f.id, f.identity.device_id)).collect();
    assert_eq!(ids, [(Pf, 1), (Vf(0), 2), (Vf(1), 2)]);
    for function in &functions {
        let [Some(bar), None, None, None, None, None] = function.bars else {
            panic!("{:?}", function.bars)
        };
        assert!(bar.address != 0 && bar.size == 0x1000 && !bar.width64);
        assert!(function.link_up);
        assert_eq!((function.mtu, function.driver.status), (1400, 0));
        assert!(function.attached.is_none());
    }
    assert_ne!(functions[1].mac, functions[2].mac);
    let shown = adapter.config_space(Vf(1), View::Linux).unwrap();
    assert_eq!(shown[..4], [0x34, 0x12, 0x02, 0x00]);
    assert_eq!(adapter.disable_vfs(), (2, 0));
}

#[test]
fn its_registers_are_reached_over_the_fabric() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = start(folder.path());
    let bus = adapter.root_complex();
    let read = |address| {
        let mut data = [0; 4];
        bus.mem_read(address, &mut data);
        data
    };
    for id in [Pf, Vf(0), Vf(1)] {
        let base = info(&adapter, id).bars[0].unwrap().address;
        assert_eq!(&read(base), b"MBOX");
        assert_eq!(read(base + LINK), [1, 0, 0, 0]);
        bus.mem_write(base + READY, &[1]);
        assert_eq!(read(base + READY), [1, 0, 0, 0]);
        assert_eq!(info(&adapter, id).driver.features, ["ECHO"]);
    }
    // The MSI-X table in the middle of the BAR is the function's and never the model's.
    let base = info(&adapter, Vf(0)).bars[0].unwrap().address;
    bus.mem_write(base + TABLE, &0xfee0_0000_u32.to_le_bytes());
    assert_eq!(read(base + TABLE), 0xfee0_0000_u32.to_le_bytes());
    // Without Bus Master Enable the device reaches no memory, and says so.
    bus.mem_write(base + RING, &[1]);
    assert!(info(&adapter, Vf(0)).driver.failure.is_some());
    // New VFs are as after power-on; the PF keeps what it had.
    adapter.disable_vfs();
    adapter.enable_vfs(1).unwrap();
    let status = |id| info(&adapter, id).driver.status;
    assert_eq!((status(Pf), status(Vf(0))), (7, 0));
}

#[test]
fn a_vmm_drives_it_over_vfio_user() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = start(folder.path());
    let mut vmm = vfio_user::Client::new(&info(&adapter, Vf(0)).socket).unwrap();
    let memory = tempfile::tempfile().unwrap();
    let ring = |vmm: &mut vfio_user::Client| {
        vmm.region_write(CONFIG, COMMAND, &BUS_MASTER_AND_MEMORY).unwrap();
        vmm.region_write(BAR0, ADDRESS, &IOVA.to_le_bytes()).unwrap();
        vmm.region_write(BAR0, READY, &[1, 0, 0, 0]).unwrap();
        vmm.region_write(BAR0, RING, &[1, 0, 0, 0]).unwrap();
    };
    memory.set_len(0x1000).unwrap();
    memory.write_all_at(b"is anybody there", 0).unwrap();
    vmm.dma_map(0, IOVA, 0x1000, memory.as_raw_fd()).unwrap();
    let interrupt = EventFd::new(EFD_NONBLOCK).unwrap();
    vmm.set_irqs(MSIX, EVENTFD_TRIGGER, 0, 1, &[interrupt.as_raw_fd()]).unwrap();

    ring(&mut vmm);
    assert_eq!(interrupt.read().unwrap(), 1);
    assert_eq!(echo(&memory), b"is anybody there".map(|byte| !byte));
    let seen = info(&adapter, Vf(0));
    assert!(seen.attached.is_some() && seen.dma.stats.mappings == 1);
    assert_eq!((seen.driver.status, info(&adapter, Vf(1)).driver.status), (7, 0));

    // A reset clears the driver's settings and Bus Master Enable.
    vmm.reset().unwrap();
    let mut address = [0xff; 8];
    vmm.region_read(BAR0, ADDRESS, &mut address).unwrap();
    assert_eq!((u64::from_le_bytes(address), info(&adapter, Vf(0)).driver.status), (0, 0));

    // The device works again, until the memory is unmapped.
    ring(&mut vmm);
    assert_eq!(interrupt.read().unwrap(), 1);
    vmm.dma_unmap(IOVA, 0x1000).unwrap();
    ring(&mut vmm);
    assert!(interrupt.read().is_err());
    let seen = info(&adapter, Vf(0));
    assert_eq!((seen.driver.status, seen.dma.faults.count), (0x47, 1));
}

#[test]
fn vhost_user_has_no_queues_to_attach() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = start(folder.path());
    let refused = Frontend::connect(info(&adapter, Vf(0)).vhost_socket, 2).unwrap();
    assert!(refused.get_features().is_err());
    assert!(info(&adapter, Vf(0)).attached.is_none());
    // The function can still be attached: nothing was taken away.
    let vmm = vfio_user::Client::new(&info(&adapter, Vf(0)).socket);
    assert!(vmm.is_ok());
}

fn echo(memory: &File) -> [u8; MESSAGE] {
    let mut bytes = [0; MESSAGE];
    memory.read_exact_at(&mut bytes, MESSAGE as u64).unwrap();
    bytes
}
