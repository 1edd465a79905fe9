//! Errors of the driver and of decoding: where they stop things, and what is left of them on top.

use std::error::Error as _;

use futures::{StreamExt, stream, stream::FusedStream};
use pgqueue_core::{Ack, Error, ErrorKind, Job, OnRequeue, Operation, RetryConfig, Worker, subscribe};

use crate::{
    script::{ClientError, Script, fails, idle, message, nothing, one, wakeups},
    store::{Event::*, Store, accept},
};

async fn error_of(store: &Store) -> Error {
    let consume = async { subscribe(store.clone()).await?.with_retry(RetryConfig::never()).next().await.unwrap() };
    consume.await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn inserting_fails_before_anything_listens() {
    let store = Script::default().insert(fails(ErrorKind::NotFound)).store();
    assert_eq!(error_of(&store).await.kind(), ErrorKind::NotFound);
    assert_eq!(store.events(), [Insert]);
}

#[tokio::test(start_paused = true)]
async fn listening_fails_before_anything_is_fetched() {
    let store = Script::default().listen(fails(ErrorKind::Connection)).store();
    assert_eq!(error_of(&store).await.kind(), ErrorKind::Connection);
    assert_eq!(store.events(), [Insert, Listen]);
}

#[tokio::test(start_paused = true)]
async fn errors_keep_their_identity_and_say_what_was_done() {
    let script = Script::default;
    for (operation, script) in [
        (Operation::Insert, script().insert(fails(ErrorKind::Query))),
        (Operation::Listen, script().listen(fails(ErrorKind::Query))),
        (Operation::Listen, script().listen(wakeups(stream::once(fails(ErrorKind::Query)))).fetch(nothing())),
        (Operation::Fetch, script().fetch(fails(ErrorKind::Query))),
    ] {
        let error = error_of(&script.store()).await;
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Query, Some(operation)));
        assert_eq!(error.source().unwrap().downcast_ref(), Some(&ClientError(42)));
        assert_eq!(error.to_string(), format!("{operation}: the store failed"));
    }
}

#[tokio::test(start_paused = true)]
async fn settle_errors_keep_their_identity() {
    let script = Script::default().fetch(one(1)).settle(fails(ErrorKind::LeaseLost));
    let (store, mut stream) = script.subscribe().await;
    let error = stream.next().await.unwrap().unwrap().ok().await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::LeaseLost, Some(Operation::Settle)));
    assert_eq!(error.source().unwrap().downcast_ref(), Some(&ClientError(42)));
    assert_eq!(store.events(), [Fetch, Settle(1, Ack::Ok)], "nothing settles twice");
}

#[tokio::test(start_paused = true)]
async fn an_error_is_the_last_item_and_subscribing_again_works() {
    let script = Script::default().fetch(fails(ErrorKind::Fatal)).fetch(one(1));
    let (store, mut stream) = script.subscribe().await;

    assert!(stream.next().await.unwrap().is_err());
    assert_eq!(store.events(), [Fetch, Unlisten], "listening ends with the error, not with the stream's drop");
    assert!(stream.is_terminated());
    assert!(stream.next().await.is_none());
    assert_eq!(store.events(), []);

    assert_eq!(accept(&mut subscribe(store).await.unwrap()).await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_decoded_is_requeued_once_and_never_handled() {
    let secret = async { Ok(Some(vec![message(1, "\"4111\"")])) };
    let (store, stream) = Script::default().fetch(secret).fetch(one(2)).subscribe().await;

    Worker::new(stream.until(idle()), store.handler(Ack::Ok)).on_error(store.report()).run().await.unwrap();

    let failed = [Fetch, Report(1, ErrorKind::Decode), Settle(1, Ack::requeue())];
    let went_on = [Fetch, Handle(2), Settle(2, Ack::Ok), Fetch, Unlisten];
    assert_eq!(store.events(), [&failed[..], &went_on].concat());
    let [reason] = &store.reasons()[..] else { panic!("one requeue has a reason") };
    assert!(reason.starts_with("handling a delivery: message 1 cannot be read as u32"), "{reason}");
    assert!(!reason.contains("4111"), "the reason quotes the payload: {reason}");
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_cannot_decode_is_not_quoted_either() {
    let secret = async { Ok(Some(vec![message(1, "\"4111\"")])) };
    let (store, stream) = Script::default().fetch(secret).subscribe().await;

    let handler = async |job: Job<String>| job.message().json::<u32>().map(|_| Ack::Ok);
    Worker::new(stream.until(idle()), handler).run().await.unwrap();

    let [reason] = &store.reasons()[..] else { panic!("one requeue has a reason") };
    assert!(reason.contains("message 1 cannot be read as u32"), "{reason}");
    assert!(!reason.contains("4111"), "the reason quotes the payload: {reason}");
}

#[tokio::test(start_paused = true)]
async fn handler_errors_become_the_source_and_the_reason() {
    let (store, stream) = Script::default().fetch(one(1)).subscribe().await;
    let handler = async |_: Job<u32>| Err::<Ack, _>(ClientError(7));
    let error = Worker::new(stream.on_requeue(OnRequeue::Stop), handler).run().await.unwrap_err();

    assert_eq!((error.kind(), error.operation()), (ErrorKind::Handler, Some(Operation::Handle)));
    assert_eq!(error.source().unwrap().downcast_ref(), Some(&ClientError(7)));
    assert_eq!(store.reasons(), ["handling a delivery: the handler failed on message 1: client error 7"]);
}
