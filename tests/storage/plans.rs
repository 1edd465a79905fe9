//! The plans of the hot statements: whatever the statistics say, they go by the index that is meant, and a claim reads
//! as much of a log of 100,000 messages as of one of 1,000.
//!
//! The statements live inside of functions, so `auto_explain` reports their plans to the session that runs them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt, stream};
use pgqueue_testserver::Database;
use pgqueue_tokio_postgres::PgQueue;
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};

/// How long a test may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// A log that is small, and one that is large.
const SMALL: u64 = 1_000;
const LARGE: u64 = 100_000;
/// How many buffers more a claim may touch in the large log: the indexes are higher.
const HIGHER: i64 = 60;

const CLAIM: &str = "select * from pgqueue.claim(%, '00000000-0000-0000-0000-000000000001', gen_random_uuid(), 100, false, true, 0, false)";
const ORDERS: [(i64, &str); 4] = [(1, "unordered"), (2, "by key"), (3, "total"), (4, "stable total")];

/// What the planner knows of the tables.
#[derive(Clone, Copy, Debug)]
enum Statistics {
    /// What is.
    Fresh,
    /// Nothing.
    Missing,
    /// That they are empty.
    Stale,
}

/// Of which transactions the messages are.
#[derive(Clone, Copy, Debug)]
enum Transactions {
    Many,
    One,
}

/// A session that hears the plans of what it runs.
struct Session {
    client: Client,
    heard: Arc<Mutex<String>>,
}

impl Session {
    async fn open(url: &str) -> Self {
        let (client, mut connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        let heard = Arc::new(Mutex::new(String::new()));
        let hears = Arc::clone(&heard);
        tokio::spawn(async move {
            let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notice(notice) = message {
                    hears.lock().unwrap().push_str(notice.message());
                }
            }
        });
        let session = Self { client, heard };
        session
            .run(
                "load 'auto_explain'; set auto_explain.log_nested_statements = on; set auto_explain.log_analyze = on; \
                     set auto_explain.log_timing = off; set synchronous_commit = off; set client_min_messages = log",
            )
            .await;
        session
    }

    async fn run(&self, sql: &str) -> Vec<Vec<String>> {
        let messages = self.client.simple_query(sql).await.unwrap_or_else(|error| panic!("{error:?}: {sql}"));
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|n| row.get(n).unwrap_or("").to_owned()).collect()),
            _ => None,
        });
        rows.collect()
    }

    /// The plans of all that a statement does.
    async fn plans(&self, sql: &str) -> String {
        self.run("set auto_explain.log_min_duration = 0").await;
        self.heard.lock().unwrap().clear();
        self.run(sql).await;
        let plans = std::mem::take(&mut *self.heard.lock().unwrap());
        self.run("set auto_explain.log_min_duration = -1").await;
        assert!(plans.contains("Query Text"), "no plan is heard of: {plans}");
        plans
    }

    /// How many buffers a statement touches.
    async fn buffers(&self, sql: &str) -> i64 {
        let plan = self.run(&format!("explain (analyze, buffers, timing off, costs off) {sql}")).await;
        let line = plan.iter().map(|row| row[0].trim()).find(|line| line.starts_with("Buffers: shared")).unwrap();
        let numbers = line.split([' ', ',']).filter(|word| word.starts_with("hit=") || word.starts_with("read="));
        numbers.filter_map(|word| word.split('=').nth(1)?.parse::<i64>().ok()).sum()
    }
}

async fn database(statistics: Statistics) -> (Database, Session) {
    let database = Database::create().await.unwrap();
    PgQueue::connect(&database.url()).await.unwrap().migrate().await.unwrap();
    let session = Session::open(&database.url()).await;
    for table in ["log", "lease", "cursor", "sleeper", "settled", "owner"] {
        session.run(&format!("alter table pgqueue.{table} set (autovacuum_enabled = off)")).await;
    }
    session.run("select pgqueue.create_topic('t', 16, 60000)").await;
    for (_, order) in ORDERS {
        let insert = format!(
            "select pgqueue.insert_subscription('{order}', 't', '{order}', 100, 100, 60000, 20, 1000, 2, 60000, 0)"
        );
        session.run(&insert).await;
    }
    if matches!(statistics, Statistics::Stale) {
        session.run("analyze").await;
    }
    (database, session)
}

/// A session in the midst of a transaction, so that every claim looks for latecomers.
async fn somebody_at_work(database: &Database) -> Session {
    let session = Session::open(&database.url()).await;
    session.run("begin; select pg_current_xact_id()").await;
    session
}

/// Publishes so many messages, and with them a crowd of sleepers and retries that are due another day.
async fn fill(session: &Session, messages: u64, transactions: Transactions) {
    let size = if matches!(transactions, Transactions::One) { messages } else { 500 };
    for _ in 0..messages / size {
        let publish = format!(
            "select cardinality(pgqueue.publish_batch('t', array_agg('x'::bytea), array_agg('key ' || n % 100))) from generate_series(1, {size}) n"
        );
        session.run(&publish).await;
    }
    let crowd = format!(
        "insert into pgqueue.sleeper (topic, armed_until) select 1, clock_timestamp() - interval '1 minute' from generate_series(1, {0}); \
         insert into pgqueue.lease (subscription, lane, rank, claimed_at, ready_at, ids) \
         select 1, -1, 0, now(), now() + interval '1 day', '{{1}}' from generate_series(1, {0})",
        messages / 10
    );
    session.run(&crowd).await;
}

