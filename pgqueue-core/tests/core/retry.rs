//! Transient errors: what is tried again, when and how often; and what is never tried again.

use std::{future::ready, time::Duration};

use futures::{FutureExt, StreamExt, stream};
use pgqueue_core::{ErrorKind, Operation, RetryConfig, RetryPolicy, Wakeup};

use crate::{
    script::{Script, fails, fault, nothing, one, retries, silence, wakeups},
    store::{Event::*, accept},
};

type SetPolicy = fn(RetryConfig, Option<RetryPolicy>) -> RetryConfig;

/// The kinds that have a policy of their own.
const CLASSES: [(ErrorKind, SetPolicy); 3] = [
    (ErrorKind::Connection, RetryConfig::with_connection),
    (ErrorKind::Query, RetryConfig::with_query),
    (ErrorKind::Timeout, RetryConfig::with_timeout),
];

fn all_retried() -> RetryConfig {
    CLASSES.iter().fold(RetryConfig::never(), |config, (_, set)| set(config, retries(9)))
}

#[tokio::test(start_paused = true)]
async fn a_transient_error_is_retried_by_the_policy_of_its_class() {
    for (kind, set_policy) in CLASSES {
        let failing = || fails(kind);
        let script = Script::default().fetch(failing()).fetch(failing()).fetch(failing()).fetch(failing());
        let (store, stream) = script.subscribe().await;
        let mut stream = stream.with_retry(set_policy(RetryConfig::never(), retries(3)));

        let error = stream.next().await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.operation()), (kind, Some(Operation::Fetch)));
        assert_eq!(store.seconds(&Fetch), [0, 1, 3, 7], "{kind:?}");
        assert!(stream.next().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_class_without_a_policy_is_not_retried() {
    for (kind, set_policy) in CLASSES {
        let (_store, stream) = Script::default().fetch(fails(kind)).subscribe().await;
        let error = stream.with_retry(set_policy(all_retried(), None)).next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), kind);
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_succeed_is_not_retried() {
    use ErrorKind::*;
    let never = [Fatal, Invalid, NotFound, Conflict, Decode, LeaseLost, Unknown, Requeued, Handler, Panic];
    let errors = never.map(fault).into_iter().chain(CLASSES.map(|(kind, _)| fault(kind).with_transient(false)));
    for error in errors {
        let kind = error.kind();
        let (_store, stream) = Script::default().fetch(ready(Err(error))).subscribe().await;
        assert_eq!(stream.with_retry(all_retried()).next().await.unwrap().unwrap_err().kind(), kind);
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_begins_a_new_series() {
    for success in [one(1).boxed(), nothing().boxed()] {
        let failing = || fails(ErrorKind::Connection);
        let awake = stream::once(ready(Ok(Wakeup::Tick))).chain(silence());
        let script = Script::default().listen(wakeups(awake)).fetch(failing()).fetch(failing()).fetch(success);
        let (store, stream) = script.fetch(failing()).fetch(failing()).fetch(one(2)).subscribe().await;

        let mut stream = stream.with_retry(RetryConfig::never().with_connection(retries(2)));
        while accept(&mut stream).await != 2 {}
        assert_eq!(store.seconds(&Fetch), [0, 1, 3, 3, 4, 6]);
    }
}

#[tokio::test(start_paused = true)]
async fn each_class_counts_its_own_failures() {
    let script = Script::default().fetch(fails(ErrorKind::Connection)).fetch(fails(ErrorKind::Connection));
    let (store, stream) = script.fetch(fails(ErrorKind::Timeout)).fetch(one(1)).subscribe().await;
    let retry = RetryConfig::never().with_connection(retries(2)).with_timeout(retries(1));
    assert_eq!(accept(&mut stream.with_retry(retry)).await, 1);
    assert_eq!(store.seconds(&Fetch), [0, 1, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn an_impossible_configuration_is_the_first_and_last_item() {
    let policy = || retries(1).unwrap();
    for impossible in [
        RetryConfig::default().with_connection(Some(policy().with_multiplier(0.5))),
        RetryConfig::default().with_query(Some(policy().with_jitter(2.0))),
        RetryConfig::default().with_time_limit(Duration::ZERO),
    ] {
        let (store, stream) = Script::default().subscribe().await;
        let mut stream = stream.with_retry(impossible);
        assert_eq!(stream.next().await.unwrap().unwrap_err().kind(), ErrorKind::Invalid);
        assert!(stream.next().await.is_none());
        assert_eq!(store.events(), [Unlisten], "nothing was fetched");
    }
}
