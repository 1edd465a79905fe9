//! What a driver has in hand: it is handed out without a fetch, and by the same rules.

use std::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use pgqueue_core::{
    Ack, ConsumeStream, Delivery, ErrorKind, Operation, Result, SubscriptionDriver, Wakeups, subscribe,
};

use crate::{
    script::{Script, gate, message, one},
    store::{Event::*, Store, accept},
};

/// A store of which some messages are in hand.
struct Handy {
    store: Store,
    in_hand: Box<dyn Fn() -> Option<u32> + Send + Sync>,
}

#[async_trait]
impl SubscriptionDriver for Handy {
    async fn insert_subscription(&self) -> Result<()> {
        self.store.insert_subscription().await
    }

    async fn listen(&self) -> Result<Wakeups> {
        self.store.listen().await
    }

    async fn fetch_pending(&self) -> Result<Option<Delivery>> {
        self.store.fetch_pending().await
    }

    fn fetch_ready(&self) -> Result<Option<Delivery>> {
        Ok((self.in_hand)().map(|number| Delivery::new(message(number, number), self.store.acker(number))))
    }
}

async fn stream(store: &Store, in_hand: impl Fn() -> Option<u32> + Send + Sync + 'static) -> ConsumeStream {
    let stream = subscribe(Handy { store: store.clone(), in_hand: Box::new(in_hand) }).await.unwrap();
    store.events();
    stream
}

#[tokio::test(start_paused = true)]
async fn what_is_in_hand_is_handed_out_without_a_fetch() {
    let store = Script::default().fetch(one(3)).store();
    let in_hand = Mutex::new(vec![2, 1]);
    let mut stream = stream(&store, move || in_hand.lock().unwrap().pop()).await;
    for number in 1..=3 {
        assert_eq!(accept(&mut stream).await, number);
    }
    assert_eq!(store.events(), [Settle(1, Ack::Ok), Settle(2, Ack::Ok), Fetch, Settle(3, Ack::Ok)]);
}

#[tokio::test(start_paused = true)]
async fn a_hand_that_is_never_empty_does_not_starve_other_tasks() {
    let store = Script::default().store();
    let handed = AtomicU32::new(0);
    let stream = stream(&store, move || Some(handed.fetch_add(1, Ordering::Relaxed))).await;
    let (stop, stopped) = gate();
    tokio::spawn(async { drop(stop) });
    let numbers = stream.until(stopped).take(10_000).filter_map(async |delivery| delivery.unwrap().ok().await.ok());
    assert!(numbers.count().await < 10_000, "the other task is starved");
}

#[tokio::test(start_paused = true)]
async fn a_panic_over_what_is_in_hand_ends_the_stream_with_its_message() {
    let mut stream = stream(&Script::default().store(), || panic!("boom")).await;
    let error = stream.next().now_or_never().flatten().unwrap().unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Panic, Some(Operation::Fetch)));
}
