//! Job tables of all kinds: other types, other names, and what is missing.

use std::time::{Duration, UNIX_EPOCH};

use futures::future::join_all;
use pgqueue_core::{Ack, Backoff, Error, ErrorKind, Requeue, SubscriptionDriver};
use pgqueue_postgres::{Client, JobTable, PgTables, TableName};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    both_clients::on_both_clients,
    common::{NEVER, SHORT_LEASE, consume, insert, job_table, jobs, next, no_table, patiently},
};

on_both_clients!(
    ids_states_and_owners_may_be_of_other_types,
    times_without_a_zone_are_utc,
    names_are_taken_literally,
    payload_key_and_kind_come_from_columns,
    the_whole_row_is_the_payload_else,
    what_is_missing_is_named,
    partitioned_tables_are_job_tables,
    options_that_cannot_work_are_refused,
);

/// Takes a job through every state: dropped by a crash, recovered, requeued, done.
async fn live_through<C: Client>(tables: &PgTables<C>, table: JobTable) -> String {
    let again_at_once = Backoff::fixed(Duration::ZERO);
    let table = table.with_lease(SHORT_LEASE).with_poll_interval(NEVER).with_backoff(again_at_once);
    let crashed = tables.jobs(table.clone());
    crashed.insert_subscription().await.unwrap();
    let delivery = patiently("the job", crashed.fetch_pending()).await.unwrap().expect("the job");
    crashed.crash();
    drop(delivery);

    let mut stream = consume(tables, table).await;
    let delivery = next(&mut stream).await;
    assert_eq!(delivery.message().attempt(), 2);
    // Longer than a lease, in which it would be lost if it were not renewed.
    assert!(timeout(SHORT_LEASE * 2, delivery.lease_lost()).await.is_err(), "the lease was lost");
    delivery.settle(Ack::Requeue(Requeue::default().with_reason("again"))).await.unwrap();
    drop(next(&mut stream).await);
    let delivery = next(&mut stream).await;
    assert_eq!(delivery.message().attempt(), 4);
    let id = delivery.message().id().to_string();
    assert_eq!(delivery.message().position().as_str(), id);
    delivery.ok().await.unwrap();
    id
}

async fn ids_states_and_owners_may_be_of_other_types<C: Client>() {
    let kinds = [
        ("bigint", "text", "text", "bigint", "9007199254740993"),
        ("text", "varchar(11)", "varchar(36)", "smallint", "a \"b\" 'c'"),
        ("uuid", "state", "uuid", "int", "00000000-0000-0000-0000-00000000000a"),
        ("key", "label", "text", "int", "7"),
    ];
    let lived = kinds.map(|(id, status, locked_by, attempts, told)| async move {
        let (database, tables) = no_table::<C>().await;
        let create = format!(
            "create type state as enum ('not_started', 'running', 'failed', 'timed_out', 'succeeded', 'retry');
            create domain key as int check (value > 0); create domain label as state;
            create table jobs (
              id {id} primary key, created_at timestamptz default now(), status {status} not null default 'not_started',
              last_error text, attempts_count {attempts} not null default 0, locked_at timestamptz, locked_by {locked_by},
              run_at timestamptz not null default now(), \"to\" text default 'me'
            );
            insert into jobs (id) values ('{}')",
            told.replace('\'', "''")
        );
        database.sql(&create).await.unwrap();
        assert_eq!(live_through(&tables, JobTable::new("jobs")).await, told);
        let left =
            database.sql("select status, attempts_count, locked_by, locked_at, last_error from jobs").await.unwrap();
        assert_eq!(left, "succeeded\t4\t\t\t");
    });
    join_all(lived).await;
}

async fn times_without_a_zone_are_utc<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    let alter = "alter table jobs alter created_at type timestamp, alter updated_at type timestamp, alter locked_at type timestamp,
        alter run_at drop default, alter run_at type timestamp, alter run_at set default (now() at time zone 'utc')";
    database.sql(alter).await.unwrap();
    let name = database.name();
    database.sql(&format!("alter database \"{name}\" set timezone = 'Asia/Tokyo'")).await.unwrap();
    database.sql("insert into jobs (number, created_at) values (1, '2024-05-06 07:08:09')").await.unwrap();
    drop(tables);
    let tables = PgTables::<C>::connect(&database.url()).await.unwrap();
    let mut stream = consume(&tables, jobs()).await;
    let delivery = next(&mut stream).await;
    let published = delivery.message().published_at().duration_since(UNIX_EPOCH).unwrap();
    assert_eq!(published.as_secs(), 1_714_979_289);
    delivery.requeue().await.unwrap();
    next(&mut stream).await.ok().await.unwrap();
    drop(stream);
    database.sql("update jobs set status = 'not_started', attempts_count = 0").await.unwrap();
    assert_eq!(live_through(&tables, jobs()).await.len(), 36);
    let now = "select abs(extract(epoch from updated_at - now() at time zone 'utc')) < 60 from jobs";
    assert_eq!(database.sql(now).await.unwrap(), "t");
}

