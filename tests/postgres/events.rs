//! What is said to whoever listens to `tracing`.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use pgqueue_core::{CheckpointStore, Order, Position, Start, Topic};
use pgqueue_postgres::{Client, PgQueue};
use tracing::{Level, instrument::WithSubscriber};

use crate::common::{invoices, on_both_clients, queue_without_topic};

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
    queue.insert_subscription(&invoices().with_order(Order::StableTotal)).await.unwrap();
    queue.advance_checkpoint("totals", &position).await.unwrap();
    queue.advance_checkpoint("totals", &position).await.unwrap();
    queue.reset_checkpoint("totals", &position, None).await.unwrap();
    queue.seek("invoices", &Start::Now).await.unwrap();
    queue.delete_subscription("invoices").await.unwrap();
    queue.delete_subscription("invoices").await.unwrap_err();
    queue.delete_topic("orders").await.unwrap();
}

async fn what_is_managed_is_said<C: Client>() {
    let (_database, queue) = queue_without_topic::<C>().await;
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
