//! These tests check what `manifold demo` finds, and that nothing of it is left.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::process::{Ended, eventually, files, manifold, runs, signal};

/// Returns a demo's command and the folder in which it makes its own.
fn demo(args: &[&str]) -> (Command, TempDir) {
    let dir = tempdir().unwrap();
    let mut command = manifold();
    command.arg("demo").args(args).env("XDG_RUNTIME_DIR", dir.path());
    (command, dir)
}

/// Runs a demo to its end and checks everything its JSON object says.
fn check(vms: usize) {
    let (mut command, dir) = demo(&["--vms", &vms.to_string(), "--json"]);
    let ended: Ended = command.output().unwrap().into();
    let stderr = ended.stderr.clone();
    let report: Value = serde_json::from_str(&ended.succeeded()).unwrap();
    let fields: Vec<_> = report.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["isolation", "ok", "pf", "pings", "transfers", "vfs"]);
    assert_eq!(report["ok"], true);
    assert_eq!(report["pf"]["bdf"], "01:00.0");
    assert_eq!(report["isolation"]["fault_recorded"], true);
    assert_eq!(report["isolation"]["others_disturbed"], false);

    let list = |name: &str| report[name].as_array().unwrap().clone();
    for (index, vf) in list("vfs").iter().enumerate() {
        assert_eq!(vf["index"], index);
        let raw = 0x0101 + index;
        let bdf = format!("{:02x}:{:02x}.{}", raw >> 8, raw >> 3 & 31, raw & 7);
        assert_eq!(vf["bdf"], bdf);
    }
    assert_eq!(list("vfs").len(), vms);

    let others = vms - 1;
    let pings = list("pings");
    assert_eq!(pings.len(), vms * if vms <= 16 { others } else { 16 });
    for ping in &pings {
        assert!(ping["sent"].as_u64().unwrap() > 0, "{ping}");
        assert_eq!(ping["sent"], ping["received"], "{ping}");
        assert!(ping["rtt_us"].as_f64().unwrap() > 0.0, "{ping}");
    }

    let transfers = list("transfers");
    assert_eq!(transfers.len(), if vms <= 4 { vms * others } else { vms });
    let mut total = 0;
    for transfer in &transfers {
        assert_eq!(transfer["intact"], true, "{transfer}");
        assert!(transfer["gbit_per_s"].as_f64().unwrap() > 0.0, "{transfer}");
        let bytes = transfer["bytes"].as_u64().unwrap();
        assert!(vms > 4 || bytes >= 64 << 20, "{transfer}");
        total += bytes;
    }
    assert!(vms <= 4 || total >= 1 << 30, "{total} bytes");

    assert!(stderr.contains("[6/6]"), "progress goes to standard error: {stderr}");
    assert!(files(dir.path()).is_empty(), "{:?}", files(dir.path()));
}

#[test]
fn four_machines() {
    check(4);
}

#[test]
fn sixty_four_machines() {
    check(64);
}

#[test]
fn one_machine_has_nobody_to_talk_to() {
    let (mut command, dir) = demo(&["--vms", "1", "--json"]);
    let ended: Ended = command.output().unwrap().into();
    let report: Value = serde_json::from_str(&ended.succeeded()).unwrap();
    assert_eq!(report["ok"], true);
    assert_eq!(report["isolation"]["fault_recorded"], true);
    assert!(report["pings"].as_array().unwrap().is_empty());
    assert!(files(dir.path()).is_empty());
}

#[test]
fn people_are_told_what_happens_and_what_came_of_it() {
    let (mut command, _dir) = demo(&["--vms", "2"]);
    let ended: Ended = command.output().unwrap().into();
    let text = ended.succeeded();
    for part in [
        "[1/6]",
        "NumVFs 0",
        "01:00.0 Ethernet controller [0200]: Red Hat, Inc. Virtio 1.0 network device [1af4:1041]",
        "01:00.2 Ethernet controller",
        "Region 0: Memory at ",
        "[size=",
        "6 of 6 answered",
        "128.0 MiB moved",
        "refused: not mapped",
        "VM 1     vf1 01:00.2",
        "intact",
        "OK: everything was as it should be.",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    assert!(!text.contains('\x1b') && !text.contains('\r'), "no terminal, no control characters");
}

#[test]
fn a_number_of_machines_out_of_range_is_refused() {
    for vms in ["0", "257", "-1", "many", "65537"] {
        let (mut command, _dir) = demo(&["--vms", vms]);
        let ended: Ended = command.output().unwrap().into();
        assert!(ended.failed(2).contains("--vms"), "{vms}");
    }
}

/// Returns a demo that is in the middle of its transfers, and its machines' processes.
fn in_the_middle(dir: &TempDir, mut command: Command) -> (Child, Vec<u32>) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("[5/6]")), "it ended too early");
    // Nobody reads on, and nobody closes the pipe either.
    std::mem::forget(lines);
    let machines = children(child.id());
    assert_eq!(machines.len(), 8);
    assert_eq!(files(dir.path()), [format!("manifold-demo-{}", child.id())]);
    (child, machines)
}

fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(Path::new(&path)).unwrap();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    for with in [Signal::INT, Signal::TERM, Signal::HUP] {
        let (command, dir) = demo(&["--vms", "8"]);
        let (mut child, machines) = in_the_middle(&dir, command);
        signal(child.id(), with);
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(machines.iter().all(|&pid| !runs(pid)), "machines outlive the demo");
        assert!(files(dir.path()).is_empty(), "{:?}", files(dir.path()));
    }
}

#[test]
fn machines_die_with_a_demo_that_is_killed() {
    let (command, dir) = demo(&["--vms", "8"]);
    let (mut child, machines) = in_the_middle(&dir, command);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the machines are gone", || machines.iter().all(|&pid| !runs(pid)));
    // The folder stays, but the next demo runs all the same.
    assert_eq!(files(dir.path()).len(), 1);
    let (mut command, _) = demo(&["--vms", "1"]);
    let ended: Ended = command.env("XDG_RUNTIME_DIR", dir.path()).output().unwrap().into();
    ended.succeeded();
}

#[test]
fn a_machine_that_dies_is_a_failure() {
    let (command, dir) = demo(&["--vms", "8"]);
    let (mut child, machines) = in_the_middle(&dir, command);
    signal(machines[3], Signal::KILL);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(machines.iter().all(|&pid| !runs(pid)), "machines outlive the demo");
    assert!(files(dir.path()).is_empty(), "{:?}", files(dir.path()));
}
