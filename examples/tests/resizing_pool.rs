//! The program `resizing_pool`: what its workers did, and whether its audit would find what is wrong.

#[path = "../resizing_pool/audit.rs"]
mod audit;
#[allow(dead_code, reason = "the ledger is all there, and its audit needs only part of it")]
#[path = "../resizing_pool/ledger.rs"]
mod ledger;
mod program;

use std::process::Output;

use pgqueue_core::MessageId;
use pgqueue_testserver::Database;
use serde_json::json;

use crate::{
    audit::Audit,
    ledger::{Ended, Ledger},
    program::{example, soon, summary},
};

async fn resizing_pool(args: &[&str]) -> Output {
    soon("it ends", example("resizing_pool", args).output()).await.unwrap()
}

/// Five workers handled so many messages: the first, three more, and the one that came for the one that crashed.
fn assert_all_well(output: &Output, messages: u64) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let mut audit = summary(&output.stdout);
    let workers = audit["workers"].take();
    let expected = json!({
        "published": messages, "handled": messages, "missing": 0, "again": 1, "doubled": 0, "unsettled": 0, "crashes": 1,
        "workers": null
    });
    assert_eq!(audit, expected, "{stderr}");

    let workers = workers.as_array().unwrap();
    let ended = |how: &str| workers.iter().filter(|worker| worker["ended"] == how).count();
    assert_eq!((ended("stopped"), ended("crashed")), (4, 1), "{stderr}");
    let handled: u64 = workers.iter().map(|worker| worker["handled"].as_u64().unwrap()).sum();
    assert_eq!(handled, messages + 1, "one message was handled twice: {stderr}");
    for said in ["from now on 4 workers", "crashes on purpose", "worker 5 starts", "from now on 2 workers"] {
        assert!(stderr.contains(said), "{said}: {stderr}");
    }
}

#[tokio::test]
async fn in_memory_only_the_message_in_hand_at_the_crash_is_handled_twice() {
    assert_all_well(&resizing_pool(&[]).await, 1707);
}

#[tokio::test]
async fn on_postgres_only_the_message_in_hand_at_the_crash_is_handled_twice() {
    for driver in ["tokio-postgres", "sqlx"] {
        assert_all_well(&resizing_pool(&["--driver", driver, "--messages", "400"]).await, 400);
    }
}

#[tokio::test]
async fn handlers_that_take_no_time_make_no_difference() {
    assert_all_well(&resizing_pool(&["--handle-ms", "0"]).await, 1707);
}

#[tokio::test]
async fn a_database_that_is_given_is_left_clean() {
    let database = Database::create().await.unwrap();
    for driver in ["tokio-postgres", "sqlx"] {
        let args = ["--driver", driver, "--database-url", &database.url(), "--messages", "100"];
        assert_all_well(&resizing_pool(&args).await, 100);
        let left = database.sql("select name from pgqueue.topic; select name from pgqueue.subscription").await.unwrap();
        assert_eq!(left, "", "{driver}");
    }
}

/// The ledger of a run with two workers and the messages `a` and `b`, of which `b` was in hand when the first crashed; after
/// that somebody handled `then`.
fn ledger(then: &[&str]) -> Ledger {
    let ledger = Ledger::default();
    let (first, second) = (ledger.start_worker(), ledger.start_worker());
    for (worker, id) in [(first, "a"), (first, "b")] {
        ledger.enter(worker, &MessageId::new(id));
    }
    ledger.book().in_hand = Some(MessageId::new("b"));
    ledger.end_worker(first, Ended::Crashed);
    for id in then {
        ledger.enter(second, &MessageId::new(*id));
    }
    ledger.end_worker(second, Ended::Stopped);
    ledger
}

fn is_good(then: &[&str], published: &[&str], unsettled: u64, crashes: u64) -> bool {
    let published: Vec<_> = published.iter().map(|id| MessageId::new(*id)).collect();
    Audit::new(&published, &ledger(then).book(), unsettled, crashes).is_good()
}

#[test]
fn the_audit_finds_what_is_wrong() {
    assert!(is_good(&["b"], &["a", "b"], 0, 1));
    for (wrong, then, published, unsettled, crashes) in [
        ("a message was lost", &["b"][..], &["a", "b", "c"][..], 0, 1),
        ("the message in hand was lost", &[], &["a", "b"], 0, 1),
        ("the message in hand came twice more", &["b", "b"], &["a", "b"], 0, 1),
        ("an answered message came again", &["a", "b"], &["a", "b"], 0, 1),
        ("a message came that nobody published", &["b", "c"], &["a", "b"], 0, 1),
        ("the queue is not done", &["b"], &["a", "b"], 1, 1),
        ("no crash was seen", &["b"], &["a", "b"], 0, 0),
        ("a worker crashed once more", &["b"], &["a", "b"], 0, 2),
    ] {
        assert!(!is_good(then, published, unsettled, crashes), "{wrong}");
    }
}
