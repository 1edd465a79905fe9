//! Waiting for what shows sooner or later.

use std::time::Duration;

use pgqueue_testserver::{Database, Server};
use tokio::time::{Instant, sleep};

/// How long it may take until something shows that has to.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked for.
const GLANCE: Duration = Duration::from_millis(20);

/// Waits until a query of a database yields something.
///
/// # Panics
/// If it does not within half a minute, or fails.
pub async fn until_sql(database: &Database, query: &str, wanted: &str) {
    until_sql_on(database.server(), database.name(), query, wanted).await;
}

/// As [`until_sql`], on a server of the test's own.
///
/// # Panics
/// As [`until_sql`].
pub async fn until_sql_on(server: &Server, database: &str, query: &str, wanted: &str) {
    until(async || {
        let found = server.sql(database, query).await.unwrap();
        if found == wanted { Ok(()) } else { Err(format!("{wanted:?}; there is {found:?} of {query}")) }
    })
    .await;
}

/// Looks until it sees what it waits for; until then it says what that is, and what there is instead.
///
/// # Panics
/// If it does not see it within half a minute.
pub async fn until(mut look: impl AsyncFnMut() -> Result<(), String>) {
    let since = Instant::now();
    while let Err(instead) = look().await {
        assert!(since.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {instead}");
        sleep(GLANCE).await;
    }
}
