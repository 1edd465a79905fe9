//! [`subscribe`]: from a driver to a stream of deliveries.

use std::sync::Arc;

use crate::{
    ConsumeStream, Operation, Result, SubscriptionDriver, call::call_driver, feed::Feed, retry::DEFAULT_TIME_LIMIT,
};

/// Inserts the driver's subscription, starts to listen, and returns the stream of its deliveries.
///
/// Listening is in force before anything is fetched, so that nothing falls between the two. Several streams may consume
/// the same subscription, in one process or many; each message goes to one of them.
///
/// Runs on tokio, with time enabled.
///
/// ```
/// use futures::TryStreamExt;
/// use pgqueue_core::{PublisherExt, Subscription, Topic, subscribe};
/// use pgqueue_memory::MemoryQueue;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> pgqueue_core::Result<()> {
/// let queue = MemoryQueue::new();
/// queue.create_topic(Topic::new("greetings")).await?;
/// let mut stream = subscribe(queue.subscription(Subscription::new("printer", "greetings"))).await?;
///
/// queue.publish_json("greetings", "hello").await?;
///
/// while let Some(delivery) = stream.try_next().await? {
///     println!("{}", delivery.decode::<String>()?);
///     delivery.ok().await?;
///     # break;
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The driver's own, or [`Timeout`](crate::ErrorKind::Timeout) when inserting or listening takes more than 30 s each.
/// Nothing is retried here, and no stream is left behind.
///
/// # Cancel safety
/// Dropping the future means either outcome for the subscription, inserted or not, and ends listening.
pub async fn subscribe(driver: impl SubscriptionDriver) -> Result<ConsumeStream> {
    let driver: Arc<dyn SubscriptionDriver> = Arc::new(driver);
    call_driver(Operation::Insert, DEFAULT_TIME_LIMIT, async { driver.insert_subscription().await }).await?;
    let wakeups = call_driver(Operation::Listen, DEFAULT_TIME_LIMIT, async { driver.listen().await }).await?;
    Ok(ConsumeStream::new(Feed::new(driver, wakeups)))
}
