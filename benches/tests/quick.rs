//! The benchmarks run: with small numbers, whose figures mean nothing, every scenario reports what it measured.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

#[test]
fn a_held_horizon_is_measured() {
    let bench =
        Command::new(env!("CARGO_BIN_EXE_pgqueue-bench")).args(["pinned", "--quick", "--json"]).output().unwrap();
    assert!(bench.status.success(), "{}", String::from_utf8_lossy(&bench.stderr));
    let lines = String::from_utf8(bench.stdout).unwrap();
    let measured: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let who: BTreeSet<_> = measured.iter().map(|one| one["who"].as_str().unwrap()).collect();
    assert_eq!(who, BTreeSet::from(["nobody", "idle transaction", "old snapshot", "replication slot"]));
    assert!(measured.iter().all(|one| one["msgs_per_s"].as_f64().unwrap() > 0.0), "{lines}");
}

#[test]
fn the_queue_in_memory_is_measured_by_itself() {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_pgqueue-bench"));
    let bench = bench.args(["all", "--driver", "memory", "--quick", "--json"]).output().unwrap();
    assert!(bench.status.success(), "{}", String::from_utf8_lossy(&bench.stderr));
    let lines = String::from_utf8(bench.stdout).unwrap();
    let measured: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let scenarios: BTreeSet<_> = measured.iter().map(|one| one["scenario"].as_str().unwrap()).collect();
    assert_eq!(scenarios, BTreeSet::from(["drain", "end-to-end", "latency", "order", "publish"]));

    let mut bench = Command::new(env!("CARGO_BIN_EXE_pgqueue-bench"));
    let bench = bench.args(["pinned", "--driver", "memory", "--quick"]).output().unwrap();
    let said = String::from_utf8_lossy(&bench.stderr);
    assert!(!bench.status.success() && said.contains("Pinned is about PostgreSQL"), "{said}");
}

#[test]
fn every_scenario_reports_as_json() {
    let charts = tempfile::tempdir().unwrap();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_pgqueue-bench"));
    let bench = bench.args(["all", "--quick", "--json", "--plot"]).arg(charts.path()).output().unwrap();
    assert!(bench.status.success(), "{}", String::from_utf8_lossy(&bench.stderr));
    let lines = String::from_utf8(bench.stdout).unwrap();
    let measured: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let scenarios: BTreeSet<_> = measured.iter().map(|one| one["scenario"].as_str().unwrap()).collect();
    let all = [
        "backlog",
        "catch-up",
        "ceilings",
        "drain",
        "end-to-end",
        "fan-out",
        "idle",
        "latency",
        "notify-cost",
        "order",
        "publish",
        "selector",
    ];
    assert_eq!(scenarios, BTreeSet::from(all));
    for scenario in all {
        let chart = std::fs::read_to_string(charts.path().join(scenario).with_extension("svg")).unwrap();
        assert!(chart.contains("<rect") && chart.ends_with("</svg>\n"), "{scenario}: {chart}");
    }
    for one in &measured {
        let figures = ["msgs_per_s", "p50_ms"].map(|figure| one[figure].as_f64());
        assert!(figures.into_iter().flatten().all(|figure| figure > 0.0) && figures != [None, None], "{one}");
    }
    for scenario in ["publish", "drain", "end-to-end", "order", "latency"] {
        for one in measured.iter().filter(|one| one["scenario"] == scenario) {
            let costs = ["wal_bytes_per_msg", "commits_per_msg"].map(|cost| one[cost].as_f64());
            assert!(costs.into_iter().all(|cost| cost.is_some_and(|cost| cost > 0.0)), "{one}");
        }
    }
}
