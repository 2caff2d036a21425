//! These tests follow an adapter through its life: functions and sockets come and go with VF
//! Enable, and nothing stays behind.

#![allow(clippy::unwrap_used)] // the helpers of tests

use std::path::Path;

use manifold_adapter::{Adapter, Config, Error, View};
use manifold_pci::FunctionId::{self, Pf, Vf};
use rustix::process::{Resource, getrlimit, setrlimit};

fn sockets(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn start(folder: &Path) -> Adapter {
    Adapter::start(Config::new(folder)).unwrap()
}

#[test]
fn an_adapter_begins_as_a_plain_nic() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = start(folder.path());
    let info = adapter.info();
    assert_eq!(info.pf.to_string(), "01:00.0");
    assert_eq!((info.total_vfs, info.num_vfs), (256, 0));
    let functions = adapter.functions();
    assert_eq!(functions.len(), 1);
    assert_eq!(functions[0].id, Pf);
    assert!(functions[0].bars.iter().flatten().all(|bar| bar.address != 0));
    assert!(folder.path().join("pf.sock").exists());
    assert!(adapter.function(Vf(0)).is_none());
    assert!(adapter.config_space(Vf(0), View::Bus).is_none());
    adapter.shutdown();
    assert_eq!(sockets(folder.path()), 0);
}

#[test]
fn vfs_are_enabled_and_disabled_through_the_pf() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = start(folder.path());
    assert!(matches!(adapter.enable_vfs(0), Err(Error::Fabric(_))));
    assert!(matches!(adapter.enable_vfs(257), Err(Error::Fabric(_))));
    adapter.enable_vfs(3).unwrap();
    let again = adapter.enable_vfs(2).unwrap_err().to_string();
    assert!(again.contains("disable"), "{again}");

    let functions = adapter.functions();
    let ids: Vec<FunctionId> = functions.iter().map(|function| function.id).collect();
    assert_eq!(ids, [Pf, Vf(0), Vf(1), Vf(2)]);
    let routing_ids: Vec<_> = functions.iter().map(|f| f.routing_id.to_string()).collect();
    assert_eq!(routing_ids, ["01:00.0", "01:00.1", "01:00.2", "01:00.3"]);
    let mut macs: Vec<_> = functions.iter().map(|function| function.mac).collect();
    macs.dedup();
    assert_eq!(macs.len(), 4);
    assert!(functions.iter().all(|f| f.socket.exists() && f.vhost_socket.exists()));

    // On the bus a VF hides its IDs; a Linux host shows them.
    assert_eq!(adapter.config_space(Vf(0), View::Bus).unwrap()[..4], [0xff; 4]);
    assert_eq!(adapter.config_space(Vf(0), View::Linux).unwrap()[..4], [0xf4, 0x1a, 0x41, 0x10]);

    assert_eq!(adapter.disable_vfs(), (3, 0));
    assert_eq!(adapter.functions().len(), 1);
    assert_eq!(sockets(folder.path()), 2);
    assert_eq!(adapter.disable_vfs(), (0, 0));
    // The second that must pass before VFs are enabled again is the driver's to wait.
    adapter.enable_vfs(1).unwrap();
    assert_eq!(adapter.functions().len(), 2);
}

#[test]
fn all_256_vfs_leave_no_descriptor_behind() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let adapter = start(folder.path());
    let before = open_files();
    adapter.enable_vfs(256).unwrap();
    let functions = adapter.functions();
    assert_eq!(functions.len(), 257);
    // The PF's bus has no room for 256 VFs.
    assert_eq!(functions[255].routing_id.to_string(), "01:1f.7");
    assert_eq!(functions[256].routing_id.to_string(), "02:00.0");
    assert_eq!(sockets(folder.path()), 2 * 257);
    assert!(open_files() >= before + 2 * 256);
    assert_eq!(adapter.disable_vfs(), (256, 0));
    assert_eq!(open_files(), before);
    assert_eq!(sockets(folder.path()), 2);
}

#[test]
fn a_folder_in_use_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = start(folder.path());
    let Err(error) = Adapter::start(Config::new(folder.path())) else {
        panic!("two adapters in one folder");
    };
    assert!(matches!(error, Error::Socket { .. }), "{error}");
    assert!(folder.path().join("pf.sock").exists());

    // A socket that cannot be served takes the VFs back.
    std::fs::write(folder.path().join("vf1.sock"), "not a socket").unwrap();
    assert!(matches!(adapter.enable_vfs(3), Err(Error::Socket { .. })));
    assert_eq!(adapter.functions().len(), 1);
    assert_eq!(adapter.info().num_vfs, 0);
    assert!(folder.path().join("vf1.sock").exists());
    assert!(!folder.path().join("vf0.sock").exists());
}
