//! When a consumer looks again.

use std::time::Duration;

use pgqueue_core::Backoff;
use pgqueue_postgres::Client;
use tokio::time::Instant;

use crate::{
    both_clients::on_both_clients,
    common::{announce, consume, insert, job_table, jobs, next, number, quiet, recreate},
};

on_both_clients!(
    a_notification_wakes,
    triggers_announce_jobs_that_wait,
    a_job_that_is_due_later_comes_by_itself_and_not_before,
    a_requeued_job_comes_by_itself_when_its_delay_is_over,
    a_poll_finds_what_nobody_announced,
    jobs_that_are_never_due_never_come,
    a_table_that_is_dropped_and_made_again_is_consumed_on,
);

async fn a_notification_wakes<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    let mut stream = consume(&tables, jobs()).await;
    quiet(&mut stream).await;
    insert(&database, [1]).await;
    quiet(&mut stream).await;
    announce(&database).await;
    next(&mut stream).await.ok().await.unwrap();

    let mut stream = consume(&tables, jobs().with_channel("Jobs, \"mine\"")).await;
    quiet(&mut stream).await;
    insert(&database, [2]).await;
    database.sql("notify \"Jobs, \"\"mine\"\"\"").await.unwrap();
    assert_eq!(number(&next(&mut stream).await), 2);
}

async fn triggers_announce_jobs_that_wait<C: Client>() {
    const NEVER: Duration = Duration::from_secs(3600);
    let (database, tables) = job_table::<C>().await;
    let mut stream = consume(&tables, jobs().with_triggers().with_poll_interval(NEVER)).await;
    quiet(&mut stream).await;
    insert(&database, [1]).await;
    let delivery = next(&mut stream).await;
    assert_eq!(number(&delivery), 1);
    delivery.ok().await.unwrap();
    quiet(&mut stream).await;
    database.sql("update jobs set status = 'retry'").await.unwrap();
    assert_eq!(number(&next(&mut stream).await), 1);
    let conditions =
        "select string_agg(pg_get_triggerdef(oid), ' ' order by tgname) from pg_trigger where tgname like 'pgqueue%'";
    let conditions = database.sql(conditions).await.unwrap();
    for label in ["not_started", "retry"] {
        assert_eq!(conditions.matches(&format!("'{label}'")).count(), 2, "{conditions}");
    }
}

async fn a_job_that_is_due_later_comes_by_itself_and_not_before<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    let insert = "insert into jobs (number, run_at) values (2, now() + interval '1 hour'), (1, clock_timestamp() + interval '1500 ms')";
    database.sql(insert).await.unwrap();
    let mut stream = consume(&tables, jobs().without_channel()).await;
    let delivery = next(&mut stream).await;
    assert_eq!(number(&delivery), 1);
    let early = "select count(*) from jobs where number = 1 and locked_at < run_at";
    assert_eq!(database.sql(early).await.unwrap(), "0");
    let late = "select count(*) from jobs where number = 1 and locked_at > run_at + interval '5 s'";
    assert_eq!(database.sql(late).await.unwrap(), "0");
    quiet(&mut stream).await;
    delivery.ok().await.unwrap();
}

async fn a_requeued_job_comes_by_itself_when_its_delay_is_over<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, [1]).await;
    let delay = Duration::from_millis(1500);
    let mut stream = consume(&tables, jobs().without_channel().with_backoff(Backoff::fixed(delay))).await;
    let delivery = next(&mut stream).await;
    quiet(&mut stream).await; // it waits, and nothing is due
    let since = Instant::now();
    delivery.requeue().await.unwrap();
    let again = next(&mut stream).await;
    assert!(since.elapsed() >= delay);
    assert_eq!(again.message().attempt(), 2);
}

async fn a_poll_finds_what_nobody_announced<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    let mut stream = consume(&tables, jobs().without_channel().with_poll_interval(Duration::from_secs(2))).await;
    quiet(&mut stream).await;
    insert(&database, [1]).await;
    assert_eq!(number(&next(&mut stream).await), 1);
}

async fn jobs_that_are_never_due_never_come<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    database.sql("alter table jobs alter run_at drop not null").await.unwrap();
    database.sql("insert into jobs (number, run_at) values (1, 'infinity'), (2, null)").await.unwrap();
    let mut stream = consume(&tables, jobs()).await;
    quiet(&mut stream).await;
    database.sql("insert into jobs (number, run_at) values (3, '-infinity'); notify pgqueue_jobs").await.unwrap();
    let delivery = next(&mut stream).await;
    assert_eq!(number(&delivery), 3);
    quiet(&mut stream).await;
    delivery.ok().await.unwrap();
}

async fn a_table_that_is_dropped_and_made_again_is_consumed_on<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, [1, 2]).await;
    let mut stream = consume(&tables, jobs().with_poll_interval(Duration::from_secs(1))).await;
    next(&mut stream).await.ok().await.unwrap();
    let held = next(&mut stream).await;
    database.sql("drop table jobs; drop type job_status").await.unwrap();
    assert!(held.ok().await.is_err());
    quiet(&mut stream).await;
    announce(&database).await;
    quiet(&mut stream).await;
    recreate(&database).await;
    insert(&database, [3]).await;
    let delivery = next(&mut stream).await;
    assert_eq!(number(&delivery), 3);
    delivery.ok().await.unwrap();
}
