//! Running an example as its user would.

use std::{env, ffi::OsStr, future::Future, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};

/// How long a program may take for what it must do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The variable that names the one place to look for PostgreSQL; an empty place has none.
#[allow(dead_code, reason = "not every test takes PostgreSQL away")]
pub(crate) const WITHOUT_POSTGRES: &str = "PGQUEUE_POSTGRES_BIN";

/// An example to run, which dies with the test.
pub(crate) fn example<A: AsRef<OsStr>>(name: &str, args: impl IntoIterator<Item = A>) -> Command {
    let test = env::current_exe().expect("a test has a path");
    let target = test.ancestors().nth(2).expect("tests are in a directory beside the examples");
    let program = target.join("examples").join(name).with_extension(env::consts::EXE_EXTENSION);
    assert!(program.exists(), "{program:?} is not built; `cargo test -p pgqueue-examples` builds it");

    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Awaits what must happen.
pub(crate) async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    let happened = tokio::time::timeout(PATIENCE, happens).await;
    happened.unwrap_or_else(|_| panic!("{what} within {PATIENCE:?}"))
}

/// Sends a signal to a program that runs.
#[allow(dead_code, reason = "not every test sends one")]
pub(crate) fn send(child: &Child, signal: Signal) {
    let pid = child.id().expect("it has not been waited for").try_into().expect("a pid is positive and small");
    kill_process(Pid::from_raw(pid).expect("a pid is positive"), signal).expect("it can be signalled");
}

/// The last line of what a program wrote to stdout, which is JSON.
#[allow(dead_code, reason = "not every program ends with one")]
pub(crate) fn summary(stdout: &[u8]) -> Value {
    let last = stdout.trim_ascii_end().rsplit(|byte| *byte == b'\n').next();
    serde_json::from_slice(last.unwrap_or_default()).expect("the last line on stdout is JSON")
}
