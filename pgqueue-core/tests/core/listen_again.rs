//! When wake-ups fail or end: listen again by the connection policy, then look.

use std::pin::Pin;

use futures::{FutureExt, StreamExt, poll, stream};
use pgqueue_core::{ConsumeStream, Error, ErrorKind, Operation, Result, RetryConfig, Wakeup, Wakeups};
use tokio::time::{Sleep, sleep};

use crate::{
    script::{Script, fails, gate, nothing, one, retries, seconds, silence, wakeups},
    store::{Event::*, accept},
};

/// Retries so often, and ends a stream that should have found something within an hour.
fn retrying(stream: ConsumeStream, max_retries: u32) -> Pin<Box<ConsumeStream<Sleep>>> {
    let retry = RetryConfig::never().with_connection(retries(max_retries));
    Box::pin(stream.with_retry(retry).until(sleep(seconds(60 * 60))))
}

/// An answer: wake-ups that are lost after so many seconds, without one.
async fn lost_after(held: u64) -> Result<Wakeups> {
    wakeups(stream::once(sleep(seconds(held)).then(|()| fails(ErrorKind::Connection)))).await
}

/// Returns what ended the stream, and in which seconds it listened again.
async fn listen_in_vain(script: Script, max_retries: u32) -> (Error, Vec<u64>) {
    let (store, stream) = script.subscribe().await;
    let error = retrying(stream, max_retries).next().await.unwrap().unwrap_err();
    (error, store.seconds(&Listen))
}

#[tokio::test(start_paused = true)]
async fn what_came_while_nobody_listened_is_found() {
    let fatal = stream::once(fails(ErrorKind::Fatal)).boxed();
    for lost in [stream::empty().boxed(), fatal] {
        let (listen, listening) = gate();
        let listening_again = listening.then(|()| wakeups(silence()));
        let script = Script::default().listen(wakeups(lost)).listen(listening_again).fetch(nothing()).fetch(one(1));
        let (store, stream) = script.subscribe().await;
        let mut stream = retrying(stream, 1);
        let consumer = tokio::spawn(async move { accept(&mut stream).await });
        sleep(seconds(2)).await;
        assert_eq!(store.seconds(&Listen), [1]);
        assert_eq!(store.seconds(&Fetch), [0], "nothing is fetched before listening is in force");

        drop(listen);
        assert_eq!(consumer.await.unwrap(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn lost_wakeups_are_dropped_before_it_listens_again() {
    let (store, stream) = Script::default().listen(lost_after(0)).subscribe().await;
    assert!(retrying(stream, 1).next().await.is_none());
    assert_eq!(store.events(), [Fetch, Wakeup, Unlisten, Listen, Fetch, Unlisten]);
}

#[tokio::test(start_paused = true)]
async fn wakeups_that_are_lost_at_once_use_up_the_policy() {
    let script = (0..4).fold(Script::default(), |script, _| script.listen(lost_after(0)));
    let (error, listened) = listen_in_vain(script, 3).await;
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Connection, Some(Operation::Listen)));
    assert_eq!(listened, [1, 3, 7]);
}

#[tokio::test(start_paused = true)]
async fn failing_to_listen_goes_on_with_the_same_series() {
    let script = Script::default().listen(lost_after(0));
    let script = (0..3).fold(script, |script, _| script.listen(fails(ErrorKind::Connection)));
    let (error, listened) = listen_in_vain(script, 3).await;
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Connection, Some(Operation::Listen)));
    assert_eq!(listened, [1, 3, 7]);
}

#[tokio::test(start_paused = true)]
async fn failing_to_listen_for_good_ends_the_stream() {
    let script = Script::default().listen(lost_after(0)).listen(fails(ErrorKind::NotFound));
    let (error, listened) = listen_in_vain(script, 3).await;
    assert_eq!((error.kind(), error.operation()), (ErrorKind::NotFound, Some(Operation::Listen)));
    assert_eq!(listened, [1]);
}

#[tokio::test(start_paused = true)]
async fn listening_that_held_longer_than_the_cap_begins_a_new_series() {
    // The cap is 5 s and there is one retry.
    let long = Script::default().listen(lost_after(6)).listen(lost_after(6)).listen(lost_after(0));
    assert_eq!(listen_in_vain(long, 1).await.1, [7, 14]);
    let short = Script::default().listen(lost_after(4)).listen(lost_after(4));
    assert_eq!(listen_in_vain(short, 1).await.1, [5]);
}

#[tokio::test(start_paused = true)]
async fn a_wakeup_begins_a_new_series() {
    let woken_once = || wakeups(stream::iter([Ok(Wakeup::Tick)]));
    let script = Script::default().listen(woken_once()).listen(woken_once()).listen(lost_after(0));
    assert_eq!(listen_in_vain(script, 1).await.1, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_new_configuration_does_not_forget_to_listen_again() {
    let script = Script::default().listen(wakeups(stream::empty())).fetch(nothing()).fetch(one(1));
    let (store, mut stream) = script.subscribe().await;
    assert!(poll!(stream.next()).is_pending());
    assert_eq!(store.events(), [Fetch, Unlisten]);

    let impossible = RetryConfig::never().with_time_limit(seconds(0));
    assert_eq!(accept(&mut retrying(stream.with_retry(impossible), 1)).await, 1);
    assert_eq!(store.events()[..2], [Listen, Fetch]);
}
