//! The result is written with all that the table needs.

use super::*;
use crate::bench::quiet::Quiet;
use crate::bench::row::Reach;

pub(crate) fn sample() -> Report {
    let samples = |values: &[f64]| values.iter().copied().collect();
    Report {
        mode: "quick",
        started: "2026-01-02T03:04:05Z".to_owned(),
        seconds: 1.5,
        machine: Machine {
            cpu: "A CPU".to_owned(),
            cores: 2,
            worker_core: 1,
            generator_core: 0,
            memory_mib: 1024,
            kernel: "6.12.1".to_owned(),
            tsc_mhz: 2300.0,
            load_average: 0.5,
            quiet: Quiet { core_to_core_ns: 150.0, lost_percent: 0.25 },
        },
        versions: Versions {
            manifold: "0123abc".to_owned(),
            dpdk: Some("24.11.4".to_owned()),
            ovs: None,
            qemu: None,
            guest_kernel: None,
        },
        rows: vec![
            Row::new("raw64", "64 B | raw", "Mframes/s", samples(&[20.0, 18.0, 19.0]))
                .against("testpmd io", samples(&[10.0, 9.0, 9.5]))
                .reach(Reach::AtLeast(1.5)),
            Row::new("sweep", "128 B", "Mframes/s", samples(&[17.5])),
        ],
        failed: Vec::new(),
    }
}

#[test]
fn json_has_the_fields_that_scripts_read() {
    let json = serde_json::to_value(sample()).unwrap();
    let row = &json["rows"][0];
    assert_eq!(row["case"], "64 B | raw");
    assert_eq!(row["unit"], "Mframes/s");
    assert_eq!(row["ours"], 19.0);
    assert_eq!(row["peer"], "testpmd io");
    assert_eq!(row["theirs"], 9.5);
    assert_eq!(row["ratio"], 2.0);
    assert_eq!(row["reach"], ">= 1.5");
    assert_eq!(row["ok"], true);
    // A row without a bound says so, instead of leaving the field out.
    for field in ["peer", "theirs", "ratio", "reach", "ok"] {
        assert!(json["rows"][1].get(field).is_some_and(serde_json::Value::is_null), "{field}");
    }
    for field in ["cpu", "cores", "memory_mib", "kernel", "tsc_mhz", "lost_percent"] {
        assert!(!json["machine"][field].is_null(), "{field}");
    }
    for field in ["manifold", "dpdk", "ovs", "qemu", "guest_kernel"] {
        assert!(json["versions"].get(field).is_some(), "{field}");
    }
}

#[test]
fn a_missed_bound_and_a_failed_group_are_not_ok() {
    let mut report = sample();
    assert!(report.all_ok());
    report.rows[0].ok = Some(false);
    assert!(!report.all_ok());
    report.rows[0].ok = Some(true);
    report.failed.push(Failure { group: "tso", reason: "x".to_owned() });
    assert!(!report.all_ok());
}

#[test]
fn folders_on_the_way_are_made_and_a_bad_path_is_an_error() {
    let dir = std::env::temp_dir().join(format!("manifold-report-{}", std::process::id()));
    let path = dir.join("a/b.json");
    sample().write(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    let error = sample().write(&path.join("c.json")).unwrap_err();
    assert!(format!("{error:#}").contains("b.json"), "{error:#}");
    std::fs::remove_dir_all(&dir).unwrap();
}
