//! Where the pooler is that all trials share.

use std::sync::OnceLock;

use pgqueue_testserver::{Database, PgBouncer};

use crate::network::Road;

static PORT: OnceLock<u16> = OnceLock::new();

pub(crate) fn set(pooler: &PgBouncer) {
    PORT.set(pooler.port()).expect("one pooler a process");
}

fn port() -> u16 {
    *PORT.get().expect("a pooler, which is started before the first trial")
}

pub(crate) fn road() -> Road {
    Road::Pooler(port())
}

/// The database as it is reached through the pooler.
pub(crate) fn url(database: &Database) -> String {
    database.url_at(port())
}
