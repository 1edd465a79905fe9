//! The router: which handler gets which message, and what becomes of the others.

use std::{
    fmt,
    future::{Ready, ready},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use pgqueue_core::{
    Ack, BoxError, Delivery, ErrorKind, Job, NewMessage, OnUnknown, Outcome, Publisher, Router, Subscription, Topic,
    Worker, subscribe,
};
use pgqueue_memory::MemoryQueue;
use serde::Deserialize;
use tokio::time::sleep;

const POLICIES: [OnUnknown; 3] = [OnUnknown::Fail, OnUnknown::Skip, OnUnknown::DeadLetter];

/// A queue in which subscription `s` waits for these messages.
async fn waiting(messages: impl IntoIterator<Item = NewMessage>) -> MemoryQueue {
    let queue = MemoryQueue::new();
    queue.create_topic(Topic::new("t")).await.unwrap();
    queue.insert_subscription(&Subscription::new("s", "t")).await.unwrap();
    queue.publish("t", messages.into_iter().collect()).await.unwrap();
    queue
}

fn message(kind: &str, payload: &'static str) -> NewMessage {
    NewMessage::new(payload).with_kind(kind)
}

/// Runs `router` until nothing is due, and returns what failed.
async fn run(queue: &MemoryQueue, router: Router) -> Vec<(ErrorKind, String)> {
    run_as(queue, Subscription::new("s", "t"), router).await
}

async fn run_as(queue: &MemoryQueue, subscription: Subscription, router: Router) -> Vec<(ErrorKind, String)> {
    let stream = subscribe(queue.subscription(subscription)).await.unwrap().until(queue.idle("s"));
    let (report, reported) = mpsc::channel();
    let worker = Worker::routed(stream, router).with_concurrency(1).with_timeout(Duration::from_millis(10));
    let worker = worker.on_error(move |failure| report.send((failure.error.kind(), failure.to_string())).unwrap());
    worker.run().await.unwrap();
    reported.into_iter().collect()
}

/// What was handled, by whom.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn handler<T: fmt::Debug>(
        &self,
        name: &'static str,
    ) -> impl Fn(Job<T>) -> Ready<Result<Ack, BoxError>> + Send + Sync + use<T> {
        let log = self.clone();
        move |job| {
            log.0.lock().unwrap().push(format!("{name} {:?}", job.value));
            ready(Ok(Ack::Ok))
        }
    }

    fn handled(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_handler_that_was_given_for_a_kind_has_it() {
    let queue = waiting([message("a", "1"), message("b", "2"), message("c", "\"three\"")]).await;
    let log = Log::default();
    let router = Router::new()
        .on(["b", "a"], log.handler::<u32>("first"))
        .on("b", log.handler::<u32>("second"))
        .on(vec!["c", "a"], log.handler::<String>("third"));
    assert_eq!(router.kinds().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(run(&queue, router).await, []);
    assert_eq!(log.handled(), ["first 1", "first 2", "third \"three\""]);
    assert_eq!(queue.acked("s").unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn messages_of_an_unknown_kind_or_of_none_meet_the_policy() {
    let unknown = "message 1 is of kind \"lost\", which has no handler";
    let no_kind = "message 1 has no kind, and so no handler";
    for (stranger, says) in [(message("lost", "1"), unknown), (NewMessage::new("1"), no_kind)] {
        for policy in POLICIES {
            let queue = waiting([stranger.clone(), message("known", "2")]).await;
            let log = Log::default();
            let router = Router::new().on("known", log.handler::<u32>("handler")).on_unknown(policy);
            let failed = run(&queue, router).await;
            assert_eq!(log.handled(), ["handler 2"]);
            let (pending, dead) = (queue.pending("s").unwrap(), queue.dead_letters("s").await.unwrap());
            match policy {
                OnUnknown::Skip => assert_eq!((failed.len(), pending.len(), dead.len()), (0, 0, 0)),
                OnUnknown::DeadLetter => {
                    assert_eq!((failed.len(), pending.len()), (0, 0));
                    assert_eq!(dead[0].reason, says);
                }
                _ => {
                    assert_eq!((failed.len(), failed[0].0), (1, ErrorKind::Unrouted));
                    assert!(failed[0].1.contains(says), "{failed:?}");
                    assert_eq!((pending.len(), pending[0].attempt(), dead.len()), (1, 1, 0));
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_router_handles_nothing_and_by_default_loses_nothing() {
    let queue = waiting([message("a", "1"), NewMessage::new("2")]).await;
    let router = Router::new();
    assert_eq!(router.kinds().count(), 0);
    let failed = run(&queue, router).await;
    assert_eq!(failed.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [ErrorKind::Unrouted; 2]);
    assert_eq!((queue.pending("s").unwrap().len(), queue.acked("s").unwrap().len()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_malformed_payload_of_a_known_kind_fails_whatever_the_policy() {
    for policy in POLICIES {
        for payload in ["\"4111\"", "4111", ""] {
            let queue = waiting([message("a", payload)]).await;
            let log = Log::default();
            let router = Router::new().on("a", log.handler::<Vec<u8>>("handler")).on_unknown(policy);
            let failed = run(&queue, router).await;
            assert_eq!((failed.len(), failed[0].0), (1, ErrorKind::Decode));
            assert!(
                failed[0].1.contains("message 1 cannot be read as ") && !failed[0].1.contains("4111"),
                "{failed:?}"
            );
            assert_eq!((log.handled().len(), queue.pending("s").unwrap().len()), (0, 1));
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
struct Euros {
    euros: u32,
}

#[derive(Debug, Deserialize)]
struct Cents {
    #[expect(dead_code, reason = "shown by its `Debug` output")]
    cents: u32,
}

fn to_cents(old: Euros) -> Result<Cents, &'static str> {
    let cents = old.euros.checked_mul(100).ok_or("more than there is")?;
    Ok(Cents { cents })
}

#[tokio::test(start_paused = true)]
async fn old_versions_are_brought_up_to_date() {
    let queue = waiting([message("paid", "{\"euros\": 7}"), message("paid.v2", "{\"cents\": 701}")]).await;
    let log = Log::default();
    let router = Router::new().on("paid.v2", log.handler::<Cents>("handler")).on_old(
        "paid",
        to_cents,
        log.handler::<Cents>("handler"),
    );
    assert_eq!(run(&queue, router).await, []);
    assert_eq!(log.handled(), ["handler Cents { cents: 700 }", "handler Cents { cents: 701 }"]);
}

#[tokio::test(start_paused = true)]
async fn an_old_version_that_cannot_be_brought_up_to_date_is_a_decode_failure() {
    for (payload, says) in [
        ("{\"euros\": 4294967295}", "message 1 cannot be made a core::router::Cents: more than there is"),
        ("{\"cents\": 4294967295}", "message 1 cannot be read as core::router::Euros: JSON of another shape"),
    ] {
        let queue = waiting([message("paid", payload)]).await;
        let log = Log::default();
        let router = Router::new().on_old("paid", to_cents, log.handler("handler")).on_unknown(OnUnknown::Skip);
        let failed = run(&queue, router).await;
        assert_eq!((failed.len(), failed[0].0), (1, ErrorKind::Decode));
        assert!(failed[0].1.contains(says) && !failed[0].1.contains("4294967295"), "{failed:?}");
        assert_eq!((log.handled().len(), queue.pending("s").unwrap().len()), (0, 1));
    }
}

/// Reads a number whose version, in a header, says which unit it has.
fn cents(delivery: &Delivery) -> Result<u32, BoxError> {
    match delivery.message().headers().get("version").map(String::as_str) {
        None | Some("1") => Ok(delivery.decode::<u32>()? * 100),
        Some("2") => Ok(delivery.decode()?),
        Some(_) => Err("the version is newer than this consumer".into()),
    }
}

#[tokio::test(start_paused = true)]
async fn versions_in_a_header_are_read_by_a_decoder_of_ones_own() {
    let paid = |payload| message("paid", payload);
    let queue =
        waiting([paid("1"), paid("2").with_header("version", "1"), paid("3").with_header("version", "2")]).await;
    let log = Log::default();
    assert_eq!(run(&queue, Router::new().on_decoded("paid", cents, log.handler("handler"))).await, []);
    assert_eq!(log.handled(), ["handler 100", "handler 200", "handler 3"]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_version_is_a_decode_failure_whatever_the_policy() {
    for policy in POLICIES {
        let queue = waiting([message("paid", "1").with_header("version", "3")]).await;
        let log = Log::default();
        let router = Router::new().on_decoded("paid", cents, log.handler("handler")).on_unknown(policy);
        let failed = run(&queue, router).await;
        assert_eq!((failed.len(), failed[0].0), (1, ErrorKind::Decode));
        assert!(failed[0].1.ends_with("message 1 cannot be made a u32: the version is newer than this consumer"));
        assert_eq!((log.handled().len(), queue.pending("s").unwrap().len()), (0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn errors_of_decoders_keep_their_kind_once_and_never_quote_the_payload() {
    let queue = waiting([message("ours", "\"4111\""), message("parser's", "\"4111\"")]).await;
    let log = Log::default();
    let parse = |delivery: &Delivery| serde_json::from_slice::<u32>(delivery.message().payload());
    let router = Router::new().on_decoded("ours", cents, log.handler("handler")).on_decoded(
        "parser's",
        parse,
        log.handler("handler"),
    );
    let failed = run(&queue, router).await;
    for ((kind, report), says) in failed.iter().zip([
        "): handling a delivery: message 1 cannot be read as u32: JSON of another shape at line 1 column 6",
        "): handling a delivery: message 2 cannot be made a u32: JSON of another shape at line 1 column 6",
    ]) {
        assert_eq!(*kind, ErrorKind::Decode);
        assert!(report.ends_with(says) && !report.contains("4111"), "{report}");
    }
    assert_eq!((failed.len(), log.handled().len()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn handlers_may_answer_stop_fail_panic_and_take_too_long_each_in_its_own_way() {
    let kinds = ["acks", "fails", "panics", "hangs", "takes", "stops", "acks"];
    let queue = waiting(kinds.map(|kind| message(kind, "1"))).await;
    let log = Log::default();
    let router = Router::new()
        .on("acks", log.handler::<u32>("acks"))
        .on("fails", async |_: Job<u32>| Err::<Ack, _>("out of beans"))
        .on("panics", async |job: Job<u32>| if job.value == 1 { panic!("boom") } else { Ok::<_, BoxError>(Ack::Ok) })
        .on("hangs", async |_: Job<u32>| {
            sleep(Duration::from_millis(11)).await;
            Ok::<_, BoxError>(Ack::Ok)
        })
        .on("takes", async |job: Job<u32>| {
            job.take_delivery()?.1.settle(Ack::reject("taken")).await?;
            Ok::<_, pgqueue_core::Error>(Ack::Ok)
        })
        .on("stops", async |_: Job<u32>| Ok::<_, String>(Outcome::Stop(Ack::Ok)));
    let failed = run(&queue, router).await;
    let failures: Vec<_> = failed.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(failures, [ErrorKind::Handler, ErrorKind::Panic, ErrorKind::Timeout]);
    assert!(failed[0].1.ends_with("the handler failed on message 2: out of beans"), "{failed:?}");
    assert_eq!(log.handled(), ["acks 1"], "nothing is handled after the stop");
    assert_eq!(queue.dead_letters("s").await.unwrap()[0].reason, "taken");
    let pending = queue.pending("s").unwrap();
    let kinds: Vec<_> = pending.iter().map(|message| message.kind().unwrap()).collect();
    assert_eq!(kinds, ["fails", "panics", "hangs", "acks"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_one_kind_is_a_sequence_and_a_mixed_one_a_failure() {
    let subscription = Subscription::new("s", "t").with_batch(2);
    for (second, handled, failures) in [("a", &["handler [1, 2]"][..], &[][..]), ("b", &[], &[ErrorKind::Unrouted])] {
        let queue = waiting([]).await;
        queue.alter_subscription(&subscription).await.unwrap();
        queue.publish("t", vec![message("a", "1"), message(second, "2")]).await.unwrap();
        let log = Log::default();
        let router = Router::new().on("a", log.handler::<Vec<u32>>("handler")).on_unknown(OnUnknown::Skip);
        let failed = run_as(&queue, subscription.clone(), router).await;
        assert_eq!(failed.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), failures);
        assert_eq!(log.handled(), handled);
        assert_eq!(queue.acked("s").unwrap().len(), 2 * handled.len());
    }
}
