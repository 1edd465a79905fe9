//! Stop is a future that is passed, cancel is dropping: neither loses anything, and nothing new begins after them.

use std::{
    future::{pending, ready},
    pin::pin,
    task::Poll,
};

use futures::{FutureExt, StreamExt, poll, stream};
use pgqueue_core::{Ack, BoxError, ErrorKind, Job, RetryConfig, RetryPolicy, Worker};
use tokio::{
    sync::oneshot,
    task::consume_budget,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    script::{Script, fails, gate, idle, nothing, one, seconds, wakeups},
    store::{Event::*, accept},
};

#[tokio::test(start_paused = true)]
async fn no_handler_is_called_after_a_stop_in_a_handler() {
    for concurrency in [1, 16] {
        let stop = CancellationToken::new();
        let (store, stream) = Script::default().fetch(one(1)).subscribe().await;
        let handler = |job: Job<u32>| {
            store.log(Handle(job.value));
            stop.cancel();
            ready(Ok::<_, BoxError>(Ack::Ok))
        };
        let stream = stream.until(stop.clone().cancelled_owned());
        Worker::new(stream, handler).with_concurrency(concurrency).run().await.unwrap();
        assert_eq!(store.events(), [Fetch, Handle(1), Settle(1, Ack::Ok), Unlisten]);
    }
}

#[tokio::test(start_paused = true)]
async fn no_handler_is_called_after_a_stop_before_the_last_ack() {
    let (stop, stopped) = gate();
    let settling = async {
        drop(stop);
        Ok(())
    };
    let (store, stream) = Script::default().fetch(one(1)).settle(settling).subscribe().await;
    let worker = Worker::new(stream.until(stopped), store.handler(Ack::Ok)).with_concurrency(1);
    worker.run().await.unwrap();
    assert_eq!(store.events(), [Fetch, Handle(1), Settle(1, Ack::Ok), Unlisten]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_idle_ends_the_run_at_once() {
    let (stop, stopped) = gate();
    let (store, stream) = Script::default().subscribe().await;
    let running = tokio::spawn(Worker::new(stream.until(stopped), store.handler(Ack::Ok)).run());
    idle().await;

    let stopped_at = Instant::now();
    drop(stop);
    running.await.unwrap().unwrap();
    assert_eq!(stopped_at, Instant::now());
    assert_eq!(store.events(), [Fetch, Unlisten]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_beats_a_delivery_that_is_ready() {
    let (store, stream) = Script::default().subscribe().await;
    assert!(pin!(stream.until(ready(()))).next().await.is_none());
    assert_eq!(store.events(), [Unlisten], "there is no reason to fetch");

    let (answer, answered) = gate();
    let (stop, stopped) = gate();
    let (store, stream) = Script::default().fetch(answered.then(|()| one(1))).subscribe().await;
    let mut stream = stream.until(Box::pin(stopped));
    assert!(poll!(stream.next()).is_pending());
    drop((answer, stop));
    assert!(stream.next().await.is_none());
    assert_eq!(store.events(), [Fetch, Unlisten, FetchDropped]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_seen_by_a_task_that_has_used_up_its_budget() {
    let (answer, answered) = gate();
    let (stop, stopped) = oneshot::channel::<()>(); // one that obeys the budget, as `gate` does not
    let (_store, stream) = Script::default().fetch(answered.then(|()| one(1))).subscribe().await;
    let mut stream = Box::pin(stream.until(stopped.map(drop)));
    assert!(poll!(stream.next()).is_pending());

    drop(answer);
    drop(stop);
    while poll!(pin!(consume_budget())).is_ready() {}
    assert!(!matches!(poll!(stream.next()), Poll::Ready(Some(_))));
    assert!(stream.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stop_interrupts_whatever_is_waited_for() {
    let script = Script::default;
    let (at_once, later) = (seconds(0), seconds(60));
    for (script, pause) in [
        (script().fetch(nothing()), later),
        (script().fetch(pending()), later),
        (script().fetch(fails(ErrorKind::Connection)), later),
        (script().listen(wakeups(stream::empty())), later),
        (script().listen(wakeups(stream::empty())).listen(pending()), at_once),
    ] {
        let (_store, stream) = script.subscribe().await;
        let retry = RetryConfig::default().with_connection(Some(RetryPolicy::new(1, pause).with_cap(pause)));
        let stopped_at = Instant::now() + seconds(1);
        let mut stream = pin!(stream.with_retry(retry).until(sleep_until(stopped_at)));
        assert!(stream.next().await.is_none());
        assert_eq!(Instant::now(), stopped_at);
    }
}

#[tokio::test(start_paused = true)]
async fn handlers_in_flight_finish_and_settle_after_a_stop() {
    let (store, stream) = Script::default().fetch(one(1)).fetch(one(2)).subscribe().await;
    let handler = async |_: Job<u32>| {
        sleep(seconds(10)).await;
        Ok::<_, BoxError>(Ack::Ok)
    };
    Worker::new(stream.until(sleep(seconds(5))), handler).run().await.unwrap();
    assert_eq!(store.events()[3..], [Unlisten, Settle(1, Ack::Ok), Settle(2, Ack::Ok)]);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_run_drops_its_handlers_and_releases_their_messages() {
    let (store, stream) = Script::default().fetch(one(1)).fetch(one(2)).subscribe().await;
    let handler = async |job: Job<u32>| {
        let _dropped = store.log_drop(HandlerDropped(job.value));
        pending::<Result<Ack, BoxError>>().await
    };
    let mut running = Box::pin(Worker::new(stream, handler).run());
    assert!(poll!(&mut running).is_pending());
    assert_eq!(store.events(), [Fetch, Fetch, Fetch]);

    drop(running);
    let dropped = store.events();
    assert_eq!(dropped.len(), 5);
    for event in [HandlerDropped(1), Release(1), HandlerDropped(2), Release(2), Unlisten] {
        assert!(dropped.contains(&event), "{event:?} is not among {dropped:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_later_stop_replaces_an_earlier_one() {
    let (_store, stream) = Script::default().fetch(one(1)).subscribe().await;
    assert_eq!(accept(&mut stream.until(ready(())).until(pending())).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_parent_token_stops_all_and_a_child_token_only_its_own() {
    let parent = CancellationToken::new();
    let child = parent.child_token();
    let consume_until = |token: CancellationToken| {
        tokio::spawn(async {
            let (_store, stream) = Script::default().subscribe().await;
            pin!(stream.until(token.cancelled_owned())).next().await.is_none()
        })
    };
    let of_parent = consume_until(parent.clone());
    let of_child = consume_until(child.clone());
    let of_sibling = consume_until(parent.child_token());
    idle().await;
    assert!(!of_child.is_finished());

    child.cancel();
    assert!(of_child.await.unwrap());
    idle().await;
    assert!(!of_parent.is_finished() && !of_sibling.is_finished());

    parent.cancel();
    assert!(of_parent.await.unwrap() && of_sibling.await.unwrap());
}
