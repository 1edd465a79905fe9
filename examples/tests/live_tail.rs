//! The program `live_tail`: what it prints of a topic, and what it leaves behind.
#![cfg(unix)]

mod program;

use std::process::{Output, Stdio};

use pgqueue_core::{NewMessage, Publisher, Retention, Topic};
use pgqueue_examples::{BUNDLED, bundled_messages};
use pgqueue_testserver::Database;
use pgqueue_tokio_postgres::PgQueue;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout},
};

use crate::program::{example, send, soon};

const TOPIC: &str = "orders";

/// Looks for what a tail could have left: a subscription, or what belongs to one.
const LEFT: &str = "select name from pgqueue.subscription; select id from pgqueue.owner; select id from pgqueue.lease; \
                    select subscription from pgqueue.cursor";

async fn live_tail(args: &[&str]) -> Output {
    soon("it ends", example("live_tail", args).output()).await.unwrap()
}

/// The lines of a run that went well.
fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = output.stdout.split_inclusive(|byte| *byte == b'\n');
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// The payloads of lines, in their order.
fn payloads(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["payload"].as_str().unwrap()).collect()
}

/// A database with a topic that keeps all it gets, and a queue that publishes there.
async fn database() -> (Database, PgQueue) {
    let database = Database::create().await.unwrap();
    let queue = PgQueue::connect(&database.url()).await.unwrap();
    queue.migrate().await.unwrap();
    queue.create_topic(Topic::new(TOPIC).with_retention(Retention::everything())).await.unwrap();
    (database, queue)
}

async fn publish(queue: &PgQueue, payloads: &[&str]) {
    let messages = payloads.iter().map(|payload| NewMessage::new((*payload).to_owned())).collect();
    queue.publish(TOPIC, messages).await.unwrap();
}

/// What a tail of that topic is run with.
fn args_for(database: &Database, more: &[&str]) -> Vec<String> {
    let url = database.url();
    ["--database-url", &url, "--topic", TOPIC].iter().chain(more).map(|arg| (*arg).to_owned()).collect()
}

