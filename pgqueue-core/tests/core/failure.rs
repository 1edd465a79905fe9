//! What an operator reads about a delivery that failed.

use std::{
    sync::mpsc,
    time::{Duration, SystemTime},
};

use pgqueue_core::{Ack, Delivery, Job, Message, MessageId, NewMessage, Position, Worker};

use crate::script::{Script, idle, message};

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A message with everything that a message can have, second attempt, published in 2024.
fn full() -> Message {
    let content = NewMessage::new("\"4111\"")
        .with_key("customer-4")
        .with_kind("order.paid")
        .with_header("traceparent", TRACEPARENT)
        .with_header("token", "s3cret");
    let published_at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_709_210_096_007);
    Message::new(MessageId::new("17"), Position::new("42"), "orders", content, published_at).with_attempt(2)
}

/// Lets a handler fail with `error` on each of these deliveries, and returns the reports.
async fn reports(deliveries: Vec<Vec<Message>>, error: &'static str) -> Vec<String> {
    let script =
        deliveries.into_iter().fold(Script::default(), |script, messages| script.fetch(async { Ok(Some(messages)) }));
    let (_store, stream) = script.subscribe().await;
    let (report, reported) = mpsc::channel();
    let handler = async |_: Job<()>| Err::<Ack, _>(error);
    let worker = Worker::with_decoder(stream.until(idle()), |_: &Delivery| Ok(()), handler);
    worker.on_error(move |failure| report.send(failure.to_string()).unwrap()).run().await.unwrap();
    reported.into_iter().collect()
}

#[tokio::test(start_paused = true)]
async fn a_report_names_everything_but_the_payload_and_the_headers() {
    assert_eq!(
        reports(vec![vec![full()]], "out of beans").await,
        [concat!(
            "message 17 of topic \"orders\" failed (position 42, key \"customer-4\", kind \"order.paid\", attempt 2, ",
            "published 2024-02-29T12:34:56.007Z, trace 0af7651916cd43dd8448eb211c80319c): ",
            "handling a delivery: the handler failed on message 17: out of beans"
        )]
    );
}

#[tokio::test(start_paused = true)]
async fn a_report_leaves_out_what_a_message_does_not_have() {
    assert_eq!(
        reports(vec![vec![message(1, "")], vec![message(2, ""), message(3, ""), message(4, "")]], "no").await,
        [
            "message 1 of topic \"numbers\" failed (position 1, attempt 1, published 1970-01-01T00:00:00.000Z): \
             handling a delivery: the handler failed on message 1: no",
            "message 2 and 2 more of topic \"numbers\" failed (position 2, attempt 1, published \
             1970-01-01T00:00:00.000Z): handling a delivery: the handler failed on message 2: no",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_report_is_one_line_whatever_the_texts_in_it() {
    let content = NewMessage::new("").with_key("a\nb").with_kind("c\r\nd");
    let forged = Message::new(MessageId::new("1"), Position::new("1\n"), "t\n", content, SystemTime::UNIX_EPOCH);
    let reports = reports(vec![vec![forged]], "first\nsecond\u{1b}[31m").await;
    assert!(!reports[0].contains(char::is_control), "{reports:?}");
    assert!(reports[0].contains("key \"a\\nb\", kind \"c\\r\\nd\""), "{reports:?}");
    assert!(reports[0].ends_with("first\\nsecond\\u{1b}[31m"), "{reports:?}");
}

#[test]
fn a_trace_id_is_there_if_the_header_is_well_formed() {
    let trace_id = |name, value| {
        let content = NewMessage::new("").with_header(name, value);
        let message = Message::new(MessageId::new("1"), Position::new("1"), "t", content, SystemTime::UNIX_EPOCH);
        message.trace_id().map(str::to_owned)
    };
    assert_eq!(trace_id("traceparent", TRACEPARENT).as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
    assert_eq!(trace_id("traceparent", "00-s3cret-b7ad6b7169203331-01"), None);
    assert_eq!(trace_id("tracestate", TRACEPARENT), None);
}
