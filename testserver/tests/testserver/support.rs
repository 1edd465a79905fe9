//! Waiting for events, and looking at processes.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// How long anything may take that should happen at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked for.
const GLANCE: Duration = Duration::from_millis(10);

/// Waits until `happened`.
pub(crate) async fn eventually(what: &str, happened: impl Fn() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(GLANCE).await;
    }
}

/// Whether a process with this id exists.
pub(crate) fn exists(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).unwrap();
    // Somebody else's process may not be signalled, but is there.
    rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
}

/// Whether a process works in this folder: all of the server's do, and its watchdog. Looks at Linux only.
pub(crate) fn is_worked_in(folder: &Path) -> bool {
    let name = folder.to_str().unwrap();
    // The link of a removed folder still starts with its name.
    let works_here = |process: fs::DirEntry| {
        fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.to_string_lossy().starts_with(name))
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().any(works_here)
}
