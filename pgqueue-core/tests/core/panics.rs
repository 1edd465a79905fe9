//! Panics of drivers and handlers: they become errors with their message, nothing is lost, and the process lives.

use std::{
    future::{Future, ready},
    pin::pin,
};

use futures::{StreamExt, stream};
use pgqueue_core::{
    Ack, BoxError, ConsumeStream, Delivery, ErrorKind, Job, OnRequeue, Operation, Result, Worker, subscribe,
};
use tokio::{task::yield_now, time::sleep};

use crate::{
    script::{Script, fails, idle, nothing, one, seconds, wakeups},
    store::Event::*,
};

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_driver_ends_the_stream_with_its_message() {
    let script = Script::default;
    for (operation, script) in [
        (Operation::Insert, script().insert(async { panic!("boom") })),
        (Operation::Listen, script().listen(async { panic!("boom") })),
        (Operation::Listen, script().listen(wakeups(stream::once(async { panic!("boom") }))).fetch(nothing())),
        (Operation::Fetch, script().fetch(async { panic!("boom") })),
    ] {
        let store = script.store();
        let consume = async { pin!(subscribe(store).await?.until(sleep(seconds(60)))).next().await.unwrap() };
        let error = consume.await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Panic, Some(operation)));
        assert_eq!(error.to_string(), format!("{operation}: panicked: boom"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_settle_is_an_error_of_that_delivery() {
    let (_store, mut stream) = Script::default().fetch(one(1)).settle(async { panic!("boom") }).subscribe().await;
    let error = stream.next().await.unwrap().unwrap().ok().await.unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Panic, "settling a delivery: panicked: boom".into()));
}

/// Lets a worker meet a panic with message 1, and checks that it was requeued for it and message 2 handled.
async fn assert_survives<H, Fut>(script: Script, worker: impl FnOnce(ConsumeStream) -> Worker<u32, H>)
where
    H: Fn(Job<u32>) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Ack, BoxError>> + Send,
{
    let (store, stream) = script.fetch(one(1)).fetch(one(2)).fetch(fails(ErrorKind::Fatal)).subscribe().await;
    let ended = worker(stream).with_concurrency(1).on_error(store.report()).run().await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Fatal, "the script is over");
    let requeued = [Fetch, Report(1, ErrorKind::Panic), Settle(1, Ack::requeue())];
    assert_eq!(store.events(), [&requeued[..], &[Fetch, Settle(2, Ack::Ok), Fetch, Unlisten]].concat());
    assert_eq!(store.reasons(), ["handling a delivery: panicked: boom"]);
}

async fn accept(_: Job<u32>) -> Result<Ack, BoxError> {
    Ok(Ack::Ok)
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_handler_requeues_its_message() {
    let at_once = |job: Job<u32>| {
        assert!(job.value != 1, "boom");
        ready(Ok(Ack::Ok))
    };
    let after_an_await = async |job: Job<u32>| {
        yield_now().await;
        assert!(job.value != 1, "boom");
        Ok(Ack::Ok)
    };
    assert_survives(Script::default(), |stream| Worker::new(stream, at_once)).await;
    assert_survives(Script::default(), |stream| Worker::new(stream, after_an_await)).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_handler_that_is_dropped_requeues_its_message() {
    struct Boom;

    impl Drop for Boom {
        fn drop(&mut self) {
            panic!("boom");
        }
    }

    let slow = async |job: Job<u32>| {
        if job.value == 1 {
            let _boom = Boom;
            idle().await;
        }
        Ok(Ack::Ok)
    };
    assert_survives(Script::default(), |stream| Worker::new(stream, slow).with_timeout(seconds(1))).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_decoder_requeues_its_message() {
    let decoder = |delivery: &Delivery| {
        let value = delivery.decode()?;
        assert!(value != 1, "boom");
        Ok(value)
    };
    assert_survives(Script::default(), |stream| Worker::with_decoder(stream, decoder, accept)).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_lease_lost_requeues_its_message() {
    let script = Script::default().lease_lost(async { panic!("boom") });
    let slow = async |_: Job<u32>| {
        idle().await;
        Ok(Ack::Ok)
    };
    assert_survives(script, |stream| Worker::new(stream, slow)).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_error_report_changes_nothing() {
    let (store, stream) = Script::default().fetch(one(1)).fetch(one(2)).subscribe().await;
    let handler = async |job: Job<u32>| if job.value == 1 { Err("no") } else { Ok(Ack::Ok) };
    Worker::new(stream.until(idle()), handler).on_error(|_| panic!("boom")).run().await.unwrap();
    assert_eq!(store.events(), [Fetch, Settle(1, Ack::requeue()), Fetch, Settle(2, Ack::Ok), Fetch, Unlisten]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_a_run_that_stops_on_requeue() {
    let (store, stream) = Script::default().fetch(one(1)).subscribe().await;
    let handler = async |_: Job<u32>| -> Result<Ack, BoxError> { panic!("boom") };
    let error = Worker::new(stream.on_requeue(OnRequeue::Stop), handler).run().await.unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Panic, "handling a delivery: panicked: boom".into()));
    assert_eq!(store.events(), [Fetch, Settle(1, Ack::requeue()), Unlisten]);
}
