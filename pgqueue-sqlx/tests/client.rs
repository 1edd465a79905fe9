//! The client against a real server.

use std::time::{Duration, Instant};

use pgqueue_postgres::{Client, ClientError, ListenerConnection, Row, Transaction};
use pgqueue_sqlx::{Sqlx, SqlxRow};
use pgqueue_testserver::{Database, Proxy, Server};
use sqlx::{Connection as _, PgConnection, PgPool, postgres::PgPoolOptions};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};

/// How long something that must happen may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it is watched that nothing happens.
const QUIET: Duration = Duration::from_millis(300);

/// Who listens on "bell".
const LISTENERS: &str = "FROM pg_stat_activity WHERE datname = current_database() AND query = 'LISTEN \"bell\"'";

async fn connect(database: &Database) -> Sqlx {
    Sqlx::connect(&database.url()).await.unwrap()
}

async fn listen(client: &Sqlx) -> Box<dyn ListenerConnection> {
    client.open_listener().await.unwrap().unwrap()
}

async fn small_pool(url: &str, size: u32) -> PgPool {
    PgPoolOptions::new().max_connections(size).acquire_timeout(Duration::from_secs(1)).connect_lazy(url).unwrap()
}

fn first(rows: &[SqlxRow]) -> &str {
    std::str::from_utf8(rows[0].column(0).unwrap()).unwrap()
}

async fn ask(client: &Sqlx, statement: &str) -> String {
    first(&client.query(statement, &[]).await.unwrap()).to_owned()
}

