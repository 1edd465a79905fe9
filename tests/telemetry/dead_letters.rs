//! What is given up is said, whoever gave it up.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use pgqueue_core::{Ack, Backoff, Delivery, NewMessage, Publisher, Subscription, SubscriptionDriver, Topic, subscribe};
use pgqueue_memory::MemoryQueue;
use pgqueue_postgres::{JobTable, PgQueue};
use pgqueue_tests::{migrated, until};
use pgqueue_testserver::Database;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer};

use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    common::{SHORT_LEASE, insert, job_table, next, patiently},
    traces,
};

on_both_clients!(
    what_a_consumer_gives_up_is_said,
    what_a_caller_rolls_back_for_the_last_time_is_said,
    what_a_consumer_dies_of_is_said,
    what_becomes_of_jobs_is_said,
);

/// The topics and messages that were given up; each test has a topic of its own.
static GIVEN_UP: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// Hears what is given up.
pub(crate) struct Listening;

impl<S: tracing::Subscriber> Layer<S> for Listening {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        if said.message == "a message was given up" {
            GIVEN_UP.lock().unwrap_or_else(PoisonError::into_inner).push((said.topic, said.id));
        }
    }
}

#[derive(Default)]
struct Said {
    message: String,
    topic: String,
    id: String,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let place = match field.name() {
            "message" => &mut self.message,
            "messaging.destination.name" => &mut self.topic,
            "messaging.message.id" => &mut self.id,
            _ => return,
        };
        *place = format!("{value:?}");
    }
}

/// Waits until exactly these messages of a topic were given up, in whichever order.
async fn until_given_up(topic: &str, mut wanted: Vec<String>) {
    wanted.sort_unstable();
    until(async || {
        let all = GIVEN_UP.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut given_up: Vec<_> = all.into_iter().filter(|(of, _)| of == topic).map(|(_, id)| id).collect();
        given_up.sort_unstable();
        if given_up == wanted { Ok(()) } else { Err(format!("{wanted:?} of {topic}; given up are {given_up:?}")) }
    })
    .await;
}

fn id(delivery: &Delivery) -> String {
    delivery.message().id().to_string()
}

/// A subscription for one attempt.
fn only_once(topic: &str) -> Subscription {
    let backoff = Backoff::fixed(Duration::ZERO).with_max_attempts(1);
    Subscription::new("invoices", topic).with_backoff(backoff).with_lease(SHORT_LEASE).with_prefetch(1)
}

/// A queue with a topic of this test's, and a message.
async fn queue<C: Backend>(topic: &str) -> (Database, PgQueue<C>) {
    traces::export();
    let database = migrated::<C>().await.unwrap();
    let queue = PgQueue::connect(&database.url()).await.unwrap();
    queue.create_topic(Topic::new(topic)).await.unwrap();
    (database, queue)
}

fn topic<C>(test: &str) -> String {
    format!("{test} through {}", std::any::type_name::<C>())
}

/// Rejects one message, and requeues another for the last time.
async fn give_up(publisher: &impl Publisher, driver: impl SubscriptionDriver, topic: &str) {
    let mut stream = patiently("a stream", subscribe(driver)).await.unwrap();
    publisher.publish(topic, vec![NewMessage::new("1"), NewMessage::new("2"), NewMessage::new("3")]).await.unwrap();
    let rejected = next(&mut stream).await;
    let mut given_up = vec![id(&rejected)];
    rejected.settle(Ack::reject("it is no good")).await.unwrap();
    let requeued = next(&mut stream).await;
    given_up.push(id(&requeued));
    requeued.requeue().await.unwrap();
    next(&mut stream).await.ok().await.unwrap();
    until_given_up(topic, given_up).await;
}

#[tokio::test]
async fn what_a_consumer_gives_up_is_said_in_memory() {
    traces::export();
    let queue = MemoryQueue::new();
    queue.create_topic(Topic::new("given up in memory")).await.unwrap();
    let driver = queue.subscription(only_once("given up in memory"));
    give_up(&queue, driver, "given up in memory").await;
}

async fn what_a_consumer_gives_up_is_said<C: Backend>() {
    let topic = topic::<C>("given up");
    let (_database, queue) = queue::<C>(&topic).await;
    give_up(&queue, queue.subscription(only_once(&topic)), &topic).await;
}

async fn what_a_caller_rolls_back_for_the_last_time_is_said<C: Backend>() {
    let topic = topic::<C>("rolled back");
    let (database, queue) = queue::<C>(&topic).await;
    let mut stream = patiently("a stream", subscribe(queue.subscription(only_once(&topic)))).await.unwrap();
    queue.publish(&topic, vec![NewMessage::new("1")]).await.unwrap();
    let delivery = next(&mut stream).await;
    let given_up = vec![id(&delivery)];
    let mut transaction = C::open(&database.url()).await;
    queue.ok_in(delivery, &mut transaction).await.unwrap();
    C::rollback(transaction).await;
    until_given_up(&topic, given_up).await;
}

async fn what_a_consumer_dies_of_is_said<C: Backend>() {
    let topic = topic::<C>("died of");
    let (_database, queue) = queue::<C>(&topic).await;
    let dies = queue.subscription(only_once(&topic));
    dies.insert_subscription().await.unwrap();
    // Under the id that its publisher knows, which is not that of the log.
    let scheduled = NewMessage::new("1").with_delay(Duration::from_millis(1));
    let given_up: Vec<_> =
        queue.publish(&topic, vec![scheduled]).await.unwrap().iter().map(ToString::to_string).collect();
    let held = patiently("the message", async {
        loop {
            if let Some(delivery) = dies.fetch_pending().await.unwrap() {
                break delivery;
            }
        }
    })
    .await;
    assert_eq!(vec![id(&held)], given_up);
    dies.crash();
    let mut lives = patiently("a stream", subscribe(queue.subscription(only_once(&topic)))).await.unwrap();
    tokio::select! {
        () = until_given_up(&topic, given_up) => {}
        delivery = lives.next() => panic!("nothing is left to be delivered, but there is {delivery:?}"),
    }
    drop(held);
}

async fn what_becomes_of_jobs_is_said<C: Backend>() {
    traces::export();
    let table = format!("jobs_of_{}", std::any::type_name::<C>().rsplit("::").next().unwrap().to_lowercase());
    let (database, tables) = job_table::<C>().await;
    insert(&database, 1..4).await;
    database.sql(&format!("alter table jobs rename to {table}")).await.unwrap(); // a topic is called as its table
    let jobs = || {
        let backoff = Backoff::fixed(Duration::ZERO).with_max_attempts(1);
        JobTable::new(table.as_str()).with_backoff(backoff).with_lease(SHORT_LEASE).with_poll_interval(SHORT_LEASE)
    };
    let dies = tables.jobs(jobs());
    let held = patiently("a job", dies.fetch_pending()).await.unwrap().unwrap();
    let mut given_up = vec![id(&held)];
    dies.crash();
    let mut stream = patiently("a stream", subscribe(tables.jobs(jobs()))).await.unwrap();
    let rejected = next(&mut stream).await;
    given_up.push(id(&rejected));
    rejected.settle(Ack::reject("it is no good")).await.unwrap();
    let requeued = next(&mut stream).await;
    given_up.push(id(&requeued));
    requeued.requeue().await.unwrap();
    until_given_up(&table, given_up).await;
    drop(held);
}
