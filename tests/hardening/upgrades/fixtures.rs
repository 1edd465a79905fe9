//! Every version that there was, kept as SQL: what is in it survives, and it becomes what a new installation is.

use std::{env, fs, path::PathBuf, sync::Mutex, time::Duration};

use async_trait::async_trait;
use pgqueue_core::{Backoff, CheckpointStore, NewMessage, Order, PublisherExt, Selector, Subscription};
use pgqueue_postgres::{Client, ClientError, ListenerConnection, Parameter, PgQueue};
use pgqueue_sqlx::Sqlx;
use pgqueue_testserver::Database;

use super::{FURTHER, FURTHEST};
use crate::{
    both_clients::on_both_clients,
    catalog,
    common::{consume, next, number, quiet},
};

on_both_clients!(an_upgrade_is_the_same_as_a_new_installation, what_waits_in_an_old_schema_is_there_in_the_new);

/// Writes the fixture of the present version anew, instead of comparing it.
const WRITE: &str = "PGQUEUE_WRITE_FIXTURES";

/// The file of a fixture: `v1.sql` has the schema of version 1, and `v1_data.sql` what is done in it, in steps.
fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "hardening/upgrades/fixtures", name].iter().collect()
}

/// The present version, in which there is a fixture of every version.
async fn present_version(database: &Database) -> u32 {
    database.sql("select max(version) from pgqueue.migration").await.unwrap().parse().unwrap()
}

/// A database with the schema of a version, and what was done in it.
async fn database_of(version: u32, with_data: bool) -> Database {
    let database = Database::create().await.unwrap();
    let schema = file(&format!("v{version}.sql"));
    let schema = fs::read_to_string(&schema).unwrap_or_else(|_| panic!("write {}: {WRITE}=1", schema.display()));
    database.sql(&schema).await.unwrap();
    if with_data {
        fill(&database, version).await;
    }
    database
}

/// Does in a schema of a version what its fixture has.
pub(crate) async fn fill(database: &Database, version: u32) {
    let data = fs::read_to_string(file(&format!("v{version}_data.sql"))).unwrap();
    for step in data.split("-- then\n") {
        database.sql(step).await.unwrap();
    }
}

/// A client that keeps the scripts that it runs.
struct Recorder {
    client: Sqlx,
    scripts: Mutex<Vec<String>>,
}

#[async_trait]
impl Client for Recorder {
    type Row = <Sqlx as Client>::Row;
    type Transaction = <Sqlx as Client>::Transaction;

    async fn connect(url: &str) -> Result<Self, ClientError> {
        Ok(Self { client: Sqlx::connect(url).await?, scripts: Mutex::default() })
    }

    async fn query(&self, statement: &str, parameters: &[Parameter]) -> Result<Vec<Self::Row>, ClientError> {
        self.client.query(statement, parameters).await
    }

    async fn run_script(&self, script: &str) -> Result<(), ClientError> {
        self.scripts.lock().unwrap().push(script.to_owned());
        self.client.run_script(script).await
    }

    async fn begin(&self) -> Result<Self::Transaction, ClientError> {
        self.client.begin().await
    }

    fn max_connections(&self) -> usize {
        self.client.max_connections()
    }

