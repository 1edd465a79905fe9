//! Waiting for what a query yields.

use std::time::Duration;

use pgqueue_testserver::{Database, Server};
use tokio::time::{Instant, sleep};

/// How long a query may take to yield what it has to.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is asked.
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
    let since = Instant::now();
    loop {
        let found = server.sql(database, query).await.unwrap();
        if found == wanted {
            return;
        }
        assert!(
            since.elapsed() < PATIENCE,
            "waited {PATIENCE:?} in vain for {wanted:?}; there is {found:?} of {query}"
        );
        sleep(GLANCE).await;
    }
}
