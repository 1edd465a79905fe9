//! The plans of the hot statements: whatever the statistics say, they go by the index that is meant, none sorts the log, and they read
//! as much of a log of 100,000 messages as of one of 1,000.
//!
//! `PGQUEUE_PLAN_MESSAGES` says how many messages the large log has; a million take some minutes:
//! `PGQUEUE_PLAN_MESSAGES=1000000 cargo test -p pgqueue-tests --test storage_plans -- --nocapture`

mod guard;
mod hot;
mod scene;
mod session;

use std::{collections::HashMap, env, time::Duration};

use futures::future::join_all;
use pgqueue_testserver::Database;

use crate::{
    guard::by_index,
    hot::Hot,
    scene::{ORDERS, Statistics, Transactions, fill, furnish, server_with_prepared, somebody_at_work},
    session::Session,
};

/// How long a test may take on a slow machine, and how much longer for each thousand messages.
const PATIENCE: Duration = Duration::from_secs(300);
const PATIENCE_A_THOUSAND: Duration = Duration::from_secs(1);
/// A log that is small, and one that is large if nobody says otherwise.
const SMALL: u64 = 1_000;
const LARGE: u64 = 100_000;
/// How many buffers more a statement may touch in the large log, beside half of what it touches in the small one: the indexes are
/// higher.
const HIGHER: i64 = 80;
/// And how many more for each row that is copied: one a level of each of three indexes, of which a million rows take two more.
const COPIED: i64 = 6;
/// How many buffers a claim of 100 new messages may touch at all, of whatever order: by key they come from a dozen of 17 lanes, each with
/// its cursor and its lease.
const MOST: i64 = 800;
/// How many transactions are in progress at once.
const OPEN: usize = 500;

/// How many buffers each statement touched, and how many more it may touch where the indexes are higher.
type Touched = HashMap<String, (i64, i64)>;

fn large() -> u64 {
    let Ok(value) = env::var("PGQUEUE_PLAN_MESSAGES") else { return LARGE };
    value.parse().unwrap_or_else(|_| panic!("PGQUEUE_PLAN_MESSAGES is {value:?}; it must be a number"))
}

async fn patiently(work: impl Future<Output = ()>) {
    let patience = PATIENCE + PATIENCE_A_THOUSAND * u32::try_from(large() / 1_000).unwrap();
    tokio::time::timeout(patience, work).await.unwrap();
}

/// Asserts that every hot statement goes by its indexes, and returns what each touched that reads the same of any log.
async fn check(session: &Session, url: &str, scene: &str, number: usize) -> Touched {
    let beside = Session::open(url).await;
    let mut hot = hot::claims();
    for Hot { sql, .. } in &hot {
        session.run(sql).await; // from here on, somebody at work may come late
    }
    hot.extend(hot::others(session, &beside, number).await);
    let mut touched = Touched::new();
    for Hot { what, sql, by, is_flat, copies, reads_all_of } in hot {
        // In ordered lanes nothing goes while something is in hand.
        session.run("delete from pgqueue.lease where lane >= 0").await;
        by_index(&format!("{what}, {scene}"), &session.plans(&sql).await, &by, reads_all_of);
        if is_flat {
            touched.insert(what, (session.buffers(&sql).await, copies * COPIED));
        }
    }
    touched
}

/// Asserts that nothing touches much more in a large log.
#[expect(clippy::print_stdout, reason = "whoever runs it with a large log wants to see the figures")]
fn flat(scene: &str, small: &Touched, large: &Touched, more: i64) {
    let mut grown: Vec<_> = small.iter().map(|(what, small)| (what, small.0, large[what])).collect();
    grown.sort_unstable();
    println!("buffers {scene}: {grown:?}");
    for (what, small, (large, higher)) in grown {
        assert!(large <= small + small / 2 + more + higher, "{what}, {scene}, touches {small} buffers, then {large}");
        let is_plain = ORDERS.iter().any(|(_, order)| what.strip_prefix("a claim ") == Some(order));
        assert!(!is_plain || large <= MOST + more, "{what}, {scene}, touches {large} buffers");
    }
}

