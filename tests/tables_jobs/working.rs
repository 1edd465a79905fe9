//! Workers over a job table: how many handlers at a time, and how they stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use pgqueue_core::{Ack, Backoff, BoxError, Job, Worker, subscribe};
use pgqueue_postgres::{Client, OwnedTransaction};
use serde_json::Value;
use tokio::{
    sync::{Barrier, Notify, oneshot},
    task::yield_now,
    time::timeout,
};

use crate::{
    both_clients::on_both_clients,
    common::{
        QUIET, consume, insert, job_table, jobs, open_transaction, patiently, quiet, states, until_sql, until_states,
    },
};

on_both_clients!(
    concurrency_is_reached_and_never_exceeded,
    a_bulk_insert_is_worked_on_by_as_many_handlers_as_there_may_be,
    a_stopped_worker_finishes_what_runs_and_starts_nothing_new,
    a_dropped_worker_leaves_its_jobs_to_be_tried_again,
);

async fn concurrency_is_reached_and_never_exceeded<C: Client>() {
    const CONCURRENCY: usize = 3;
    let (database, tables) = job_table::<C>().await;
    const JOBS: usize = 7 * CONCURRENCY;
    insert(&database, 1..=JOBS as u32).await;
    let stream = consume(&tables, jobs()).await;
    let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let together = Barrier::new(CONCURRENCY);
    let handler = async |_: Job<Value>| {
        most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        together.wait().await;
        running.fetch_sub(1, Ordering::Relaxed);
        Ok::<_, BoxError>(Ack::Ok)
    };
    let worker = Worker::new(stream, handler).with_concurrency(CONCURRENCY).run();
    let watching = async {
        let mut claimed = 0;
        let done = "select count(*) filter (where status = 'succeeded') || ' ' || count(*) filter (where status = 'running') from jobs";
        loop {
            let counted = database.sql(done).await.unwrap();
            let (succeeded, in_hand) = counted.split_once(' ').unwrap();
            claimed = claimed.max(in_hand.parse::<usize>().unwrap());
            if succeeded == JOBS.to_string() {
                return claimed;
            }
            yield_now().await;
        }
    };
    tokio::select! {
        ended = worker => panic!("the worker ended: {ended:?}"),
        claimed = patiently("all jobs", watching) => assert!(claimed <= CONCURRENCY, "{claimed} claimed"),
    }
    assert_eq!(most.into_inner(), CONCURRENCY);
}

async fn a_bulk_insert_is_worked_on_by_as_many_handlers_as_there_may_be<C: Client>() {
    const CONCURRENCY: usize = 4;
    for count in [3, 4, 10] {
        let (database, tables) = job_table::<C>().await;
        let mut stream = consume(&tables, jobs()).await;
        quiet(&mut stream).await;
        let together = Barrier::new(count.min(CONCURRENCY));
        let handled = AtomicUsize::new(0);
        let handler = async |_: Job<Value>| {
            if handled.fetch_add(1, Ordering::Relaxed) < count.min(CONCURRENCY) {
                together.wait().await;
            }
            Ok::<_, BoxError>(Ack::Ok)
        };
        let worker = Worker::new(stream, handler).with_concurrency(CONCURRENCY).run();
        let inserting = async {
            let bulk = format!(
                "begin; insert into jobs (number) select generate_series(1, {count}); notify pgqueue_jobs; commit"
            );
            database.sql(&bulk).await.unwrap();
            until_sql(&database, "select count(*) from jobs where status = 'succeeded'", &count.to_string()).await;
        };
        tokio::select! {
            ended = worker => panic!("the worker ended: {ended:?}"),
            () = inserting => {}
        }
    }
}

async fn a_stopped_worker_finishes_what_runs_and_starts_nothing_new<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, 1..=9).await;
    let (stop, stopped) = oneshot::channel::<()>();
    // One attempt: what is given back for nothing would have failed.
    let table = jobs().with_backoff(Backoff::fixed(Duration::ZERO).with_max_attempts(1));
    let stream = subscribe(tables.jobs(table)).await.unwrap().until(async { drop(stopped.await) });
    let (started, go_on) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let worker = tokio::spawn({
        let (started, go_on) = (Arc::clone(&started), Arc::clone(&go_on));
        let handler = move |_: Job<Value>| {
            let (started, go_on) = (Arc::clone(&started), Arc::clone(&go_on));
            async move {
                started.fetch_add(1, Ordering::SeqCst);
                go_on.notified().await;
                Ok::<_, BoxError>(Ack::Ok)
            }
        };
        Worker::new(stream, handler).with_concurrency(2).run()
    });
    until_sql(&database, "select count(*) from jobs where status = 'running'", "2").await;
    go_on.notify_one(); // one ends, another begins, and a fetch may be on its way at any time
    until_sql(&database, "select count(*) from jobs where status = 'succeeded'", "1").await;
    until_sql(&database, "select count(*) from jobs where status = 'running'", "2").await;
    stop.send(()).unwrap();
    go_on.notify_one();
    until_sql(&database, "select count(*) from jobs where status = 'succeeded'", "2").await;
    go_on.notify_one();
    patiently("the worker's end", worker).await.unwrap().unwrap();
    assert_eq!(started.load(Ordering::SeqCst), 3);
    let left = "select count(*) from jobs where status in ('not_started', 'retry') and attempts_count = 0 and locked_by is null";
    until_sql(&database, left, "6").await;
}

async fn a_dropped_worker_leaves_its_jobs_to_be_tried_again<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, 1..=2).await;
    let stream = consume(&tables, jobs()).await;
    let handler = async |_: Job<Value>| {
        std::future::pending::<()>().await;
        Ok::<_, BoxError>(Ack::Ok)
    };
    let slow = async {
        until_states(&database, "running 1 locked\nrunning 1 locked").await;
        open_transaction::<C>(&database, "select from jobs for update").await
    };
    let slow = tokio::select! {
        ended = Worker::new(stream, handler).run() => panic!("the worker ended: {ended:?}"),
        slow = slow => slow,
    };
    assert!(timeout(QUIET, tables.consumers_gone()).await.is_err(), "its jobs are not given back");
    slow.rollback().await.unwrap();
    patiently("all consumers to leave", tables.consumers_gone()).await;
    assert_eq!(states(&database).await, "retry 1\nretry 1");
}
