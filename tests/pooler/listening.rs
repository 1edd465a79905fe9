//! Notifications, which come through no pooler in transaction mode.

use std::{
    io::{self, Write},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use pgqueue_core::ErrorKind;
use pgqueue_postgres::{Options, PgQueue};
use pgqueue_testserver::Database;
use tracing::Level;

use crate::{
    common::{assert_says, consume, invoices, next, number, patiently, publish_number},
    place,
    queue::queue_of,
    small::Small,
};

/// Longer than anybody is patient: a poll explains nothing.
const SELDOM: Duration = Duration::from_secs(60);

/// What was warned of, in this process.
static WARNINGS: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Of both clients, one at a time counts what is said.
static COUNTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

struct Warnings;

impl Write for Warnings {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        WARNINGS.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps all warnings of this process.
pub(crate) fn record_warnings() {
    tracing_subscriber::fmt().with_max_level(Level::WARN).with_ansi(false).with_writer(|| Warnings).init();
}

fn times_said(text: &str) -> usize {
    let said = WARNINGS.lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8_lossy(&said).matches(text).count()
}

pub(super) async fn messages_wake_a_listener_that_leads_past_the_pooler<C: Small>() {
    let database = Database::create().await.unwrap();
    let client = C::behind_pooler_listening(&place::url(&database), 8, &database.url());
    let queue = queue_of(client).await.with_options(Options::new().with_poll_interval(SELDOM)).unwrap();
    let mut stream = consume(&queue, invoices()).await;
    for n in 0..5 {
        let published = async {
            tokio::time::sleep(Duration::from_millis(300)).await; // so that the consumer sleeps
            publish_number(&queue, n).await
        };
        let (delivery, _) = tokio::join!(next(&mut stream), published);
        assert_eq!(number(&delivery), n);
        delivery.ok().await.unwrap();
    }
}

pub(super) async fn deaf_listener_is_found_out_and_that_is_said_once<C: Small>() {
    let _alone = COUNTING.lock().await;
    const SAID: &str = "no notification comes through";
    let database = Database::create().await.unwrap();
    let through = place::url(&database);
    let queue: PgQueue<C> = queue_of(C::behind_pooler_listening(&through, 8, &through)).await;
    let before = times_said(SAID);
    // It is found out whoever comes first, and holds for all.
    let mut stream = consume(&queue, invoices()).await;
    for _ in 0..3 {
        let refused = patiently("a refusal", queue.listener().subscribe("door")).await.unwrap_err();
        assert_says(&refused, ErrorKind::Fatal, &["only polls", "pooler in transaction mode"]);
    }
    assert_eq!((queue.listener().subscribers(), times_said(SAID) - before), (0, 1));
    // Messages come all the same.
    for n in 0..5 {
        publish_number(&queue, n).await;
        let delivery = next(&mut stream).await;
        assert_eq!(number(&delivery), n);
        delivery.ok().await.unwrap();
    }
}
