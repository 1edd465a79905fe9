//! What PostgreSQL queues say to whoever listens to `tracing`: alone in a process, and one at a time, as a place that speaks asks
//! only once who listens.

mod both_clients;

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use pgqueue_core::{CheckpointStore, Order, Position, Start, Subscription, Topic};
use pgqueue_postgres::{Client, OwnedTransaction, PgQueue, PgTables, TableWatch};
use pgqueue_testserver::Database;
use tracing::{Level, instrument::WithSubscriber};

use crate::both_clients::on_both_clients;

/// Who listens now.
static LISTENING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

on_both_clients!(what_is_managed_is_said, why_a_table_is_polled_is_said_once);

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

/// Returns what these modules say meanwhile.
async fn heard(modules: &[&str], something: impl Future<Output = ()>) -> Vec<String> {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    something.with_subscriber(subscriber).await;
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let said = log.lines().filter_map(|line| line.split_once("pgqueue_postgres::")?.1.split_once(": "));
    said.filter(|(module, _)| modules.contains(module)).map(|(_, text)| text.to_owned()).collect()
}

async fn what_is_managed_is_said<C: Client>() {
    let _alone = LISTENING.lock().await;
    let database = Database::create().await.unwrap();
    let queue = PgQueue::<C>::connect(&database.url()).await.unwrap();
    queue.migrate().await.unwrap();
    let said = heard(&["queue", "checkpoints"], manage(&queue)).await;
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
        ]
    );
}

async fn why_a_table_is_polled_is_said_once<C: Client>() {
    let _alone = LISTENING.lock().await;
    let database = Database::create().await.unwrap();
    let tables = PgTables::<C>::connect(&database.url()).await.unwrap();
    database.sql("create table jobs (id int)").await.unwrap();
    let watch = TableWatch::new("jobs");
    let same_watch = watch.clone();
    let [insert, _] = watch.trigger_names();
    let somebody = C::connect(&database.url()).await.unwrap();
    let said = heard(&["tables::watch::install"], async {
        let mut writer = somebody.begin().await.unwrap();
        writer.execute("insert into jobs values (1)", &[]).await.unwrap();
        tables.watch_table(&watch).await.unwrap();
        tables.ensure_triggers(&same_watch).await.unwrap();
        writer.rollback().await.unwrap();
        tables.ensure_triggers(&watch).await.unwrap();
        tables.ensure_triggers(&watch).await.unwrap();
        let theirs = format!(
            "drop trigger {insert} on jobs; \
             create trigger {insert} after insert on jobs for each row execute function pgqueue_notify('theirs')"
        );
        database.sql(&theirs).await.unwrap();
        tables.ensure_triggers(&watch).await.unwrap();
        tables.ensure_triggers(&watch).await.unwrap();
    })
    .await;
    let event = |text: &str| format!("{text} messaging.system=\"pgqueue\" table=\"jobs\" channel=\"pgqueue_jobs\"");
    let polled = |why: &str| event("the triggers of a table are not all there, and it is polled") + " why=" + why;
    let missing = "health=TriggerHealth { function: Missing, insert: Missing, update: Missing }";
    let foreign = "health=TriggerHealth { function: Healthy, insert: Foreign, update: Healthy }";
    let names = format!(" triggers={:?}", watch.trigger_names());
    assert_eq!(
        said,
        [
            polled("the table is locked by others server=\"could not obtain lock on relation \\\"public.jobs\\\"\" ")
                + missing
                + &names,
            event("triggers of a table were installed"),
            polled("a trigger or a function of that name is not what it should be; drop it ") + foreign + &names,
        ]
    );
}
