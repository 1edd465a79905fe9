//! A pooler hands sessions around, and leaves nothing behind.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Command, Stdio},
};

use pgqueue_testserver::{Database, PgBouncer, test_server};

use crate::support::{eventually, is_worked_in};

/// A pooler before the server that the tests share; `None` where it was said that there is none.
async fn pooler() -> Option<PgBouncer> {
    if std::env::var_os("PGQUEUE_WITHOUT_PGBOUNCER").is_some_and(|value| !value.is_empty()) {
        // Past the harness, which would keep it to itself.
        std::io::stderr().write_all(b"did not run: PGQUEUE_WITHOUT_PGBOUNCER is set\n").unwrap();
        return None;
    }
    let server = test_server().await.unwrap();
    Some(PgBouncer::start(server.port()).await.unwrap())
}

#[tokio::test]
async fn pooler_leads_to_any_database_and_survives_a_crash() {
    let Some(pooler) = pooler().await else { return };
    let database = Database::create().await.unwrap();
    database.sql("create table coffee (name text)").await.unwrap();
    for _ in 0..2 {
        pooler.sql(database.name(), "insert into coffee values ('espresso')").await.unwrap();
        pooler.crash().await.unwrap();
    }
    assert_eq!(pooler.sql(database.name(), "select name from coffee").await.unwrap(), "espresso\nespresso");
}

#[tokio::test]
async fn dropped_pooler_leaves_no_process_and_no_folder() {
    let Some(pooler) = pooler().await else { return };
    let folder = pooler.folder().to_owned();
    assert!(folder.is_dir());
    drop(pooler);
    eventually("the pooler is gone", || !folder.exists() && !is_worked_in(&folder)).await;
}

#[tokio::test]
async fn watchdog_ends_the_pooler_of_a_killed_process() {
    if pooler().await.is_none() {
        return;
    }
    let mut owner = Command::new(env!("CARGO_BIN_EXE_pgqueue-testserver"))
        .arg("--pgbouncer")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines().map(Result::unwrap);
    let folder = lines.find_map(|line| line.strip_prefix("pgbouncer folder ").map(PathBuf::from)).unwrap();
    assert!(folder.is_dir());
    owner.kill().unwrap(); // with SIGKILL
    owner.wait().unwrap();
    eventually("the pooler is gone", || !folder.exists() && !is_worked_in(&folder)).await;
}