async fn tail_of(database: &Database, more: &[&str]) -> Output {
    let args = args_for(database, more);
    live_tail(&args.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// A tail while it runs.
struct Running {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(args: &[String]) -> Self {
        // What it says to people goes nowhere, so that it never waits for somebody to read it.
        let mut child = example("live_tail", args).stderr(Stdio::null()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, stdout }
    }

    async fn next_payload(&mut self) -> String {
        let line = soon("a line comes", self.stdout.next_line()).await.unwrap().expect("it goes on");
        let line: Value = serde_json::from_str(&line).unwrap();
        line["payload"].as_str().unwrap().to_owned()
    }

    /// Waits for its end, without another line.
    async fn ends(mut self) {
        assert_eq!(soon("stdout ends", self.stdout.next_line()).await.unwrap(), None);
        assert!(soon("it ends", self.child.wait()).await.unwrap().success());
    }
}

/// The events that are built in, as what their payloads hold.
fn events() -> Vec<Value> {
    let lines = BUNDLED.split_inclusive(|byte| *byte == b'\n');
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

fn is(event: &Value, member: &str, value: &str) -> bool {
    event[member] == value
}

fn mag(event: &Value) -> f64 {
    event["mag"].as_f64().unwrap()
}

/// A run printed the events that match, in their order, and nothing else.
fn assert_prints(output: &Output, conditions: &str, matches: impl Fn(&Value) -> bool) {
    let lines = lines(output);
    let printed: Vec<Value> =
        payloads(&lines).into_iter().map(|payload| serde_json::from_str(payload).unwrap()).collect();
    let expected: Vec<_> = events().into_iter().filter(matches).collect();
    assert!(!expected.is_empty(), "{conditions} prove nothing");
    assert_eq!(printed.len(), expected.len(), "{conditions}");
    assert_eq!(printed, expected, "{conditions}");
}

type Matches<'a> = &'a dyn Fn(&Value) -> bool;

#[tokio::test]
async fn without_a_database_it_prints_the_earthquakes_that_match() {
    let felt = |event: &Value| event["felt"].as_u64() > Some(0);
    let cases: &[(&str, &str, Matches<'_>)] = &[
        ("tokio-postgres", "", &|_| true),
        ("sqlx", "--tag felt --tag automatic", &|event| felt(event) && is(event, "status", "automatic")),
        ("sqlx", "--tag felt --tag reviewed --any-tag strong --any-tag tsunami", &|event| {
            felt(event) && is(event, "status", "reviewed") && (mag(event) >= 4.5 || event["tsunami"] == 1)
        }),
    ];
    for (driver, conditions, matches) in cases {
        let mut args = vec!["--exit-when-caught-up", "--driver", driver];
        args.extend(conditions.split_whitespace());
        assert_prints(&live_tail(&args).await, conditions, matches);
    }
}

#[tokio::test]
async fn in_a_database_it_prints_what_matches() {
    let (database, queue) = database().await;
    queue.publish(TOPIC, bundled_messages().await.unwrap()).await.unwrap();

    let cases: &[(&str, Matches<'_>)] = &[
        ("", &|_| true),
        ("--key ak --kind earthquake --greater mag=3", &|event| is(event, "net", "ak") && mag(event) > 3.0),
        ("--kind explosion --kind quarry*", &|event| is(event, "type", "explosion")), // not a glob here
        ("--kind-glob quarry* --key uw --key ci", &|event| {
            is(event, "type", "quarry blast") && (is(event, "net", "uw") || is(event, "net", "ci"))
        }),
        ("--key-glob n? --less-or-equal mag=1 --greater-or-equal mag=1", &|event| {
            event["net"].as_str().unwrap().starts_with('n') && mag(event) == 1.0
        }),
        (r#"--payload {"status":"automatic"} --payload {"net":"hv"} --less depth_km=5"#, &|event| {
            is(event, "status", "automatic") && is(event, "net", "hv") && event["depth_km"].as_f64() < Some(5.0)
        }),
        ("--not --kind earthquake", &|event| !is(event, "type", "earthquake")),
    ];
    for (n, (conditions, matches)) in cases.iter().enumerate() {
        let mut more = vec!["--exit-when-caught-up", "--driver", ["tokio-postgres", "sqlx"][n % 2]];
        more.extend(conditions.split_whitespace());
        assert_prints(&tail_of(&database, &more).await, conditions, matches);
    }
    assert_eq!(database.sql(LEFT).await.unwrap(), "");
}

#[tokio::test]
async fn from_now_on_only_live_events_come() {
    let output = live_tail(&["--from", "now", "--exit-when-caught-up"]).await;
    let last: Vec<_> = BUNDLED.split(|byte| *byte == b'\n').rev().skip(1).take(12).collect();
    let expected: Vec<_> = last.into_iter().rev().map(|line| str::from_utf8(line).unwrap()).collect();
    assert_eq!(payloads(&lines(&output)), expected);
}

#[tokio::test]
async fn lines_say_what_is_known_of_a_message() {
    let (database, queue) = database().await;
    let full = NewMessage::new("\"a\"\n").with_key("k").with_kind("paid").with_tag("x").with_tag("y");
    let ids = queue.publish(TOPIC, vec![full, NewMessage::new(&b"\xff\x0a"[..])]).await.unwrap();

    let mut lines = lines(&tail_of(&database, &["--exit-when-caught-up"]).await);
    for line in &mut lines {
        assert!(line["position"].take().is_string());
        assert!(line["published_ms"].take().as_u64() > Some(1_500_000_000_000));
    }
    let expected = json!([
        {
            "position": null, "id": ids[0], "key": "k", "kind": "paid", "tags": ["x", "y"], "published_ms": null,
            "payload": "\"a\"\n"
        },
        {
            "position": null, "id": ids[1], "key": null, "kind": null, "tags": [], "published_ms": null,
            "payload_hex": "ff0a"
        },
    ]);
    assert_eq!(json!(lines), expected);
}

#[tokio::test]
async fn a_position_that_was_printed_is_where_the_next_run_goes_on() {
    let (database, queue) = database().await;
    publish(&queue, &["1", "2", "3"]).await;
    let all = lines(&tail_of(&database, &["--exit-when-caught-up"]).await);
    assert_eq!(payloads(&all), ["1", "2", "3"]);

    publish(&queue, &["4"]).await;
    for (n, line) in all.iter().enumerate() {
        let after = line["position"].as_str().unwrap();
        for driver in ["tokio-postgres", "sqlx"] {
            let rest = tail_of(&database, &["--exit-when-caught-up", "--after", after, "--driver", driver]).await;
            assert_eq!(payloads(&lines(&rest)), ["2", "3", "4"][n..]);
        }
    }
    assert_eq!(database.sql(LEFT).await.unwrap(), "");
}

#[tokio::test]
async fn a_signal_ends_it_and_nothing_is_left_behind() {
    let (database, queue) = database().await;
    publish(&queue, &["1"]).await;
    for (signal, driver) in [(Signal::TERM, "tokio-postgres"), (Signal::INT, "sqlx")] {
        let mut program = Running::start(&args_for(&database, &["--driver", driver]));
        assert_eq!(program.next_payload().await, "1");
        let names = database.sql("select name from pgqueue.subscription").await.unwrap();
        assert!(names.starts_with("live_tail_"), "{names}");

        send(&program.child, signal);
        program.ends().await;
        assert_eq!(database.sql(LEFT).await.unwrap(), "", "{driver}");
    }
}

#[tokio::test]
async fn it_goes_on_live_until_a_signal() {
    let (database, queue) = database().await;
    publish(&queue, &["past"]).await;
    let mut program = Running::start(&args_for(&database, &[]));
    assert_eq!(program.next_payload().await, "past");
    for live in ["a", "b"] {
        publish(&queue, &[live]).await;
        assert_eq!(program.next_payload().await, live);
    }
    send(&program.child, Signal::TERM);
    program.ends().await;
    assert_eq!(database.sql(LEFT).await.unwrap(), "");
}

#[tokio::test]
async fn a_reader_who_has_had_enough_ends_it_and_nothing_is_left_behind() {
    let (database, queue) = database().await;
    publish(&queue, &["1"]).await;
    let mut program = Running::start(&args_for(&database, &[]));
    assert_eq!(program.next_payload().await, "1");
    let Running { mut child, stdout } = program;
    drop(stdout);
    publish(&queue, &["2"]).await;
    assert!(soon("it ends", child.wait()).await.unwrap().success());
    assert_eq!(database.sql(LEFT).await.unwrap(), "");
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_with_code_2() {
    let (database, _) = database().await;
    let url = database.url();
    let given = ["--database-url", &url, "--topic", TOPIC];
    for (args, says) in [
        (&["--greater", "mag=much"][..], "\"much\" is no number"),
        (&["--greater", "mag"], "it says no number"),
        (&["--greater", "mag=inf"], "the selector compares to inf"),
        (&["--payload", "{"], "invalid value '{' for '--payload"),
        (&["--payload", "[1]"], "the selector's pattern of payloads is no JSON object"),
        (&["--key", ""], "selector's key \"\" is empty"),
        (&["--not"], "required arguments were not provided"),
        (&["--after", "1", "--from", "now"], "cannot be used with"),
        (&["--database-url", &url], "--topic <NAME>"),
        (&[&given[..], &["--after", "yesterday"]].concat(), "the position 'yesterday' is not one of this queue"),
        (&[&given[..], &["--after", "99"]].concat(), "lies beyond the end of the log"),
        (&[&given[..], &["--after", ""]].concat(), "a subscription cannot start"),
    ] {
        let output = live_tail(args).await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
    assert_eq!(database.sql(LEFT).await.unwrap(), "");
}

#[tokio::test]
async fn what_is_not_there_is_an_error() {
    let (database, _) = database().await;
    let empty = Database::create().await.unwrap();
    for (database, topic, says) in [
        (&database, "parcels", "topic \"parcels\" does not exist"),
        (&empty, TOPIC, "the schema of the queue is missing"),
    ] {
        let output = live_tail(&["--database-url", &database.url(), "--topic", topic]).await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
    }
    let schemas = "select nspname from pg_namespace where nspname = 'pgqueue'";
    assert_eq!(empty.sql(schemas).await.unwrap(), "", "a tail makes no schema");
}
