//! Migrations that do not get through: what was done stands, what was not can be done again.

use std::time::Duration;

use pgqueue_core::ErrorKind;
use pgqueue_postgres::{Client, PgQueue};
use pgqueue_tests::WAITS;
use pgqueue_testserver::Database;

use super::FURTHER;
use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    catalog,
    common::{assert_says, patiently, publish_number, queue, until_sql},
};

on_both_clients!(
    a_migration_that_is_killed_at_any_step_resumes,
    the_first_migration_that_is_killed_resumes,
    a_long_lock_stops_a_migration_and_loses_nothing,
    a_migration_that_fails_says_why_and_loses_nothing,
);

/// Ends whoever waits for a lock here.
const KILL: &str = "
    select count(pg_terminate_backend(pid)) from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock'";

/// Migrates into a lock that another holds, and is killed there; returns when it is over.
async fn killed<C: Backend>(database: &Database, lock: &str, further: &[&str]) {
    let mut holder = C::open(&database.url()).await;
    C::execute(&mut holder, lock).await;
    let queue = PgQueue::<C>::connect(&database.url()).await.unwrap();
    let (ended, ()) = tokio::join!(
        patiently("the end of a migration", queue.migrate_further(further)),
        until_sql(database, KILL, "1")
    );
    let ended = ended.unwrap_err();
    assert_says(&ended, ErrorKind::Connection, &["bringing the schema \"pgqueue\" to version"]);
    assert!(ended.is_transient());
    C::rollback(holder).await;
}

async fn a_migration_that_is_killed_at_any_step_resumes<C: Backend>() {
    const STEP: &str = "select pg_advisory_xact_lock(4711);";
    let (database, queue) = queue::<C>().await;
    let (reference, same) = crate::common::queue::<C>().await;
    publish_number(&queue, 1).await;
    for version in 0..FURTHER.len() {
        // Before, between and after all that it does.
        let statements: Vec<_> = FURTHER[version].split_inclusive(";\n    ").collect();
        let at = if version == 1 { vec![0, statements.len()] } else { (0..=statements.len()).collect() };
        let before = catalog::schema(&database).await;
        for at in at {
            let blocked = [&statements[..at], &[STEP], &statements[at..]].concat().concat();
            let further = [&FURTHER[..version], &[&*blocked]].concat();
            killed::<C>(&database, STEP, &further).await;
            catalog::assert_same(&format!("killed before {at}"), &before, &catalog::schema(&database).await);
        }
        publish_number(&queue, 2).await;
        queue.migrate_further(&FURTHER[..=version]).await.unwrap();
        same.migrate_further(&FURTHER[..=version]).await.unwrap();
        catalog::assert_same("resumed", &catalog::schema(&reference).await, &catalog::schema(&database).await);
    }
    assert_eq!(database.sql("select count(*) from pgqueue.log").await.unwrap(), "4");
}

async fn the_first_migration_that_is_killed_resumes<C: Backend>() {
    let database = Database::create().await.unwrap();
    let empty = catalog::everything(&database).await;
    // Before it begins, and when it has begun.
    for lock in ["select pg_advisory_xact_lock(hashtextextended('pgqueue.migrate', 0))", "create schema pgqueue"] {
        killed::<C>(&database, lock, &[]).await;
        catalog::assert_same("nothing is left", &empty, &catalog::everything(&database).await);
    }
    PgQueue::<C>::connect(&database.url()).await.unwrap().migrate().await.unwrap();
}

async fn a_long_lock_stops_a_migration_and_loses_nothing<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    let before = catalog::schema(&database).await;
    let mut holder = C::open(&database.url()).await;
    C::execute(&mut holder, "lock table pgqueue.log in access share mode").await;
    let published = async {
        until_sql(&database, WAITS, "1").await;
        // Whoever comes then waits behind it, and for no longer than it does: the lock is still held.
        publish_number(&queue, 0).await
    };
    let (stopped, _) = tokio::join!(patiently("a refusal", queue.migrate_further(&FURTHER)), published);
    let stopped = stopped.unwrap_err();
    assert_says(&stopped, ErrorKind::Query, &["version 2", "lock timeout", "it is as before"]);
    assert!(stopped.is_transient());
    catalog::assert_same("nothing is left half done", &before, &catalog::schema(&database).await);
    publish_number(&queue, 1).await;
    C::rollback(holder).await;
    queue.migrate_further(&FURTHER).await.unwrap();
    publish_number(&queue, 2).await;
}

async fn a_migration_that_fails_says_why_and_loses_nothing<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let before = catalog::schema(&database).await;
    let wrong =
        "create table pgqueue.half (id bigint); select 1 / 0; insert into pgqueue.migration (version) values (2);";
    let refused = queue.migrate_further(&[wrong]).await.unwrap_err();
    assert_says(&refused, ErrorKind::Invalid, &["version 2", "division by zero", "it is as before"]);
    catalog::assert_same("nothing is left half done", &before, &catalog::schema(&database).await);
    tokio::time::timeout(Duration::from_secs(10), queue.migrate_further(&FURTHER)).await.unwrap().unwrap();
}