    async fn open_listener(&self) -> Result<Option<Box<dyn ListenerConnection>>, ClientError> {
        self.client.open_listener().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fixture_of_the_present_version_is_what_migrate_makes() {
    let database = Database::create().await.unwrap();
    let queue = PgQueue::<Recorder>::connect(&database.url()).await.unwrap();
    queue.migrate().await.unwrap();
    let scripts = queue.client().scripts.lock().unwrap().concat();
    let version = present_version(&database).await;
    if env::var_os(WRITE).is_some() {
        fs::write(file(&format!("v{version}.sql")), scripts).unwrap();
    }
    let fixture = database_of(version, false).await;
    let what = format!(
        "fixtures/v{version}.sql is not what `migrate` makes: once version {version} is released, what differs belongs into the next \
         migration; before that, write the fixture anew with {WRITE}=1"
    );
    catalog::assert_same(&what, &catalog::schema(&fixture).await, &catalog::schema(&database).await);
}

async fn an_upgrade_is_the_same_as_a_new_installation<C: Client>() {
    let database = Database::create().await.unwrap();
    let queue = PgQueue::<C>::connect(&database.url()).await.unwrap();
    queue.migrate().await.unwrap();
    let new = catalog::schema(&database).await;
    let present = present_version(&database).await;
    queue.migrate_further(&FURTHER).await.unwrap();
    let next = catalog::schema(&database).await;
    assert!(new != next && new.len() > 300, "{} lines", new.len());

    for version in 1..=present {
        let database = database_of(version, true).await;
        let queue = PgQueue::<C>::connect(&database.url()).await.unwrap();
        queue.migrate().await.unwrap();
        catalog::assert_same(&format!("from version {version}"), &new, &catalog::schema(&database).await);
        queue.migrate_further(&FURTHER).await.unwrap();
        catalog::assert_same(&format!("from version {version} to the next"), &next, &catalog::schema(&database).await);
    }
}

async fn what_waits_in_an_old_schema_is_there_in_the_new<C: Client>() {
    let present = {
        let database = Database::create().await.unwrap();
        PgQueue::<C>::connect(&database.url()).await.unwrap().migrate().await.unwrap();
        present_version(&database).await
    };
    for version in 1..=present {
        let database = database_of(version, true).await;
        let queue = PgQueue::<C>::connect(&database.url()).await.unwrap();
        queue.migrate_further(&FURTHER).await.unwrap();
        queue.migrate().await.unwrap(); // by an older binary: nothing happens
        assert_eq!(database.sql("select max(version) from pgqueue.migration").await.unwrap(), FURTHEST);
        everything_is_there(&queue).await;
    }
}

/// Checks what the fixtures' data leave, which is the same in all versions.
async fn everything_is_there<C: Client>(queue: &PgQueue<C>) {
    let again = queue.publish_one("orders", NewMessage::new("0").with_dedup_id("once")).await.unwrap();
    assert_eq!(again.as_str(), "21", "published once");
    let letters = queue.dead_letters("unordered").await.unwrap();
    assert_eq!((letters.len(), &*letters[0].reason, letters[0].message.json::<u64>().unwrap()), (1, "bad", 3));
    let checkpoint = queue.checkpoint("totals").await.unwrap().unwrap();
    assert!(checkpoint.position.as_str().ends_with(".0000000000000000003"));
    let topic = queue.topic("orders").await.unwrap();
    assert_eq!((topic.buckets(), topic.dedup_window()), (8, Duration::from_secs(3600)));

    let backoff = Backoff::fixed(Duration::ZERO).with_max_attempts(10);
    for order in [Order::Unordered, Order::ByKey, Order::Total, Order::StableTotal] {
        let subscription = Subscription::new(order.to_string(), "orders").with_order(order).with_backoff(backoff);
        let mut stream = consume(queue, subscription).await;
        let wanted: Vec<u64> = match order {
            // The first is done, the third dead, and the fourth was done inside of a transaction.
            Order::Unordered => [2].into_iter().chain(5..=22).collect(),
            _ => (1..=22).collect(),
        };
        let mut found = Vec::new();
        while found.len() < wanted.len() {
            let delivery = next(&mut stream).await;
            let message = delivery.message();
            let number = number(&delivery);
            assert_eq!(message.key(), Some(&*format!("k{}", number % 4)));
            assert_eq!(
                (message.kind(), message.tags(), &*message.headers()["n"]),
                (Some("paid"), &["t".to_owned()][..], &*number.to_string())
            );
            if (order, number) == (Order::Unordered, 2) || (order, number) == (Order::Total, 1) {
                assert_eq!(message.attempt(), 2, "{number} of {order} was requeued");
            }
            found.push(number);
            delivery.ok().await.unwrap();
        }
        quiet(&mut stream).await;
        match order {
            Order::Unordered => found.sort_unstable(),
            Order::ByKey => found.sort_by_key(|number| number % 4), // stable: of each key in the order they came
            _ => {}
        }
        let mut wanted = wanted;
        if order == Order::ByKey {
            wanted.sort_by_key(|number| number % 4);
        }
        assert_eq!(found, wanted, "{order}");
    }
    let selecting = Subscription::new("selecting", "orders").with_selector(Selector::kind("paid"));
    assert_eq!(queue.find_subscription("selecting").await.unwrap().unwrap().selector(), selecting.selector());
    assert_eq!(queue.redrive("unordered").await.unwrap(), 1);
}
