//! Somebody holds vacuum's horizon, so that nothing that was deleted goes away: claims, publishing and trimming read as much as before,
//! the queue says who it is, and all goes once that one has ended.
//!
//! `PGQUEUE_PINNED_LEASES` says how many leases are handed out and settled meanwhile: with 200000 it takes some minutes.

use std::{collections::BTreeMap, env, time::Duration};

use pgqueue_testserver::Server;
use pgqueue_tokio_postgres::PgQueue;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// How many leases there are if nobody says otherwise.
const LEASES: u32 = 4_000;
/// How many leases one statement hands out and settles.
const STRIDE: u32 = 500;
/// How long a test may take on a slow machine, and how much longer for each thousand leases.
const PATIENCE: Duration = Duration::from_secs(300);
const PATIENCE_A_THOUSAND: Duration = Duration::from_secs(10);
/// How often the server's figures are looked at.
const GLANCE: Duration = Duration::from_millis(50);
/// How many buffers more a statement may touch: the indexes are higher.
const HIGHER: i64 = 25;
/// What trimming may touch more: an idle lane passes messages once a second, and until then the leases of that second may be needed.
const OF_A_SECOND: i64 = 250;
/// And a claim by key: from how many of its lanes it takes something is up to what came last.
const OF_LANES: i64 = 80;
/// How many messages are published at a time.
const BATCH: u32 = 100;

/// Publishes and consumes, three messages a lease, sleeps between, and trims, as consumers do. The leases of three subscriptions take turns.
const WORK: &str = "
    do $$
    declare
      v_armed bigint;
      v_token uuid;
      v_leases bigint[];
      v_subscription bigint;
    begin
      for n in 1..STRIDE loop
        if n % BATCH = 1 then
          -- One by one: the transactions are as many as the messages.
          for key in 1..BATCH loop
            perform pgqueue.publish('t', 'x', 'key ' || key);
            commit;
          end loop;
        end if;
        v_subscription := 1 + n % 3;
        v_armed := pgqueue.arm(1, 1000);
        commit;
        v_token := gen_random_uuid();
        select array_agg(distinct lease) into v_leases from pgqueue.claim(v_subscription, '00000000-0000-0000-0000-000000000001', v_token, 3, true, true, n, false, v_armed)
        where lease is not null;
        commit;
        if v_leases is not null then
          perform pgqueue.settle(
            v_subscription, v_leases, array_fill(v_token, array[cardinality(v_leases)]), '{}', '{}', '{}', '{}', '{}', '{}', '{}');
          commit;
        end if;
      end loop;
      perform pgqueue.trim();
    end
    $$";

/// What is measured, beside what it is called.
const MEASURED: [(&str, &str); 7] = [
    (
        "an unordered claim",
        "select * from pgqueue.claim(1, '00000000-0000-0000-0000-000000000001', gen_random_uuid(), 20, false, true, 1, false)",
    ),
    (
        "a claim by key",
        "select * from pgqueue.claim(2, '00000000-0000-0000-0000-000000000001', gen_random_uuid(), 20, false, true, 1, false)",
    ),
    (
        "a claim in total order",
        "select * from pgqueue.claim(3, '00000000-0000-0000-0000-000000000001', gen_random_uuid(), 20, false, true, 1, false)",
    ),
    (
        "a claim of nothing",
        "select * from pgqueue.claim(4, '00000000-0000-0000-0000-000000000001', gen_random_uuid(), 20, false, true, 1, false)",
    ),
    ("publishing", "select pgqueue.publish('t', 'x', 'a key')"),
    ("arming", "select pgqueue.arm(1, 1000)"),
    ("trimming", "select pgqueue.trim(100)"),
];

struct Session(Client);

impl Session {
    async fn open(url: &str) -> Self {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let session = Self(client);
        session.run("set synchronous_commit = off").await;
        session
    }

    async fn run(&self, sql: &str) -> Vec<String> {
        let messages = self.0.simple_query(sql).await.unwrap_or_else(|error| panic!("{error:?}: {sql}"));
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        });
        rows.collect()
    }

    async fn number(&self, sql: &str) -> i64 {
        self.run(sql).await[0].parse().unwrap()
    }

    /// How many buffers each statement touches. What they did is rolled back.
    async fn measure(&self) -> BTreeMap<&'static str, i64> {
        let mut touched = BTreeMap::new();
        for (what, sql) in MEASURED {
            let explain = format!("begin; explain (analyze, buffers, timing off, costs off) {sql}; rollback");
            self.run(&explain).await; // fills the session's caches
            let plan = self.run(&explain).await;
            let line = plan.iter().map(|line| line.trim()).find(|line| line.starts_with("Buffers: shared"));
            let numbers = line.unwrap_or_default().split([' ', ',']);
            let numbers = numbers.filter(|word| word.starts_with("hit=") || word.starts_with("read="));
            touched.insert(what, numbers.filter_map(|word| word.split('=').nth(1)?.parse::<i64>().ok()).sum());
        }
        touched
    }

    /// Vacuums until the server's figures say that so many dead rows are left, and returns how many, and the bytes of the log and the
    /// leases. The figures come a little late, and those of a session may come after those of vacuum.
    async fn vacuum(&self, is_expected: impl Fn(i64) -> bool) -> (i64, i64) {
        let dead = "select sum(n_dead_tup) from pg_stat_user_tables where schemaname = 'pgqueue'";
        let left = loop {
            for table in ["log", "lease", "cursor", "sleeper", "owner", "extent"] {
                self.run(&format!("vacuum pgqueue.{table}")).await;
            }
            tokio::time::sleep(GLANCE).await;
            let left = self.number(dead).await;
            if is_expected(left) {
                break left;
            }
        };
        let size = "select pg_relation_size('pgqueue.log') + pg_relation_size('pgqueue.lease')";
        (left, self.number(size).await)
    }
}