/// Waits until a question has this answer.
async fn until(database: &Database, question: &str, answer: &str) {
    let patience = Instant::now() + PATIENCE;
    loop {
        let now = database.sql(question).await.unwrap();
        if now.trim() == answer {
            return;
        }
        assert!(Instant::now() < patience, "{question} is still {now}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn rows_are_binary_and_null_is_none() {
    let database = Database::create().await.unwrap();
    let rows = connect(&database).await.query("SELECT 258::int8, NULL::text, ''::bytea", &[]).await.unwrap();
    assert_eq!(rows[0].column(0), Some(&258_i64.to_be_bytes()[..]));
    assert_eq!((rows[0].column(1), rows[0].column(2), rows[0].column(3)), (None, Some(&b""[..]), None));
    assert_eq!(format!("{:?}", rows[0]), "SqlxRow { columns: 3 }");
}

#[tokio::test]
async fn connections_are_read_committed_and_named_pgqueue() {
    let database = Database::create().await.unwrap();
    let alter = format!("ALTER DATABASE {} SET default_transaction_isolation = 'serializable'", database.name());
    database.sql(&alter).await.unwrap();
    let client = connect(&database).await;
    assert_eq!(ask(&client, "SELECT current_setting('transaction_isolation')").await, "read committed");
    assert_eq!(ask(&client, "SELECT current_setting('application_name')").await, "pgqueue");

    let own = Sqlx::from(small_pool(&database.url(), 1).await);
    assert_eq!(ask(&own, "SELECT current_setting('transaction_isolation')").await, "serializable");
    let own = own.with_unnamed_statements(true);
    assert_eq!(ask(&own, "SELECT current_setting('transaction_isolation')").await, "read committed");
}

#[tokio::test]
async fn scripts_are_all_or_nothing() {
    let database = Database::create().await.unwrap();
    let client = connect(&database).await;
    client.run_script("CREATE TABLE one (n int); INSERT INTO one VALUES (1)").await.unwrap();
    let refused = client.run_script("CREATE TABLE two (n int); SELECT 1 / 0; SELECT 1").await;
    assert!(matches!(refused, Err(ClientError::Refused { ref code, .. }) if code == "22012"), "{refused:?}");
    assert_eq!(
        database.sql("SELECT count(*) FROM pg_class WHERE relname IN ('one', 'two')").await.unwrap().trim(),
        "1"
    );
}

#[tokio::test]
async fn refused_statement_names_its_sqlstate() {
    let database = Database::create().await.unwrap();
    for unnamed in [false, true] {
        let client = Sqlx::from(small_pool(&database.url(), 1).await).with_unnamed_statements(unnamed);
        let session = ask(&client, "SELECT pg_backend_pid()::text").await;
        let script = "CREATE TABLE IF NOT EXISTS cups (n int CHECK (n < 5))";
        client.run_script(script).await.unwrap();
        let refused = client.query("INSERT INTO cups VALUES (70707)", &[]).await.unwrap_err();
        let ClientError::Refused { code, message, source } = refused else { panic!("{refused:?}") };
        assert_eq!(code, "23514");
        assert!(message.contains("cups") && !message.contains("70707"), "{message}");
        assert!(source.is::<sqlx::Error>());
        // and its connection is as good as before
        assert_eq!(ask(&client, "SELECT pg_backend_pid()::text").await, session);
    }
}

#[tokio::test]
async fn unnamed_statements_leave_nothing_prepared() {
    let database = Database::create().await.unwrap();
    let client = Sqlx::from(small_pool(&database.url(), 1).await).with_unnamed_statements(true);
    client.query("CREATE TABLE cups (n int)", &[]).await.unwrap();
    client.query("INSERT INTO cups VALUES (1)", &[]).await.unwrap();
    let question =
        "SELECT ((SELECT count(*) FROM pg_prepared_statements WHERE name <> '') + (SELECT sum(n) FROM cups))::text";
    assert_eq!(ask(&client, question).await, "1");
    assert!(client.open_listener().await.unwrap().is_none());
}

#[tokio::test]
async fn forgotten_statements_are_prepared_again() {
    let database = Database::create().await.unwrap();
    let client = Sqlx::from(small_pool(&database.url(), 1).await);
    assert_eq!(ask(&client, "SELECT 'here'").await, "here");
    client.run_script("DEALLOCATE ALL").await.unwrap();
    assert_eq!(ask(&client, "SELECT 'here'").await, "here");
}

#[tokio::test]
async fn statements_whose_result_has_changed_are_prepared_again() {
    let database = Database::create().await.unwrap();
    let client = Sqlx::from(small_pool(&database.url(), 1).await);
    client.run_script("CREATE TABLE cups AS SELECT 'one' AS n").await.unwrap();
    assert_eq!(ask(&client, "SELECT * FROM cups").await, "one");
    client.run_script("DROP TABLE cups; CREATE TABLE cups AS SELECT '2'::varchar AS n, true AS clean").await.unwrap();
    assert_eq!(ask(&client, "SELECT * FROM cups").await, "2");
}

#[tokio::test]
async fn work_in_a_transaction_ends_with_it() {
    let database = Database::create().await.unwrap();
    let client = connect(&database).await;
    client.run_script("CREATE TABLE cups (n int)").await.unwrap();

    let mut transaction = client.pool().begin().await.unwrap();
    Transaction::<Sqlx>::query(&mut transaction, "INSERT INTO cups VALUES (1)", &[]).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(ask(&client, "SELECT count(*)::text FROM cups").await, "0");

    let mut connection = PgConnection::connect(&database.url()).await.unwrap();
    sqlx::raw_sql("BEGIN").execute(&mut connection).await.unwrap();
    let rows = Transaction::<Sqlx>::query(&mut connection, "INSERT INTO cups VALUES (2) RETURNING n::text", &[]).await;
    assert_eq!(first(&rows.unwrap()), "2");
    sqlx::raw_sql("COMMIT").execute(&mut connection).await.unwrap();
    assert_eq!(ask(&client, "SELECT count(*)::text FROM cups").await, "1");
}

#[tokio::test]
async fn dropped_query_does_not_return_its_connection() {
    let database = Database::create().await.unwrap();
    for unnamed in [false, true] {
        let client = Sqlx::from(small_pool(&database.url(), 1).await).with_unnamed_statements(unnamed);
        let before = ask(&client, "SELECT pg_backend_pid()::text").await;
        assert!(timeout(QUIET, client.query("SELECT pg_sleep(60)", &[])).await.is_err());
        let after = timeout(PATIENCE, ask(&client, "SELECT pg_backend_pid()::text")).await.unwrap();
        assert_ne!(before, after);
    }
}

#[test]
fn queries_and_listeners_can_be_dropped_outside_of_a_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (database, client, listener) = runtime.block_on(async {
        let database = Database::create().await.unwrap();
        let pool = PgPoolOptions::new().min_connections(1).max_connections(2).connect(&database.url()).await;
        let client = Sqlx::from(pool.unwrap());
        let mut listener = listen(&client).await;
        listener.listen("c").await.unwrap();
        (database, client, listener)
    });
    let mut query = client.query("SELECT pg_sleep(60)", &[]);
    runtime.block_on(async { timeout(QUIET, &mut query).await.unwrap_err() });
    drop(query);
    drop(listener);
    let sessions =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE '%LISTEN \"c\"'";
    runtime.block_on(until(&database, sessions, "0"));
}

#[tokio::test]
async fn notifications_arrive_in_order() {
    let database = Database::create().await.unwrap();
    let client = connect(&database).await;
    let mut listener = listen(&client).await;
    listener.listen("bell").await.unwrap();
    for n in 0..100 {
        database.sql(&format!("NOTIFY bell, '{n}'")).await.unwrap();
        match n % 4 {
            0 => drop(listener.ping().await.unwrap()),
            1 => listener.listen("other").await.unwrap(),
            2 => listener.unlisten("other").await.unwrap(),
            _ => drop(timeout(Duration::ZERO, listener.ping()).await),
        }
    }
    for n in 0..100 {
        let notification = timeout(PATIENCE, listener.next()).await.unwrap().unwrap();
        assert_eq!((notification.channel.as_str(), notification.payload), ("bell", n.to_string()));
    }
    listener.unlisten("bell").await.unwrap();
    database.sql("NOTIFY bell").await.unwrap();
    assert!(timeout(QUIET, listener.next()).await.is_err());
}

#[tokio::test]
async fn dropped_waits_lose_no_notification() {
    let database = Database::create().await.unwrap();
    let client = connect(&database).await;
    let mut listener = listen(&client).await;
    listener.listen("bell").await.unwrap();
    let script: String = (0..2000).map(|n| format!("NOTIFY bell, '{n}';")).collect();
    client.run_script(&script).await.unwrap();
    let mut next = 0;
    while next < 2000 {
        if let Ok(notification) = timeout(Duration::ZERO, listener.next()).await {
            assert_eq!(notification.unwrap().payload, next.to_string());
            next += 1;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn channel_names_are_taken_literally() {
    let database = Database::create().await.unwrap();
    let client = connect(&database).await;
    let mut listener = listen(&client).await;
    let longest = "é".repeat(31) + "x";
    for channel in ["Bell", "a\"b\"; DROP TABLE x; --", "back\\slash 'quoted' $1 %s", &longest] {
        listener.listen(channel).await.unwrap();
        let notify = format!("SELECT pg_notify('{}', '')", channel.replace('\'', "''"));
        database.sql(&notify).await.unwrap();
        let notification = timeout(PATIENCE, listener.next()).await.unwrap().unwrap();
        assert_eq!(notification.channel, channel);
    }
    for channel in [String::new(), "a\0b".to_owned(), longest + "x"] {
        assert!(matches!(listener.listen(&channel).await, Err(ClientError::Unusable(_))), "{channel:?}");
        assert!(matches!(listener.unlisten(&channel).await, Err(ClientError::Unusable(_))), "{channel:?}");
    }
}

#[tokio::test]
async fn a_listener_needs_no_connection_of_the_pool() {
    let database = Database::create().await.unwrap();
    let client = Sqlx::from(small_pool(&database.url(), 1).await);
    let all = client.pool().acquire().await.unwrap();
    let mut listener = listen(&client).await;
    listener.listen("bell").await.unwrap();
    listener.ping().await.unwrap();
    drop(listener);
    until(&database, &format!("SELECT count(*) {LISTENERS}"), "0").await;
    drop(all);
}

#[tokio::test]
async fn a_lost_listener_says_so() {
    let database = Database::create().await.unwrap();
    let client = connect(&database).await;
    let mut listener = listen(&client).await;
    listener.listen("bell").await.unwrap();
    client.run_script(&format!("SELECT pg_terminate_backend(pid) {LISTENERS}")).await.unwrap();
    for _ in 0..2 {
        let lost = timeout(PATIENCE, listener.next()).await.unwrap();
        assert!(matches!(lost, Err(ClientError::Lost(_))), "{lost:?}");
    }
    assert!(matches!(listener.listen("bell").await, Err(ClientError::Lost(_))));
    assert!(matches!(listener.ping().await, Err(ClientError::Lost(_))));
}

#[tokio::test]
async fn a_cut_network_is_lost_while_in_use_and_unreachable_before() {
    let database = Database::create().await.unwrap();
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    let url = format!("postgres://postgres@127.0.0.1:{}/{}?sslmode=disable", proxy.port(), database.name());
    let client = Sqlx::from(small_pool(&url, 1).await);
    let mut listener = listen(&client).await;
    listener.listen("bell").await.unwrap();
    let (query, ()) = tokio::join!(client.query("SELECT pg_sleep(60)", &[]), async {
        sleep(QUIET).await;
        proxy.cut().await;
    });
    assert!(matches!(query, Err(ClientError::Lost(_))), "{query:?}");
    let lost = timeout(PATIENCE, listener.next()).await.unwrap();
    assert!(matches!(lost, Err(ClientError::Lost(_))), "{lost:?}");
    let next = client.query("SELECT 1", &[]).await;
    assert!(matches!(next, Err(ClientError::Unreachable(_))), "{next:?}");
    proxy.restore().await.unwrap();
    assert_eq!(ask(&client, "SELECT 'back'").await, "back");
}

#[tokio::test]
async fn rested_connections_are_tested_before_use() {
    let server = Server::start().await.unwrap();
    let client = Sqlx::connect(&server.url("postgres")).await.unwrap();
    assert_eq!(ask(&client, "SELECT 'one'").await, "one");
    server.restart().await.unwrap();
    sleep(Duration::from_millis(1100)).await;
    assert_eq!(ask(&client, "SELECT 'two'").await, "two");
}

#[tokio::test]
async fn unreachable_server_is_unreachable() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let client = Sqlx::from(small_pool(&format!("postgres://127.0.0.1:{port}/x?sslmode=disable"), 1).await);
    // With a pool of one, all but one of these wait for a connection that the first tries to open.
    let (first, second, listener) =
        tokio::join!(client.query("SELECT 1", &[]), client.run_script("SELECT 1"), client.open_listener());
    for error in [first.err(), second.err(), listener.err()] {
        let Some(ClientError::Unreachable(source)) = error else { panic!("{error:?}") };
        assert!(source.to_string().contains("refused"), "{source}");
    }
}

#[tokio::test]
async fn silent_server_is_unreachable() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://127.0.0.1:{}/x?sslmode=disable", silent.local_addr().unwrap().port());
    let client = Sqlx::from(small_pool(&url, 1).await);
    let began = Instant::now();
    let (first, second) = tokio::join!(client.query("SELECT 1", &[]), client.query("SELECT 1", &[]));
    assert!(matches!((&first, &second), (Err(ClientError::Unreachable(_)), Err(ClientError::Unreachable(_)))));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn exhausted_pool_is_reported_within_its_wait() {
    let database = Database::create().await.unwrap();
    let client = Sqlx::from(small_pool(&database.url(), 1).await);
    let all = client.pool().acquire().await.unwrap();
    let began = Instant::now();
    let (first, second) = tokio::join!(client.query("SELECT 1", &[]), client.run_script("SELECT 1"));
    assert!(matches!(first, Err(ClientError::PoolExhausted(_))), "{first:?}");
    assert!(matches!(second, Err(ClientError::PoolExhausted(_))), "{second:?}");
    assert!((1.0..3.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
    drop(all);
    assert_eq!(ask(&client, "SELECT 'free'").await, "free");
}

#[tokio::test]
async fn a_crowd_of_waiters_opens_one_connection() {
    let database = Database::create().await.unwrap();
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    let url = format!("postgres://postgres@127.0.0.1:{}/{}?sslmode=disable", proxy.port(), database.name());
    let client = Sqlx::from(small_pool(&url, 1).await);
    let all = client.pool().acquire().await.unwrap();
    proxy.set_delay(Duration::from_millis(20)); // so that each connection is seen
    let crowd = async {
        let mut crowd: Vec<_> = (0..20).map(|_| client.run_script("SELECT 1")).collect();
        for waiter in &mut crowd {
            assert!(timeout(Duration::ZERO, waiter).await.is_err()); // begins to wait
        }
        for waiter in crowd {
            let exhausted = waiter.await;
            assert!(matches!(exhausted, Err(ClientError::PoolExhausted(_))), "{exhausted:?}");
        }
    };
    tokio::pin!(crowd);
    let mut most = 0;
    while timeout(Duration::from_millis(5), &mut crowd).await.is_err() {
        most = most.max(proxy.open_connections());
    }
    assert_eq!(most, 2);
    drop(all);
}

#[tokio::test]
async fn refused_connections_name_their_sqlstate() {
    let database = Database::create().await.unwrap();
    let url = database.server().url("nowhere");
    let client = Sqlx::connect(&url).await.unwrap();
    let refused = client.query("SELECT 1", &[]).await;
    assert!(matches!(refused, Err(ClientError::Refused { ref code, .. }) if code == "3D000"), "{refused:?}");
    let refused = client.open_listener().await.err();
    assert!(matches!(refused, Some(ClientError::Refused { ref code, .. }) if code == "3D000"), "{refused:?}");
}

#[tokio::test]
async fn missing_tls_is_an_error_not_a_downgrade() {
    let database = Database::create().await.unwrap();
    for mode in ["", "?sslmode=allow", "?sslmode=prefer", "?sslmode=require"] {
        let url = database.url().replace("?sslmode=disable", mode);
        let result = match Sqlx::connect(&url).await {
            Ok(client) => client.run_script("SELECT 1").await, // with the feature, it is the server that has none
            Err(error) => Err(error),
        };
        let Err(ClientError::Unusable(source)) = result else { panic!("{mode}: {result:?}") };
        assert!(source.to_string().contains("TLS"), "{source}");
    }
}

#[tokio::test]
async fn closed_pool_is_unreachable() {
    let database = Database::create().await.unwrap();
    let client = connect(&database).await;
    client.pool().close().await;
    let closed = client.query("SELECT 1", &[]).await;
    assert!(matches!(closed, Err(ClientError::Unreachable(_))), "{closed:?}");
}

#[tokio::test]
async fn password_is_never_printed() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    for url in [
        "host=localhost password=hunter2",
        "mysql://me:hunter2@localhost/db",
        "postgres://me:hunter2@localhost:port/db",
        "postgres://me:hunter2@local host/db",
        "postgres://me:hunter2%FF@localhost/db?sslmode=disable",
        "postgres://me@localhost/db?sslmode=disable?password=hunter2",
        "postgres://me:hunter2@localhost/db?port=hunter2",
        "postgres://localhost/db?password=hunter2&hostaddr=nowhere",
        "postgres://me:hunter2@localhost/db",
    ] {
        match Sqlx::connect(url).await {
            Err(ref error @ ClientError::Unusable(ref source)) => {
                let said = format!("{error:?} {source} {:?}", source.source());
                assert!(!said.contains("hunter2"), "{url}: {said}");
            }
            Err(error) => panic!("{url}: {error:?}"),
            Ok(_) if cfg!(feature = "rustls") => {}
            Ok(_) => panic!("{url} was accepted"),
        }
    }
    let url = format!("postgres://me:hunter2@127.0.0.1:{port}/db?sslmode=disable");
    let client = Sqlx::from(small_pool(&url, 1).await);
    let said = format!("{client:?} {:?}", client.run_script("SELECT 1").await);
    assert!(said.contains("Sqlx {") && said.contains("refused") && !said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn clients_and_calls_cross_threads() {
    let database = Database::create().await.unwrap();
    let client = connect(&database).await;
    let answer = tokio::spawn(async move { ask(&client, "SELECT 'there'").await });
    assert_eq!(answer.await.unwrap(), "there");
}
