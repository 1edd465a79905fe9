//! [`Worker`]: the typed loop over a consume stream.

use std::{
    fmt,
    future::{Future, Pending, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    future::{self, Either},
    stream::FuturesUnordered,
};
use serde::de::DeserializeOwned;
use tracing::Instrument;

use crate::{
    Ack, BoxError, ConsumeStream, Delivery, Error, ErrorKind, Failure, Job, Operation, Outcome, Requeue, RequeueCause,
    Result,
    call::{catch_panic, catch_panic_now},
    error::chain,
    job::Held,
    meter::Stopwatch,
    telemetry,
};

/// Runs a handler on every delivery of a [`ConsumeStream`] and settles it by what the handler returns.
///
/// | the handler | the message |
/// |---|---|
/// | returns `Ok(ack)` | is settled so |
/// | returns `Ok(Outcome::Stop(ack))` | is settled so, and is the [last](Outcome::Stop) |
/// | returns `Err`, panics, or meets the [timeout](Self::with_timeout) | is requeued, with the error as reason |
/// | is never called, because the payload cannot be decoded | is requeued, with the error as reason |
/// | is cancelled, because the lease is lost | is somebody else's |
///
/// Whatever goes wrong is reported to [`on_error`](Self::on_error) and to `tracing`, and consuming goes on, unless the
/// stream's policy is [`OnRequeue::Stop`](crate::OnRequeue::Stop). Handlers run concurrently on the task that runs the
/// worker, not in parallel: run several workers, as a [`WorkerPool`](crate::WorkerPool) does, or spawn inside the handler, to
/// use more cores.
///
/// A topic of several kinds of messages has a handler for each in a [`Router`](crate::Router).
///
/// A [tower service](crate::service_handler) is a handler, too, with the feature `tower`. Handlers run in a
/// [span](crate::telemetry#spans) of their delivery.
///
/// A handler is called again and again, so one that owns state clones it for each run:
/// `move |job: Job<Order>| { let db = db.clone(); async move { … } }`.
///
/// ```
/// use pgqueue_core::{Ack, BoxError, Job, PublisherExt, Subscription, Topic, Worker, subscribe};
/// use pgqueue_memory::MemoryQueue;
///
/// async fn greet(job: Job<String>) -> Result<Ack, BoxError> {
///     println!("hello, {}", job.value);
///     Ok(Ack::Ok)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> pgqueue_core::Result<()> {
/// # let queue = MemoryQueue::new();
/// # queue.create_topic(Topic::new("names")).await?;
/// # let driver = queue.subscription(Subscription::new("greeter", "names"));
/// # let stop = async {};
/// let stream = subscribe(driver).await?.until(stop);
/// Worker::new(stream, greet).with_concurrency(4).run().await
/// # }
/// ```
#[must_use = "a worker does nothing unless it is run"]
pub struct Worker<T, H, S = Pending<()>> {
    stream: ConsumeStream<S>,
    concurrency: usize,
    runner: Runner<T, H>,
}

type Decode<T> = Box<dyn Fn(&Delivery) -> Result<T> + Send + Sync>;

/// How one delivery is handled.
struct Runner<T, H> {
    decode: Decode<T>,
    handler: H,
    timeout: Option<Duration>,
    cancel_on_lease_lost: bool,
    on_error: Box<dyn Fn(Failure<'_>) + Send + Sync>,
    /// Whether a handler has returned [`Outcome::Stop`].
    stopped: AtomicBool,
}

impl<T, H, Fut, R, E, S> Worker<T, H, S>
where
    T: Send + 'static,
    H: Fn(Job<T>) -> Fut + Send + Sync,
    Fut: Future<Output = Result<R, E>> + Send,
    R: Into<Outcome>,
    E: Into<BoxError>,
    S: Future<Output = ()> + Send,
{
    /// Makes a worker whose handler gets payloads decoded from JSON; of a batch, a sequence such as a `Vec`.
    pub fn new(stream: ConsumeStream<S>, handler: H) -> Self
    where
        T: DeserializeOwned,
    {
        Self::with_decoder(stream, Delivery::decode, handler)
    }

    /// Makes a worker with a decoder of your own, for payloads that are not JSON. Its error, best of
    /// [`ErrorKind::Decode`], requeues the message as any failure does.
    pub fn with_decoder(
        stream: ConsumeStream<S>,
        decoder: impl Fn(&Delivery) -> Result<T> + Send + Sync + 'static,
        handler: H,
    ) -> Self {
        let runner = Runner {
            decode: Box::new(decoder),
            handler,
            timeout: None,
            cancel_on_lease_lost: true,
            on_error: Box::new(|_| {}),
            stopped: AtomicBool::new(false),
        };
        Self { stream, concurrency: 16, runner }
    }

    /// Sets how many handlers may run at a time. Default: 16.
    pub fn with_concurrency(mut self, handlers: usize) -> Self {
        self.concurrency = handlers;
        self
    }

    /// Sets how long one run of the handler may take before it is dropped and its message requeued. Default: no limit.
    pub fn with_timeout(mut self, limit: Duration) -> Self {
        self.runner.timeout = Some(limit);
        self
    }

    /// Sets whether a handler is dropped when its delivery's lease is lost. Default: true.
    pub fn with_cancel_on_lease_lost(mut self, cancel: bool) -> Self {
        self.runner.cancel_on_lease_lost = cancel;
        self
    }

    /// Reports every failed decode, handler run and settlement to `report`, beside `tracing`. Default: to nobody.
    pub fn on_error(mut self, report: impl Fn(Failure<'_>) + Send + Sync + 'static) -> Self {
        self.runner.on_error = Box::new(report);
        self
    }

    /// Runs until the stream ends or a handler returns [`Outcome::Stop`]; then waits for the handlers in flight.
    ///
    /// # Errors
    /// The error that ended the stream. With [`OnRequeue::Stop`](crate::OnRequeue::Stop) the first failure of a decode, a
    /// handler or a settlement, in this order, which outranks the stream's own
    /// [`Requeued`](ErrorKind::Requeued). [`ErrorKind::Invalid`] for a concurrency of 0 or a timeout of zero.
    ///
    /// # Cancel safety
    /// Dropping the future drops the handlers in flight; their messages are requeued at once.
    pub async fn run(self) -> Result<()> {
        let Self { stream, concurrency, runner } = self;
        if concurrency == 0 {
            return Err(Error::new(ErrorKind::Invalid, "the worker has a concurrency of 0; it must be 1 or more"));
        }
        if runner.timeout.is_some_and(|limit| limit.is_zero()) {
            return Err(Error::new(ErrorKind::Invalid, "the worker has a timeout of zero; no handler could meet it"));
        }
        let ends_on_failure = stream.stops_on_requeue();
        let mut stream = pin!(stream);
        let mut in_flight = FuturesUnordered::new();
        let mut end: Option<Result<()>> = None;
        loop {
            tokio::select! {
                biased;
                Some(handled) = in_flight.next() => {
                    if let (Err(error), true) = (handled, ends_on_failure) {
                        stream.as_mut().close();
                        end = Some(Err(first(end, error)));
                    }
                }
                // Nobody has to be woken for it: only what was just polled can have set it.
                () = poll_fn(|_| runner.poll_stopped()), if end.is_none() => {
                    stream.as_mut().close();
                    end = Some(Ok(()));
                }
                item = stream.next(), if end.is_none() && in_flight.len() < concurrency => match item {
                    Some(Ok(delivery)) => {
                        let span = telemetry::process_span(&delivery);
                        in_flight.push(runner.run(delivery).instrument(span));
                    }
                    Some(Err(error)) => end = Some(Err(error)),
                    None => end = Some(Ok(())),
                },
                else => return end.unwrap_or(Ok(())),
            }
        }
    }
}

/// The error to end with: the first, but any failure outranks `Requeued`, which only says that there was one.
fn first(end: Option<Result<()>>, error: Error) -> Error {
    match end {
        Some(Err(earlier)) if earlier.kind() != ErrorKind::Requeued => earlier,
        _ => error,
    }
}

impl<T, H, Fut, R, E> Runner<T, H>
where
    T: Send,
    H: Fn(Job<T>) -> Fut + Send + Sync,
    Fut: Future<Output = Result<R, E>> + Send,
    R: Into<Outcome>,
    E: Into<BoxError>,
{
    /// Decodes, handles and settles one delivery; returns the error that outranks the others.
    async fn run(&self, delivery: Delivery) -> Result<()> {
        let decoded = catch_panic_now(Operation::Handle, || (self.decode)(&delivery));
        let held = Arc::new(Held::new(delivery));
        let watch = Stopwatch::start();
        let handled = match decoded {
            // Caught as a whole, since a handler that is cancelled may panic when it is dropped.
            Ok(value) => catch_panic(Operation::Handle, self.handle(value, &held)).await,
            Err(error) => Err(error),
        };
        telemetry::handled(&held, watch);
        if let Err(error) = &handled {
            self.report(error, &held);
        }
        if let Ok(Outcome::Stop(_)) = handled {
            self.stopped.store(true, Ordering::Relaxed); // at once: settling may take its time
        }
        let settled = match held.take() {
            Some(delivery) => settle(delivery, &handled).await,
            None => Ok(()), // the handler took it
        };
        if let Err(error) = &settled {
            self.report(error, &held);
        }
        handled.and(settled)
    }

    /// Ready once a handler has returned [`Outcome::Stop`].
    fn poll_stopped(&self) -> Poll<()> {
        if self.stopped.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    }

    async fn handle(&self, value: T, held: &Arc<Held>) -> Result<Outcome> {
        let job = Job::new(value, Arc::clone(held));
        // Asked for before the handler may take the delivery.
        let lease_lost = match self.cancel_on_lease_lost {
            true => held.lease_lost(),
            false => future::pending().boxed(),
        };
        let lease_lost = async {
            lease_lost.await;
            if held.is_taken() {
                future::pending::<()>().await; // what the handler settles itself is its own affair
            }
        };
        let handler = async {
            (self.handler)(job).await.map(Into::into).map_err(|error| {
                let message = format!("the handler failed on message {}", held.messages()[0].id());
                Error::new(ErrorKind::Handler, message).with_source(error)
            })
        };
        let limited = async {
            match self.timeout {
                Some(limit) => tokio::time::timeout(limit, handler).await.unwrap_or_else(|_| {
                    let message =
                        format!("the handler of message {} took more than {limit:?}", held.messages()[0].id());
                    Err(Error::new(ErrorKind::Timeout, message))
                }),
                None => handler.await,
            }
        };
        match future::select(pin!(limited), pin!(lease_lost)).await {
            Either::Left((handled, _)) => handled,
            Either::Right(((), _)) => {
                let message =
                    format!("the lease of message {} was lost and its handler cancelled", held.messages()[0].id());
                Err(Error::new(ErrorKind::LeaseLost, message))
            }
        }
    }

    fn report(&self, error: &Error, held: &Held) {
        let failure = Failure { error, messages: held.messages() };
        failure.trace();
        telemetry::delivery_failed(held, error);
        let reported = catch_panic_now(Operation::Handle, || {
            (self.on_error)(failure);
            Ok(())
        });
        if let Err(error) = reported {
            tracing::error!(%error, "the error report panicked");
        }
    }
}

/// Settles by the handler's answer, or requeues with its error as the reason.
async fn settle(delivery: Delivery, handled: &Result<Outcome>) -> Result<()> {
    match handled {
        Ok(outcome) => delivery.settle(outcome.ack().clone()).await,
        Err(error) if error.kind() == ErrorKind::LeaseLost => Ok(()), // nothing is left to settle
        Err(error) => {
            let cause = match error.kind() {
                ErrorKind::Timeout => RequeueCause::Timeout,
                _ => RequeueCause::Answer,
            };
            delivery.settle(Ack::Requeue(Requeue::default().with_reason(chain(error)).with_cause(cause))).await
        }
    }
}

impl<T, H, S> fmt::Debug for Worker<T, H, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("stream", &self.stream)
            .field("concurrency", &self.concurrency)
            .field("timeout", &self.runner.timeout)
            .field("cancel_on_lease_lost", &self.runner.cancel_on_lease_lost)
            .finish_non_exhaustive()
    }
}
