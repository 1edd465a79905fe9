//! Servers that are out of reach for a while.

use std::time::Duration;

use pgqueue_core::{ErrorKind, SubscriptionDriver, subscribe};
use pgqueue_postgres::{Client, OwnedTransaction, PgTables};
use pgqueue_testserver::{Database, Proxy};

use crate::{
    both_clients::on_both_clients,
    common::{
        SHORT_LEASE, WAITS, consume, insert, job_table, jobs, next, number, open_transaction, patiently, quiet_for,
        states, until_sql, until_states,
    },
};

on_both_clients!(
    after_an_outage_jobs_come_without_a_notification,
    an_answer_during_an_outage_is_repeated,
    an_outage_shorter_than_the_lease_costs_no_job,
    an_outage_longer_than_the_lease_is_told,
    silent_consumers_are_looked_for_after_an_outage,
    a_claim_whose_answer_was_lost_is_given_back,
);

async fn through<C: Client>(database: &Database) -> (Proxy, PgTables<C>) {
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    let tables = PgTables::connect(&database.url_at(proxy.port())).await.unwrap();
    (proxy, tables)
}

async fn after_an_outage_jobs_come_without_a_notification<C: Client>() {
    let (database, _) = job_table::<C>().await;
    let (proxy, tables) = through::<C>(&database).await;
    insert(&database, [1]).await;
    let mut stream = patiently("a stream", subscribe(tables.jobs(jobs()))).await.unwrap();
    next(&mut stream).await.ok().await.unwrap();
    quiet_for(&mut stream, Duration::from_millis(100)).await;
    proxy.cut().await;
    insert(&database, [2]).await;
    quiet_for(&mut stream, Duration::from_millis(500)).await;
    proxy.restore().await.unwrap();
    assert_eq!(number(&next(&mut stream).await), 2);
}

async fn an_answer_during_an_outage_is_repeated<C: Client>() {
    let (database, _) = job_table::<C>().await;
    let (proxy, tables) = through::<C>(&database).await;
    insert(&database, [1]).await;
    let driver = tables.jobs(jobs());
    let delivery = patiently("the job", driver.fetch_pending()).await.unwrap().expect("the job");
    proxy.cut().await;
    let error = delivery.ok().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    proxy.restore().await.unwrap();
    until_states(&database, "succeeded 1").await;
}

async fn an_outage_shorter_than_the_lease_costs_no_job<C: Client>() {
    let lease = SHORT_LEASE * 3;
    let (database, direct) = job_table::<C>().await;
    let (proxy, tables) = through::<C>(&database).await;
    insert(&database, [1]).await;
    let driver = tables.jobs(jobs().with_lease(lease));
    let delivery = patiently("the job", driver.fetch_pending()).await.unwrap().expect("the job");
    let locked_at = database.sql("select locked_at from jobs").await.unwrap();
    proxy.cut().await;
    let mut other = consume(&direct, jobs().with_lease(lease)).await;
    quiet_for(&mut other, lease / 2).await;
    proxy.restore().await.unwrap();
    until_sql(&database, &format!("select locked_at > '{locked_at}' from jobs"), "t").await;
    quiet_for(&mut other, lease * 2).await;
    delivery.ok().await.unwrap();
    assert_eq!(states(&database).await, "succeeded 1");
}

async fn an_outage_longer_than_the_lease_is_told<C: Client>() {
    let (database, direct) = job_table::<C>().await;
    let (proxy, tables) = through::<C>(&database).await;
    insert(&database, [1]).await;
    let driver = tables.jobs(jobs().with_lease(SHORT_LEASE));
    let delivery = patiently("the job", driver.fetch_pending()).await.unwrap().expect("the job");
    proxy.cut().await;
    patiently("the end of the lease", delivery.lease_lost()).await;
    let mut other = consume(&direct, jobs().with_lease(SHORT_LEASE)).await;
    let again = next(&mut other).await;
    proxy.restore().await.unwrap();
    assert_eq!(delivery.ok().await.unwrap_err().kind(), ErrorKind::LeaseLost);
    again.ok().await.unwrap();
    assert_eq!(states(&database).await, "succeeded 2");
}

async fn silent_consumers_are_looked_for_after_an_outage<C: Client>() {
    let (database, _) = job_table::<C>().await;
    let (proxy, tables) = through::<C>(&database).await;
    let mut stream = patiently("a stream", subscribe(tables.jobs(jobs().with_lease(SHORT_LEASE)))).await.unwrap();
    quiet_for(&mut stream, Duration::from_millis(100)).await;
    proxy.cut().await;
    let stale = "insert into jobs (number, status, attempts_count, locked_by, locked_at)
        values (1, 'running', 1, gen_random_uuid(), now() - interval '1 min')";
    database.sql(stale).await.unwrap();
    quiet_for(&mut stream, SHORT_LEASE * 2).await;
    assert_eq!(states(&database).await, "running 1 locked");
    proxy.restore().await.unwrap();
    assert_eq!(number(&next(&mut stream).await), 1);
}

async fn a_claim_whose_answer_was_lost_is_given_back<C: Client>() {
    let (database, _) = job_table::<C>().await;
    let (proxy, tables) = through::<C>(&database).await;
    let driver = tables.jobs(jobs());
    // So that the connection is there and the statement known.
    assert!(patiently("nothing", driver.fetch_pending()).await.unwrap().is_none());
    insert(&database, [1]).await;
    let slow = "
        create function wait() returns trigger language plpgsql
          as $$ begin perform pg_advisory_xact_lock_shared(1); return new; end $$;
        create trigger wait before update on jobs for each row execute function wait();
    ";
    database.sql(slow).await.unwrap();
    let gate = open_transaction::<C>(&database, "select pg_advisory_xact_lock(1)").await;
    let claim = tokio::spawn(async move { (driver.fetch_pending().await, driver) });
    until_sql(&database, WAITS, "1").await;
    proxy.black_hole(true);
    gate.rollback().await.unwrap();
    until_states(&database, "running 1 locked").await;
    proxy.cut().await;
    proxy.black_hole(false);
    let (claimed, driver) = patiently("an error", claim).await.unwrap();
    assert!(claimed.unwrap_err().is_transient());

    proxy.restore().await.unwrap();
    until_states(&database, "retry 0").await;
    let delivery = patiently("the job", driver.fetch_pending()).await.unwrap().expect("the job");
    assert_eq!(delivery.message().attempt(), 1);
    delivery.ok().await.unwrap();
}
