//! What the tests share: a job table in a database of its own, and named patience.

use std::time::Duration;

use futures::StreamExt;
use pgqueue_core::{Backoff, ConsumeStream, Delivery, RetryConfig, subscribe};
use pgqueue_postgres::{Client, JobTable, OwnedTransaction, PgTables};
pub(crate) use pgqueue_tests::{WAITS, until_sql};
use pgqueue_testserver::Database;
use serde_json::Value;
use tokio::time::timeout;

/// How long anything may take that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// For how long nothing may happen where nothing is to happen.
pub(crate) const QUIET: Duration = Duration::from_millis(700);

/// A lease that ends soon.
pub(crate) const SHORT_LEASE: Duration = Duration::from_secs(1);

/// So seldom that a poll explains nothing.
pub(crate) const NEVER: Duration = Duration::from_secs(3600);

/// As teams have it that take their jobs from IHP.
const TABLE: &str = "
    create type job_status as enum ('not_started', 'running', 'failed', 'timed_out', 'succeeded', 'retry');
    create table jobs (
      id uuid primary key default gen_random_uuid(),
      created_at timestamptz not null default clock_timestamp(),
      updated_at timestamptz not null default now(),
      status job_status not null default 'not_started',
      last_error text,
      attempts_count int not null default 0,
      locked_at timestamptz,
      locked_by uuid,
      run_at timestamptz not null default now(),
      number int not null
    );
    create index on jobs (created_at, run_at) where status in ('not_started', 'retry') and locked_by is null;
    create index on jobs (run_at) where status in ('not_started', 'retry') and locked_by is null;
    create index on jobs (locked_at) where status = 'running';
";

pub(crate) async fn job_table<C: Client>() -> (Database, PgTables<C>) {
    let (database, tables) = no_table().await;
    database.sql(TABLE).await.unwrap();
    (database, tables)
}

pub(crate) async fn no_table<C: Client>() -> (Database, PgTables<C>) {
    let database = Database::create().await.unwrap();
    let tables = PgTables::connect(&database.url()).await.unwrap();
    (database, tables)
}

/// Makes the table again, as it was at first.
pub(crate) async fn recreate(database: &Database) {
    database.sql(TABLE).await.unwrap();
}

/// Jobs of which nobody tells, and that come again at once.
pub(crate) fn jobs() -> JobTable {
    JobTable::new("jobs").with_backoff(Backoff::fixed(Duration::ZERO)).with_poll_interval(NEVER)
}

/// Inserts jobs of these numbers, due now, in order.
pub(crate) async fn insert(database: &Database, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        database.sql(&format!("insert into jobs (number) values ({number})")).await.unwrap();
    }
}

pub(crate) async fn announce(database: &Database) {
    database.sql("notify pgqueue_jobs").await.unwrap();
}

/// Consumes; nothing that fails is tried again.
pub(crate) async fn consume<C: Client>(tables: &PgTables<C>, table: JobTable) -> ConsumeStream {
    let stream = patiently("a stream", subscribe(tables.jobs(table))).await.unwrap();
    stream.with_retry(RetryConfig::never())
}

pub(crate) fn number(delivery: &Delivery) -> u64 {
    delivery.message().json::<Value>().unwrap()["number"].as_u64().unwrap()
}

/// Awaits what has to come.
pub(crate) async fn patiently<F: Future>(what: &str, future: F) -> F::Output {
    let result = timeout(PATIENCE, future).await;
    result.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain for {what}"))
}

/// The next delivery.
pub(crate) async fn next(stream: &mut ConsumeStream) -> Delivery {
    patiently("a delivery", stream.next()).await.expect("a stream that goes on").unwrap()
}

/// Checks that nothing is delivered for a while.
pub(crate) async fn quiet(stream: &mut ConsumeStream) {
    quiet_for(stream, QUIET).await;
}

pub(crate) async fn quiet_for(stream: &mut ConsumeStream, time: Duration) {
    if let Ok(item) = timeout(time, stream.next()).await {
        panic!("nothing should be delivered, but there is {item:?}");
    }
}

/// A transaction of somebody else's, in which a statement has run.
pub(crate) async fn open_transaction<C: Client>(database: &Database, statement: &str) -> C::Transaction {
    let client = C::connect(&database.url()).await.unwrap();
    let mut transaction = client.begin().await.unwrap();
    transaction.execute(statement, &[]).await.unwrap();
    transaction
}

/// What the table says of all jobs: state, attempts, whether they are locked, in the order of their numbers.
pub(crate) async fn states(database: &Database) -> String {
    database.sql(STATES).await.unwrap()
}

/// Waits until the table says so.
pub(crate) async fn until_states(database: &Database, wanted: &str) {
    until_sql(database, STATES, wanted).await;
}

const STATES: &str = "
    select concat_ws(' ', status, attempts_count, case when locked_by is not null and locked_at is not null then 'locked'
      when locked_by is not null or locked_at is not null then 'half locked' end)
    from jobs order by number
";
