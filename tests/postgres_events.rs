//! What PostgreSQL queues say to whoever listens to `tracing`: alone in a process, and one at a time, as a place that speaks asks
//! only once who listens.

mod both_clients;

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use pgqueue_core::{CheckpointStore, Order, Position, Start, Subscription, Topic};
use pgqueue_postgres::{Client, PgQueue};
use pgqueue_testserver::Database;
use tracing::{Level, instrument::WithSubscriber};

use crate::both_clients::on_both_clients;

/// Who listens now.
static LISTENING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

on_both_clients!(what_is_managed_is_said);

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn manage<C: Client>(queue: &PgQueue<C>) {
    let position = Position::new("00000000000000000001.0000000000000000001");
    queue.create_topic(Topic::new("orders")).await.unwrap();
    queue.insert_subscription(&Subscription::new("invoices", "orders").with_order(Order::StableTotal)).await.unwrap();
    queue.advance_checkpoint("totals", &position).await.unwrap();
    queue.advance_checkpoint("totals", &position).await.unwrap();
    queue.reset_checkpoint("totals", &position, None).await.unwrap();
    queue.seek("invoices", &Start::Now).await.unwrap();
    queue.delete_subscription("invoices").await.unwrap();
    queue.delete_subscription("invoices").await.unwrap_err();
    queue.delete_topic("orders").await.unwrap();
}

async fn what_is_managed_is_said<C: Client>() {
    let _alone = LISTENING.lock().await;
    let database = Database::create().await.unwrap();
    let queue = PgQueue::<C>::connect(&database.url()).await.unwrap();
    queue.migrate().await.unwrap();
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    manage(&queue).with_subscriber(subscriber).await;

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let said = log.lines().filter_map(|line| line.split_once("pgqueue_postgres::")?.1.split_once(": "));
    let said: Vec<_> =
        said.filter(|(module, _)| ["queue", "checkpoints"].contains(module)).map(|(_, text)| text).collect();
    let event = |text: &str, name: &str| format!("{text} messaging.system=\"pgqueue\" name={name:?}");
    assert_eq!(
        said,
        [
            event("a topic was created", "orders"),
            event("a subscription was inserted", "invoices"),
            event("a checkpoint was advanced", "totals"),
            event("a checkpoint was reset", "totals"),
            event("a subscription was moved", "invoices"),
            event("a subscription was deleted", "invoices"),
            event("a topic was deleted", "orders"),
        ],
        "{log}"
    );
}
