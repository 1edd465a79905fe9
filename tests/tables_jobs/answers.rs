//! What becomes of a job by its answers.

use std::time::Duration;

use pgqueue_core::{Ack, Backoff, BoxError, ErrorKind, Job, Requeue, Worker};
use pgqueue_postgres::Client;
use pgqueue_testserver::Database;
use serde_json::Value;
use tokio::{sync::watch, time::sleep};

use crate::{
    both_clients::on_both_clients,
    common::{
        NEVER, PATIENCE, SHORT_LEASE, announce, consume, insert, job_table, jobs, next, quiet, states, until_sql,
        until_states,
    },
};

on_both_clients!(
    answers_become_states,
    after_ten_runs_a_job_has_failed,
    with_one_attempt_the_first_failure_is_the_last,
    backoff_grows_to_its_cap,
    a_delay_of_its_own_outranks_the_backoff,
    a_handler_that_takes_too_long_is_tried_again_and_has_timed_out_in_the_end,
    reasons_are_cut_to_what_the_column_holds,
    an_answer_that_the_table_refuses_is_an_error_and_the_job_comes_again,
    earlier_errors_stay_until_the_job_succeeds,
);

async fn last_error(database: &Database) -> String {
    database.sql("select last_error from jobs").await.unwrap()
}

fn because(reason: &str) -> Ack {
    Ack::Requeue(Requeue::default().with_reason(reason))
}

async fn answers_become_states<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, 1..=3).await;
    let before = database.sql("select max(updated_at) from jobs").await.unwrap();
    let mut stream = consume(&tables, jobs().with_backoff(Backoff::fixed(NEVER))).await;
    for ack in [Ack::Ok, because("not now"), Ack::reject("not ever")] {
        next(&mut stream).await.settle(ack).await.unwrap();
    }
    assert_eq!(states(&database).await, "succeeded 1\nretry 1\nfailed 1");
    let errors = database.sql("select last_error from jobs order by number").await.unwrap();
    assert_eq!(errors, "\nnot now\nnot ever");
    let touched = format!("select count(*) from jobs where updated_at > '{before}'");
    assert_eq!(database.sql(&touched).await.unwrap(), "3");
    let due = "select number from jobs where run_at > now() + interval '59 min'";
    assert_eq!(database.sql(due).await.unwrap(), "2", "only what comes again has another time");
}

async fn after_ten_runs_a_job_has_failed<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, [1]).await;
    database
        .sql("alter table jobs alter attempts_count drop not null; update jobs set attempts_count = null")
        .await
        .unwrap();
    let mut stream = consume(&tables, jobs()).await;
    for run in 1..=10 {
        let delivery = next(&mut stream).await;
        assert_eq!(delivery.message().attempt(), run);
        assert_eq!(states(&database).await, format!("running {run} locked"));
        delivery.settle(because(&format!("run {run} failed"))).await.unwrap();
    }
    assert_eq!(states(&database).await, "failed 10");
    assert_eq!(last_error(&database).await, "run 10 failed");
    quiet(&mut stream).await;
}

async fn with_one_attempt_the_first_failure_is_the_last<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, [1]).await;
    let table = jobs().with_backoff(Backoff::fixed(Duration::ZERO).with_max_attempts(1));
    let mut stream = consume(&tables, table).await;
    next(&mut stream).await.requeue().await.unwrap();
    assert_eq!(states(&database).await, "failed 1");
    quiet(&mut stream).await;
}

async fn backoff_grows_to_its_cap<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, [1]).await;
    let minute = Duration::from_secs(60);
    let backoff = Backoff::default().with_base(minute).with_multiplier(3.0).with_cap(minute * 5).with_jitter(0.0);
    let mut stream = consume(&tables, jobs().with_backoff(backoff)).await;
    for seconds in [60, 180, 300, 300] {
        next(&mut stream).await.requeue().await.unwrap();
        let delay = "select extract(epoch from run_at - updated_at)::int from jobs";
        assert_eq!(database.sql(delay).await.unwrap(), seconds.to_string());
        database.sql("update jobs set run_at = now()").await.unwrap();
        announce(&database).await;
    }
}

async fn a_delay_of_its_own_outranks_the_backoff<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, [1]).await;
    let mut stream = consume(&tables, jobs()).await;
    next(&mut stream).await.settle(Ack::requeue_after(Duration::from_secs(420))).await.unwrap();
    let delay = "select extract(epoch from run_at - updated_at)::int from jobs";
    assert_eq!(database.sql(delay).await.unwrap(), "420");
}

async fn a_handler_that_takes_too_long_is_tried_again_and_has_timed_out_in_the_end<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, [1]).await;
    let table = jobs().with_backoff(Backoff::fixed(Duration::ZERO).with_max_attempts(2));
    let stream = consume(&tables, table).await;
    let runs = watch::Sender::new(Vec::new());
    let handler = async |job: Job<Value>| {
        runs.send_modify(|runs| runs.push(job.value["status"].as_str().unwrap_or_default().to_owned()));
        sleep(PATIENCE * 2).await;
        Ok::<_, BoxError>(Ack::Ok)
    };
    let worker = Worker::new(stream, handler).with_timeout(Duration::from_millis(200)).run();
    let timed_out = until_states(&database, "timed_out 2");
    tokio::select! {
        ended = worker => panic!("the worker ended: {ended:?}"),
        () = timed_out => {}
    }
    assert_eq!(runs.borrow().len(), 2);
    let said = last_error(&database).await;
    assert!(said.contains("took more than 200ms"), "{said}");
}

async fn reasons_are_cut_to_what_the_column_holds<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    database.sql("alter table jobs alter last_error type varchar(10)").await.unwrap();
    insert(&database, [1]).await;
    let mut stream = consume(&tables, jobs()).await;
    next(&mut stream).await.settle(Ack::reject("déjà vu, déjà vu\0")).await.unwrap();
    assert_eq!(last_error(&database).await, "déjà vu, d");
}

async fn an_answer_that_the_table_refuses_is_an_error_and_the_job_comes_again<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    database.sql("alter table jobs add constraint endless check (status <> 'succeeded')").await.unwrap();
    insert(&database, [1, 2]).await;
    let mut stream = consume(&tables, jobs().with_lease(SHORT_LEASE)).await;
    let (first, second) = (next(&mut stream).await, next(&mut stream).await);
    let error = first.ok().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Query, "{error}");
    // What is refused keeps nothing else from being settled.
    drop(second);
    until_sql(&database, "select status from jobs where number = 2", "retry").await;
    let mut again = Vec::new();
    while !again.contains(&(1, 2)) {
        let delivery = next(&mut stream).await;
        let message = delivery.message();
        again.push((message.json::<Value>().unwrap()["number"].as_u64().unwrap(), message.attempt()));
        delivery.settle(Ack::reject("enough")).await.unwrap();
    }
}

async fn earlier_errors_stay_until_the_job_succeeds<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    insert(&database, [1]).await;
    let mut stream = consume(&tables, jobs()).await;
    next(&mut stream).await.settle(because("the first")).await.unwrap();
    next(&mut stream).await.requeue().await.unwrap();
    assert_eq!(last_error(&database).await, "the first");
    next(&mut stream).await.ok().await.unwrap();
    assert_eq!(last_error(&database).await, "");
}
