//! A server answers, survives what it should survive, and leaves nothing behind.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
};

use pgqueue_testserver::{Database, Error, Server, test_server};
use tokio::time::timeout;

use crate::support::{PATIENCE, eventually, exists, is_worked_in};

#[tokio::test]
async fn server_answers_sql() {
    let server = Server::start().await.unwrap();
    let sql = async |text| server.sql("postgres", text).await.unwrap();

    assert_eq!(sql("SELECT 1, NULL, 'two' UNION ALL SELECT 3, '', 'four'; SELECT 5").await, "1\t\ttwo\n3\t\tfour\n5");
    assert_eq!(sql("CREATE TABLE nothing ()").await, "");
    assert_eq!(sql("SHOW server_version_num").await.parse::<u32>().unwrap() / 10_000, server.major_version().into());
    let durability =
        "SHOW fsync; SHOW synchronous_commit; SHOW full_page_writes; SHOW max_connections; SHOW server_encoding";
    assert_eq!(sql(durability).await, "on\non\non\n500\nUTF8");
    assert_eq!(sql("SELECT datcollate FROM pg_database WHERE datname = 'template1'").await, "C");
}

#[tokio::test]
async fn settings_reach_the_server() {
    let server = Server::builder()
        .with_setting("wal_writer_delay", "10s")
        .with_setting("max_connections", "20")
        .with_setting("cluster_name", "it's")
        .start()
        .await
        .unwrap();
    let shown = async |name| server.sql("postgres", &format!("SHOW {name}")).await.unwrap();
    assert_eq!(shown("wal_writer_delay").await, "10s");
    assert_eq!(shown("max_connections").await, "20");
    assert_eq!(shown("cluster_name").await, "it's");
}

#[tokio::test]
async fn standby_has_what_the_primary_had_and_takes_over() {
    let server = Server::start().await.unwrap();
    server.sql("postgres", "CREATE TABLE t AS SELECT 1 AS n").await.unwrap();
    let standby = server.start_standby().await.unwrap();
    assert_eq!(standby.sql("postgres", "SELECT pg_is_in_recovery(), n FROM t").await.unwrap(), "t\t1");

    server.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'").await.unwrap();
    server.sql("postgres", "SELECT pg_reload_conf()").await.unwrap();
    let synchronous = "SELECT FROM pg_stat_replication WHERE sync_state = 'sync'";
    let statement = format!(
        "DO $$ BEGIN WHILE NOT EXISTS ({synchronous}) LOOP PERFORM pg_stat_clear_snapshot(), pg_sleep(0.01); END LOOP; END $$"
    );
    timeout(PATIENCE, server.sql("postgres", &statement)).await.expect("a standby that streams").unwrap();
    server.sql("postgres", "INSERT INTO t VALUES (2)").await.unwrap();
    server.kill().await.unwrap();
    standby.sql("postgres", "SELECT pg_promote()").await.unwrap();
    standby.sql("postgres", "INSERT INTO t VALUES (3)").await.unwrap();
    assert_eq!(standby.sql("postgres", "SELECT count(*) FROM t").await.unwrap(), "3");
}

#[tokio::test]
async fn impossible_settings_are_an_error_with_the_log() {
    let error = Server::builder().with_setting("max_connections", "few").start().await.unwrap_err();
    assert!(matches!(&error, Error::Server { log, .. } if log.contains("max_connections")), "{error}");
}

#[tokio::test]
async fn refused_statements_are_errors_with_their_code() {
    let server = test_server().await.unwrap();
    let code = async |database, text| match server.sql(database, text).await {
        Err(Error::Sql { code, .. }) => code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code("postgres", "SELECT 1; SELECT nonsense").await, "42703");
    assert_eq!(code("nowhere", "SELECT 1").await, "3D000");
}

#[tokio::test]
async fn databases_are_apart() {
    let (one, two) = (Database::create().await.unwrap(), Database::create().await.unwrap());
    one.sql("CREATE TABLE mine (id int)").await.unwrap();
    assert!(matches!(two.sql("SELECT * FROM mine").await, Err(Error::Sql { code, .. }) if code == "42P01"));
    assert!(one.url().ends_with(&format!(":{}/{}?sslmode=disable", one.server().port(), one.name())));

    one.server().drop_database(one.name()).await.unwrap();
    one.server().drop_database(one.name()).await.unwrap(); // nothing to do is no error
    assert!(matches!(one.sql("SELECT 1").await, Err(Error::Sql { code, .. }) if code == "3D000"));
}

