//! [`Outcome`]: whether a worker goes on after a message.

use crate::Ack;

/// What a handler of a [`Worker`](crate::Worker) returns: how its delivery is answered, and whether others are to follow.
///
/// An [`Ack`] alone means [`Continue`](Self::Continue), so only handlers that may stop have to name it.
///
/// ```
/// use pgqueue_core::{Ack, BoxError, Job, Outcome, PublisherExt, Subscription, Topic, Worker, subscribe};
/// use pgqueue_memory::MemoryQueue;
///
/// async fn until_the_end(job: Job<String>) -> Result<Outcome, BoxError> {
///     match &*job.value {
///         "the end" => Ok(Outcome::Stop(Ack::Ok)),
///         _ => Ok(Ack::Ok.into()),
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> pgqueue_core::Result<()> {
/// # let queue = MemoryQueue::new();
/// # queue.create_topic(Topic::new("lines")).await?;
/// # let stream = subscribe(queue.subscription(Subscription::new("reader", "lines"))).await?;
/// for line in ["once", "the end", "and then"] {
///     queue.publish_json("lines", line).await?;
/// }
/// Worker::new(stream, until_the_end).with_concurrency(1).run().await?;
/// assert_eq!(queue.pending("reader")?.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive] // a handler may come to ask for more, such as a pause
pub enum Outcome {
    /// The delivery is answered so, and consuming goes on.
    Continue(Ack),
    /// The delivery is answered so, and nothing is handed out after it: the stream is closed as soon as the handler has
    /// returned, what was fetched but not handed out goes back, and [`Worker::run`](crate::Worker::run) ends once the
    /// handlers in flight have. With a concurrency of 1 there are none. It returns `Ok`, unless
    /// [`OnRequeue::Stop`](crate::OnRequeue::Stop) is in force and one of them, or a settlement, fails.
    Stop(Ack),
}

impl Outcome {
    /// Returns how the delivery is answered.
    pub(crate) fn ack(&self) -> &Ack {
        match self {
            Self::Continue(ack) | Self::Stop(ack) => ack,
        }
    }
}

impl From<Ack> for Outcome {
    fn from(ack: Ack) -> Self {
        Self::Continue(ack)
    }
}
