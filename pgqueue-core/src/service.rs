//! [`service_handler`]: a tower service as a handler.

use std::{
    future::poll_fn,
    sync::{Mutex, PoisonError},
};

use futures::{FutureExt, future::BoxFuture};
use tower_service::Service;

use crate::{BoxError, Job, Outcome};

/// Makes a handler of a tower service, for a [`Worker`](crate::Worker) or a [`Router`](crate::Router), so that tower's layers
/// serve messages too: timeouts, limits of concurrency and rate, shedding of load.
///
/// Each delivery gets a clone of the service, and is in hand while that becomes ready. Its answer and its error mean what a
/// handler's do: an error of a layer, such as a timeout, requeues the message. A service that cannot be cloned, such as one with a
/// rate limit, goes below tower's `buffer`.
///
/// Needs the feature `tower`.
///
/// ```
/// use std::time::Duration;
///
/// use pgqueue_core::{Ack, BoxError, Job, PublisherExt, Subscription, Topic, Worker, service_handler, subscribe};
/// use pgqueue_memory::MemoryQueue;
/// use tower::{ServiceBuilder, service_fn};
///
/// async fn mail(job: Job<String>) -> Result<Ack, BoxError> {
///     println!("a mail to {}", job.value);
///     Ok(Ack::Ok)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> pgqueue_core::Result<()> {
/// # let queue = MemoryQueue::new();
/// # queue.create_topic(Topic::new("orders")).await?;
/// # let stream = subscribe(queue.subscription(Subscription::new("mails", "orders"))).await?;
/// # queue.publish_json("orders", "ada@example.org").await?;
/// # let stop = queue.idle("mails");
/// let service = ServiceBuilder::new()
///     .buffer(16)
///     .rate_limit(100, Duration::from_secs(1))
///     .timeout(Duration::from_secs(10))
///     .service(service_fn(mail));
/// Worker::new(stream.until(stop), service_handler(service)).run().await
/// # }
/// ```
pub fn service_handler<T, S>(
    service: S,
) -> impl Fn(Job<T>) -> BoxFuture<'static, Result<S::Response, S::Error>> + Send + Sync + 'static
where
    T: Send + 'static,
    S: Service<Job<T>> + Clone + Send + 'static,
    S::Response: Into<Outcome>,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    let service = Mutex::new(service); // clones are made anywhere, though services need not be shared
    move |job| {
        let mut service = service.lock().unwrap_or_else(PoisonError::into_inner).clone();
        async move {
            poll_fn(|cx| service.poll_ready(cx)).await?;
            service.call(job).await
        }
        .boxed()
    }
}