/// Asserts that no plan reads the whole of a table that grows.
fn by_index(what: &str, plans: &str, indexes: &[&str]) {
    for table in ["log", "lease", "cursor", "sleeper"] {
        let scan = format!("Seq Scan on {table} ");
        assert!(!plans.contains(&scan), "{what}: {scan}in\n{plans}");
    }
    assert!(!plans.contains("Bitmap Heap Scan on log "), "{what}: a bitmap of the log in\n{plans}");
    assert!(!plans.contains("JIT:"), "{what}: compiling takes longer than running:\n{plans}");
    for index in indexes {
        let is_used = [format!("using {index} on"), format!("Backward using {index} on"), format!("on {index} ")];
        assert!(is_used.iter().any(|used| plans.contains(used)), "{what}: not by {index} in\n{plans}");
    }
}

async fn check(session: &Session, what: &str) {
    let publish = session.plans("select pgqueue.publish('t', 'x', 'a key')").await;
    by_index(&format!("publishing, {what}"), &publish, &["sleeper_topic_armed_until_idx"]);
    for (subscription, order) in ORDERS {
        let claim = CLAIM.replace('%', &subscription.to_string());
        let fresh = match order {
            "by key" => "log_by_bucket",
            "stable total" => "log_by_xact",
            _ => "log_pkey",
        };
        let indexes =
            ["log_by_xact", fresh, "cursor_pkey", if subscription == 1 { "lease_ready" } else { "lease_lane" }];
        let settle = format!(
            "select pgqueue.settle({subscription}, array_agg(id), array_agg(token), '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}') \
             from (select id, token from pgqueue.lease where owner is not null order by id limit 100) l"
        );
        let settle = format!("set enable_seqscan = off; {settle}; reset enable_seqscan");
        // From the first on there is somebody at work who may come late.
        session.run(&claim).await;
        session.run(&settle).await;
        for _ in 0..2 {
            let plans = session.plans(&claim).await;
            by_index(&format!("a claim {order}, {what}"), &plans, &indexes);
            let plans = session.plans(&settle).await;
            // In stable total order nothing goes while somebody is at work.
            let indexes: &[_] = if order == "stable total" { &[] } else { &["lease_pkey"] };
            by_index(&format!("settling {order}, {what}"), &plans, indexes);
        }
    }
    let trim = session.plans("select pgqueue.trim(100)").await;
    by_index(&format!("trimming, {what}"), &trim, &["log_pkey"]);
}

async fn patiently(work: impl Future<Output = ()>) {
    tokio::time::timeout(PATIENCE, work).await.unwrap();
}

async fn plans_hold(statistics: Statistics, transactions: Transactions) {
    let (database, session) = database(statistics).await;
    let _at_work = somebody_at_work(&database).await;
    let mut filled = 0;
    for messages in [SMALL, LARGE] {
        fill(&session, messages - filled, transactions).await;
        filled = messages;
        if matches!(statistics, Statistics::Fresh) {
            session.run("analyze").await;
        }
        let what = format!("{messages} messages of {transactions:?} transactions, {statistics:?} statistics");
        check(&Session::open(&database.url()).await, &what).await;
    }
}

#[tokio::test]
async fn plans_hold_with_fresh_statistics() {
    patiently(plans_hold(Statistics::Fresh, Transactions::Many)).await;
}

#[tokio::test]
async fn plans_hold_without_statistics() {
    patiently(plans_hold(Statistics::Missing, Transactions::Many)).await;
}

#[tokio::test]
async fn plans_hold_with_stale_statistics() {
    patiently(plans_hold(Statistics::Stale, Transactions::Many)).await;
}

#[tokio::test]
async fn plans_hold_when_all_messages_are_of_one_transaction() {
    patiently(plans_hold(Statistics::Fresh, Transactions::One)).await;
}

#[tokio::test]
async fn plans_hold_in_a_session_that_began_on_an_empty_log() {
    patiently(async {
        let (database, session) = database(Statistics::Missing).await;
        let _at_work = somebody_at_work(&database).await;
        // So often that its plans are made for good.
        for _ in 0..10 {
            for (subscription, _) in ORDERS {
                session.run(&CLAIM.replace('%', &subscription.to_string())).await;
            }
            session.run("select pgqueue.trim()").await;
        }
        fill(&Session::open(&database.url()).await, LARGE, Transactions::Many).await;
        check(&session, "a session that began on an empty log").await;
    })
    .await;
}

#[tokio::test]
async fn a_claim_reads_as_much_of_a_large_log_as_of_a_small_one() {
    patiently(async {
        let (database, session) = database(Statistics::Missing).await;
        let _at_work = somebody_at_work(&database).await;
        let mut touched = Vec::new();
        for messages in [SMALL, LARGE - SMALL] {
            fill(&session, messages, Transactions::Many).await;
            let session = Session::open(&database.url()).await;
            let mut each = Vec::new();
            for (subscription, _) in ORDERS {
                let claim = CLAIM.replace('%', &subscription.to_string());
                let forget =
                    format!("delete from pgqueue.lease where subscription = {subscription} and owner is not null");
                for _ in 0..2 {
                    session.run(&claim).await; // fills the session's caches
                    session.run(&forget).await;
                }
                each.push(session.buffers(&claim).await);
                session.run(&forget).await;
            }
            touched.push(each);
        }
        for ((small, large), (_, order)) in touched[0].iter().zip(&touched[1]).zip(ORDERS) {
            assert!(large - small <= HIGHER, "a claim {order} touches {small} buffers, then {large}");
        }
    })
    .await;
}
