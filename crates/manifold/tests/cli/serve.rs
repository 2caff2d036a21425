//! These tests check `manifold serve`: start, stop, and what a killed daemon leaves behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;
use tempfile::tempdir;

use crate::process::{Daemon, Ended, eventually, files, manifold, signal};

#[test]
fn a_daemon_is_ready_when_it_says_so_and_leaves_nothing_behind() {
    for with in [Signal::TERM, Signal::INT] {
        let dir = tempdir().unwrap();
        let run_dir = dir.path().join("run");
        let daemon = Daemon::start(&run_dir, &["--num-vfs", "2"]);
        assert!(daemon.ready.contains("01:00.0"), "{}", daemon.ready);
        assert!(daemon.ready.contains("2 of 256"), "{}", daemon.ready);
        assert_eq!(
            files(&run_dir),
            [
                "api.sock",
                "manifold.lock",
                "pf.sock",
                "pf.vhost.sock",
                "vf0.sock",
                "vf0.vhost.sock",
                "vf1.sock",
                "vf1.vhost.sock"
            ]
        );
        for socket in ["api.sock", "pf.sock", "vf0.sock", "vf0.vhost.sock"] {
            let mode = fs::metadata(run_dir.join(socket)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{socket} is open to others: {mode:o}");
        }
        assert_eq!(daemon.json(&["vf", "list", "--json"])["num_vfs"], 2);
        assert_eq!(daemon.stop(with), Some(0));
        assert!(files(&run_dir).is_empty(), "{:?}", files(&run_dir));
    }
}

#[test]
fn a_daemon_that_was_killed_is_replaced_at_once() {
    let dir = tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &["--num-vfs", "3"]);
    assert_eq!(daemon.stop(Signal::KILL), None);
    assert!(files(dir.path()).contains(&"vf2.sock".to_owned()), "sockets are left behind");
    let none: Ended =
        manifold().args(["vf", "list", "--run-dir"]).arg(dir.path()).output().unwrap().into();
    assert!(none.failed(1).contains("manifold serve"));

    let daemon = Daemon::start(dir.path(), &[]);
    assert_eq!(files(dir.path()), ["api.sock", "manifold.lock", "pf.sock", "pf.vhost.sock"]);
    assert_eq!(daemon.json(&["vf", "enable", "4", "--json"])["num_vfs"], 4);
    // The next daemon starts at once after an orderly stop, too.
    assert_eq!(daemon.stop(Signal::TERM), Some(0));
    assert_eq!(Daemon::start(dir.path(), &[]).stop(Signal::TERM), Some(0));
}

#[test]
fn a_second_daemon_in_the_same_folder_is_refused() {
    let dir = tempdir().unwrap();
    let first = Daemon::start(dir.path(), &["--num-vfs", "1"]);
    let second: Ended =
        manifold().args(["serve", "--run-dir"]).arg(dir.path()).output().unwrap().into();
    let message = second.failed(1);
    assert!(message.contains(&format!("process {}", first.pid())), "{message}");
    assert!(message.contains("--run-dir"), "{message}");
    assert_eq!(first.json(&["vf", "list", "--json"])["num_vfs"], 1, "the first is undisturbed");
    // Another daemon may run in a folder of its own.
    let other = tempdir().unwrap();
    assert_eq!(Daemon::start(other.path(), &[]).stop(Signal::TERM), Some(0));
}

