//! The program `quickstart`: what it makes of good, bad and missing input, and of handlers that fail.

mod program;

use std::{fs, process::Output};

use pgqueue_core::{PublisherExt, Subscription, Topic};
use pgqueue_examples::BUNDLED;
use pgqueue_testserver::Database;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::program::{WITHOUT_POSTGRES, example, soon, summary};

/// The drivers that keep their messages in PostgreSQL.
const ON_POSTGRES: [&str; 2] = ["tokio-postgres", "sqlx"];

const GOOD: &str = r#"{"id": "a", "time": 1, "mag": 4.5, "place": "x", "net": "uw", "type": "earthquake"}"#;

/// Runs the program with `stdin` as its input.
async fn quickstart(args: &[&str], stdin: &[u8]) -> Output {
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = example("quickstart", args);
    let mut child = command.current_dir(&elsewhere).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    soon("it ends", async {
        let feeding = async {
            input.write_all(stdin).await.ok(); // a program that reads none of it closes the pipe
            drop(input);
        };
        tokio::join!(child.wait_with_output(), feeding).0.unwrap()
    })
    .await
}

/// The summary of a run that went well.
fn done(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    summary(&output.stdout)
}

/// Every call of a handler ended in one way.
fn assert_adds_up(summary: &Value) {
    for name in ["archive", "alerts"] {
        let count = |what: &str| summary["subscriptions"][name][what].as_u64().unwrap();
        assert_eq!(count("delivered"), count("acked") + count("requeued") + count("dead"), "{summary}");
        assert_eq!(summary["published"], count("acked") + count("dead"), "{summary}");
    }
}

#[tokio::test]
async fn a_week_of_events_is_acked_in_order_in_spite_of_failures() {
    let summary = done(&quickstart(&[], b"").await);
    assert_eq!((&summary["published"], &summary["skipped"]), (&json!(1707), &json!(0)));
    assert_adds_up(&summary);

    let [archive, alerts] = ["archive", "alerts"].map(|name| &summary["subscriptions"][name]);
    for counts in [archive, alerts] {
        assert_eq!((&counts["acked"], &counts["dead"]), (&json!(1707), &json!(0)));
        // Of the 1741 calls that it takes, every 50th failed.
        assert_eq!(counts["requeued"], 34);
    }
    assert_eq!(archive["order_breaks"], 0);
    assert_eq!(alerts["matched"], 85);
}

#[tokio::test]
async fn frequent_failures_break_no_order() {
    let summary = done(&quickstart(&["--fail-every", "3"], b"").await);
    assert_adds_up(&summary);
    let archive = &summary["subscriptions"]["archive"];
    assert!(archive["requeued"].as_u64() > Some(600), "{summary}");
    assert_eq!(archive["order_breaks"], 0);
}

#[tokio::test]
async fn without_failures_each_message_is_delivered_once() {
    let summary = done(&quickstart(&["--fail-every", "0"], b"").await);
    let counts = json!({"delivered": 1707, "acked": 1707, "requeued": 0, "dead": 0});
    for (name, more, value) in [("archive", "order_breaks", 0), ("alerts", "matched", 85)] {
        let mut expected = counts.clone();
        expected[more] = json!(value);
        assert_eq!(summary["subscriptions"][name], expected);
    }
}

#[tokio::test]
async fn with_failures_only_all_messages_die() {
    let input = [GOOD; 3].join("\n");
    let summary = done(&quickstart(&["--input", "-", "--fail-every", "1"], input.as_bytes()).await);
    let counts = json!({"delivered": 30, "acked": 0, "requeued": 27, "dead": 3});
    for (name, more) in [("archive", "order_breaks"), ("alerts", "matched")] {
        let mut expected = counts.clone();
        expected[more] = json!(0);
        assert_eq!(summary["subscriptions"][name], expected);
    }
}

