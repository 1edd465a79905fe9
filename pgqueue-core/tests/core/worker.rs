//! The worker: how many handlers, for how long, with which value, and who settles.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bytes::Bytes;
use pgqueue_core::{Ack, BoxError, Delivery, ErrorKind, Job, Requeue, RequeueCause, Worker};
use tokio::{sync::mpsc, time::sleep};

use crate::{
    script::{Script, fails, idle, message, one, seconds, several},
    store::Event::*,
};

#[tokio::test(start_paused = true)]
async fn concurrency_is_reached_and_never_exceeded() {
    let script = (1..=5).fold(Script::default(), |script, number| script.fetch(one(number)));
    let (store, stream) = script.subscribe().await;
    let (running, most) = (AtomicU32::new(0), AtomicU32::new(0));
    let handler = async |_: Job<u32>| {
        most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        idle().await;
        running.fetch_sub(1, Ordering::Relaxed);
        Ok::<_, BoxError>(Ack::Ok)
    };
    Worker::new(stream.until(sleep(seconds(1))), handler).with_concurrency(3).run().await.unwrap();
    assert_eq!(most.into_inner(), 3);
    let events = store.events();
    assert_eq!(events[..4], [Fetch, Fetch, Fetch, Settle(1, Ack::Ok)], "nothing is fetched that must wait");
    assert!(events.contains(&Settle(5, Ack::Ok)));
}

