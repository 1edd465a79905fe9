//! [`ConsumeStream`]: deliveries as a stream that can be stopped.

use std::{
    fmt,
    future::{Future, Pending, pending},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::{Stream, stream::FusedStream};
use pin_project::pin_project;
use tokio::task::unconstrained;

use crate::{Delivery, Error, ErrorKind, Result, RetryConfig, feed::Feed, requeue_watch::RequeueSignal};

/// The deliveries of one subscription to one consumer, as [`subscribe`](crate::subscribe) returns them.
///
/// - It is pull-based: nothing is fetched before it is polled.
/// - Transient errors of the driver are retried inside, by [`RetryConfig`]. Every `Err` it yields is its last item; after
///   that, and after the end, it yields only `None`.
/// - Dropping it cancels: what was fetched but not yielded is released, and listening ends. Deliveries already yielded
///   are the holder's to settle.
///
/// # Cancel safety
/// `next()` is cancel safe: dropping its future loses no delivery.
#[pin_project]
#[must_use = "a stream fetches nothing unless it is polled"]
pub struct ConsumeStream<S = Pending<()>> {
    /// `None` once the stream is over, so that listening ends at once.
    feed: Option<Feed>,
    #[pin]
    stop: S,
    /// There only with [`OnRequeue::Stop`].
    requeued: Option<Arc<RequeueSignal>>,
}

/// What a requeued delivery means for its stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive] // other policies may come
pub enum OnRequeue {
    /// Consuming goes on; the message comes again by the subscription's backoff.
    #[default]
    Continue,
    /// The stream ends with [`ErrorKind::Requeued`] (a [`Worker`](crate::Worker): with the handler's error, if there is
    /// one). A delivery that was dropped counts.
    Stop,
}

impl ConsumeStream {
    pub(crate) fn new(feed: Feed) -> Self {
        Self { feed: Some(feed), stop: pending(), requeued: None }
    }
}

impl<S: Future<Output = ()>> ConsumeStream<S> {
    /// Ends the stream once `stop` resolves: no further delivery is yielded, also if one is ready. Deliveries in flight
    /// may still be settled. Replaces an earlier signal.
    ///
    /// A `CancellationToken` of tokio-util stops it with `until(token.cancelled_owned())`. The stream is `Unpin` only if the
    /// signal is: to call `next` on it yourself, pin it first, as in `let mut stream = std::pin::pin!(stream);`. A
    /// [`Worker`](crate::Worker) does so.
    pub fn until<F: Future<Output = ()>>(self, stop: F) -> ConsumeStream<F> {
        ConsumeStream { feed: self.feed, stop, requeued: self.requeued }
    }

    /// Sets how transient errors are retried, and how long one call to the driver may take. Default:
    /// [`RetryConfig::default`].
    ///
    /// An impossible configuration is the stream's first and last item, of [`ErrorKind::Invalid`].
    pub fn with_retry(mut self, config: RetryConfig) -> Self {
        self.feed.iter_mut().for_each(|feed| feed.set_retry(config));
        self
    }

    /// Sets what a requeued delivery means for this stream. Default: [`OnRequeue::Continue`].
    pub fn on_requeue(mut self, policy: OnRequeue) -> Self {
        match policy {
            OnRequeue::Continue => self.requeued = None,
            OnRequeue::Stop => drop(self.requeued.get_or_insert_default()),
        }
        self
    }

    pub(crate) fn stops_on_requeue(&self) -> bool {
        self.requeued.is_some()
    }

    /// Ends the stream and its listening now.
    pub(crate) fn close(self: Pin<&mut Self>) {
        *self.project().feed = None;
    }
}

impl<S: Future<Output = ()>> Stream for ConsumeStream<S> {
    type Item = Result<Delivery>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        let Some(feed) = this.feed else { return Poll::Ready(None) };

        if this.requeued.as_ref().is_some_and(|signal| signal.poll(cx).is_ready()) {
            *this.feed = None;
            return Poll::Ready(Some(Err(Error::new(
                ErrorKind::Requeued,
                "a delivery was requeued; consume again to get it",
            ))));
        }
        // Unconstrained, since a stop that is there must be seen also by a task that has used up its budget.
        if pin!(unconstrained(this.stop)).poll(cx).is_ready() {
            *this.feed = None;
            return Poll::Ready(None);
        }
        let item = ready!(feed.poll_next(cx));
        let item = match item {
            Ok(delivery) => Ok(delivery.attach(feed.time_limit(), this.requeued.as_ref().map(RequeueSignal::watch))),
            Err(error) => {
                *this.feed = None;
                Err(error)
            }
        };
        Poll::Ready(Some(item))
    }
}

impl<S: Future<Output = ()>> FusedStream for ConsumeStream<S> {
    fn is_terminated(&self) -> bool {
        self.feed.is_none()
    }
}

impl<S> fmt::Debug for ConsumeStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumeStream").field("over", &self.feed.is_none()).finish_non_exhaustive()
    }
}
