//! The client on a real server: calls, the pool, and how things go wrong.

use std::time::Duration;

use deadpool_postgres::{Manager, Pool};
use pgqueue_postgres::{Client, ClientError, Row, Transaction};
use pgqueue_testserver::{Database, Proxy};
use pgqueue_tokio_postgres::{Listening, TokioPostgres, TokioPostgresRow};
use tokio::time::timeout;
use tokio_postgres::{Config, NoTls};

/// How long a test waits for what should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

async fn client(database: &Database) -> TokioPostgres {
    TokioPostgres::connect(&database.url()).await.unwrap()
}

/// A pool as an application may have made it, without any limits of time.
fn foreign_pool(database: &Database, size: usize) -> Pool {
    Pool::builder(Manager::new(database.url().parse().unwrap(), NoTls)).max_size(size).build().unwrap()
}

/// The URL of a database whose server is reached through `proxy`.
fn through(proxy: &Proxy, database: &Database) -> String {
    database.url().replace(&database.server().port().to_string(), &proxy.port().to_string())
}

fn text(row: &TokioPostgresRow) -> &str {
    std::str::from_utf8(row.column(0).unwrap()).unwrap()
}

async fn backend(client: &TokioPostgres) -> String {
    text(&client.query("SELECT pg_backend_pid()::text", &[]).await.unwrap()[0]).to_owned()
}

/// Waits until `question` has rows that say `answer`.
async fn until(database: &Database, question: &str, answer: &str) {
    let asking = async { while database.sql(question).await.unwrap() != answer {} };
    timeout(PATIENCE, asking).await.unwrap();
}

/// Waits until so many calls of `pg_sleep` run, whoever waits for them.
async fn until_asleep(database: &Database, calls: u8) {
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    until(database, asleep, &calls.to_string()).await;
}

#[tokio::test]
async fn columns_travel_unchanged() {
    let database = Database::create().await.unwrap();
    let statement = r"SELECT 'grüß'::text, '\x00ff27'::bytea, 7::int8, ''::text, NULL::uuid";
    let rows = client(&database).await.query(statement, &[]).await.unwrap();
    let columns: Vec<_> = (0..6).map(|index| rows[0].column(index)).collect();
    let seven = 7_i64.to_be_bytes();
    assert_eq!(columns[..4], ["grüß".as_bytes(), b"\x00\xff'", &seven, b""].map(Some));
    assert_eq!(columns[4..], [None, None], "NULL, and a column that is not there");
}

#[tokio::test]
async fn connections_are_read_committed_whatever_the_database_says() {
    let database = Database::create().await.unwrap();
    let serializable = format!("ALTER DATABASE {} SET default_transaction_isolation = 'serializable'", database.name());
    database.sql(&serializable).await.unwrap();
    let url = format!("{}&options=-c%20work_mem=8MB", database.url());
    let client = TokioPostgres::connect(&url).await.unwrap();
    let settings = "SELECT concat_ws(', ', current_setting('transaction_isolation'), \
                    current_setting('application_name'), current_setting('work_mem'))";
    assert_eq!(text(&client.query(settings, &[]).await.unwrap()[0]), "read committed, pgqueue, 8MB");
}

#[tokio::test]
async fn refused_statement_names_its_sqlstate() {
    let database = Database::create().await.unwrap();
    let client = client(&database).await;
    let before = backend(&client).await;
    let error = client.query("SELECT 1 / 0", &[]).await.unwrap_err();
    let ClientError::Refused { code, message, source } = error else { panic!("{error:?}") };
    assert_eq!((&*code, &*message), ("22012", "division by zero"));
    assert!(source.is::<tokio_postgres::Error>());
    assert_eq!(backend(&client).await, before, "the connection is as good as before");
}

#[tokio::test]
async fn script_is_one_transaction() {
    let database = Database::create().await.unwrap();
    let client = client(&database).await;
    client.run_script("CREATE TABLE a (); CREATE TABLE b ()").await.unwrap();
    let error = client.run_script("DROP TABLE a; DROP TABLE c").await.unwrap_err();
    assert!(matches!(error, ClientError::Refused { code, .. } if code == "42P01"));
    assert_eq!(
        database.sql("SELECT to_regclass('a') IS NOT NULL AND to_regclass('b') IS NOT NULL").await.unwrap(),
        "t"
    );
}

#[tokio::test]
async fn unnamed_statements_leave_nothing_prepared() {
    let database = Database::create().await.unwrap();
    for (unnamed, prepared) in [(true, "0"), (false, "1")] {
        let client = client(&database).await.with_pool_size(1).unwrap().with_unnamed_statements(unnamed);
        let question = "SELECT count(*)::text FROM pg_prepared_statements WHERE name <> ''";
        client.query(question, &[]).await.unwrap();
        assert_eq!(text(&client.query(question, &[]).await.unwrap()[0]), prepared, "unnamed: {unnamed}");
    }
}

