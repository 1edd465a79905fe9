//! How much memory this process had at most, as Linux counts it.

use std::fs;

/// Begins anew: what it had before does not count, but for what it still has.
pub(super) fn forget() {
    fs::write("/proc/self/clear_refs", "5").ok(); // where that cannot be, all since the start counts
}

/// The most that was resident since it began, in MiB; `None` where there is no `/proc` that says so.
pub(super) fn read() -> Option<f64> {
    parse(&fs::read_to_string("/proc/self/status").ok()?)
}

fn parse(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_in_mib() {
        assert_eq!(parse("Name:\ta\nVmPeak:\t  9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n"), Some(2.0));
        assert_eq!(parse("Name:\ta\n"), None);
    }
}
