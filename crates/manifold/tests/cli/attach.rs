//! These tests check `manifold attach`.

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
        (&["vf0", "--vmm", "crosvm", "--protocol", "vfio-user"], 1, "--protocol vhost-user"),
        (&["--sriov", "4", "--vmm", "qemu"], 1, "vf enable 4"),
        (&["--sriov", "1", "--vmm", "libvirt"], 1, "--vmm qemu"),
        (&["--sriov", "256", "--vmm", "qemu"], 2, "255"),
        (&["vf0", "--sriov", "1", "--vmm", "qemu"], 2, "cannot be used with"),
        (&["--vmm", "qemu"], 2, "FUNCTION"),
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
    let remark = format!("vf0 is in use over vfio-user (process {})", guest.pid());
    assert!(ended.stderr.contains(&remark), "{}", ended.stderr);
}

#[test]
fn vhost_user_arguments_name_its_socket_and_the_functions_address() {
    let dir = tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &["--num-vfs", "2", "--queue-pairs", "2"]);
    let socket = dir.path().join("vf1.vhost.sock");
    assert!(socket.exists());
    let mac = daemon.json(&["vf", "show", "vf1", "--json"])["mac"].clone();
    for vmm in ["qemu", "cloud-hypervisor", "libvirt"] {
        let ended = daemon.run(&["attach", "vf1", "--vmm", vmm, "--protocol", "vhost-user"]);
        let text = ended.succeeded();
        for part in [socket.to_str().unwrap(), mac.as_str().unwrap()] {
            assert!(text.contains(part), "{vmm}: {text}");
        }
    }
    let crosvm = daemon.run(&["attach", "vf1", "--vmm", "crosvm"]).succeeded();
    assert_eq!(crosvm, format!("--vhost-user net,socket={}\n", socket.display()));
}

#[test]
fn an_sriov_machine_has_every_function_and_the_pf_last() {
    let dir = tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &["--num-vfs", "10"]);
    let json = daemon.json(&["attach", "--sriov", "9", "--vmm", "qemu", "--json"]);
    let words: Vec<&str> =
        json["arguments"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let devices: Vec<&str> = words
        .iter()
        .copied()
        .filter(|word| word.starts_with("virtio-net-pci,bus=manifold-port,addr="))
        .collect();
    assert_eq!(devices.len(), 10);
    assert!(devices[0].contains("addr=0x1.0x1,sriov-pf=manifold-pf,"), "{}", devices[0]);
    assert!(devices[8].contains("addr=0x0.0x1,sriov-pf=manifold-pf,"), "{}", devices[8]);
    assert!(devices[9].contains("addr=0x0.0x0,id=manifold-pf,"), "{}", devices[9]);
    for name in ["pf", "vf0", "vf8"] {
        let path = format!("path={}", dir.path().join(format!("{name}.vhost.sock")).display());
        assert!(words.iter().any(|word| word.ends_with(&path)), "{name}");
    }
    assert!(!words.iter().any(|word| word.contains("vf9.vhost.sock")));
}