#[tokio::test]
async fn killed_server_recovers_on_restart() {
    let server = Server::start().await.unwrap();
    let sql = async |text| server.sql("postgres", text).await;
    sql("CREATE TABLE coffee (name text)").await.unwrap();
    sql("INSERT INTO coffee VALUES ('espresso')").await.unwrap();
    let first = server.pid().await.unwrap().unwrap();

    server.kill().await.unwrap();
    assert_eq!(server.pid().await.unwrap(), None);
    assert!(!exists(first));
    assert!(matches!(sql("SELECT 1").await, Err(Error::Io { .. })));
    server.kill().await.unwrap(); // nothing to do is no error

    server.restart().await.unwrap();
    assert_eq!(sql("SELECT name FROM coffee").await.unwrap(), "espresso");
    let log = std::fs::read_to_string(server.folder().join("log")).unwrap();
    assert!(log.contains("automatic recovery in progress"), "{log}");
}

#[tokio::test]
async fn kill_breaks_off_what_is_running() {
    let server = Arc::new(Server::start().await.unwrap());
    let asleep = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.sql("postgres", "SELECT pg_sleep(50)").await }
    });
    let sleepers = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    while server.sql("postgres", sleepers).await.unwrap() != "1" {
        assert!(!asleep.is_finished());
    }
    server.kill().await.unwrap();
    let result = timeout(PATIENCE, asleep).await.expect("an end").unwrap();
    assert!(matches!(result, Err(Error::Io { .. })), "{result:?}");
    server.restart().await.unwrap();
}

#[tokio::test]
async fn stopped_server_restarts_on_the_same_port() {
    let server = Server::start().await.unwrap();
    let (port, first) = (server.port(), server.pid().await.unwrap());
    server.stop().await.unwrap();
    server.stop().await.unwrap(); // nothing to do is no error
    server.restart().await.unwrap();
    server.restart().await.unwrap(); // a running server too
    assert_eq!(server.port(), port);
    assert_ne!(server.pid().await.unwrap(), first);
    assert_eq!(server.sql("postgres", "SHOW port").await.unwrap(), port.to_string());
    let log = std::fs::read_to_string(server.folder().join("log")).unwrap();
    assert!(!log.contains("automatic recovery in progress"), "{log}");
}

#[tokio::test]
async fn dropped_server_leaves_no_process_and_no_folder() {
    let server = Server::start().await.unwrap();
    let (folder, pid) = (server.folder().to_owned(), server.pid().await.unwrap().unwrap());
    assert!(exists(pid) && folder.is_dir());
    drop(server);
    eventually("the server is gone", || !exists(pid) && !folder.exists() && !is_worked_in(&folder)).await;
}

#[tokio::test]
async fn dropped_server_that_was_killed_leaves_no_folder() {
    let server = Server::start().await.unwrap();
    let folder = server.folder().to_owned();
    server.kill().await.unwrap();
    drop(server);
    eventually("the folder is gone", || !folder.exists() && !is_worked_in(&folder)).await;
}

#[tokio::test]
async fn watchdog_ends_the_server_of_a_killed_process() {
    let mut owner = Command::new(env!("CARGO_BIN_EXE_pgqueue-testserver"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<_> = BufReader::new(owner.stdout.take().unwrap()).lines().take(3).map(Result::unwrap).collect();
    let said =
        |what: &str| lines.iter().find_map(|line| line.strip_prefix(what)).unwrap_or_else(|| panic!("{lines:?}"));
    let (pid, folder) = (said("pid ").parse().unwrap(), PathBuf::from(said("folder ")));
    assert!(exists(pid) && folder.is_dir());

    owner.kill().unwrap(); // with SIGKILL
    owner.wait().unwrap();
    eventually("the server is gone", || !exists(pid) && !folder.exists() && !is_worked_in(&folder)).await;
}

#[tokio::test]
async fn missing_binaries_are_a_typed_error() {
    let empty = tempfile::tempdir().unwrap();
    let error = Server::builder().with_binaries(empty.path()).start().await.unwrap_err();
    let Error::NoPostgres { looked_in, .. } = &error else { panic!("{error}") };
    assert_eq!(*looked_in, [format!("{} (has no `postgres`)", empty.path().display())]);
    assert!(error.to_string().contains("scripts/install-postgres"), "{error}");
    assert!(error.to_string().contains("PGQUEUE_POSTGRES_BIN"), "{error}");
}

#[tokio::test]
async fn missing_version_is_a_typed_error() {
    let error = Server::builder().with_version(Some(8)).start().await.unwrap_err();
    assert!(matches!(&error, Error::NoPostgres { wanted, .. } if wanted.ends_with("major version 8")), "{error}");
}
