//! What can be spawned and shared, whatever the driver and the handler. Most of it holds once it compiles.

use std::sync::Arc;

use futures::StreamExt;
use pgqueue_core::{Ack, BoxError, Delivery, Error, Job, Message, Result, SubscriptionDriver, Worker, subscribe};
use tokio::task::yield_now;

use crate::{
    script::{Script, idle, one},
    store::{Event::*, accept, number},
};

fn is_send<T: Send + 'static>(_: &T) {}

fn is_sync<T: Send + Sync + 'static>() {}

#[test]
fn values_are_shared_between_threads() {
    is_sync::<Delivery>();
    is_sync::<Job<u32>>();
    is_sync::<Message>();
    is_sync::<Error>();
}

#[tokio::test(start_paused = true)]
async fn any_driver_can_be_subscribed_to_and_consumed_in_a_task() {
    async fn consume(driver: impl SubscriptionDriver) -> u32 {
        let subscribing = subscribe(driver);
        is_send(&subscribing);
        let mut stream = subscribing.await.unwrap();
        is_send(&stream);
        accept(&mut stream).await
    }
    let store = || Script::default().fetch(one(1)).store();
    let (shared, boxed): (Arc<dyn SubscriptionDriver>, Box<dyn SubscriptionDriver>) =
        (Arc::new(store()), Box::new(store()));
    for consumer in [tokio::spawn(consume(store())), tokio::spawn(consume(shared)), tokio::spawn(consume(boxed))] {
        assert_eq!(consumer.await.unwrap(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_delivery_can_be_borrowed_across_an_await_in_a_task() {
    async fn slow_number(delivery: &Delivery) -> u32 {
        yield_now().await;
        number(delivery.message())
    }
    let (_store, mut stream) = Script::default().fetch(one(1)).subscribe().await;
    let delivery = stream.next().await.unwrap().unwrap();
    let task = tokio::spawn(async move {
        let slow = slow_number(&delivery).await;
        delivery.ok().await.map(|()| slow)
    });
    assert_eq!(task.await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn workers_with_any_sort_of_handler_run_in_tasks() {
    async fn function(_: Job<u32>) -> Result<Ack, BoxError> {
        yield_now().await;
        Ok(Ack::Ok)
    }
    let async_closure = async |_: Job<u32>| {
        yield_now().await;
        Ok::<_, Error>(Ack::Ok)
    };
    let state = Arc::new(Ack::Ok);
    let closure_with_async_block = move |_: Job<u32>| {
        let state = Arc::clone(&state);
        async move {
            yield_now().await;
            Ok::<_, &str>(Ack::clone(&state))
        }
    };

    let stream = async || {
        let (store, stream) = Script::default().fetch(one(1)).subscribe().await;
        (store, stream.until(idle()))
    };
    let ((first, of_first), (second, of_second), (third, of_third)) = (stream().await, stream().await, stream().await);
    let runs = [
        tokio::spawn(Worker::new(of_first, function).run()),
        tokio::spawn(Worker::new(of_second, async_closure).run()),
        tokio::spawn(Worker::new(of_third, closure_with_async_block).run()),
    ];
    for (run, store) in runs.into_iter().zip([first, second, third]) {
        run.await.unwrap().unwrap();
        assert!(store.events().contains(&Settle(1, Ack::Ok)));
    }
}
