//! Leases: who keeps a job, who loses it, and what that is worth.

use std::time::Duration;

use pgqueue_core::{Ack, BoxError, Delivery, ErrorKind, Job, SubscriptionDriver, Worker, subscribe};
use pgqueue_postgres::{Client, OwnedTransaction};
use pgqueue_testserver::Database;
use serde_json::Value;
use tokio::{sync::oneshot, time::timeout};

use crate::{
    both_clients::on_both_clients,
    common::{
        SHORT_LEASE, announce, consume, insert, job_table, jobs, next, number, open_transaction, patiently, quiet_for,
        states, until_sql, until_states,
    },
};

on_both_clients!(
    silent_consumers_lose_their_jobs_after_the_lease_and_not_before,
    a_live_job_is_not_taken_however_long_its_handler_takes,
    a_superseded_consumer_cannot_answer,
    an_older_claim_of_the_same_consumer_cannot_answer,
    losing_a_lease_is_told_and_cancels_the_handler,
    an_answered_delivery_says_nothing_of_its_lease,
    what_a_crashed_consumer_had_comes_again_after_the_lease,
    a_job_that_crashed_its_last_consumer_has_failed,
    deliveries_outlive_their_driver,
    a_consumer_ends_with_its_driver_and_its_deliveries,
    a_lock_on_one_job_does_not_keep_others_from_being_renewed,
);

/// As if the consumer of all jobs had been silent for so long.
async fn silent_for(database: &Database, interval: &str) {
    database.sql(&format!("update jobs set locked_at = now() - interval '{interval}'")).await.unwrap();
}

async fn silent_consumers_lose_their_jobs_after_the_lease_and_not_before<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    let insert = "insert into jobs (number, status, attempts_count, locked_by, run_at, locked_at, last_error)
        select number, 'running', attempts, gen_random_uuid(), now() - interval '2 days', now() - age::interval, 'earlier'
        from (values (1, 1, '590 s'), (2, 1, '601 s'), (3, 9, '23 h 59 min'), (4, 10, '601 s'), (5, 1, '24 h 1 s'), (6, 10, '590 s'))
          as jobs (number, attempts, age)";
    database.sql(insert).await.unwrap();
    let driver = tables.jobs(jobs());
    let delivery = patiently("a job", driver.fetch_pending()).await.unwrap().expect("what is stale is due at once");
    assert!([2, 3].contains(&number(&delivery)));
    delivery.ok().await.unwrap();
    let delivery = patiently("a job", driver.fetch_pending()).await.unwrap().expect("what is stale is due at once");
    delivery.ok().await.unwrap();
    assert!(patiently("none", driver.fetch_pending()).await.unwrap().is_none());
    let wanted = "running 1 locked\nsucceeded 2\nsucceeded 10\nfailed 10\nfailed 1\nrunning 10 locked";
    assert_eq!(states(&database).await, wanted);
    let errors = database.sql("select distinct last_error from jobs where number in (4, 5)").await.unwrap();
    assert_eq!(errors, "stale job: its worker probably crashed");
    let kept = "select count(*) from jobs where number in (4, 5) and run_at < now() - interval '1 day'";
    assert_eq!(database.sql(kept).await.unwrap(), "2");
}

async fn a_live_job_is_not_taken_however_long_its_handler_takes<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, [1]).await;
    let mut stream = consume(&tables, jobs().with_lease(SHORT_LEASE)).await;
    let delivery = next(&mut stream).await;
    let mut other = consume(&tables, jobs().with_lease(SHORT_LEASE)).await;
    quiet_for(&mut other, SHORT_LEASE * 4).await;
    assert_eq!(states(&database).await, "running 1 locked");
    delivery.ok().await.unwrap();
    assert_eq!(states(&database).await, "succeeded 1");
}

async fn a_superseded_consumer_cannot_answer<C: Client>() {
    for answer in [Ack::Ok, Ack::requeue(), Ack::reject("no")] {
        let (database, tables) = job_table::<C>().await;
        insert(&database, [1]).await;
        let mut stream = consume(&tables, jobs()).await;
        let superseded = next(&mut stream).await;
        silent_for(&database, "601 s").await;
        let mut other = consume(&tables, jobs()).await;
        let delivery = next(&mut other).await;

        let error = superseded.settle(answer).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LeaseLost);
        assert!(error.to_string().contains("jobs"), "{error}");
        assert_eq!(states(&database).await, "running 2 locked");
        delivery.ok().await.unwrap();
        assert_eq!(states(&database).await, "succeeded 2");
    }
}

async fn an_older_claim_of_the_same_consumer_cannot_answer<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, [1]).await;
    let mut stream = consume(&tables, jobs()).await;
    let (older, dropped) = two_claims_in_turn(&database, &mut stream).await;
    drop(dropped);
    let newer = next(&mut stream).await;
    assert_eq!(older.ok().await.unwrap_err().kind(), ErrorKind::LeaseLost);
    assert_eq!(states(&database).await, "running 3 locked");
    newer.ok().await.unwrap();
    assert_eq!(states(&database).await, "succeeded 3");
}

/// Two deliveries of one job to one consumer: an operator gave it back meanwhile. What the first says by being dropped is not heard.
async fn two_claims_in_turn(database: &Database, stream: &mut pgqueue_core::ConsumeStream) -> (Delivery, Delivery) {
    let older = next(stream).await;
    database.sql("update jobs set status = 'retry', locked_by = null, locked_at = null").await.unwrap();
    announce(database).await;
    let newer = next(stream).await;
    assert_eq!(newer.message().attempt(), older.message().attempt() + 1);
    (older, newer)
}

