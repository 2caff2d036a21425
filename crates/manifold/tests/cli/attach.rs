//! `manifold attach`.

use std::process::Command;

use tempfile::tempdir;

use crate::process::{Daemon, Guest};

#[test]
fn the_arguments_name_the_functions_socket_and_share_the_memory() {
    let dir = tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &["--num-vfs", "2"]);
    let socket = dir.path().join("vf1.sock");
    let socket = socket.to_str().unwrap();

    let qemu = daemon.run(&["attach", "vf1", "--vmm", "qemu", "--memory", "512M"]);
    assert!(qemu.stderr.contains("QEMU 10.1"), "{}", qemu.stderr);
    let qemu = qemu.succeeded();
    let script = format!("printf '%s\\n' {}", qemu.trim_end());
    let words = Command::new("sh").args(["-c", &script]).output().unwrap().stdout;
    let words = String::from_utf8(words).unwrap();
    let words: Vec<&str> = words.lines().collect();
    assert_eq!(words[..2], ["-m", "512M"]);
    assert!(words.iter().any(|word| word.contains("size=512M,share=on")), "{qemu}");
    let device: serde_json::Value = serde_json::from_str(words.last().unwrap()).unwrap();
    assert_eq!(device["driver"], "vfio-user-pci");
    assert_eq!(device["socket"]["path"], socket);

    let ch = daemon.run(&["attach", "vf1", "--vmm", "cloud-hypervisor"]).succeeded();
    assert_eq!(ch, format!("--memory size=2G,shared=on \\\n--user-device socket={socket}\n"));

    let libvirt = daemon.run(&["attach", "pf", "--vmm", "libvirt"]).succeeded();
    assert!(libvirt.contains("pf.sock") && libvirt.contains("mode='shared'"), "{libvirt}");

    let json = daemon.json(&["attach", "vf1", "--vmm", "qemu", "--memory", "512M", "--json"]);
    assert_eq!(json["arguments"], serde_json::json!(words));
}

#[test]
fn what_cannot_be_attached_is_refused_with_what_can() {
    let dir = tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &["--num-vfs", "1"]);
    for (args, code, part) in [
        (&["vf1", "--vmm", "qemu"][..], 1, "only vf0 is enabled"),
        (&["vf0", "--vmm", "crosvm"], 1, "--vmm qemu"),
        (&["vf0", "--vmm", "vmware"], 2, "cloud-hypervisor"),
        (&["vf256", "--vmm", "qemu"], 2, "vf256"),
        (&["vf0"], 2, "--vmm"),
        (&["vf0", "--vmm", "qemu", "--memory", "lots"], 2, "512M"),
        (&["vf0", "--vmm", "qemu", "--memory", "1G,share=off"], 2, "512M"),
    ] {
        let message = daemon.run(&[&["attach"], args].concat()).failed(code);
        assert!(message.contains(part), "{args:?}: {message}");
    }
}

#[test]
fn a_function_in_use_is_pointed_out() {
    let dir = tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &["--num-vfs", "1"]);
    let guest = Guest::start(dir.path(), "vf0");
    let ended = daemon.run(&["attach", "vf0", "--vmm", "cloud-hypervisor"]);
    let remark = format!("vf0 is in use (process {})", guest.pid());
    assert!(ended.stderr.contains(&remark), "{}", ended.stderr);
}
