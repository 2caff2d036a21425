//! These tests check `manifold vf`.

use tempfile::tempdir;

use crate::process::{Daemon, Guest, files, runs};

#[test]
fn vfs_appear_and_disappear_with_their_sockets() {
    let dir = tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &[]);
    assert!(daemon.run(&["vf", "list"]).succeeded().contains("no VFs are enabled"));
    let said = daemon.run(&["vf", "enable", "256"]).succeeded();
    assert!(said.contains("256 VFs enabled"), "{said}");
    assert!(said.contains("01:00.1") && said.contains("02:00.0"), "{said}");
    // The folder has api.sock and the lock, and two sockets for each function.
    assert_eq!(files(dir.path()).len(), 2 + 2 * 257);

    let vfs = daemon.json(&["vf", "list", "--json"]);
    let list = vfs["vfs"].as_array().unwrap();
    assert_eq!((&vfs["num_vfs"], list.len()), (&256.into(), 256));
    assert_eq!((&list[255]["id"], &list[255]["bdf"]), (&"vf255".into(), &"02:00.0".into()));
    let mut macs: Vec<_> = list.iter().map(|vf| vf["mac"].to_string()).collect();
    macs.sort();
    macs.dedup();
    assert_eq!(macs.len(), 256, "every VF has an address of its own");
    let table = daemon.run(&["vf", "list"]).succeeded();
    assert_eq!(table.lines().count(), 257);
    assert!(table.lines().all(|line| line.split_whitespace().count() >= 9), "{table}");

    assert!(daemon.run(&["vf", "disable"]).succeeded().contains("256 VFs disabled"));
    assert_eq!(files(dir.path()), ["api.sock", "manifold.lock", "pf.sock", "pf.vhost.sock"]);
    assert!(daemon.run(&["vf", "disable"]).succeeded().contains("no VFs were enabled"));
    assert!(daemon.run(&["vf", "enable", "1"]).succeeded().contains("1 VF enabled: vf0"));
}

#[test]
fn counts_that_cannot_be_are_refused_with_what_can() {
    let dir = tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &["--total-vfs", "7"]);
    for (count, code, part) in [
        ("0", 1, "manifold vf disable"),
        ("8", 1, "--total-vfs 8"),
        ("257", 1, "1 to 7"),
        ("65537", 1, "1 to 7"),
        ("4294967295", 1, "1 to 7"),
        ("4294967296", 2, "invalid value"),
        ("-1", 2, "-1"),
        ("1.5", 2, "invalid value"),
        ("", 2, "invalid value"),
        ("four", 2, "invalid value"),
    ] {
        let message = daemon.run(&["vf", "enable", count]).failed(code);
        assert!(message.contains(part), "{count}: {message}");
    }
    assert_eq!(daemon.json(&["vf", "list", "--json"])["num_vfs"], 0);
    daemon.run(&["vf", "enable", "7"]).succeeded();
    // The number is locked now, but a number that can never be enabled is still told apart.
    let message = daemon.run(&["vf", "enable", "7"]).failed(1);
    assert!(message.contains("7 are enabled already"), "{message}");
    assert!(message.contains("hint: run `manifold vf disable`"), "{message}");
    assert!(daemon.run(&["vf", "enable", "8"]).failed(1).contains("1 to 7"));
}

#[test]
fn vfs_are_shown_by_name_or_number() {
    let dir = tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &["--num-vfs", "2"]);
    let shown = daemon.run(&["vf", "show", "vf1"]).succeeded();
    assert_eq!(shown, daemon.run(&["vf", "show", "1"]).succeeded());
    for part in ["01:00.2", "1af4:1041", "Region 0", "[size=", "DMA faults   0", "vf1.sock"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(daemon.json(&["vf", "show", "1", "--json"])["id"], "vf1");
    assert!(daemon.run(&["vf", "show", "2"]).failed(1).contains("vf0 to vf1 are enabled"));
    for name in ["pf", "256", "vf", "eth0"] {
        assert!(daemon.run(&["vf", "show", name]).failed(2).contains("vf255"), "{name}");
    }
}

#[test]
fn who_uses_a_vf_is_seen_and_loses_it_when_vfs_are_disabled() {
    let dir = tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &["--num-vfs", "2"]);
    let guest = Guest::start(dir.path(), "vf1");
    let vf = daemon.json(&["vf", "show", "1", "--json"]);
    assert_eq!(vf["attached"]["protocol"], "vfio-user");
    assert_eq!(vf["attached"]["pid"], guest.pid());
    assert_eq!(vf["driver"]["state"], "running");
    assert!(vf["dma"]["bytes"].as_u64().unwrap() > 0);
    assert_eq!(daemon.json(&["vf", "show", "0", "--json"])["attached"], serde_json::Value::Null);
    let list = daemon.run(&["vf", "list"]).succeeded();
    assert!(list.contains(&format!("(process {})", guest.pid())), "{list}");

    // The number is locked whether or not a VF is in use.
    assert!(daemon.run(&["vf", "enable", "3"]).failed(1).contains("2 are enabled already"));
    assert!(runs(guest.pid()));
    let said = daemon.run(&["vf", "disable"]).succeeded();
    assert!(said.contains("2 VFs disabled"), "{said}");
    assert!(said.contains("taken from the machines that used them: vf1"), "{said}");
    assert!(!guest.wait(), "a machine that loses its device says so");

    // The VF can be enabled again, and a machine can attach to it again.
    daemon.run(&["vf", "enable", "3"]).succeeded();
    let guest = Guest::start(dir.path(), "vf1");
    let attached = || daemon.json(&["vf", "show", "1", "--json"])["attached"]["pid"].clone();
    assert_eq!(attached(), guest.pid());
    drop(guest);
    crate::process::eventually("a killed machine is gone from the list", || attached().is_null());
}