#[tokio::test]
async fn forgotten_statements_are_prepared_again() {
    let database = Database::create().await.unwrap();
    let client = client(&database).await.with_pool_size(1).unwrap();
    let session = backend(&client).await;
    client.run_script("DEALLOCATE ALL").await.unwrap();
    assert_eq!(backend(&client).await, session);
}

#[tokio::test]
async fn statements_whose_result_has_changed_are_prepared_again() {
    let database = Database::create().await.unwrap();
    let client = client(&database).await.with_pool_size(1).unwrap();
    client.run_script("CREATE TABLE cups AS SELECT 'one' AS n").await.unwrap();
    assert_eq!(text(&client.query("SELECT * FROM cups", &[]).await.unwrap()[0]), "one");
    client.run_script("DROP TABLE cups; CREATE TABLE cups AS SELECT '2'::varchar AS n, true AS clean").await.unwrap();
    assert_eq!(text(&client.query("SELECT * FROM cups", &[]).await.unwrap()[0]), "2");
}

#[tokio::test]
async fn work_in_a_transaction_of_the_caller_goes_with_it() {
    let database = Database::create().await.unwrap();
    database.sql("CREATE TABLE done (n int)").await.unwrap();
    let mut object = foreign_pool(&database, 1).get().await.unwrap();
    let insert = "INSERT INTO done SELECT 1 + count(*) FROM done RETURNING n::text";

    let mut transaction = object.transaction().await.unwrap();
    let rows = Transaction::<TokioPostgres>::query(&mut transaction, insert, &[]).await.unwrap();
    assert_eq!(text(&rows[0]), "1");
    transaction.commit().await.unwrap();

    let mut transaction = object.build_transaction().start().await.unwrap();
    let inner: &mut tokio_postgres::Transaction<'_> = &mut transaction;
    let rows = Transaction::<TokioPostgres>::query(inner, insert, &[]).await.unwrap();
    assert_eq!(text(&rows[0]), "2");
    drop(transaction);

    let error = Transaction::<TokioPostgres>::query(&mut object.transaction().await.unwrap(), "SELECT x", &[]).await;
    assert!(matches!(error, Err(ClientError::Refused { code, .. }) if code == "42703"));
    assert_eq!(database.sql("SELECT count(*) FROM done").await.unwrap(), "1");
}

#[tokio::test]
async fn dropped_query_does_not_return_its_connection() {
    let database = Database::create().await.unwrap();
    let client = client(&database).await.with_pool_size(1).unwrap();
    let before = backend(&client).await;
    tokio::select! {
        _ = client.query("SELECT pg_sleep(600)", &[]) => panic!("the sleep ended"),
        () = until_asleep(&database, 1) => {}
    }
    assert_ne!(timeout(PATIENCE, backend(&client)).await.unwrap(), before);
    tokio::select! {
        _ = client.run_script("SELECT pg_sleep(600)") => panic!("the sleep ended"),
        () = until_asleep(&database, 2) => {}
    }
    timeout(PATIENCE, backend(&client)).await.unwrap();
}

#[tokio::test]
async fn exhausted_pool_is_reported_within_its_wait() {
    let database = Database::create().await.unwrap();
    let pool = foreign_pool(&database, 1);
    let client = TokioPostgres::from_pool(pool.clone(), Listening::poll_only());
    let held = pool.get().await.unwrap();
    tokio::time::pause();
    let waited_from = tokio::time::Instant::now();
    let error = client.query("SELECT 1", &[]).await.unwrap_err();
    assert!(matches!(error, ClientError::PoolExhausted(_)), "{error:?}");
    assert_eq!(waited_from.elapsed().as_secs(), 5);
    tokio::time::resume();
    drop(held);
    backend(&client).await;
}

#[tokio::test]
async fn unreachable_server_is_unreachable() {
    let database = Database::create().await.unwrap();
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    let client = TokioPostgres::connect(&through(&proxy, &database)).await.unwrap();
    proxy.cut().await;
    for error in [client.query("SELECT 1", &[]).await.map(drop), client.open_listener().await.map(drop)] {
        assert!(matches!(error, Err(ClientError::Unreachable(_))), "{error:?}");
    }
    proxy.restore().await.unwrap();
    backend(&client).await;
}

#[tokio::test]
async fn server_that_says_nothing_is_unreachable() {
    let database = Database::create().await.unwrap();
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    proxy.black_hole(true);
    let url = format!("{}&connect_timeout=1", through(&proxy, &database));
    let client = TokioPostgres::connect(&url).await.unwrap();
    let both = async { tokio::join!(client.query("SELECT 1", &[]), client.open_listener()) };
    let (query, listener) = timeout(PATIENCE, both).await.unwrap();
    assert!(matches!(query, Err(ClientError::Unreachable(_))));
    assert!(matches!(listener.map(drop), Err(ClientError::Unreachable(_))));
}

