//! These tests check `manifold function`, and what pciutils makes of its dumps.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::tempdir;

use crate::process::Daemon;

/// Returns what `lspci -F FILE -vvv` says; it complains on standard error.
fn lspci(file: &Path) -> String {
    let output = Command::new("lspci").arg("-F").arg(file).args(["-vvv", "-nn"]).output();
    let output = output.expect("lspci must be installed: it is in the package pciutils");
    let complaints = String::from_utf8(output.stderr).unwrap();
    // lspci looks for the kernel's module aliases, which have nothing to do with the dump.
    let complaints: Vec<_> = complaints.lines().filter(|line| !line.contains("libkmod")).collect();
    assert!(output.status.success() && complaints.is_empty(), "{complaints:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns `lspci`'s text about each function, by routing ID.
fn by_function(text: &str) -> Vec<(&str, &str)> {
    let blocks = text.split("\n\n").filter(|block| !block.trim().is_empty());
    blocks.map(|block| block.trim_start().split_once(' ').unwrap()).collect()
}

/// Fails if `lspci` found something that it could not decode.
fn assert_decoded(bdf: &str, text: &str) {
    // pciutils has no name for one capability every modern virtio device must have, the window into
    // its BARs (VIRTIO_PCI_CAP_PCI_CFG, Virtual I/O Device 1.3, 4.1.4.9): it decodes it as "VirtIO"
    // and calls its type unknown, for hardware too. Nothing else may be unknown.
    let known = text.replacen("VirtIO: <unknown>", "", 1).to_lowercase();
    for bad in ["unknown", "chain broken", "chain looped", "invalid", "<access denied>", "!!!"] {
        assert!(!known.contains(bad), "{bdf} has \"{bad}\":\n{text}");
    }
}

#[test]
fn all_257_functions_are_listed_as_lspci_would() {
    let dir = tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &["--num-vfs", "256"]);
    let json = daemon.json(&["function", "list", "--json"]);
    let functions = json.as_array().unwrap();
    assert_eq!(functions.len(), 257);
    assert_eq!((&functions[0]["id"], &functions[0]["bdf"]), (&"pf".into(), &"01:00.0".into()));
    let mut bars = Vec::new();
    for function in functions {
        assert_eq!(function["identity"]["vendor_id"], 0x1af4);
        assert_eq!(function["identity"]["device_id"], 0x1041);
        for bar in function["bars"].as_array().unwrap() {
            let (address, size) = (bar["address"].as_u64().unwrap(), bar["size"].as_u64().unwrap());
            assert_eq!(address % size, 0, "{bar}");
            bars.push((address, address + size));
        }
    }
    bars.sort_unstable();
    assert_eq!(bars.len(), 2 * 257);
    assert!(bars.windows(2).all(|pair| pair[0].1 <= pair[1].0), "no BARs overlap");
    let table = daemon.run(&["function", "list"]).succeeded();
    assert_eq!(table.lines().count(), 258);
    assert!(table.lines().any(|line| line.starts_with("vf255     02:00.0  1af4:1041")), "{table}");
}

#[test]
fn lspci_decodes_every_capability_of_all_257_functions() {
    let dir = tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &["--num-vfs", "256"]);
    let names = std::iter::once("pf".to_owned()).chain((0..256).map(|n| format!("vf{n}")));
    let mut dumps = String::new();
    for name in names {
        dumps.push_str(&daemon.run(&["function", "dump", &name]).succeeded());
    }
    let file = dir.path().join("dump");
    fs::write(&file, dumps).unwrap();
    let text = lspci(&file);
    let functions = by_function(&text);
    assert_eq!(functions.len(), 257);

    let mut expected = Vec::new();
    for raw in 0x0100_u16..=0x0200 {
        expected.push(format!("{:02x}:{:02x}.{}", raw >> 8, raw >> 3 & 31, raw & 7));
    }
    for ((bdf, text), expected) in functions.iter().zip(expected) {
        assert_eq!(*bdf, expected);
        assert_decoded(bdf, text);
        for part in [
            "[1af4:1041]",
            "Ethernet controller [0200]",
            "Region 0: Memory at",
            "Region 2: Memory at",
            "MSI-X: Enable- Count=",
            "Express (v2) Endpoint",
            "FLReset+",
            "VirtIO: CommonCfg",
            "VirtIO: Notify",
            "VirtIO: ISR",
            "VirtIO: DeviceCfg",
            "Advanced Error Reporting",
            "Alternative Routing-ID Interpretation (ARI)",
            "Access Control Services",
        ] {
            assert!(text.contains(part), "{bdf} lacks {part}:\n{text}");
        }
    }
    let (_, pf) = functions[0];
    for part in [
        "Power Management version 3",
        "Device Serial Number",
        "Single Root I/O Virtualization (SR-IOV)",
        "IOVCtl:\tEnable+ Migration- Interrupt- MSE+ ARIHierarchy+",
        "Initial VFs: 256, Total VFs: 256, Number of VFs: 256, Function Dependency Link: 00",
        "VF offset: 1, stride: 1, Device ID: 1041",
    ] {
        assert!(pf.contains(part), "the PF lacks {part}:\n{pf}");
    }
    assert!(functions[1..].iter().all(|(_, vf)| !vf.contains("SR-IOV")), "VFs have none");
}