#[test]
fn flags_override_the_configuration_file() {
    let dir = tempdir().unwrap();
    let config = dir.path().join("manifold.toml");
    let run_dir = dir.path().join("from-file");
    let text = format!(
        "run-dir = {run_dir:?}\ntotal-vfs = 8\nnum-vfs = 4\nmtu = 9000\n\
         base-mac = \"02:00:00:00:07:00\"\n"
    );
    fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();

    // The file's run directory is taken only without `--run-dir`, which is always given here.
    let daemon = Daemon::start(dir.path(), &["--config", config, "--num-vfs", "1"]);
    let vfs = daemon.json(&["vf", "list", "--json"]);
    assert_eq!((&vfs["total_vfs"], &vfs["num_vfs"]), (&8.into(), &1.into()));
    assert_eq!(vfs["vfs"][0]["mac"], "02:00:00:00:07:01");
    assert_eq!(vfs["vfs"][0]["mtu"], 9000);
    drop(daemon);

    let mut child = manifold().args(["serve", "--config", config]).spawn().unwrap();
    eventually("the file's folder is used", || run_dir.join("api.sock").exists());
    signal(child.id(), Signal::TERM);
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_cannot_be_served_is_refused_with_the_reason() {
    let dir = tempdir().unwrap();
    let bad_file = dir.path().join("bad.toml");
    fs::write(&bad_file, "total-vsf = 4\n").unwrap();
    let (bad_file, missing) = (bad_file.to_str().unwrap(), dir.path().join("none.toml"));
    let long = dir.path().join("x".repeat(100));
    for (args, code, part) in [
        (&["--total-vfs", "0"][..], 2, "1..=256"),
        (&["--total-vfs", "257"], 2, "1..=256"),
        (&["--total-vfs", "-1"], 2, "total-vfs"),
        (&["--num-vfs", "257"], 2, "0..=256"),
        (&["--total-vfs", "4", "--num-vfs", "5"], 1, "total-vfs is 4"),
        (&["--mtu", "67"], 2, "68"),
        (&["--queue-pairs", "0"], 2, "queue-pairs"),
        (&["--queue-pairs", "10000"], 1, "queue pairs"),
        (&["--base-mac", "02:00:00:00:00"], 2, "MAC address"),
        (&["--base-mac", "01:00:00:00:00:00"], 1, "unicast"),
        (&["--uplink", "eth0"], 2, "tap:NAME"),
        (&["--uplink", "tap:"], 2, "interface name"),
        (&["--config", bad_file], 1, "total-vsf"),
        (&["--config", missing.to_str().unwrap()], 1, "none.toml"),
        (&["--run-dir", long.to_str().unwrap()], 1, "too long"),
        (&["--run-dir", bad_file], 1, "bad.toml"),
        (&["--run-dir", "/proc/nowhere"], 1, "/proc/nowhere"),
        (&["extra"], 2, "extra"),
    ] {
        let run_dir = dir.path().join("run");
        let mut command = manifold();
        command.arg("serve").args(args);
        if !args.contains(&"--run-dir") {
            command.arg("--run-dir").arg(&run_dir);
        }
        let ended: Ended = command.output().unwrap().into();
        let message = ended.failed(code);
        assert!(message.contains(part), "{args:?}: {message}");
        assert!(files(&run_dir).is_empty(), "{args:?} left {:?}", files(&run_dir));
    }
}

#[test]
fn without_a_daemon_every_command_says_how_to_start_one() {
    let dir = tempdir().unwrap();
    for args in [
        &["vf", "list"][..],
        &["vf", "enable", "1"],
        &["vf", "disable"],
        &["vf", "show", "vf0"],
        &["function", "list"],
        &["function", "dump", "pf"],
        &["attach", "vf0", "--vmm", "qemu"],
    ] {
        let ended: Ended =
            manifold().args(args).arg("--run-dir").arg(dir.path()).output().unwrap().into();
        let message = ended.failed(1);
        assert!(message.contains("manifold serve"), "{args:?}: {message}");
    }
}

#[test]
fn the_run_directory_has_a_default_and_an_environment_variable() {
    let dir = tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &[]);
    let ended: Ended = manifold()
        .args(["vf", "list"])
        .env("MANIFOLD_RUN_DIR", dir.path())
        .output()
        .unwrap()
        .into();
    ended.succeeded();
    drop(daemon);
    if !rustix::process::geteuid().is_root() {
        let ended: Ended =
            manifold().args(["vf", "list"]).env_remove("XDG_RUNTIME_DIR").output().unwrap().into();
        assert!(ended.failed(1).contains("--run-dir"));
    }
}

#[test]
fn help_is_there_for_every_command() {
    for args in [
        &["--help"][..],
        &["demo", "--help"],
        &["serve", "--help"],
        &["vf", "--help"],
        &["vf", "enable", "--help"],
        &["vf", "show", "--help"],
        &["function", "list", "--help"],
        &["function", "dump", "--help"],
        &["attach", "--help"],
    ] {
        let ended: Ended = manifold().args(args).output().unwrap().into();
        assert!(ended.succeeded().contains("Usage: manifold"), "{args:?}");
    }
    let help: Ended = manifold().arg("--help").output().unwrap().into();
    let help = help.succeeded();
    assert!(help.contains("manifold demo"), "{help}");
    assert!(!help.contains("guest  "), "the guest process is nobody's command: {help}");
    let none: Ended = manifold().output().unwrap().into();
    assert!(none.failed(2).contains("Usage"));
}
