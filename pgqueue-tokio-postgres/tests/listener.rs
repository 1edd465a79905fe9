//! The connection for notifications on a real server.

use std::time::Duration;

use pgqueue_postgres::{Client, ClientError, ListenerConnection, Notification};
use pgqueue_testserver::Database;
use pgqueue_tokio_postgres::{Listening, TokioPostgres};
use tokio::time::timeout;

/// How long a test waits for what should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

const LISTENERS: &str = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgqueue'";

async fn listener(database: &Database) -> Box<dyn ListenerConnection> {
    let client = TokioPostgres::connect(&database.url()).await.unwrap();
    client.open_listener().await.unwrap().unwrap()
}

async fn next(listener: &mut Box<dyn ListenerConnection>) -> Result<Notification, ClientError> {
    timeout(PATIENCE, listener.next()).await.unwrap()
}

#[tokio::test]
async fn notifications_arrive_in_order() {
    let database = Database::create().await.unwrap();
    let mut listener = listener(&database).await;
    listener.listen("news").await.unwrap();
    database.sql("SELECT pg_notify('news', n::text) FROM generate_series(1, 1000) n").await.unwrap();
    listener.ping().await.unwrap();
    for expected in 1..=1000 {
        assert_eq!(next(&mut listener).await.unwrap(), Notification::new("news", expected.to_string()));
    }
}

#[tokio::test]
async fn dropped_wait_loses_no_notification() {
    let database = Database::create().await.unwrap();
    let mut listener = listener(&database).await;
    listener.listen("news").await.unwrap();
    assert!(timeout(Duration::ZERO, listener.next()).await.is_err());
    database.sql("NOTIFY news, 'kept'").await.unwrap();
    assert_eq!(next(&mut listener).await.unwrap().payload, "kept");
}

#[tokio::test]
async fn channel_names_are_taken_literally() {
    let database = Database::create().await.unwrap();
    let mut listener = listener(&database).await;
    let longest = "é".repeat(31) + "x";
    for channel in [r#"Two Words"; SELECT "1"#, r"back\slash", "NEWS", &longest] {
        listener.listen(channel).await.unwrap();
        let notify = format!("SELECT pg_notify($name${channel}$name$, 'heard')");
        database.sql(&notify).await.unwrap();
        assert_eq!(next(&mut listener).await.unwrap(), Notification::new(channel, "heard"));
    }
    let error = listener.listen(&(longest + "y")).await.unwrap_err();
    assert!(matches!(error, ClientError::Unusable(_)), "{error:?}");
}

#[tokio::test]
async fn channel_that_was_left_is_silent() {
    let database = Database::create().await.unwrap();
    let mut listener = listener(&database).await;
    listener.listen("Left").await.unwrap();
    listener.listen("kept").await.unwrap();
    listener.unlisten("Left").await.unwrap();
    database.sql("SELECT pg_notify('Left', ''), pg_notify('kept', '')").await.unwrap();
    assert_eq!(next(&mut listener).await.unwrap().channel, "kept");
}

#[tokio::test]
async fn listener_that_is_not_read_gives_its_connection_up() {
    let database = Database::create().await.unwrap();
    let mut listener = listener(&database).await;
    listener.listen("news").await.unwrap();
    database.sql("SELECT pg_notify('news', n::text) FROM generate_series(1, 10000) n").await.unwrap();
    let until_gone = async { while database.sql(&format!("SELECT count(*) {LISTENERS}")).await.unwrap() != "0" {} };
    timeout(PATIENCE, until_gone).await.unwrap();
    for _ in 0..8192 {
        next(&mut listener).await.unwrap();
    }
    let error = next(&mut listener).await.unwrap_err();
    assert!(matches!(&error, ClientError::Lost(reason) if reason.to_string().contains("unread")), "{error:?}");
}

#[tokio::test]
async fn ended_connection_says_why_and_stays_ended() {
    let database = Database::create().await.unwrap();
    let mut listener = listener(&database).await;
    database.sql(&format!("SELECT pg_terminate_backend(pid) {LISTENERS}")).await.unwrap();
    let error = next(&mut listener).await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused { code, .. } if code == "57P01"), "{error:?}");
    for error in [next(&mut listener).await.map(drop), listener.listen("news").await, listener.ping().await.map(drop)] {
        assert!(matches!(error, Err(ClientError::Lost(_))), "{error:?}");
    }
}

#[tokio::test]
async fn dropped_listener_closes_its_connection() {
    let database = Database::create().await.unwrap();
    let listener = listener(&database).await;
    assert_eq!(database.sql(&format!("SELECT count(*) {LISTENERS}")).await.unwrap(), "1");
    drop(listener);
    let until_gone = async { while database.sql(&format!("SELECT count(*) {LISTENERS}")).await.unwrap() != "0" {} };
    timeout(PATIENCE, until_gone).await.unwrap();
}

#[tokio::test]
async fn client_that_only_polls_opens_no_listener() {
    let database = Database::create().await.unwrap();
    let config = database.url().parse().unwrap();
    let manager = deadpool_postgres::Manager::new(config, tokio_postgres::NoTls);
    let pool = deadpool_postgres::Pool::builder(manager).build().unwrap();
    assert!(TokioPostgres::from_pool(pool, Listening::poll_only()).open_listener().await.unwrap().is_none());
}
