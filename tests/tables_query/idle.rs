//! What a consumer asks of the server while it has nothing to do.
#![expect(clippy::print_stderr, reason = "`--nocapture` shows what was measured")]

use std::time::Duration;

use pgqueue_core::ConsumeStream;
use pgqueue_postgres::{Client, Locking, PendingQuery, PgTables, Tracking};
use pgqueue_testserver::Database;
use tokio::time::{sleep, timeout};

use crate::{
    both_clients::on_both_clients,
    common::{next, quiet},
    table::{Small, consume, database, insert, messages, tables},
};
use futures::StreamExt;

on_both_clients!(
    consumer_asks_seldom,
    row_that_is_overdue_and_held_is_looked_for_each_second,
    row_without_a_due_time_waits_for_the_poll,
    consumer_may_never_poll,
    pool_that_others_use_up_ends_the_stream_and_says_why,
);

const NEVER: Duration = Duration::from_secs(3600);

/// For how long is measured.
const WHILE: Duration = Duration::from_secs(4);

/// How late sessions report at most what they did before they came to rest.
const REPORTS_LATE: Duration = Duration::from_secs(11);

/// How many transactions there were, once the server has counted them.
async fn transactions(database: &Database) -> i64 {
    sleep(Duration::from_millis(1100)).await; // sessions report once a second
    let count = "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()";
    database.sql(count).await.unwrap().parse().unwrap()
}

/// How many transactions a stream that gets nothing causes in a second.
async fn rate(database: &Database, stream: &mut ConsumeStream) -> f64 {
    let measured = async {
        sleep(REPORTS_LATE).await;
        let before = transactions(database).await;
        sleep(WHILE).await;
        (transactions(database).await - before) as f64 / (WHILE.as_secs_f64() + 1.1)
    };
    tokio::select! {
        item = stream.next() => panic!("nothing should be delivered, but there is {item:?}"),
        rate = measured => rate,
    }
}

async fn consumer_asks_seldom<C: Client>() {
    let tracked = |query: PendingQuery<C::Row>| query.with_tracking(Tracking::new("messages"));
    tokio::join!(
        asks_seldom::<C>("unordered", Locking::Unordered, |query| query),
        asks_seldom::<C>("ordered", Locking::Ordered, |query| query),
        asks_seldom::<C>("unordered, counting", Locking::Unordered, tracked),
        asks_seldom::<C>("ordered, counting", Locking::Ordered, tracked),
    );
}

async fn asks_seldom<C: Client>(
    who: &str,
    locking: Locking,
    configure: fn(PendingQuery<C::Row>) -> PendingQuery<C::Row>,
) {
    let query = || configure(messages::<C>("a", locking).with_poll_interval(NEVER).with_max_deliveries(1));
    let idle = async {
        let database = database().await;
        let mut stream = consume(tables::<C>(&database).await.query(query())).await;
        rate(&database, &mut stream).await
    };
    let full = async {
        let database = database().await;
        insert(&database, "a", 0..1).await;
        let mut stream = consume(tables::<C>(&database).await.query(query())).await;
        let _held = next(&mut stream).await;
        rate(&database, &mut stream).await
    };
    let waits = async {
        let database = database().await;
        let tables = tables::<C>(&database).await;
        insert(&database, "a", 0..1).await;
        let mut first = consume(tables.query(query())).await;
        let _held = next(&mut first).await;
        let mut second = consume(tables.query(query())).await;
        rate(&database, &mut second).await
    };
    let (idle, full, waits) = tokio::join!(idle, full, waits);
    eprintln!(
        "{who}: transactions a second: {idle:.1} idle, {full:.1} at its limit, {waits:.1} while others hold the row"
    );
    assert!(idle < 1.0 && full < 1.0 && waits < 6.0, "{who}: {idle}, {full}, {waits}");
}

async fn row_that_is_overdue_and_held_is_looked_for_each_second<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    database.sql("update messages set due_at = now() - interval '1 minute'").await.unwrap();
    let query = || -> PendingQuery<C::Row> {
        let due = "select min(due_at) from messages where subscription = $1";
        messages::<C>("a", Locking::Unordered).with_next_due(due).with_poll_interval(NEVER)
    };
    let mut first = consume(tables.query(query())).await;
    let _held = next(&mut first).await;
    let mut second = consume(tables.query(query())).await;
    let waits = rate(&database, &mut second).await;
    eprintln!("transactions a second: {waits:.1} while others hold what is overdue");
    assert!(waits < 6.0);
}

/// It is due at infinity; nor does it keep the consumer from looking each second for what others hold.
async fn row_without_a_due_time_waits_for_the_poll<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let query = |due: &str| messages::<C>("a", Locking::Unordered).with_next_due(due).with_poll_interval(NEVER);
    for due in ["select timestamptz 'infinity'", "select timestamptz '-infinity'", "select timestamptz '294276-01-01'"]
    {
        let mut first = consume(tables.query(query(due))).await;
        let held = next(&mut first).await;
        let mut second = consume(tables.query(query(due))).await;
        quiet(&mut second).await;
        drop((held, first));
        drop(timeout(Duration::from_secs(5), second.next()).await.expect(due).unwrap().unwrap());
    }
}

async fn consumer_may_never_poll<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    let query = messages::<C>("a", Locking::Unordered).with_poll_interval(Duration::MAX).with_channel("bell");
    let mut stream = consume(tables.query(query)).await;
    quiet(&mut stream).await;
    insert(&database, "a", 0..1).await;
    database.sql("notify bell").await.unwrap();
    next(&mut stream).await.ok().await.unwrap();
}

async fn pool_that_others_use_up_ends_the_stream_and_says_why<C: Small>() {
    let database = database().await;
    let tables = PgTables::<C>::new(C::of(&database.url(), 2));
    let mut stream = consume(tables.query(messages::<C>("a", Locking::Unordered))).await;
    let others = (tables.client().begin().await.unwrap(), tables.client().begin().await.unwrap());
    let error = crate::common::end(&mut stream).await;
    crate::common::assert_says(&error, pgqueue_core::ErrorKind::Fatal, &["every connection of the pool"]);
    drop(others);
}