async fn plans_hold(statistics: Statistics, transactions: Transactions) {
    let database = Database::create().await.unwrap();
    let (url, scene) = (database.url(), format!("{transactions:?} transactions, {statistics:?} statistics"));
    let session = furnish(&url, statistics).await;
    let _at_work = somebody_at_work(&url).await;
    let (mut filled, mut touched) = (0, Vec::new());
    for (number, messages) in [SMALL, large()].into_iter().enumerate() {
        fill(&session, messages - filled, transactions).await;
        filled = messages;
        if matches!(statistics, Statistics::Fresh) {
            session.run("analyze").await;
        }
        let session = Session::open(&url).await;
        touched.push(check(&session, &url, &format!("{messages} messages, {scene}"), number).await);
    }
    flat(&scene, &touched[0], &touched[1], HIGHER);
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
        let database = Database::create().await.unwrap();
        let session = furnish(&database.url(), Statistics::Stale).await;
        let _at_work = somebody_at_work(&database.url()).await;
        // So often that its plans are made for good.
        let chores = ["trim()", "sweep()", "keep_stuck()", "publish_scheduled()", "stats(1)", "stats(2)", "stats(4)"];
        for _ in 0..10 {
            for Hot { sql, .. } in hot::claims() {
                session.run(&sql).await;
            }
            for chore in chores {
                session.run(&format!("select * from pgqueue.{chore}")).await;
            }
        }
        let mut touched = Vec::new();
        for (number, messages) in [SMALL, large() - SMALL].into_iter().enumerate() {
            fill(&Session::open(&database.url()).await, messages, Transactions::Many).await;
            let scene = "a session that began on an empty log";
            touched.push(check(&session, &database.url(), scene, number).await);
        }
        flat("in a session that began on an empty log", &touched[0], &touched[1], HIGHER);
    })
    .await;
}

#[tokio::test]
async fn plans_hold_while_five_hundred_transactions_are_open() {
    patiently(async {
        let server = server_with_prepared(OPEN + 10).await;
        server.create_database("crowded").await.unwrap();
        let url = server.url("crowded");
        let session = furnish(&url, Statistics::Missing).await;
        let _at_work = somebody_at_work(&url).await;
        fill(&session, SMALL, Transactions::Many).await;
        let alone = check(&session, &url, "alone", 0).await;
        // Each has an id and a message.
        let open = (0..8).map(|worker| {
            let url = url.clone();
            async move {
                let session = Session::open(&url).await;
                for number in (worker..OPEN).step_by(8) {
                    let publish = "select pgqueue.publish('t', 'late', 'key 1', 'rare', v_ring => false)";
                    session.run(&format!("begin; {publish}; prepare transaction 'open {number}'")).await;
                }
            }
        });
        join_all(open).await;
        let crowded = check(&Session::open(&url).await, &url, "among 500", 1).await;
        // What they have written stands in the way, each message once.
        flat("among 500 open transactions", &alone, &crowded, HIGHER + OPEN as i64);

        // Nothing of what is open was passed.
        let beyond = session.run("select pgqueue.publish('t', 'beyond')").await[0][0].parse::<i64>().unwrap();
        let mut claimed = Vec::new();
        let take = "select id, convert_from(payload, 'UTF8') from pgqueue.claim(1, '00000000-0000-0000-0000-000000000009', \
                    gen_random_uuid(), 100, true, true, 0, false) where lease is not null";
        while !claimed.iter().any(|row: &Vec<String>| row[0] == beyond.to_string()) {
            claimed.extend(session.run(take).await);
        }
        for number in 0..OPEN {
            session.run(&format!("commit prepared 'open {number}'")).await;
        }
        let mut late = 0;
        loop {
            let rows = session.run(take).await;
            if rows.is_empty() {
                break;
            }
            late += rows.iter().filter(|row| row[1] == "late").count();
        }
        assert_eq!(late, OPEN, "of what was open, each comes once");
    })
    .await;
}

#[tokio::test]
async fn a_plan_without_its_index_or_its_settings_is_found_out() {
    // Whoever drops an index, or forgets what pins the plans, hears of it here.
    for (sabotage, noticed) in [
        ("drop index pgqueue.log_by_xact", "a claim unordered"),
        ("drop index pgqueue.lease_ready", "a claim unordered"),
        ("alter table pgqueue.log drop constraint log_pkey", "a claim unordered"),
        ("drop index pgqueue.lease_first", "keeping what is stuck"),
        ("alter function pgqueue.claim reset all", "a claim unordered"),
    ] {
        let database = Database::create().await.unwrap();
        let url = database.url();
        let session = furnish(&url, Statistics::Stale).await;
        let _at_work = somebody_at_work(&url).await;
        session.run(sabotage).await;
        fill(&session, SMALL, Transactions::Many).await;
        let checked = tokio::spawn(async move { check(&Session::open(&url).await, &url, "sabotaged", 0).await.len() });
        let complaint = checked.await.expect_err(sabotage).into_panic().downcast::<String>().unwrap();
        assert!(complaint.starts_with(noticed), "{sabotage}: {complaint}");
    }
}
