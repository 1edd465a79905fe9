//! The order of things: insert, listen, look until nothing is pending, wait for a wake-up, look again.

use std::future::pending;

use futures::{
    FutureExt, Stream, StreamExt,
    channel::mpsc::{self, UnboundedSender},
    poll, stream,
};
use pgqueue_core::{ErrorKind, Result, Wakeup, subscribe};

use crate::{
    script::{Script, fails, gate, idle, nothing, one, silence, wakeups},
    store::{Event::*, accept},
};

/// Wake-ups that come when the first half is used.
fn bell() -> (UnboundedSender<Result<Wakeup>>, impl Stream<Item = Result<Wakeup>>) {
    let (bell, rings) = mpsc::unbounded();
    (bell, stream::select(rings, silence()))
}

#[tokio::test(start_paused = true)]
async fn nothing_is_fetched_before_listening_is_in_force() {
    let (listen, listening) = gate();
    let store = Script::default().listen(listening.then(|()| wakeups(silence()))).fetch(one(1)).store();

    let consumer = tokio::spawn({
        let store = store.clone();
        async { subscribe(store).await?.next().await.unwrap()?.ok().await }
    });
    idle().await;
    assert_eq!(store.events(), [Insert, Listen]);

    drop(listen);
    consumer.await.unwrap().unwrap();
    assert_eq!(store.events()[0], Fetch);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_fetched_before_the_first_poll() {
    let (store, mut stream) = Script::default().subscribe().await;
    idle().await;
    assert_eq!(store.events(), []);

    assert!(poll!(stream.next()).is_pending());
    assert_eq!(store.events(), [Fetch]);
}

#[tokio::test(start_paused = true)]
async fn pending_is_exhausted_before_a_wakeup_is_awaited() {
    let rung_already = stream::iter([Ok(Wakeup::Notified), Ok(Wakeup::Tick)]).chain(silence());
    let script = Script::default().listen(wakeups(rung_already)).fetch(one(1)).fetch(one(2)).fetch(nothing());
    let (store, stream) = script.subscribe().await;

    let mut stream = Box::pin(stream.until(idle()));
    while let Some(delivery) = stream.next().await {
        delivery.unwrap().ok().await.unwrap();
    }
    let asked: Vec<_> = store.events().into_iter().filter(|event| matches!(event, Fetch | Wakeup)).collect();
    assert_eq!(asked, [Fetch, Fetch, Fetch, Wakeup, Fetch, Wakeup, Fetch]);
}

#[tokio::test(start_paused = true)]
async fn every_wakeup_means_look_again() {
    for reason in [Wakeup::Notified, Wakeup::Reconnected, Wakeup::Tick] {
        let (bell, rings) = bell();
        let script = Script::default().listen(wakeups(rings)).fetch(nothing()).fetch(one(1));
        let (store, mut stream) = script.subscribe().await;

        assert!(poll!(stream.next()).is_pending());
        idle().await;
        assert_eq!(store.events(), [Fetch], "nobody looks without a reason");

        bell.unbounded_send(Ok(reason)).unwrap();
        assert_eq!(accept(&mut stream).await, 1);
        assert_eq!(store.events()[..2], [Wakeup, Fetch]);
    }
}

#[tokio::test(start_paused = true)]
async fn wakeups_during_a_fetch_are_kept() {
    let (bell, rings) = bell();
    let (answer, answered) = gate();
    let script = Script::default().listen(wakeups(rings)).fetch(answered.then(|()| nothing())).fetch(one(1));
    let (_store, mut stream) = script.subscribe().await;

    assert!(poll!(stream.next()).is_pending());
    bell.unbounded_send(Ok(Wakeup::Notified)).unwrap();
    drop(answer);
    assert_eq!(accept(&mut stream).await, 1);
}

#[tokio::test(start_paused = true)]
async fn subscriptions_are_independent() {
    let (_stuck, mut stuck) = Script::default().fetch(pending()).subscribe().await;
    let (_broken, mut broken) = Script::default().fetch(fails(ErrorKind::Fatal)).subscribe().await;
    let (_healthy, mut healthy) = Script::default().fetch(one(1)).fetch(one(2)).subscribe().await;

    assert!(poll!(stuck.next()).is_pending());
    assert_eq!(accept(&mut healthy).await, 1);
    assert!(broken.next().await.unwrap().is_err());
    assert_eq!(accept(&mut healthy).await, 2);
}