async fn names_are_taken_literally<C: Client>() {
    let (database, tables) = no_table::<C>().await;
    let create = r##"
        create schema "My ""App"" $1";
        create type "My ""App"" $1"."State; --" as enum ('Not ''started''', '\running', 'again', 'Failed', 'too late', '$1');
        create table "My ""App"" $1"."Jobs ""2""" (
          "The ""Id""" bigint primary key,
          "Status" "My ""App"" $1"."State; --" not null default 'Not ''started''',
          "#" int not null default 0,
          "Locked At" timestamptz,
          "by" text,
          "select" timestamptz not null default now(),
          "pgqueue_job" text,
          "order" timestamptz not null default now(),
          "UPDATED" timestamptz,
          "due" text default 'not a table',
          id text
        );
        insert into "My ""App"" $1"."Jobs ""2""" ("The ""Id""") values (1);
    "##;
    database.sql(create).await.unwrap();
    let table = JobTable::new(TableName::new("Jobs \"2\"").in_schema("My \"App\" $1"))
        .with_id_column("The \"Id\"")
        .with_status_column("Status")
        .with_attempts_column("#")
        .with_locked_at_column("Locked At")
        .with_locked_by_column("by")
        .with_run_at_column("select")
        .with_last_error_column("pgqueue_job")
        .with_created_at_column("order")
        .with_updated_at_column("UPDATED")
        .with_not_started_label("Not 'started'")
        .with_running_label("\\running")
        .with_retry_label("again")
        .with_failed_label("Failed")
        .with_timed_out_label("too late")
        .with_succeeded_label("$1");
    assert_eq!(live_through(&tables, table).await, "1");
    let left =
        r#"select "Status", "UPDATED" is not null, "pgqueue_job" is null, due from "My ""App"" $1"."Jobs ""2""""#;
    assert_eq!(database.sql(left).await.unwrap(), "$1\tt\tt\tnot a table");
}

async fn payload_key_and_kind_come_from_columns<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    let alter = r#"alter table jobs add document jsonb default '{"a": [1]}', add words text default 'as it is',
        add bytes bytea default '\x00ff', add account int default 7, add sort text default 'mail', add nothing text"#;
    database.sql(alter).await.unwrap();
    for (column, payload) in [
        ("document", &b"{\"a\": [1]}"[..]),
        ("words", b"as it is"),
        ("bytes", b"\x00\xff"),
        ("account", b"7"),
        ("nothing", b""),
    ] {
        insert(&database, [1]).await;
        let table = jobs().with_payload_column(column).with_key_column("account").with_kind_column("sort");
        let delivery = next(&mut consume(&tables, table).await).await;
        let message = delivery.message();
        assert_eq!(message.payload(), payload, "{column}");
        assert_eq!((message.key(), message.kind(), message.topic()), (Some("7"), Some("mail"), "jobs"));
        delivery.ok().await.unwrap();
    }
    let table = jobs().with_key_column("nothing").with_kind_column("nothing");
    insert(&database, [1]).await;
    let delivery = next(&mut consume(&tables, table).await).await;
    assert_eq!((delivery.message().key(), delivery.message().kind()), (None, None));
}

async fn the_whole_row_is_the_payload_else<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    database.sql("alter table jobs add pgqueue_job text default 'a column', add due text").await.unwrap();
    insert(&database, [7]).await;
    let delivery = next(&mut consume(&tables, jobs()).await).await;
    let row: Value = delivery.decode().unwrap();
    for (column, value) in [
        ("number", json!(7)),
        ("status", json!("running")),
        ("attempts_count", json!(1)),
        ("id", json!(delivery.message().id().as_str())),
        ("pgqueue_job", json!("a column")),
        ("due", Value::Null),
    ] {
        assert_eq!(row[column], value, "{column}");
    }
}

async fn refusal<C: Client>(tables: &PgTables<C>, table: JobTable) -> Error {
    patiently("an answer", tables.jobs(table).insert_subscription()).await.unwrap_err()
}

