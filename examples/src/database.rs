//! The database that an example works in.

use anyhow::Context;
use pgqueue_testserver::Database;

/// Returns the URL that was given, or else that of a database in a private server, which goes with this process.
///
/// # Errors
/// If none was given and no server can be started; the error says how to get one.
pub async fn database_url(given: Option<String>) -> anyhow::Result<String> {
    if let Some(url) = given {
        return Ok(url);
    }
    let private = Database::create().await;
    Ok(private.context("there is no --database-url, and no private server can be started")?.url())
}

/// Makes a name that nobody else uses, so that a program disturbs nothing in a database that it was given.
#[must_use]
pub fn name_of_this_run(program: &str) -> String {
    format!("{program}_{:016x}", fastrand::u64(..))
}