#[tokio::test(start_paused = true)]
async fn impossible_options_are_refused_before_anything_is_fetched() {
    for (concurrency, timeout) in [(0, seconds(1)), (1, Duration::ZERO)] {
        let (store, stream) = Script::default().subscribe().await;
        let worker = Worker::new(stream, store.handler(Ack::Ok));
        let error = worker.with_concurrency(concurrency).with_timeout(timeout).run().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(store.events(), [Unlisten]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_reaches_the_store_as_it_is() {
    let later = Ack::requeue_after(seconds(7));
    for ack in [Ack::Ok, Ack::requeue(), later, Ack::reject("not for us")] {
        let (store, stream) = Script::default().fetch(one(1)).subscribe().await;
        Worker::new(stream.until(idle()), store.handler(ack.clone())).run().await.unwrap();
        assert_eq!(store.events()[..3], [Fetch, Handle(1), Settle(1, ack)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_takes_too_long_is_dropped_and_its_message_requeued() {
    let (store, stream) = Script::default().fetch(one(1)).subscribe().await;
    let handler = async |job: Job<u32>| {
        let _dropped = store.log_drop(HandlerDropped(job.value));
        sleep(seconds(60)).await;
        Ok::<_, BoxError>(Ack::Ok)
    };
    let worker = Worker::new(stream.until(sleep(seconds(8))), handler).with_timeout(seconds(7));
    worker.on_error(store.report()).run().await.unwrap();
    assert_eq!(store.seconds(&HandlerDropped(1)), [7]);
    let late = Ack::Requeue(Requeue::default().with_cause(RequeueCause::Timeout));
    let requeued = [HandlerDropped(1), Report(1, ErrorKind::Timeout), Settle(1, late)];
    assert_eq!(store.events(), [&[Fetch, Fetch], &requeued[..], &[Unlisten]].concat());
    assert_eq!(store.reasons(), ["handling a delivery: the handler of message 1 took more than 7s"]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_cancels_the_handler_and_settles_nothing() {
    let (store, stream) = Script::default().fetch(one(1)).lease_lost(sleep(seconds(7))).subscribe().await;
    let handler = async |job: Job<u32>| {
        let _dropped = store.log_drop(HandlerDropped(job.value));
        sleep(seconds(60)).await;
        Ok::<_, BoxError>(Ack::Ok)
    };
    let worker = Worker::new(stream.until(sleep(seconds(8))), handler);
    worker.on_error(store.report()).run().await.unwrap();
    assert_eq!(store.seconds(&HandlerDropped(1)), [7]);
    let cancelled = [HandlerDropped(1), Report(1, ErrorKind::LeaseLost), Release(1)];
    assert_eq!(store.events(), [&[Fetch, Fetch], &cancelled[..], &[Unlisten]].concat());
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_outlive_its_lease_if_asked_to() {
    let (store, stream) = Script::default().fetch(one(1)).lease_lost(idle()).subscribe().await;
    let handler = async |job: Job<u32>| {
        job.lease_lost().await;
        sleep(seconds(1)).await;
        Ok::<_, BoxError>(Ack::Ok)
    };
    let worker = Worker::new(stream.until(sleep(seconds(2))), handler).with_cancel_on_lease_lost(false);
    worker.on_error(store.report()).run().await.unwrap();
    assert_eq!(store.events(), [Fetch, Fetch, Settle(1, Ack::Ok), Unlisten]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_takes_the_delivery_settles_it_alone() {
    let (store, stream) = Script::default().fetch(one(1)).lease_lost(idle()).subscribe().await;
    let handler = async |job: Job<u32>| {
        let (value, delivery) = job.take_delivery()?;
        assert_eq!(value, 1);
        sleep(seconds(1)).await; // a lost lease is no longer the worker's affair
        delivery.ok().await?;
        Ok::<_, BoxError>(Ack::requeue())
    };
    let worker = Worker::new(stream.until(sleep(seconds(2))), handler);
    worker.on_error(store.report()).run().await.unwrap();
    assert_eq!(store.events(), [Fetch, Fetch, Settle(1, Ack::Ok), Unlisten]);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_outlives_its_handler_has_no_delivery() {
    let (_store, stream) = Script::default().fetch(one(1)).subscribe().await;
    let (keep, mut kept) = mpsc::unbounded_channel();
    let handler = |job: Job<u32>| {
        let kept = keep.send(job);
        async { kept.map(|()| Ack::Ok) }
    };
    Worker::new(stream.until(idle()), handler).run().await.unwrap();

    let job = kept.recv().await.unwrap();
    job.lease_lost().await;
    assert_eq!(job.take_delivery().unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_decoded_as_a_sequence_and_settled_as_one() {
    let (store, stream) = Script::default().fetch(several([1, 2, 3])).subscribe().await;
    let handler = async |job: Job<Vec<u32>>| {
        let ids: Vec<_> = job.messages().iter().map(|message| message.id().to_string()).collect();
        if (job.value, ids.join(" ")) == (vec![1, 2, 3], "1 2 3".into()) { Ok(Ack::Ok) } else { Err("not the batch") }
    };
    Worker::new(stream.until(idle()), handler).run().await.unwrap();
    assert_eq!(store.events(), [Fetch, Settle(1, Ack::Ok), Fetch, Unlisten]);
}

#[tokio::test(start_paused = true)]
async fn a_decoder_of_ones_own_sees_the_payload_as_it_is() {
    let not_json = async { Ok(Some(vec![message(1, "= 1")])) };
    let (store, stream) = Script::default().fetch(not_json).subscribe().await;
    let decoder = |delivery: &Delivery| Ok(delivery.message().payload().clone());
    let handler = async |job: Job<Bytes>| if job.value == "= 1" { Ok(Ack::Ok) } else { Err("not the payload") };
    Worker::with_decoder(stream.until(idle()), decoder, handler).run().await.unwrap();
    assert_eq!(store.events(), [Fetch, Settle(1, Ack::Ok), Fetch, Unlisten]);
}

#[tokio::test(start_paused = true)]
async fn handlers_in_flight_finish_after_an_error_of_the_stream() {
    let (store, stream) = Script::default().fetch(one(1)).fetch(fails(ErrorKind::Fatal)).subscribe().await;
    let handler = async |_: Job<u32>| {
        sleep(seconds(7)).await;
        Ok::<_, BoxError>(Ack::Ok)
    };
    assert_eq!(Worker::new(stream, handler).run().await.unwrap_err().kind(), ErrorKind::Fatal);
    assert_eq!(store.events(), [Fetch, Fetch, Unlisten, Settle(1, Ack::Ok)]);
}
