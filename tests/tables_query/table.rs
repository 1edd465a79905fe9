//! A table of messages as a team may have one, and consumers of it.

use pgqueue_core::{ConsumeStream, Delivery, subscribe};
use pgqueue_postgres::{Client, Columns, Command, Locking, PendingQuery, PgTables, QueryDriver};
use pgqueue_testserver::Database;

use crate::common::patiently;
pub(crate) use crate::small::Small;

const TABLE: &str = "
    create table messages (
      id bigint generated always as identity primary key,
      subscription text not null default 'a',
      payload text not null,
      due_at timestamptz not null default now(),
      deliveries int not null default 0,
      last_delivered_at timestamptz,
      last_ack_at timestamptz
    )";

/// A database with a table of messages.
pub(crate) async fn database() -> Database {
    let database = Database::create().await.unwrap();
    database.sql(TABLE).await.unwrap();
    database
}

pub(crate) async fn tables<C: Client>(database: &Database) -> PgTables<C> {
    PgTables::connect(&database.url()).await.unwrap()
}

/// The pending messages of a subscription.
pub(crate) fn messages<C: Client>(subscription: &str, locking: Locking) -> PendingQuery<C::Row> {
    let base = "select id, payload from messages where subscription = $1 and due_at <= now() order by id";
    PendingQuery::new("messages", base)
        .with_argument(subscription)
        .with_locking(locking)
        .with_columns(Columns::new())
        .with_ok("delete from messages where id = any($1)")
        .with_requeue(Command::new(
            "update messages set due_at = statement_timestamp() + coalesce($2, 0) * interval '1 ms' where id = any($1)",
        ))
        .with_poll_interval(std::time::Duration::from_millis(50))
}

pub(crate) fn driver<C: Client>(tables: &PgTables<C>, subscription: &str, locking: Locking) -> QueryDriver<C> {
    tables.query(messages::<C>(subscription, locking))
}

pub(crate) async fn consume<C: Client>(driver: QueryDriver<C>) -> ConsumeStream {
    patiently("a stream", subscribe(driver)).await.unwrap()
}

/// Inserts messages for a subscription, in one transaction.
pub(crate) async fn insert(database: &Database, subscription: &str, numbers: std::ops::Range<u64>) {
    let values: Vec<_> = numbers.map(|number| format!("('{subscription}', '{number}')")).collect();
    let insert = format!("insert into messages (subscription, payload) values {}", values.join(", "));
    database.sql(&insert).await.unwrap();
}

pub(crate) fn payload(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message().payload().to_vec()).unwrap()
}

pub(crate) fn payloads(delivery: &Delivery) -> Vec<u64> {
    delivery.messages().iter().map(|message| message.json().unwrap()).collect()
}

/// How many messages there are still.
pub(crate) async fn left(database: &Database) -> String {
    database.sql("select count(*) from messages").await.unwrap()
}

/// How many rows nobody holds.
pub(crate) async fn free(database: &Database) -> String {
    let free = "with free as (select from messages for update skip locked) select count(*) from free";
    database.sql(free).await.unwrap()
}
