//! [`Columns`] and [`Labels`]: what things are called in a job table.

use pgqueue_core::Result;

use crate::ident::ensure_name;

/// What the column of the last change is usually called.
pub(super) const UPDATED_AT: &str = "updated_at";

/// The names of the columns.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    pub(super) id: String,
    pub(super) status: String,
    pub(super) attempts: String,
    pub(super) locked_at: String,
    pub(super) locked_by: String,
    pub(super) run_at: String,
    pub(super) last_error: String,
    pub(super) created_at: String,
    /// `None` for the usual one, if the table has it.
    pub(super) updated_at: Option<String>,
    /// `None` for the whole row.
    pub(super) payload: Option<String>,
    pub(super) key: Option<String>,
    pub(super) kind: Option<String>,
}

/// What the states are called.
#[derive(Clone, Debug)]
pub(super) struct Labels {
    pub(super) not_started: String,
    pub(super) running: String,
    pub(super) retry: String,
    pub(super) failed: String,
    pub(super) timed_out: String,
    pub(super) succeeded: String,
}

impl Columns {
    pub(super) fn validate(&self) -> Result<()> {
        let Self { id, status, attempts, locked_at, locked_by, run_at, last_error, created_at, .. } = self;
        let Self { updated_at, payload, key, kind, .. } = self;
        let required = [id, status, attempts, locked_at, locked_by, run_at, last_error, created_at];
        let others = [updated_at, payload, key, kind].into_iter().flatten();
        required.into_iter().chain(others).try_for_each(|column| ensure_name("column", column))
    }
}

impl Default for Columns {
    fn default() -> Self {
        Self {
            id: "id".into(),
            status: "status".into(),
            attempts: "attempts_count".into(),
            locked_at: "locked_at".into(),
            locked_by: "locked_by".into(),
            run_at: "run_at".into(),
            last_error: "last_error".into(),
            created_at: "created_at".into(),
            updated_at: None,
            payload: None,
            key: None,
            kind: None,
        }
    }
}

impl Labels {
    /// Every label, with what it is for.
    pub(super) fn all(&self) -> [&str; 6] {
        let Self { not_started, running, retry, failed, timed_out, succeeded } = self;
        [not_started, running, retry, failed, timed_out, succeeded]
    }

    /// Waiting, running and being over must be told apart.
    pub(super) fn validate(&self) -> Result<(), String> {
        if let Some(label) = self.all().into_iter().find(|label| label.contains('\0')) {
            return Err(format!("the label {label:?} has a NUL"));
        }
        let waiting = [&self.not_started, &self.retry];
        let over = [&self.failed, &self.timed_out, &self.succeeded];
        let means_two = |label: &&String| **label == self.running || over.contains(label);
        if let Some(label) = waiting.into_iter().find(means_two) {
            return Err(format!("the label {label:?} is for jobs that wait, and for others too"));
        }
        if over.contains(&&self.running) {
            return Err(format!("the label {:?} is for jobs that run, and for others too", self.running));
        }
        Ok(())
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self {
            not_started: "not_started".into(),
            running: "running".into(),
            retry: "retry".into(),
            failed: "failed".into(),
            timed_out: "timed_out".into(),
            succeeded: "succeeded".into(),
        }
    }
}
