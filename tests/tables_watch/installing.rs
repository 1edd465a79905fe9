//! What is installed, and when it notifies.

use pgqueue_postgres::{Client, PgTables, TableName, TableWatch, Watched};
use pgqueue_testserver::Database;

use crate::{
    both_clients::on_both_clients,
    common::{jobs, listen, pending, rings, triggers},
};

on_both_clients!(
    installing_again_changes_nothing,
    writes_notify_where_the_condition_holds,
    bulk_insert_notifies_once,
    two_watches_of_a_table_live_side_by_side,
    tables_of_the_same_name_are_not_mixed_up,
    partitions_notify_too,
    search_path_of_the_writer_does_not_matter,
);

async fn installing_again_changes_nothing<C: Client>() {
    let (database, tables) = jobs::<C>().await;
    assert_eq!(tables.watch_table(&pending()).await.unwrap(), Watched::Installed);
    // The transaction that wrote a row of the catalogue last is its xmin.
    const ALL: &str = "select oid, xmin, tgname from pg_trigger \
                       union all select oid, xmin, proname from pg_proc where proname = 'pgqueue_notify' order by 1";
    let installed = database.sql(ALL).await.unwrap();
    assert_eq!(installed.lines().count(), 3, "{installed}");

    assert_eq!(tables.watch_table(&pending()).await.unwrap(), Watched::AlreadyThere);
    assert!(tables.ensure_triggers(&pending()).await.unwrap().is_healthy());
    let elsewhere = PgTables::<C>::connect(&database.url()).await.unwrap();
    assert_eq!(elsewhere.watch_table(&pending()).await.unwrap(), Watched::AlreadyThere);
    assert_eq!(database.sql(ALL).await.unwrap(), installed);
    let schemas = "select count(*) from pg_namespace where nspname = 'pgqueue'";
    assert_eq!(database.sql(schemas).await.unwrap(), "0");
}

async fn writes_notify_where_the_condition_holds<C: Client>() {
    let (database, tables) = jobs::<C>().await;
    let watch = pending();
    tables.watch_table(&watch).await.unwrap();
    let mut notices = listen(&tables, &watch).await;
    for (statement, wanted) in [
        ("insert into jobs values (1, 'pending'), (2, 'done')", 1),
        ("insert into jobs values (3, 'done')", 0),
        ("update jobs set status = 'running' where id = 1", 0),
        ("update jobs set status = 'retry' where id = 1", 1),
        ("delete from jobs where id = 1", 0),
        ("begin; insert into jobs values (4, 'pending'); rollback", 0),
    ] {
        database.sql(statement).await.unwrap();
        assert_eq!(rings(&database, &mut notices).await, wanted, "{statement}");
    }
}

async fn bulk_insert_notifies_once<C: Client>() {
    let (database, tables) = jobs::<C>().await;
    let watch = TableWatch::new("jobs");
    tables.watch_table(&watch).await.unwrap();
    let mut notices = listen(&tables, &watch).await;
    database.sql("insert into jobs select g, 'pending' from generate_series(1, 500) g").await.unwrap();
    assert_eq!(rings(&database, &mut notices).await, 1);
    database.sql("update jobs set status = 'done'").await.unwrap();
    assert_eq!(rings(&database, &mut notices).await, 1, "without a condition every row counts");
}

async fn two_watches_of_a_table_live_side_by_side<C: Client>() {
    let (database, tables) = jobs::<C>().await;
    let done = TableWatch::new("jobs").with_channel("It's \\ \"done\"").with_condition(r"new.status = E'do\\ne' -- so");
    assert_eq!(tables.watch_table(&pending()).await.unwrap(), Watched::Installed);
    assert_eq!(tables.watch_table(&done).await.unwrap(), Watched::Installed);
    assert!(tables.triggers_healthy(&pending()).await.unwrap().is_healthy());
    assert!(tables.triggers_healthy(&done).await.unwrap().is_healthy());
    let (mut pending_notices, mut done_notices) = (listen(&tables, &pending()).await, listen(&tables, &done).await);
    database.sql(r"insert into jobs values (1, E'do\\ne')").await.unwrap();
    assert_eq!(rings(&database, &mut pending_notices).await, 0);
    assert_eq!(rings(&database, &mut done_notices).await, 1);
}

