//! The consume stream as a stream: lazy, cancel safe, fused, and fair to its neighbours.

use std::{
    future::pending,
    sync::atomic::{AtomicU32, Ordering},
};

use futures::{FutureExt, StreamExt, poll, stream, stream::FusedStream};
use pgqueue_core::{ErrorKind, Wakeup};

use crate::{
    script::{Script, fails, gate, idle, nothing, one, wakeups},
    store::{Event::*, accept},
};

#[tokio::test(start_paused = true)]
async fn dropping_next_loses_nothing() {
    let (answer, answered) = gate();
    let (store, mut stream) = Script::default().fetch(answered.then(|()| one(1))).subscribe().await;
    assert!(stream.next().now_or_never().is_none());
    assert!(stream.next().now_or_never().is_none());

    drop(answer);
    assert_eq!(accept(&mut stream).await, 1);
    assert_eq!(store.seconds(&Fetch).len(), 1, "the same fetch goes on");
}

#[tokio::test(start_paused = true)]
async fn dropping_a_stream_drops_its_fetch_and_its_wakeups() {
    let (store, mut stream) = Script::default().fetch(pending()).subscribe().await;
    assert!(poll!(stream.next()).is_pending());
    drop(stream);
    assert_eq!(store.events(), [Fetch, Unlisten, FetchDropped]);
}

#[tokio::test(start_paused = true)]
async fn after_a_stop_there_is_nothing_more() {
    let (store, stream) = Script::default().subscribe().await;
    let mut stream = Box::pin(stream.until(idle()));
    assert!(!stream.is_terminated());
    assert!(stream.next().await.is_none());
    assert!(stream.is_terminated());
    assert!(stream.next().await.is_none());
    assert_eq!(store.events(), [Fetch, Unlisten]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_always_ready_does_not_starve_other_tasks() {
    for something_is_pending in [true, false] {
        let fetches = AtomicU32::new(0);
        let fetch = move || match fetches.fetch_add(1, Ordering::Relaxed) {
            10_000.. => fails(ErrorKind::Fatal).boxed(), // the other task is starved
            number if something_is_pending => one(number).boxed(),
            _ => nothing().boxed(),
        };
        let always_awake = wakeups(stream::repeat_with(|| Ok(Wakeup::Notified)));
        let (_store, stream) = Script::default().listen(always_awake).fetch_always(fetch).subscribe().await;

        let (stop, stopped) = gate();
        tokio::spawn(async { drop(stop) });
        let mut stream = Box::pin(stream.until(stopped));
        while let Some(delivery) = stream.next().await {
            delivery.unwrap().ok().await.unwrap();
        }
    }
}
