//! Tables of the user's own through a pooler.

use std::time::Duration;

use futures::StreamExt;
use pgqueue_core::{Backoff, ConsumeStream, Delivery, SubscriptionDriver, subscribe};
use pgqueue_postgres::{
    Columns, HeldDelivery, JobTable, Locking, OwnedTransaction, PendingQuery, PgTables, TableWatch, Watched,
};
use pgqueue_testserver::Database;

use crate::{
    common::{patiently, until_sql},
    place,
    small::Small,
};

const JOBS: &str = "
    create table jobs (
      id uuid primary key default gen_random_uuid(),
      created_at timestamptz not null default clock_timestamp(),
      updated_at timestamptz not null default now(),
      status text not null default 'not_started',
      last_error text,
      attempts_count int not null default 0,
      locked_at timestamptz,
      locked_by uuid,
      run_at timestamptz not null default now(),
      number int not null
    )";

/// Often enough where nobody can be rung for.
const OFTEN: Duration = Duration::from_millis(50);

/// So seldom that a poll explains nothing.
const NEVER: Duration = Duration::from_secs(3600);

async fn consume<D: SubscriptionDriver + 'static>(driver: D) -> ConsumeStream {
    patiently("a stream", subscribe(driver)).await.unwrap()
}

async fn next(stream: &mut ConsumeStream) -> Delivery {
    patiently("a delivery", stream.next()).await.expect("a stream that goes on").unwrap()
}

fn number(delivery: &Delivery) -> u64 {
    delivery.message().json::<serde_json::Value>().unwrap()["number"].as_u64().unwrap()
}

pub(super) async fn delivery_of_a_query_is_one_transaction<C: Small>() {
    let database = Database::create().await.unwrap();
    database.sql("create table work (done text not null)").await.unwrap();
    database.sql("create table messages (id bigint primary key, payload text not null)").await.unwrap();
    let tables: PgTables<C> = PgTables::new(C::behind_pooler(&place::url(&database), 6));
    for locking in [Locking::Ordered, Locking::Unordered] {
        database.sql("truncate work; insert into messages select n, n from generate_series(1, 5) n").await.unwrap();
        let pending = PendingQuery::new("messages", "select id, payload from messages order by id")
            .with_locking(locking)
            .with_columns(Columns::new())
            .with_ok("delete from messages where id = any($1)")
            .with_poll_interval(OFTEN);
        let mut stream = consume(tables.query(pending)).await;
        for n in 1..=5 {
            // Each is dropped once, and what it wrote goes with it.
            for is_kept in [false, true] {
                let mut held = HeldDelivery::<C>::from_delivery(next(&mut stream).await).unwrap();
                let transaction = held.transaction().await.unwrap();
                transaction.execute("insert into work values ($1)", &[n.to_string().as_str().into()]).await.unwrap();
                if is_kept {
                    held.ok().await.unwrap();
                }
            }
        }
        assert_eq!(database.sql("select count(*) from work").await.unwrap(), "5", "{locking:?}");
        assert_eq!(database.sql("select count(*) from messages").await.unwrap(), "0", "{locking:?}");
    }
}

pub(super) async fn jobs_are_claimed_renewed_and_answered<C: Small>() {
    let database = Database::create().await.unwrap();
    database.sql(JOBS).await.unwrap();
    database.sql("insert into jobs (number) select generate_series(1, 6)").await.unwrap();
    let tables: PgTables<C> = PgTables::new(C::behind_pooler(&place::url(&database), 6));
    let table = JobTable::new("jobs")
        .with_backoff(Backoff::fixed(Duration::ZERO).with_max_attempts(2))
        .with_lease(Duration::from_secs(1))
        .with_poll_interval(OFTEN);
    let mut stream = consume(tables.jobs(table)).await;
    // Out for longer than a lease, which is renewed.
    let kept = next(&mut stream).await;
    let taken = "select extract(epoch from clock_timestamp() - created_at) > 2 from jobs where number = 1";
    until_sql(&database, taken, "t").await;
    kept.ok().await.unwrap();
    for _ in 0..10 {
        let delivery = next(&mut stream).await;
        assert!(number(&delivery) > 1, "1 is answered");
        delivery.requeue().await.unwrap();
    }
    let states = "select string_agg(status || ' ' || attempts_count, ', ' order by number) from jobs";
    until_sql(&database, states, "succeeded 1, failed 2, failed 2, failed 2, failed 2, failed 2").await;
}

pub(super) async fn triggers_are_installed_and_wake_past_the_pooler<C: Small>() {
    let database = Database::create().await.unwrap();
    database.sql(JOBS).await.unwrap();
    let through = place::url(&database);
    let tables: PgTables<C> = PgTables::new(C::behind_pooler_listening(&through, 6, &database.url()));
    let watch = TableWatch::new("jobs");
    assert_eq!(tables.watch_table(&watch).await.unwrap(), Watched::Installed);
    assert_eq!(tables.watch_table(&watch).await.unwrap(), Watched::AlreadyThere);
    let mut stream = consume(tables.jobs(JobTable::new("jobs").with_triggers().with_poll_interval(NEVER))).await;
    let theirs = C::behind_pooler(&through, 1);
    for n in 1..=5 {
        theirs.query(&format!("insert into jobs (number) values ({n})"), &[]).await.unwrap();
        let delivery = next(&mut stream).await;
        assert_eq!(number(&delivery), n);
        delivery.ok().await.unwrap();
    }
}
