//! What the tests share: a table of a user's, somebody who listens, and named patience.

use std::time::Duration;

use futures::StreamExt;
use pgqueue_postgres::{Client, Notice, Notices, OwnedTransaction, PgTables, TableWatch};
use pgqueue_testserver::Database;
use tokio::time::timeout;

/// How long anything may take that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long what must not wait may take, on a machine that does much else.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(1);

/// A database with the table "jobs", and no schema of the queue's.
pub(crate) async fn jobs<C: Client>() -> (Database, PgTables<C>) {
    let database = Database::create().await.unwrap();
    database.sql("create table jobs (id int primary key, status text not null)").await.unwrap();
    let tables = PgTables::connect(&database.url()).await.unwrap();
    (database, tables)
}

/// A watch of jobs that are to be done.
pub(crate) fn pending() -> TableWatch {
    TableWatch::new("jobs").with_condition("new.status in ('pending', 'retry')")
}

pub(crate) async fn listen<C: Client>(tables: &PgTables<C>, watch: &TableWatch) -> Notices {
    patiently("a subscription", tables.listener().subscribe(watch.channel())).await.unwrap()
}

/// Returns how many notifications came of what was written by now.
pub(crate) async fn rings(database: &Database, notices: &mut Notices) -> usize {
    let channel = notices.channel().replace('\'', "''");
    database.sql(&format!("select pg_notify('{channel}', 'the end')")).await.unwrap();
    let mut rings = 0;
    loop {
        match patiently("a notification", notices.next()).await.expect("a stream that goes on") {
            Notice::Notified(payload) if payload == "the end" => return rings,
            Notice::Notified(payload) if payload.is_empty() => rings += 1,
            other => panic!("neither a ring nor the end: {other:?}"),
        }
    }
}

/// A session of somebody else's, who does this and then leaves the transaction open.
pub(crate) async fn somebody_does<C: Client>(database: &Database, statement: &str) -> C::Transaction {
    let client = C::connect(&database.url()).await.unwrap();
    let mut transaction = client.begin().await.unwrap();
    transaction.execute(statement, &[]).await.unwrap();
    transaction
}

/// The triggers of all tables: their OIDs and names.
pub(crate) async fn triggers(database: &Database) -> Vec<String> {
    let found =
        database.sql("select oid, tgname from pg_trigger where not tgisinternal order by tgname").await.unwrap();
    found.lines().map(str::to_owned).collect()
}

/// Awaits what has to come.
pub(crate) async fn patiently<F: Future>(what: &str, future: F) -> F::Output {
    let result = timeout(PATIENCE, future).await;
    result.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain for {what}"))
}

/// Awaits what must not wait for anybody.
pub(crate) async fn at_once<F: Future>(what: &str, future: F) -> F::Output {
    let result = timeout(AT_ONCE, future).await;
    result.unwrap_or_else(|_| panic!("{what} took more than {AT_ONCE:?}"))
}
