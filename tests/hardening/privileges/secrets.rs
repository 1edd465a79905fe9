//! Nothing secret is told: not by errors, not by what is shown for debugging, and not to whoever listens to `tracing`.

use std::{
    collections::HashMap,
    io::{self, Write},
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use pgqueue_core::{
    Ack, CheckpointStore, Error, Job, Message, NewMessage, Order, Position, Publisher, PublisherExt, Selector, Start,
    Subscription, Topic, Worker, subscribe,
};
use pgqueue_postgres::{Client, Options, PgQueue};
use pgqueue_testserver::{Database, Proxy, Server};
use tokio::time::timeout;
use tracing::Level;

use super::{make_role, queue_of, url_of};
use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    common::{chain, consume, end, invoices, next, patiently, queue},
};

on_both_clients!(
    passwords_are_told_by_nothing,
    payloads_are_told_by_nothing,
    what_is_refused_in_sql_is_told_by_nothing,
);

/// What nothing may tell: as it is, and as bytes are shown.
const SECRET: &str = "hunter2";
const SECRET_AS_HEX: &str = "68756e74657232";
const SECRET_AS_LIST: &str = "104, 117, 110, 116, 101, 114, 50";

/// What tells that all is heard.
const CANARY: &str = "a canary sings";

/// How many lines were heard, and those that tell a secret.
static HEARD: AtomicUsize = AtomicUsize::new(0);
static SONGS: AtomicUsize = AtomicUsize::new(0);
static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Reads the log of the whole process, a line a call.
struct Ear;

