//! Time limits: what a driver that never answers comes to.

use std::{future::pending, time::Duration};

use futures::{StreamExt, stream};
use pgqueue_core::{Delivery, ErrorKind, Operation, RetryConfig, RetryPolicy, subscribe};
use tokio::time::Instant;

use crate::{
    script::{Script, message, nothing, one, retries, seconds, wakeups},
    store::Event::*,
};

/// Listens again at once, once, and gives every call 7 s, where the default is 30 s.
fn limited() -> RetryConfig {
    let at_once = RetryPolicy::new(1, Duration::ZERO);
    RetryConfig::never().with_connection(Some(at_once)).with_time_limit(seconds(7))
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_never_answered_meets_its_limit() {
    let script = Script::default;
    let lost = || wakeups(stream::empty());
    for (operation, limit, script) in [
        (Operation::Insert, 30, script().insert(pending())),
        (Operation::Listen, 30, script().listen(pending())),
        (Operation::Fetch, 7, script().fetch(pending())),
        (Operation::Listen, 7, script().listen(lost()).fetch(nothing()).listen(pending())),
    ] {
        let (store, began) = (script.store(), Instant::now());
        let consume = async { subscribe(store).await?.with_retry(limited()).next().await.unwrap() };
        let error = consume.await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Timeout, Some(operation)));
        assert_eq!(began.elapsed().as_secs(), limit, "{operation}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_met_their_limit_are_retried() {
    let script = Script::default().fetch(pending()).fetch(pending()).fetch(pending());
    let (store, stream) = script.subscribe().await;
    let error = stream.with_retry(limited().with_timeout(retries(2))).next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(store.seconds(&Fetch), [0, 8, 17], "7 s each, and pauses of 1 s and 2 s");
    assert_eq!(store.seconds(&FetchDropped), [7, 15, 24]);
}

#[tokio::test(start_paused = true)]
async fn the_outcome_of_a_settlement_without_an_answer_is_unknown() {
    let (_store, stream) = Script::default().fetch(one(1)).settle(pending()).subscribe().await;
    let streamed = stream.with_retry(limited()).next().await.unwrap().unwrap();
    let bare = Delivery::new(message(2, 2), Script::default().settle(pending()).store().acker(2));
    for (delivery, limit) in [(streamed, 7), (bare, 30)] {
        let began = Instant::now();
        let error = delivery.ok().await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Unknown, Some(Operation::Settle)));
        assert_eq!(began.elapsed().as_secs(), limit);
    }
}