#[test]
fn the_raw_view_is_what_the_bus_returns() {
    let dir = tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &["--num-vfs", "2"]);
    let json = daemon.json(&["function", "dump", "vf1", "--raw", "--format", "json"]);
    assert_eq!((&json["view"], &json["bdf"]), (&"bus".into(), &"01:00.2".into()));
    let bytes = json["bytes"].as_str().unwrap();
    assert_eq!(bytes.len(), 8192);
    assert!(bytes.starts_with("ffffffff"), "a VF's IDs read FFFFh: {}", &bytes[..8]);
    assert_eq!(&bytes[0x20..0x50], "0".repeat(0x30), "a VF's BARs read zero");
    let linux = daemon.json(&["function", "dump", "vf1", "--format", "json"]);
    assert!(linux["bytes"].as_str().unwrap().starts_with("f41a4110"));

    let mut dumps = String::new();
    for name in ["pf", "vf0", "vf1"] {
        let dump = daemon.run(&["function", "dump", name, "--raw"]).succeeded();
        assert_eq!(dump.lines().count(), 1 + 256 + 1, "a title, 256 lines of 16 bytes, an end");
        let _ = write!(dumps, "{dump}");
    }
    let file = dir.path().join("dump");
    fs::write(&file, dumps).unwrap();
    let text = lspci(&file);
    let functions = by_function(&text);
    assert_eq!(functions.len(), 3);
    for (bdf, text) in functions {
        assert_decoded(bdf, text);
    }
}

#[test]
fn while_vfs_are_disabled_the_pf_is_a_plain_nic() {
    let dir = tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &["--total-vfs", "9"]);
    assert_eq!(daemon.json(&["function", "list", "--json"]).as_array().unwrap().len(), 1);
    let file = dir.path().join("dump");
    fs::write(&file, daemon.run(&["function", "dump", "pf"]).succeeded()).unwrap();
    let text = lspci(&file);
    assert_decoded("01:00.0", &text);
    assert!(text.contains("IOVCtl:\tEnable- Migration- Interrupt- MSE-"), "{text}");
    assert!(text.contains("Initial VFs: 9, Total VFs: 9, Number of VFs: 0"), "{text}");
    assert!(daemon.run(&["function", "dump", "vf0"]).failed(1).contains("no VFs are enabled"));
    for name in ["vf256", "eth0", ""] {
        daemon.run(&["function", "dump", name]).failed(2);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure_to_speak_of() {
    let dir = tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &["--num-vfs", "256"]);
    let binary = env!("CARGO_BIN_EXE_manifold");
    let script =
        format!("'{binary}' function list --json --run-dir '{}' | head -1", dir.path().display());
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "[\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    drop(daemon);
}
