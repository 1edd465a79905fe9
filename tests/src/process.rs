//! [`Process`]: a part of the harness that runs, and may be killed, frozen and thawed.

use std::{path::Path, process::Stdio};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};

use crate::part::Part;

/// A process of its own. It ends when this is dropped, and when the harness ends.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    child: Child,
    /// Its standard input, whose end is its end. Waiting for a child would close it.
    _input: Option<ChildStdin>,
}

impl Process {
    /// Starts `program`, which does as [`run_part`](crate::run_part).
    pub(crate) fn spawn(program: &Path, name: String, part: &Part) -> Result<Self> {
        let mut child = Command::new(program)
            .args(["part", &serde_json::to_string(part)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("could not start {}", program.display()))?;
        let input = child.stdin.take();
        Ok(Self { name, child, _input: input })
    }

    /// As `kill -9`. Waits for its end.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Tells it to stop, and waits for its end.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        self.child.wait().await?;
        Ok(())
    }

    /// Stops its time.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    pub(crate) fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Whether it ended by itself.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let pid = pid.with_context(|| format!("{} has ended", self.name))?;
        Ok(kill_process(pid, signal)?)
    }
}
