//! A tower service as a handler: its layers decide when it runs, and their errors are those of a handler.

use std::{
    convert::Infallible,
    error::Error,
    future::{Ready, pending, ready},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use pgqueue_core::{
    Ack, Backoff, BoxError, Delivery, Job, NewMessage, Outcome, Publisher, Subscription, Topic, Worker,
    service_handler, subscribe,
};
use pgqueue_memory::MemoryQueue;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tower::{Service, ServiceBuilder, service_fn};

use crate::script::seconds;

/// A queue in which subscription `halves` waits for these numbers.
async fn waiting(numbers: impl IntoIterator<Item = u32>) -> MemoryQueue {
    let queue = MemoryQueue::new();
    queue.create_topic(Topic::new("numbers")).await.unwrap();
    queue.insert_subscription(&halves()).await.unwrap();
    let messages = numbers.into_iter().map(|number| NewMessage::json(&number).unwrap()).collect();
    queue.publish("numbers", messages).await.unwrap();
    queue
}

fn halves() -> Subscription {
    Subscription::new("halves", "numbers").with_backoff(Backoff::fixed(Duration::ZERO))
}

/// Runs a worker with this service until nothing is left, and returns what it failed for.
async fn work<S>(queue: &MemoryQueue, concurrency: usize, service: S) -> Vec<String>
where
    S: Service<Job<u32>> + Clone + Send + 'static,
    S::Response: Into<Outcome>,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    let failures = watch::Sender::new(Vec::new());
    let stream = subscribe(queue.subscription(halves())).await.unwrap().until(queue.idle("halves"));
    let worker = Worker::new(stream, service_handler(service)).with_concurrency(concurrency);
    let report = failures.clone();
    worker
        .on_error(move |failure| report.send_modify(|all| all.push(failure.error.source().unwrap().to_string())))
        .run()
        .await
        .unwrap();
    failures.borrow().clone()
}

#[tokio::test(start_paused = true)]
async fn answer_of_a_service_is_that_of_a_handler() {
    let queue = waiting([1, 2]).await;
    let odd_is_wrong = service_fn(|job: Job<u32>| {
        ready(Ok::<_, Infallible>(if job.value % 2 == 1 { Ack::reject("it is odd") } else { Ack::Ok }))
    });
    assert_eq!(work(&queue, 1, odd_is_wrong).await, [""; 0]);
    assert_eq!(queue.acked("halves").unwrap().len(), 1);
    assert_eq!(queue.dead_letters("halves").await.unwrap()[0].reason, "it is odd");
}

#[tokio::test(start_paused = true)]
async fn what_takes_longer_than_its_timeout_is_requeued() {
    let queue = waiting([1]).await;
    let hangs_at_first = service_fn(async |job: Job<u32>| {
        if job.message().attempt() == 1 {
            pending::<()>().await;
        }
        Ok::<_, BoxError>(Ack::Ok)
    });
    let service = ServiceBuilder::new().timeout(seconds(10)).service(hangs_at_first);
    let failures = work(&queue, 1, service).await;
    assert_eq!(failures, ["request timed out"]);
    assert_eq!(queue.acked("halves").unwrap()[0].attempt(), 2);
}

#[tokio::test(start_paused = true)]
async fn limit_of_concurrency_holds_for_all_deliveries() {
    const LIMIT: usize = 2;
    let queue = waiting(0..6).await;
    let busy = watch::Sender::new((0, 0)); // now, and at most
    let at_work = busy.clone();
    let handler = service_fn(move |_: Job<u32>| {
        let at_work = at_work.clone();
        async move {
            at_work.send_modify(|(now, most)| {
                *now += 1;
                *most = (*most).max(*now);
            });
            sleep(seconds(1)).await; // the work
            at_work.send_modify(|(now, _)| *now -= 1);
            Ok::<_, BoxError>(Ack::Ok)
        }
    });
    let service = ServiceBuilder::new().concurrency_limit(LIMIT).service(handler);
    assert_eq!(work(&queue, 6, service).await, [""; 0]);
    assert_eq!(*busy.borrow(), (0, LIMIT));
    assert_eq!(queue.acked("halves").unwrap().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn limit_of_rate_holds_behind_a_buffer() {
    let queue = waiting(0..4).await;
    let handler = service_fn(async |_: Job<u32>| Ok::<_, BoxError>(Ack::Ok));
    let service = ServiceBuilder::new().buffer(4).rate_limit(1, seconds(10)).service(handler);
    let since = Instant::now();
    assert_eq!(work(&queue, 4, service).await, [""; 0]);
    assert!(since.elapsed() >= seconds(30), "four in {:?}", since.elapsed());
}

/// A service that is out of order at first.
#[derive(Clone, Default)]
struct OutOfOrder(Arc<AtomicBool>);

impl Service<Job<u32>> for OutOfOrder {
    type Response = Ack;
    type Error = &'static str;
    type Future = Ready<Result<Ack, &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        let was_mended = self.0.swap(true, Ordering::Relaxed);
        Poll::Ready(if was_mended { Ok(()) } else { Err("out of order") })
    }

    fn call(&mut self, _: Job<u32>) -> Self::Future {
        ready(Ok(Ack::Ok))
    }
}

#[tokio::test(start_paused = true)]
async fn service_that_cannot_become_ready_requeues() {
    let queue = waiting([1]).await;
    assert_eq!(work(&queue, 1, OutOfOrder::default()).await, ["out of order"]);
    assert_eq!(queue.acked("halves").unwrap()[0].attempt(), 2);
}

#[tokio::test(start_paused = true)]
async fn job_goes_to_the_service_with_its_delivery() {
    let queue = waiting([1]).await;
    let settles_itself = service_fn(async |job: Job<u32>| {
        let (_, delivery): (u32, Delivery) = job.take_delivery()?;
        delivery.settle(Ack::reject("by hand")).await?;
        Ok::<_, BoxError>(Ack::Ok)
    });
    assert_eq!(work(&queue, 1, settles_itself).await, [""; 0]);
    assert_eq!(queue.dead_letters("halves").await.unwrap()[0].reason, "by hand");
}