#[tokio::test]
async fn connection_that_breaks_during_a_call_is_lost() {
    let database = Database::create().await.unwrap();
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    let client = TokioPostgres::connect(&through(&proxy, &database)).await.unwrap();
    let (error, ()) = tokio::join!(client.query("SELECT pg_sleep(600)", &[]), async {
        until_asleep(&database, 1).await;
        proxy.cut().await;
    });
    assert!(matches!(error, Err(ClientError::Lost(_))));
    proxy.restore().await.unwrap();
    backend(&client).await;
}

#[tokio::test]
async fn refused_connection_names_its_sqlstate() {
    let database = Database::create().await.unwrap();
    let client = TokioPostgres::connect(&database.server().url("nowhere")).await.unwrap();
    for error in [client.query("SELECT 1", &[]).await.map(drop), client.open_listener().await.map(drop)] {
        assert!(matches!(&error, Err(ClientError::Refused { code, .. }) if code == "3D000"), "{error:?}");
    }
}

#[tokio::test]
async fn missing_tls_is_an_error_not_a_downgrade() {
    let database = Database::create().await.unwrap();
    for url in [database.url().replace("disable", "prefer"), database.url().replace("?sslmode=disable", "")] {
        let error = match TokioPostgres::connect(&url).await {
            Ok(client) if cfg!(feature = "rustls") => client.query("SELECT 1", &[]).await.unwrap_err(),
            connected => connected.unwrap_err(),
        };
        assert!(matches!(error, ClientError::Unusable(_)), "{error:?}");

        let client = TokioPostgres::with_tls(url.parse().unwrap(), NoTls).unwrap();
        for error in [client.query("SELECT 1", &[]).await.map(drop), client.open_listener().await.map(drop)] {
            assert!(matches!(error, Err(ClientError::Unusable(_))), "{error:?}");
        }
    }
}

#[tokio::test]
async fn unix_sockets_need_no_tls() {
    let database = Database::create().await.unwrap();
    let (folder, port) = (database.server().folder().display(), database.server().port());
    let text = format!("host={folder} port={port} user=postgres dbname={}", database.name());
    let client = TokioPostgres::connect(&text).await.unwrap();
    backend(&client).await;
    client.open_listener().await.unwrap().unwrap().ping().await.unwrap();
}

#[tokio::test]
async fn pool_has_the_size_that_was_said() {
    let database = Database::create().await.unwrap();
    let client = client(&database).await.with_pool_size(2).unwrap();
    let sleeps = (client.query("SELECT pg_sleep(600)", &[]), client.query("SELECT pg_sleep(600)", &[]));
    let exhausted = async {
        until_asleep(&database, 2).await;
        tokio::time::pause();
        let error = client.query("SELECT 1", &[]).await.unwrap_err();
        assert!(matches!(error, ClientError::PoolExhausted(_)), "{error:?}");
    };
    tokio::select! {
        _ = sleeps.0 => panic!("a sleep ended"),
        _ = sleeps.1 => panic!("a sleep ended"),
        () = exhausted => {}
    }
}

#[tokio::test]
async fn pool_that_came_from_outside_keeps_its_size() {
    let database = Database::create().await.unwrap();
    let foreign = TokioPostgres::from_pool(foreign_pool(&database, 1), Listening::poll_only());
    for refused in [foreign.with_pool_size(2), client(&database).await.with_pool_size(0)] {
        assert!(matches!(refused, Err(ClientError::Unusable(_))));
    }
}

#[tokio::test]
async fn configuration_without_a_host_is_unusable() {
    for error in [TokioPostgres::with_tls(Config::new(), NoTls), TokioPostgres::connect("sslmode=disable").await] {
        assert!(matches!(error, Err(ClientError::Unusable(_))));
    }
}

#[tokio::test]
async fn password_is_never_printed() {
    let database = Database::create().await.unwrap();
    let url = database.url().replace("postgres@", "postgres:hunter2@");
    let client = TokioPostgres::connect(&url).await.unwrap();
    let mut printed = format!("{client:?} {:?}", Listening::with(url.parse().unwrap(), NoTls));
    for url in [url.replace(database.name(), "nowhere"), url.replace("disable", "require")] {
        let client = TokioPostgres::with_tls(url.parse().unwrap(), NoTls).unwrap();
        printed += &format!("{:?}", client.query("SELECT 1", &[]).await.unwrap_err());
        printed += &format!("{:?}", client.open_listener().await.map(drop).unwrap_err());
    }
    assert!(printed.contains("nowhere") && !printed.contains("hunter2"), "{printed}");
}