impl Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        // What clients say of themselves is not ours to hush: sqlx tells statements, which hold no secret, but so do tests.
        if line.contains("pgqueue") {
            HEARD.fetch_add(1, Ordering::Relaxed);
            if line.contains(CANARY) {
                SONGS.fetch_add(1, Ordering::Relaxed);
            }
            if tells(&line) {
                TOLD.lock().unwrap().push(line.into_owned());
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tells(text: &str) -> bool {
    [SECRET, SECRET_AS_HEX, SECRET_AS_LIST].iter().any(|secret| text.contains(secret))
}

/// Listens from now on to all that this process says.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber =
            tracing_subscriber::fmt().with_max_level(Level::TRACE).with_ansi(false).with_writer(|| Ear).finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
}

/// Checks that nothing was told, here or in the log.
#[track_caller]
fn assert_hushed(told: &[String]) {
    for told in told {
        assert!(!tells(told), "{told}");
    }
    let sung = SONGS.load(Ordering::Relaxed);
    tracing::info!(target: "pgqueue::test", "{CANARY}");
    assert!(SONGS.load(Ordering::Relaxed) > sung, "somebody listens");
    let told = TOLD.lock().unwrap();
    assert!(told.is_empty(), "the log tells {told:#?}");
}

/// What trying a queue tells.
async fn attempts<C: Client>(queue: &PgQueue<C>) -> Vec<String> {
    let options = Options::new().with_time_limit(Duration::from_secs(2));
    let queue = queue.clone().with_options(options).unwrap();
    let mut told = vec![format!("{queue:?} {:?} {:?}", queue.listener(), queue.subscription(invoices()))];
    let position = Position::new("00000000000000000001.0000000000000000001");
    let listened =
        async { timeout(Duration::from_millis(200), queue.listener().subscribe("orders")).await.ok()?.err() };
    let (a, b, c, d, e, f, g) = tokio::join!(
        patiently("a refusal", queue.publish_one("orders", secret_message())).map(Result::err),
        patiently("a refusal", queue.migrate()).map(Result::err),
        patiently("a refusal", subscribe(queue.subscription(invoices()))).map(Result::err),
        patiently("a refusal", queue.dead_letters("invoices")).map(Result::err),
        patiently("a refusal", queue.maintain()).map(Result::err),
        patiently("a refusal", queue.advance_checkpoint("totals", &position)).map(Result::err),
        listened,
    );
    told.extend([a, b, c, d, e, f, g].into_iter().flatten().map(|error| chain(&error)));
    told
}

fn secret_message() -> NewMessage {
    NewMessage::new(SECRET).with_header("authorization", SECRET)
}

async fn passwords_are_told_by_nothing<C: Client>() {
    listen();
    // A server that asks for passwords.
    let server = Server::start().await.unwrap();
    server.create_database("queue").await.unwrap();
    let rules = "E'host all postgres 127.0.0.1/32 trust\\nhost all all 127.0.0.1/32 scram-sha-256'";
    let file = server.sql("queue", "show hba_file").await.unwrap();
    let ask = format!(
        "create role shop login password 'another'; create role {SECRET}er login password 'another';
         copy (select unnest(string_to_array({rules}, E'\\n'))) to '{file}'"
    );
    server.sql("queue", &ask).await.unwrap();
    server.sql("queue", "select pg_reload_conf()").await.unwrap();
    let database = Database::create().await.unwrap();
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    proxy.cut().await;

    let mut told = Vec::new();
    let wrong = server.url("queue").replace("postgres@", &format!("shop:{SECRET}@"));
    let unreachable = database.url_at(proxy.port()).replace("postgres@", &format!("postgres:{SECRET}@"));
    let mut refused = 0;
    for url in [
        wrong.clone(),
        format!("{wrong}&application_name=x"),
        unreachable,
        wrong.replace("127.0.0.1", "no-such-host.invalid"),
        wrong.replace("sslmode=disable", "sslmode=verify-full"),
        wrong.replace("sslmode=disable", &format!("sslmode={SECRET}")),
        wrong.replace("/queue", &format!("/queue?password={SECRET}&")),
        wrong.replace("shop:", "sh%op:"),
    ] {
        match PgQueue::<C>::connect(&url).await {
            Ok(queue) => {
                let attempts = attempts(&queue).await;
                refused += usize::from(attempts.iter().any(|told| told.contains("28P01")));
                told.extend(attempts);
            }
            Err(error) => told.push(chain(&error)),
        }
    }
    assert!(refused > 0, "the server refused a password: {told:#?}");
    assert!(told.len() > 20, "{told:#?}");
    assert_hushed(&told);
}

async fn payloads_are_told_by_nothing<C: Backend>() {
    listen();
    let (database, owner) = queue::<C>().await;
    let mut told = Vec::new();
    let tell = |told: &mut Vec<String>, error: Error| told.push(chain(&error));
    // Refused before anything is sent, and by the server.
    let too_large = NewMessage::new(SECRET.repeat(3 << 20));
    for message in [
        too_large,
        secret_message().with_key("k\0"),
        secret_message().with_header("password", format!("{SECRET}\0")),
        secret_message().with_header("password", SECRET.repeat(2000)),
    ] {
        tell(&mut told, owner.publish_one("orders", message.clone()).await.unwrap_err());
    }
    tell(&mut told, owner.publish_one("nowhere", secret_message()).await.unwrap_err());
    let nobody = make_role(&database, "nobody").await;
    let nobody_queue = queue_of::<C>(&database, &nobody).await;
    tell(&mut told, nobody_queue.publish_one("orders", secret_message()).await.unwrap_err());
    let mut transaction = C::open(&url_of(&database, &nobody)).await;
    tell(&mut told, nobody_queue.publish_in(&mut transaction, "orders", vec![secret_message()]).await.unwrap_err());
    tell(&mut told, nobody_queue.publish_in(&mut transaction, "orders", vec![secret_message()]).await.unwrap_err());
    C::rollback(transaction).await;
    // The server stops while it stores.
    database.sql("alter table pgqueue.log add constraint no check (length(payload) > 1000)").await.unwrap();
    let refused = owner.publish_one("orders", secret_message()).await.unwrap_err().to_string();
    database.sql("alter table pgqueue.log drop constraint no").await.unwrap();
    assert!(refused.contains("23514"), "{refused}");
    told.push(refused); // the client's own error below it, for those who ask for it, has the server's details too

    // Payloads that handlers cannot read, and handlers that fail: each is logged.
    let subscription = invoices()
        .with_selector(Selector::all().and(!Selector::kind("nothing")))
        .with_backoff(pgqueue_core::Backoff::fixed(Duration::ZERO).with_max_attempts(2));
    owner.insert_subscription(&subscription).await.unwrap();
    for payload in [format!("{{\"n\": \"{SECRET}\"}}"), format!("{SECRET} is no JSON"), format!("\"{SECRET}\"")] {
        owner.publish("orders", vec![NewMessage::new(payload)]).await.unwrap();
    }
    type Number = HashMap<String, u64>;
    let stream = consume(&owner, subscription.clone()).await.until({
        let owner = owner.clone();
        async move { until_dead(&owner, 3).await }
    });
    let failures = Arc::new(Mutex::new(Vec::new()));
    let reported = Arc::clone(&failures);
    let worker = Worker::new(stream, |_: Job<Number>| async { Ok::<_, Error>(Ack::Ok) })
        .on_error(move |failure| reported.lock().unwrap().push(format!("{failure} {failure:?}")));
    patiently("the end of a worker", worker.run()).await.unwrap();
    assert!(failures.lock().unwrap().len() >= 3);
    told.extend(failures.lock().unwrap().iter().cloned());

    // Positions, names and selectors are no secrets; what is shown of messages is.
    let letters = owner.dead_letters("invoices").await.unwrap();
    assert_eq!(letters.len(), 3);
    told.extend(letters.iter().map(|letter| format!("{:?} {}", letter.message, letter.reason)));
    owner.redrive("invoices").await.unwrap();
    let mut stream = consume(&owner, subscription).await;
    let delivery = next(&mut stream).await;
    let message: &Message = delivery.message();
    told.push(format!("{delivery:?} {message:?} {:?}", message.json::<Number>().err().map(|error| chain(&error))));
    owner.delete_subscription("invoices").await.unwrap();
    told.push(chain(&delivery.ok().await.unwrap_err()));
    told.push(chain(&end(&mut stream).await));
    told.push(format!("{:?} {:?}", secret_message(), owner));
    assert_hushed(&told);
    assert!(HEARD.load(Ordering::Relaxed) > 20, "much is said");
}

/// Waits until so many messages were given up.
async fn until_dead<C: Client>(queue: &PgQueue<C>, count: u64) {
    while queue.stats("invoices").await.unwrap().dead < count {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn what_is_refused_in_sql_is_told_by_nothing<C: Client>() {
    listen();
    let (database, owner) = queue::<C>().await;
    // What other callers of the functions get wrong: the server's own words go to them, and these reach us by none of our errors.
    for wrong in [
        format!("select pgqueue.publish('orders', '{SECRET}', v_headers => '[\"{SECRET}\"]')"),
        format!("select pgqueue.publish('orders', '{SECRET}', v_tags => array['{SECRET}', null])"),
        format!("select pgqueue.publish_batch('orders', array['{SECRET}'::bytea, null])"),
        format!("select pgqueue.publish_batch('orders', array['{SECRET}'::bytea], v_headers => '{{{SECRET}}}')"),
    ] {
        database.sql(&wrong).await.unwrap_err();
    }
    let found = database.sql("select count(*) from pgqueue.log").await.unwrap();
    assert_eq!(found, "0", "what no consumer could read is refused");
    let after = Subscription::new("s", "orders").with_order(Order::StableTotal);
    let refused = owner.insert_subscription(&after.with_start(Start::After(Position::new("x")))).await.unwrap_err();
    owner.create_topic(Topic::new("orders").with_buckets(7)).await.unwrap_err();
    owner.publish_json("orders", &SECRET).await.unwrap();
    assert_hushed(&[chain(&refused)]);
}
