//! Who waits for whom, and what a role may not do.

use std::time::Duration;

use pgqueue_postgres::{Client, OwnedTransaction, PgTables, TableName, TableWatch, TriggerState, Watched, WhyPolling};
use pgqueue_tests::{WAITS, until_sql};

use crate::{
    both_clients::on_both_clients,
    common::{at_once, jobs, patiently, pending, somebody_does, triggers},
};

on_both_clients!(
    repair_does_not_wait_for_readers,
    installing_gives_up_at_once_where_somebody_writes,
    second_installer_gives_up_at_once,
    table_is_free_while_the_function_is_waited_for,
    function_that_somebody_else_creates_meanwhile_is_used,
    installing_without_the_privilege_falls_back,
);

async fn repair_does_not_wait_for_readers<C: Client>() {
    let (database, tables) = jobs::<C>().await;
    let watch = pending();
    tables.watch_table(&watch).await.unwrap();
    let before = triggers(&database).await;
    let [insert, update] = watch.trigger_names();
    database.sql(&format!("drop trigger {insert} on jobs; alter table jobs disable trigger {update}")).await.unwrap();
    // As pg_dump does.
    let dump = somebody_does::<C>(&database, "lock table jobs in access share mode").await;
    let health = at_once("the repair", tables.ensure_triggers(&watch)).await.unwrap();
    assert!(health.is_healthy());
    let after = triggers(&database).await;
    assert_eq!((after.len(), &after[1]), (2, &before[1]));
    dump.commit().await.unwrap();
}

async fn installing_gives_up_at_once_where_somebody_writes<C: Client>() {
    let (database, tables) = jobs::<C>().await;
    let watch = pending();
    let writer = somebody_does::<C>(&database, "insert into jobs values (1, 'pending')").await;
    let watched = at_once("giving up", tables.watch_table(&watch)).await.unwrap();
    assert_eq!(watched, Watched::Polling { why: WhyPolling::Locked });
    let write = database.sql("set lock_timeout = '1s'; insert into jobs values (2, 'pending')");
    at_once("a write", write).await.unwrap();
    assert_eq!(triggers(&database).await, [""; 0]);

    writer.commit().await.unwrap();
    assert_eq!(tables.watch_table(&watch).await.unwrap(), Watched::Installed);
}

async fn second_installer_gives_up_at_once<C: Client>() {
    let (database, tables) = jobs::<C>().await;
    let watch = pending();
    let lock = "select pg_advisory_xact_lock(hashtextextended('pgqueue.watch', 'jobs'::regclass::oid::bigint))";
    let first = somebody_does::<C>(&database, lock).await;
    let watched = at_once("giving up", tables.watch_table(&watch)).await.unwrap();
    assert_eq!(watched, Watched::Polling { why: WhyPolling::Installing });
    assert_eq!(tables.triggers_healthy(&watch).await.unwrap().function, TriggerState::Missing);

    first.rollback().await.unwrap();
    assert_eq!(tables.watch_table(&watch).await.unwrap(), Watched::Installed);
}

async fn table_is_free_while_the_function_is_waited_for<C: Client>() {
    const LOCK_TIMEOUT: Duration = Duration::from_secs(3);
    let (database, tables) = jobs::<C>().await;
    let watch = pending().with_lock_timeout(LOCK_TIMEOUT);
    // Somebody creates it too, and does not come to an end.
    let theirs = "create function pgqueue_notify() returns trigger language plpgsql as 'begin return null; end'";
    let other = somebody_does::<C>(&database, theirs).await;
    let installing = tokio::spawn({
        let (tables, watch) = (tables.clone(), watch.clone());
        async move { tables.watch_table(&watch).await }
    });
    until_sql(&database, WAITS, "1").await;
    at_once("a write", database.sql("insert into jobs values (1, 'pending')")).await.unwrap();
    let watched = patiently("giving up", installing).await.unwrap().unwrap();
    assert_eq!(watched, Watched::Polling { why: WhyPolling::Locked });

    other.rollback().await.unwrap();
    assert_eq!(tables.watch_table(&watch).await.unwrap(), Watched::Installed);
}

async fn function_that_somebody_else_creates_meanwhile_is_used<C: Client>() {
    let (database, tables) = jobs::<C>().await;
    let watch = pending();
    tables.watch_table(&watch).await.unwrap();
    let create = database.sql("select pg_get_functiondef('pgqueue_notify'::regproc)").await.unwrap();
    database.sql("drop function pgqueue_notify cascade").await.unwrap();
    // As an installer for another table of the schema does.
    let other = somebody_does::<C>(&database, &create.replace("CREATE OR REPLACE", "CREATE")).await;
    let installing = tokio::spawn({
        let (tables, watch) = (tables.clone(), watch.clone());
        async move { tables.watch_table(&watch).await }
    });
    until_sql(&database, WAITS, "1").await;
    other.commit().await.unwrap();
    assert_eq!(patiently("the installer", installing).await.unwrap().unwrap(), Watched::Installed);
}

async fn installing_without_the_privilege_falls_back<C: Client>() {
    let (database, owner) = jobs::<C>().await;
    let role = format!("worker_of_{}", database.name());
    // Roles are the whole server's, and so is this one's name.
    database.sql(&format!("create role {role} login; grant select, update on jobs to {role}")).await.unwrap();
    let url = database.url().replace("postgres@", &format!("{role}@"));
    assert_ne!(url, database.url());
    let tables = PgTables::<C>::connect(&url).await.unwrap();
    let why = WhyPolling::MissingPrivilege;
    assert_eq!(tables.watch_table(&pending()).await.unwrap(), Watched::Polling { why });

    // The function is the owner's from now on; one trigger is missing, and then disabled.
    owner.watch_table(&pending()).await.unwrap();
    assert_eq!(tables.watch_table(&pending()).await.unwrap(), Watched::AlreadyThere);
    let [insert, _] = pending().trigger_names();
    database.sql(&format!("drop trigger {insert} on jobs")).await.unwrap();
    assert_eq!(tables.watch_table(&pending()).await.unwrap(), Watched::Polling { why });
    database.sql(&format!("grant trigger on jobs to {role}")).await.unwrap();
    assert_eq!(tables.watch_table(&pending()).await.unwrap(), Watched::Installed);
    database.sql(&format!("alter table jobs disable trigger {insert}")).await.unwrap();
    assert_eq!(tables.watch_table(&pending()).await.unwrap(), Watched::Polling { why });

    // Without the table it could not work anyway.
    database.sql("create schema closed; create table closed.jobs (id int)").await.unwrap();
    let closed = TableWatch::new(TableName::new("jobs").in_schema("closed"));
    let error = tables.watch_table(&closed).await.unwrap_err();
    assert!(error.to_string().contains(r#""closed"."jobs""#), "{error}");
}