fn leases() -> u32 {
    let Ok(value) = env::var("PGQUEUE_PINNED_LEASES") else { return LEASES };
    value.parse().unwrap_or_else(|_| panic!("PGQUEUE_PINNED_LEASES is {value:?}; it must be a number"))
}

#[derive(Clone, Copy, Debug)]
enum Culprit {
    IdleTransaction,
    Reader,
    Slot,
}

/// Works while the culprit holds the horizon.
#[expect(clippy::print_stdout, reason = "whoever runs it for long wants to see the figures")]
async fn nothing_grows_but_space(culprit: Culprit) {
    let server = Server::builder().with_setting("autovacuum", "off").start().await.unwrap();
    server.create_database("pinned").await.unwrap();
    let url = server.url("pinned");
    let queue = PgQueue::connect(&url).await.unwrap();
    queue.migrate().await.unwrap();
    let session = Session::open(&url).await;
    session.run("select pgqueue.create_topic('t', 4, 60000); select pgqueue.create_topic('quiet', 4, 60000)").await;
    for (name, topic, order) in
        [("first", "t", "unordered"), ("second", "t", "by key"), ("third", "t", "total"), ("fourth", "quiet", "total")]
    {
        let insert = format!(
            "select id from pgqueue.insert_subscription('{name}', '{topic}', '{order}', 100, 100, 60000, 20, 1000, 2, 60000, 0)"
        );
        session.run(&insert).await;
    }

    let held = Session::open(&url).await;
    held.run("set application_name = 'forgotten'").await;
    let (what, who) = match culprit {
        Culprit::IdleTransaction => {
            held.run("begin; select pg_current_xact_id()").await;
            ("session", "forgotten")
        }
        Culprit::Reader => {
            held.run("begin isolation level repeatable read; select count(*) from pg_class").await;
            ("session", "forgotten")
        }
        Culprit::Slot => {
            server.leave_slot("standby_that_is_gone").await.unwrap();
            ("replication slot", "standby_that_is_gone")
        }
    };

    let work = WORK.replace("STRIDE", &STRIDE.to_string()).replace("BATCH", &BATCH.to_string());
    for _ in 0..2 {
        session.run(&work).await;
    }
    let before = session.measure().await;
    for _ in 2..leases() / STRIDE {
        session.run(&work).await;
    }
    let after = session.measure().await;
    println!("{culprit:?}: buffers {before:?}, and after {} leases {after:?}", leases());
    for (what, before) in before {
        let more = match what {
            "trimming" => HIGHER + OF_A_SECOND,
            "a claim by key" => HIGHER + OF_LANES,
            _ => HIGHER,
        };
        assert!(after[what] - before <= more, "{what} touches {before} buffers, then {}", after[what]);
    }

    let holder = queue.horizon_holder().await.unwrap().expect("somebody holds the horizon");
    assert!(holder.what == what && holder.who.contains(who) && holder.age > 0, "{holder:?}");
    // If nobody had held anything, nothing would be left.
    let (dead, size) = session.vacuum(|left| left > i64::from(leases())).await;
    held.run("rollback").await;
    if matches!(culprit, Culprit::Slot) {
        session.run("select pg_drop_replication_slot('standby_that_is_gone')").await;
    }
    assert_eq!(queue.horizon_holder().await.unwrap(), None);
    let (left, size_left) = session.vacuum(|left| left == 0).await;
    println!("{culprit:?}: {dead} dead rows, {size} bytes; afterwards {left} and {size_left}");
    assert!(size_left < size / 2, "{size} bytes, then {size_left}");
}

async fn patiently(work: impl Future<Output = ()>) {
    let patience = PATIENCE + PATIENCE_A_THOUSAND * (leases() / 1_000);
    tokio::time::timeout(patience, work).await.unwrap();
}

#[tokio::test]
async fn an_idle_transaction_costs_nothing_but_space() {
    patiently(nothing_grows_but_space(Culprit::IdleTransaction)).await;
}

#[tokio::test]
async fn an_old_snapshot_costs_nothing_but_space() {
    patiently(nothing_grows_but_space(Culprit::Reader)).await;
}

#[tokio::test]
async fn a_forgotten_replication_slot_costs_nothing_but_space() {
    patiently(nothing_grows_but_space(Culprit::Slot)).await;
}