async fn tables_of_the_same_name_are_not_mixed_up<C: Client>() {
    let (database, tables) = jobs::<C>().await;
    database.sql("create schema other; create table other.jobs (like jobs)").await.unwrap();
    let other = TableWatch::new(TableName::new("jobs").in_schema("other")).with_channel("others");
    tables.watch_table(&pending()).await.unwrap();
    let same_channel =
        other.clone().with_channel(pending().channel()).with_condition("new.status in ('pending', 'retry')");
    assert!(!tables.triggers_healthy(&same_channel).await.unwrap().is_healthy(), "only its namesake has triggers");

    assert_eq!(tables.watch_table(&other).await.unwrap(), Watched::Installed);
    assert!(tables.triggers_healthy(&other).await.unwrap().is_healthy());
    let placed = "select tgrelid::regclass, tgfoid::regproc from pg_trigger where not tgisinternal order by tgname";
    let expected = "jobs\tpgqueue_notify\nother.jobs\tother.pgqueue_notify\njobs\tpgqueue_notify\nother.jobs\tother.pgqueue_notify";
    let mut placed: Vec<_> = database.sql(placed).await.unwrap().lines().map(str::to_owned).collect();
    placed.sort();
    let mut expected: Vec<_> = expected.lines().collect();
    expected.sort_unstable();
    assert_eq!(placed, expected);

    let (mut ours, mut theirs) = (listen(&tables, &pending()).await, listen(&tables, &other).await);
    database.sql("insert into other.jobs values (1, 'pending')").await.unwrap();
    assert_eq!(rings(&database, &mut ours).await, 0);
    assert_eq!(rings(&database, &mut theirs).await, 1);
}

async fn partitions_notify_too<C: Client>() {
    let database = Database::create().await.unwrap();
    database
        .sql(
            "create table jobs (id int, status text) partition by range (id); \
             create table few partition of jobs for values from (0) to (10); \
             create table many partition of jobs for values from (10) to (1000) partition by range (id); \
             create table several partition of many for values from (10) to (100)",
        )
        .await
        .unwrap();
    let tables = PgTables::<C>::connect(&database.url()).await.unwrap();
    let watch = pending();
    assert_eq!(tables.watch_table(&watch).await.unwrap(), Watched::Installed);
    database.sql("create table rest partition of many for values from (100) to (1000)").await.unwrap();
    let mut notices = listen(&tables, &watch).await;
    for id in [1, 11, 111] {
        database.sql(&format!("insert into jobs values ({id}, 'pending')")).await.unwrap();
        assert_eq!(rings(&database, &mut notices).await, 1, "{id}");
    }

    let [insert, _] = watch.trigger_names();
    database.sql(&format!("alter table several disable trigger {insert}")).await.unwrap();
    assert!(!tables.triggers_healthy(&watch).await.unwrap().is_healthy());
    let before = triggers(&database).await;
    assert!(tables.ensure_triggers(&watch).await.unwrap().is_healthy());
    assert_eq!(triggers(&database).await, before);
    database.sql("insert into jobs values (12, 'pending')").await.unwrap();
    assert_eq!(rings(&database, &mut notices).await, 1);
}

async fn search_path_of_the_writer_does_not_matter<C: Client>() {
    let (database, tables) = jobs::<C>().await;
    let watch = pending();
    tables.watch_table(&watch).await.unwrap();
    let mut notices = listen(&tables, &watch).await;
    database
        .sql(
            "create schema evil; \
             create function evil.pg_notify(text, text) returns void language plpgsql as \
               $$ begin raise exception 'not that one'; end $$; \
             create function evil.eq(text, text) returns boolean language plpgsql as \
               $$ begin raise exception 'nor that one'; end $$; \
             create operator evil.= (function = evil.eq, leftarg = text, rightarg = text)",
        )
        .await
        .unwrap();
    for path in ["evil, pg_catalog, public", "''"] {
        let write =
            format!("set search_path = {path}; insert into public.jobs select 1 + count(*), 'retry' from public.jobs");
        database.sql(&write).await.unwrap();
        assert_eq!(rings(&database, &mut notices).await, 1, "{path}");
    }
}
