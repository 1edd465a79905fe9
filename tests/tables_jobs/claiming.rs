//! Who gets which job: one claim a job, one job a claim, and no transaction beside it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, future::join_all};
use pgqueue_core::{Ack, Backoff, BoxError, Job, SubscriptionDriver, Worker, subscribe};
use pgqueue_postgres::{Client, OwnedTransaction, PgTables};
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    both_clients::on_both_clients,
    common::{
        NEVER, WAITS, consume, insert, job_table, jobs, next, number, open_transaction, patiently, quiet, states,
        until_sql, until_states,
    },
};

on_both_clients!(
    no_job_is_handled_by_two_consumers,
    a_claim_takes_one_job_whatever_the_plan,
    jobs_come_in_the_order_of_their_creation,
    no_transaction_is_open_while_a_handler_runs,
    jobs_that_others_have_locked_are_passed_over_and_come_once_they_are_free,
    dropped_delivery_is_retryable_at_once,
    what_was_claimed_for_nobody_is_given_back_with_its_attempt,
);

async fn no_job_is_handled_by_two_consumers<C: Client>() {
    const JOBS: usize = 200;
    let (database, tables) = job_table::<C>().await;
    let other = PgTables::<C>::connect(&database.url()).await.unwrap();
    let insert = format!("insert into jobs (number) select generate_series(1, {JOBS})");
    database.sql(&insert).await.unwrap();

    let runs = Arc::new(Mutex::new(BTreeMap::<u64, usize>::new()));
    let done = watch::Sender::new(0);
    let workers = [&tables, &other, &tables, &other].map(|tables| {
        let (runs, done) = (Arc::clone(&runs), done.clone());
        async move {
            let mut ended = done.subscribe();
            let stream = subscribe(tables.jobs(jobs())).await.unwrap();
            let stop = async move { drop(ended.wait_for(|done| *done >= JOBS).await) };
            let handler = async |job: Job<Value>| {
                *runs.lock().unwrap().entry(job.value["number"].as_u64().unwrap()).or_default() += 1;
                tokio::task::yield_now().await;
                done.send_modify(|done| *done += 1);
                Ok::<_, BoxError>(Ack::Ok)
            };
            Worker::new(stream.until(stop), handler).with_concurrency(8).run().await.unwrap();
        }
    });
    patiently("all jobs", join_all(workers)).await;

    let once = (1..=JOBS as u64).map(|number| (number, 1)).collect::<BTreeMap<_, _>>();
    assert_eq!(*runs.lock().unwrap(), once);
    let audit =
        "select count(*), min(status::text), max(status::text), max(attempts_count), count(locked_by) from jobs";
    assert_eq!(database.sql(audit).await.unwrap(), format!("{JOBS}\tsucceeded\tsucceeded\t1\t0"));
}

async fn a_claim_takes_one_job_whatever_the_plan<C: Client>() {
    let (database, _) = job_table::<C>().await;
    database.sql("insert into jobs (number) select generate_series(1, 300); analyze jobs").await.unwrap();
    let name = database.name();
    for (taken, off) in [
        &["enable_nestloop"][..],
        &["enable_hashjoin", "enable_nestloop"],
        &["enable_hashjoin", "enable_mergejoin"],
        &["enable_indexscan", "enable_bitmapscan"],
    ]
    .into_iter()
    .enumerate()
    {
        for setting in off {
            database.sql(&format!("alter database \"{name}\" set {setting} = off")).await.unwrap();
        }
        let tables = PgTables::<C>::connect(&database.url()).await.unwrap();
        let driver = tables.jobs(jobs());
        let delivery = patiently("a job", driver.fetch_pending()).await.unwrap().expect("a job");
        let taken_now = "select count(*) from jobs where status = 'running' or attempts_count > 0";
        assert_eq!(database.sql(taken_now).await.unwrap(), (taken + 1).to_string(), "without {off:?}");
        delivery.ok().await.unwrap();
        for setting in off {
            database.sql(&format!("alter database \"{name}\" reset {setting}")).await.unwrap();
        }
    }
}

async fn jobs_come_in_the_order_of_their_creation<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    let insert = "insert into jobs (number, created_at, run_at) values
        (3, now() - interval '1 min', now() - interval '1 hour'), (1, now() - interval '3 min', now()),
        (2, now() - interval '2 min', now()), (4, now() - interval '4 min', now() + interval '1 hour')";
    database.sql(insert).await.unwrap();
    let mut stream = consume(&tables, jobs()).await;
    for expected in 1..=3 {
        let delivery = next(&mut stream).await;
        assert_eq!(number(&delivery), expected);
        delivery.ok().await.unwrap();
    }
    quiet(&mut stream).await;
}

async fn no_transaction_is_open_while_a_handler_runs<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, [1]).await;
    let mut stream = consume(&tables, jobs()).await;
    let delivery = next(&mut stream).await;
    let open = "select count(*) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and (xact_start is not null or backend_xmin is not null)";
    until_sql(&database, open, "0").await;
    assert_eq!(states(&database).await, "running 1 locked");
    // Nor is a lock held on the row.
    database.sql("set lock_timeout = '1s'; select id from jobs for update nowait").await.unwrap();
    delivery.ok().await.unwrap();
    assert_eq!(states(&database).await, "succeeded 1");
}

async fn jobs_that_others_have_locked_are_passed_over_and_come_once_they_are_free<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, [1, 2]).await;
    let lock = "select from jobs where number = 1 for update";
    let transaction = open_transaction::<C>(&database, lock).await;
    let mut stream = consume(&tables, jobs()).await;
    let second = next(&mut stream).await;
    assert_eq!(number(&second), 2);
    quiet(&mut stream).await;

    transaction.rollback().await.unwrap();
    assert_eq!(number(&next(&mut stream).await), 1);
}

async fn dropped_delivery_is_retryable_at_once<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, [1]).await;
    // By its backoff it would come after an hour.
    let table = jobs().with_backoff(Backoff::fixed(NEVER).with_max_attempts(2));
    let mut stream = consume(&tables, table).await;
    let delivery = next(&mut stream).await;
    quiet(&mut stream).await; // it waits, and nothing is due
    drop(delivery);
    let again = next(&mut stream).await;
    assert_eq!(again.message().attempt(), 2);
    drop(again);
    until_states(&database, "failed 2").await;
    assert_eq!(database.sql("select last_error from jobs").await.unwrap(), "dropped unsettled");
    quiet(&mut stream).await;
}

async fn what_was_claimed_for_nobody_is_given_back_with_its_attempt<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    let table = jobs().with_backoff(Backoff::fixed(Duration::ZERO).with_max_attempts(1));
    let driver = tables.jobs(table);
    assert!(patiently("none", driver.fetch_pending()).await.unwrap().is_none());
    insert(&database, [1]).await;

    // The claim waits for the table, until nobody waits for the claim.
    let gate = open_transaction::<C>(&database, "lock table jobs in exclusive mode").await;
    let mut fetch = driver.fetch_pending();
    assert!(fetch.as_mut().now_or_never().is_none());
    until_sql(&database, WAITS, "1").await;
    drop(fetch);
    gate.rollback().await.unwrap();

    until_states(&database, "retry 0").await;
    let delivery = patiently("the job", driver.fetch_pending()).await.unwrap().expect("the job");
    assert_eq!(delivery.message().attempt(), 1);
    delivery.ok().await.unwrap();
}
