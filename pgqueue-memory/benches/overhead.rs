//! What core adds to a driver: publish, deliver, decode, OK, on the memory driver.
//!
//! Each iteration moves 1,000 messages, so that its microseconds read as nanoseconds a message. `driver` calls fetch and
//! settle itself; `stream` is the bare `ConsumeStream`, `worker` a `Worker` at its defaults. Compare them within one run.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use divan::{Bencher, counter::ItemsCount};
use futures::TryStreamExt;
use pgqueue_core::{
    Ack, Delivery, Job, NewMessage, Publisher, Subscription, SubscriptionDriver, Topic, Worker, subscribe,
};
use pgqueue_memory::MemoryQueue;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

const MESSAGES: usize = 1_000;
const CONSUMERS: [usize; 2] = [1, 8];

fn main() {
    divan::main();
}

/// How far one iteration is; cancels its token when all messages are handled.
#[derive(Clone, Default)]
struct Progress {
    handled: Arc<AtomicUsize>,
    all: CancellationToken,
}

impl Progress {
    fn count(&self) {
        if self.handled.fetch_add(1, Ordering::Relaxed) + 1 == MESSAGES {
            self.all.cancel();
        }
    }
}

#[divan::bench(args = CONSUMERS)]
fn driver(bencher: Bencher, consumers: usize) {
    bench(bencher, consumers, |queue, progress| async move {
        let driver = queue.subscription(subscription());
        while let Some(delivery) = driver.fetch_pending().await.unwrap() {
            handle(&delivery);
            delivery.ok().await.unwrap();
            progress.count();
        }
    });
}

#[divan::bench(args = CONSUMERS)]
fn stream(bencher: Bencher, consumers: usize) {
    bench(bencher, consumers, |queue, progress| async move {
        let stream = subscribe(queue.subscription(subscription())).await.unwrap();
        let mut stream = std::pin::pin!(stream.until(progress.all.cancelled()));
        while let Some(delivery) = stream.try_next().await.unwrap() {
            handle(&delivery);
            delivery.ok().await.unwrap();
            progress.count();
        }
    });
}

#[divan::bench(args = CONSUMERS)]
fn worker(bencher: Bencher, consumers: usize) {
    bench(bencher, consumers, |queue, progress| async move {
        let stream = subscribe(queue.subscription(subscription())).await.unwrap();
        let stream = stream.until(progress.all.clone().cancelled_owned());
        let handler = |job: Job<usize>| {
            divan::black_box(job.value);
            progress.count();
            async { Ok::<_, &str>(Ack::Ok) }
        };
        Worker::new(stream, handler).run().await.unwrap();
    });
}

fn handle(delivery: &Delivery) {
    divan::black_box(delivery.decode::<usize>().unwrap());
}

fn subscription() -> Subscription {
    Subscription::new("s", "t")
}

/// Publishes, then lets so many consumers handle everything.
fn bench<F: Future<Output = ()> + Send + 'static>(
    bencher: Bencher,
    consumers: usize,
    consume: impl Fn(MemoryQueue, Progress) -> F + Sync,
) {
    let runtime = runtime(consumers);
    let messages: Vec<_> = (0..MESSAGES).map(|n| NewMessage::json(&n).unwrap()).collect();
    bencher.counter(ItemsCount::new(MESSAGES)).with_inputs(|| messages.clone()).bench_values(|messages| {
        runtime.block_on(async {
            let queue = MemoryQueue::new();
            queue.create_topic(Topic::new("t")).await.unwrap();
            queue.insert_subscription(&subscription()).await.unwrap();
            queue.publish("t", messages).await.unwrap();
            let progress = Progress::default();
            let consumers: Vec<_> =
                (0..consumers).map(|_| tokio::spawn(consume(queue.clone(), progress.clone()))).collect();
            for consumer in consumers {
                consumer.await.unwrap();
            }
        });
    });
}

/// One consumer runs on the calling thread; several share two.
fn runtime(consumers: usize) -> Runtime {
    let mut builder = if consumers == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.worker_threads(2).enable_time().build().unwrap()
}