async fn what_is_missing_is_named<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    let other = "
        create view job_view as select * from jobs;
        create schema app;
        create table no_key (like jobs including defaults);
        create table half_key (like jobs including defaults, primary key (id, number));
        create table short (like jobs including defaults, primary key (id));
        alter table short alter status drop default, alter status type varchar(9);
    ";
    database.sql(other).await.unwrap();
    let in_app = TableName::new("jobs").in_schema("app");
    for (table, kind, says) in [
        (JobTable::new("Jobs"), ErrorKind::NotFound, &["\"Jobs\"", "does not exist"][..]),
        (JobTable::new(in_app), ErrorKind::NotFound, &["\"app\".\"jobs\"", "does not exist"]),
        (JobTable::new("job_view"), ErrorKind::Invalid, &["\"job_view\"", "not a table"]),
        (JobTable::new("no_key"), ErrorKind::Invalid, &["\"no_key\"", "\"id\"", "unique"]),
        (JobTable::new("half_key"), ErrorKind::Invalid, &["\"half_key\"", "\"id\"", "unique"]),
        (JobTable::new("short"), ErrorKind::Invalid, &["\"status\"", "varchar", "\"not_started\""]),
        (jobs().with_id_column("Id"), ErrorKind::Invalid, &["\"jobs\"", "\"Id\""]),
        (jobs().with_id_column("status"), ErrorKind::Invalid, &["\"status\"", "job_status", "uuid"]),
        (jobs().with_status_column("state"), ErrorKind::Invalid, &["\"state\""]),
        (jobs().with_status_column("number"), ErrorKind::Invalid, &["\"number\"", "int4", "enum"]),
        (jobs().with_succeeded_label("done"), ErrorKind::Invalid, &["\"status\"", "job_status", "\"done\""]),
        (jobs().with_attempts_column("attempts"), ErrorKind::Invalid, &["\"attempts\""]),
        (jobs().with_attempts_column("last_error"), ErrorKind::Invalid, &["\"last_error\"", "integer"]),
        (jobs().with_locked_at_column("locked"), ErrorKind::Invalid, &["\"locked\""]),
        (jobs().with_locked_at_column("number"), ErrorKind::Invalid, &["\"number\"", "timestamp"]),
        (jobs().with_locked_by_column("owner"), ErrorKind::Invalid, &["\"owner\""]),
        (jobs().with_locked_by_column("number"), ErrorKind::Invalid, &["\"number\"", "uuid or a text"]),
        (jobs().with_run_at_column("due"), ErrorKind::Invalid, &["\"due\""]),
        (jobs().with_last_error_column("error"), ErrorKind::Invalid, &["\"error\""]),
        (jobs().with_created_at_column("born"), ErrorKind::Invalid, &["\"born\""]),
        (jobs().with_updated_at_column("changed"), ErrorKind::Invalid, &["\"changed\""]),
        (jobs().with_payload_column("payload"), ErrorKind::Invalid, &["\"payload\""]),
        (jobs().with_key_column("key"), ErrorKind::Invalid, &["\"key\""]),
        (jobs().with_kind_column("kind"), ErrorKind::Invalid, &["\"kind\""]),
    ] {
        let error = refusal(&tables, table).await;
        assert_eq!(error.kind(), kind, "{error}");
        let said = error.to_string();
        assert!(says.iter().all(|word| said.contains(word)), "{said:?} does not say {says:?}");
    }
    database.sql("drop view job_view; alter table jobs drop updated_at").await.unwrap();
    tables.jobs(jobs()).insert_subscription().await.unwrap();
}

async fn partitioned_tables_are_job_tables<C: Client>() {
    let (database, tables) = job_table::<C>().await;
    let create = "
        create table parts (like jobs including defaults, primary key (id, number)) partition by range (number);
        create table parts_1 partition of parts for values from (0) to (10);
        create table parts_2 partition of parts for values from (10) to (20);
        insert into parts (number) values (11);
    ";
    database.sql(create).await.unwrap();
    live_through(&tables, JobTable::new("parts")).await;
    assert_eq!(database.sql("select status from parts_2").await.unwrap(), "succeeded");
}

async fn options_that_cannot_work_are_refused<C: Client>() {
    let (_database, tables) = job_table::<C>().await;
    for table in [jobs().with_lease(Duration::ZERO), jobs().with_retry_label("running"), JobTable::new("")] {
        assert_eq!(refusal(&tables, table).await.kind(), ErrorKind::Invalid);
    }
    let listening = patiently("an answer", tables.jobs(jobs().with_channel("x".repeat(64))).listen()).await;
    assert_eq!(listening.err().map(|error| error.kind()), Some(ErrorKind::Invalid));
    // Times that no clock can add are as good as none.
    let endless = jobs().with_lease(Duration::MAX).with_give_up_after(Duration::MAX).with_poll_interval(Duration::MAX);
    let driver = tables.jobs(endless);
    driver.insert_subscription().await.unwrap();
    drop(driver.listen().await.unwrap());
    assert!(patiently("none", driver.fetch_pending()).await.unwrap().is_none());
}
