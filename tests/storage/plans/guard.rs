//! What a plan must not do.

/// The tables that grow with the messages.
const GROWING: [&str; 9] =
    ["log", "lease", "cursor", "sleeper", "settled", "kept", "dead_letter", "scheduled", "dedup"];

/// Asserts that, but for one table, no plan reads the whole of a table that grows or sorts the log, and that each of these indexes is used.
pub(crate) fn by_index(what: &str, plans: &str, indexes: &[&str], reads_all_of: Option<&str>) {
    for table in GROWING.into_iter().filter(|table| reads_all_of != Some(table)) {
        let scan = format!("Seq Scan on {table} ");
        assert!(!plans.contains(&scan), "{what}: {scan}in\n{plans}");
    }
    assert!(!plans.contains("Bitmap Heap Scan on log "), "{what}: a bitmap of the log in\n{plans}");
    assert!(!plans.contains("JIT:"), "{what}: compiling takes longer than running:\n{plans}");
    assert!(!sorts_the_log(plans), "{what}: the log is sorted in\n{plans}");
    for index in indexes {
        let is_used = [format!("using {index} on"), format!("Backward using {index} on"), format!("on {index} ")];
        assert!(is_used.iter().any(|used| plans.contains(used)), "{what}: not by {index} in\n{plans}");
    }
}

/// Whether what is read of the log, which may be all of it, goes into a sort at once.
fn sorts_the_log(plans: &str) -> bool {
    let nodes: Vec<&str> = plans.lines().filter(|line| line.contains("(cost=")).collect();
    nodes.windows(2).any(|pair| is_sort(pair[0]) && pair[1].contains(" on log "))
}

fn is_sort(node: &str) -> bool {
    let name = node.trim_start().trim_start_matches("->").trim_start();
    name.starts_with("Sort ") || name.starts_with("Incremental Sort ")
}
