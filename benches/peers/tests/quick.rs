//! The peers are measured: with small numbers, whose figures mean nothing, each reports or says why it is absent.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

#[test]
fn every_peer_reports_in_every_scenario() {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_pgqueue-bench-peers"));
    let bench = bench.args(["all", "--quick", "--json", "--messages", "500"]).output().unwrap();
    assert!(bench.status.success(), "{}", String::from_utf8_lossy(&bench.stderr));
    let lines = String::from_utf8(bench.stdout).unwrap();
    let measured: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for scenario in ["publish", "drain", "end-to-end", "order", "latency"] {
        let of_this = measured.iter().filter(|one| one["scenario"] == scenario);
        let who: BTreeSet<_> = of_this.map(|one| one["who"].as_str().unwrap()).collect();
        for peer in ["apalis-postgres", "fang", "graphile_worker", "pgmq", "pgqueue", "sqlxmq", "underway"] {
            assert!(who.contains(peer), "{scenario} has {who:?}");
        }
    }
    for one in &measured {
        let figures = ["msgs_per_s", "p50_ms"].map(|figure| one[figure].as_f64());
        let is_measured = figures.into_iter().flatten().any(|figure| figure > 0.0);
        assert!(is_measured != one["absent"].is_string(), "{one}");
    }
}