async fn losing_a_lease_is_told_and_cancels_the_handler<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, [1]).await;
    let stream = consume(&tables, jobs().with_lease(SHORT_LEASE)).await;
    let (started, has_started) = oneshot::channel();
    let started = std::sync::Mutex::new(Some(started));
    let (reported, failure) = oneshot::channel();
    let reported = std::sync::Mutex::new(Some(reported));
    let handler = async |_: Job<Value>| {
        started.lock().unwrap().take().unwrap().send(()).unwrap();
        std::future::pending::<()>().await;
        Ok::<_, BoxError>(Ack::Ok)
    };
    let worker = Worker::new(stream, handler).on_error(move |failure| {
        reported.lock().unwrap().take().unwrap().send(failure.error.kind()).unwrap();
    });
    let superseding = async {
        has_started.await.unwrap();
        database
            .sql(
                "update jobs set locked_by = gen_random_uuid(), attempts_count = 2, locked_at = now() + interval '1 h'",
            )
            .await
            .unwrap();
        patiently("a failure", failure).await.unwrap()
    };
    tokio::select! {
        ended = worker.run() => panic!("the worker ended: {ended:?}"),
        kind = superseding => assert_eq!(kind, ErrorKind::LeaseLost),
    }
    assert_eq!(states(&database).await, "running 2 locked");
}

async fn an_answered_delivery_says_nothing_of_its_lease<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, [1]).await;
    let mut stream = consume(&tables, jobs().with_lease(SHORT_LEASE)).await;
    let delivery = next(&mut stream).await;
    let lost = delivery.lease_lost();
    delivery.ok().await.unwrap();
    assert!(timeout(SHORT_LEASE * 2, lost).await.is_err());
}

async fn what_a_crashed_consumer_had_comes_again_after_the_lease<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, [1]).await;
    let crashed = tables.jobs(jobs().with_lease(SHORT_LEASE));
    let delivery = patiently("the job", crashed.fetch_pending()).await.unwrap().expect("the job");
    let mut other = consume(&tables, jobs().with_lease(SHORT_LEASE)).await;
    crashed.crash();
    let error = delivery.ok().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    assert_eq!(states(&database).await, "running 1 locked", "a dead consumer says nothing");
    let again = next(&mut other).await;
    assert_eq!(again.message().attempt(), 2);
    again.ok().await.unwrap();
}

async fn a_job_that_crashed_its_last_consumer_has_failed<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, [1]).await;
    let table = || {
        let backoff = pgqueue_core::Backoff::fixed(Duration::ZERO).with_max_attempts(1);
        jobs().with_lease(SHORT_LEASE).with_backoff(backoff)
    };
    let crashed = tables.jobs(table());
    let delivery = patiently("the job", crashed.fetch_pending()).await.unwrap().expect("the job");
    crashed.crash();
    drop(delivery);
    let mut other = consume(&tables, table()).await;
    tokio::select! {
        () = until_states(&database, "failed 1") => {}
        delivery = next(&mut other) => panic!("{delivery:?}"),
    }
}

async fn deliveries_outlive_their_driver<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, [1, 2, 3]).await;
    let mut stream = subscribe(tables.jobs(jobs().with_lease(SHORT_LEASE))).await.unwrap();
    let (first, second) = (next(&mut stream).await, next(&mut stream).await);
    drop(stream);
    let mut other = consume(&tables, jobs().with_lease(SHORT_LEASE)).await;
    assert_eq!(number(&next(&mut other).await), 3);
    until_states(&database, "running 1 locked\nrunning 1 locked\nretry 1").await;
    let other = async {
        let third = next(&mut other).await;
        assert_eq!(number(&third), 3);
        quiet_for(&mut other, SHORT_LEASE * 4).await;
        third.ok().await.unwrap();
    };
    other.await;
    first.ok().await.unwrap();
    drop(second);
    until_states(&database, "succeeded 1\nretry 1\nsucceeded 2").await;
}

async fn a_consumer_ends_with_its_driver_and_its_deliveries<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, [1, 2]).await;
    // The consumer's task is the last that has the client, whose connections end with it.
    const IS_CONNECTED: &str = "select count(*) > 0 from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()";
    let driver = tables.jobs(jobs().with_lease(SHORT_LEASE));
    drop(tables);
    let first = patiently("a job", driver.fetch_pending()).await.unwrap().expect("a job");
    let second = patiently("a job", driver.fetch_pending()).await.unwrap().expect("a job");
    drop(driver);
    first.ok().await.unwrap();
    assert!(timeout(SHORT_LEASE * 2, second.lease_lost()).await.is_err(), "nobody renews");
    assert_eq!(database.sql(IS_CONNECTED).await.unwrap(), "t");
    drop(second);
    until_sql(&database, IS_CONNECTED, "f").await;
    assert_eq!(states(&database).await, "succeeded 1\nretry 1", "what was left to it is done before it ends");
}

async fn a_lock_on_one_job_does_not_keep_others_from_being_renewed<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, [1, 2]).await;
    let mut stream = consume(&tables, jobs().with_lease(SHORT_LEASE)).await;
    let (first, second) = (next(&mut stream).await, next(&mut stream).await);
    let lock = open_transaction::<C>(&database, "select from jobs where number = 1 for update").await;
    let mut other = consume(&tables, jobs().with_lease(SHORT_LEASE)).await;
    quiet_for(&mut other, SHORT_LEASE * 4).await;
    second.ok().await.unwrap();
    assert_eq!(states(&database).await, "running 1 locked\nsucceeded 1");
    lock.rollback().await.unwrap();
    drop(first);
}
