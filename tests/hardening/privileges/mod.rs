//! Who may do what, and what comes of those who try more.

mod functions;
mod hostile;
mod literal;
mod owner;
mod roles;
mod secrets;

use pgqueue_postgres::{Client, PgQueue};
use pgqueue_testserver::Database;

/// Makes a role that may log in; returns its name, which no other test's role has.
pub(crate) async fn make_role(database: &Database, role: &str) -> String {
    let role = format!("{}_{role}", database.name());
    database.sql(&format!("create role {role} login")).await.unwrap();
    role
}

/// The database as a role reaches it.
pub(crate) fn url_of(database: &Database, role: &str) -> String {
    database.url().replace("postgres@", &format!("{role}@"))
}

/// A queue over the connections of a role.
pub(crate) async fn queue_of<C: Client>(database: &Database, role: &str) -> PgQueue<C> {
    PgQueue::connect(&url_of(database, role)).await.unwrap()
}