#[tokio::test]
async fn bad_lines_are_reported_and_skipped() {
    let broken = br#"{"id": "secret", "#;
    let not_utf8 = b"\"secret \xff\"";
    let incomplete = br#"{"id": "secret", "time": 1, "place": "x", "net": "uw", "type": "earthquake"}"#;
    let wrong = br#"{"id": "a", "time": 1, "mag": "secret", "place": "x", "net": "uw", "type": "earthquake"}"#;
    let input = [GOOD.as_bytes(), broken, not_utf8, b"", incomplete, GOOD.as_bytes(), wrong].join(&b'\n');

    let output = quickstart(&["--input", "-"], &input).await;
    let summary = done(&output);
    assert_eq!((&summary["published"], &summary["skipped"]), (&json!(2), &json!(4)));
    assert_eq!(summary["subscriptions"]["alerts"]["matched"], 2);
    assert_adds_up(&summary);

    let stderr = String::from_utf8(output.stderr).unwrap();
    for says in
        ["line 2: broken JSON", "line 3: not UTF-8", "line 5: missing field `mag`", "line 7: a value of the wrong"]
    {
        assert!(stderr.contains(says), "{says}: {stderr}");
    }
    assert!(!stderr.contains("secret"), "{stderr}");
}

#[tokio::test]
async fn input_may_be_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let ten: Vec<_> = BUNDLED.split_inclusive(|byte| *byte == b'\n').take(10).collect();
    fs::write(&file, ten.concat()).unwrap();
    let summary = done(&quickstart(&["--input", file.path().to_str().unwrap()], b"").await);
    assert_eq!((&summary["published"], &summary["skipped"]), (&json!(10), &json!(0)));
    assert_adds_up(&summary);
}

#[tokio::test]
async fn no_input_is_no_problem() {
    let summary = done(&quickstart(&["--input", "-"], b"").await);
    assert_eq!(summary["published"], 0);
    assert_adds_up(&summary);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_an_error() {
    for (path, says) in [("no/such.jsonl", "cannot open no/such.jsonl"), (".", "cannot read the input")] {
        let output = quickstart(&["--input", path], b"").await;
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(says), "{stderr}");
    }
}

#[tokio::test]
async fn on_postgres_a_week_ends_as_in_memory() {
    let in_memory = done(&quickstart(&[], b"").await);
    for driver in ON_POSTGRES {
        assert_eq!(done(&quickstart(&["--driver", driver], b"").await), in_memory, "{driver}");
    }
}

#[tokio::test]
async fn on_postgres_frequent_failures_break_no_order() {
    let hundred: Vec<_> = BUNDLED.split_inclusive(|byte| *byte == b'\n').take(100).collect();
    for driver in ON_POSTGRES {
        let args = ["--driver", driver, "--fail-every", "3", "--input", "-"];
        let summary = done(&quickstart(&args, &hundred.concat()).await);
        assert_adds_up(&summary);
        let archive = &summary["subscriptions"]["archive"];
        assert!(archive["requeued"].as_u64() > Some(30), "{driver}: {summary}");
        assert_eq!(archive["order_breaks"], 0, "{driver}");
    }
}

#[tokio::test]
async fn a_database_that_is_given_keeps_what_is_in_it() {
    let database = Database::create().await.unwrap();
    let queue = pgqueue_sqlx::PgQueue::connect(&database.url()).await.unwrap();
    queue.migrate().await.unwrap();
    queue.create_topic(Topic::new("earthquakes")).await.unwrap();
    queue.insert_subscription(&Subscription::new("archive", "earthquakes")).await.unwrap();
    queue.publish_json("earthquakes", "mine").await.unwrap();
    for driver in ON_POSTGRES {
        let args = ["--driver", driver, "--database-url", &database.url(), "--input", "-"];
        let summary = done(&quickstart(&args, GOOD.as_bytes()).await);
        assert_eq!(summary["subscriptions"]["archive"]["acked"], 1, "{driver}");
        assert_eq!(queue.topics().await.unwrap(), [Topic::new("earthquakes")], "{driver}");
        assert_eq!(queue.subscriptions().await.unwrap(), [Subscription::new("archive", "earthquakes")], "{driver}");
        assert_eq!(queue.stats("archive").await.unwrap().waiting, 1, "{driver}");
    }
}

#[tokio::test]
async fn without_postgres_the_error_says_how_to_get_one() {
    let elsewhere = tempfile::tempdir().unwrap();
    for driver in ON_POSTGRES {
        let mut command = example("quickstart", ["--driver", driver]);
        let output = soon("it ends", command.env(WITHOUT_POSTGRES, elsewhere.path()).output()).await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("no --database-url") && stderr.contains("scripts/install-postgres"), "{stderr}");
    }
}

#[tokio::test]
async fn memory_takes_no_database() {
    let output = quickstart(&["--database-url", "postgres://localhost/test"], b"").await;
    assert_eq!(output.status.code(), Some(1));
}
