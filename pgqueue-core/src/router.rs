//! [`Router`]: typed handlers by the kind of a message.

use std::{
    any::type_name,
    collections::BTreeMap,
    fmt,
    future::{Future, ready},
    sync::Arc,
};

use futures::{FutureExt, future::BoxFuture};
use serde::de::DeserializeOwned;

use crate::{
    Ack, BoxError, ConsumeStream, Delivery, Error, ErrorKind, Job, JsonError, Kinds, Operation, Outcome, Result,
    Worker, job::Held,
};

/// Gives each delivery to the handler of its [kind](crate::Message::kind), decoded as the type that this handler takes.
///
/// A handler may return an [`Ack`] or an [`Outcome`], and any error. If several are given for a kind, the first has it.
/// A payload that its handler's type cannot be read from is a failure of [`ErrorKind::Decode`], requeued and reported, and
/// never passed over. A kind without a handler is met by [`OnUnknown`]; a router without handlers knows no kind at all.
///
/// Of a batch, handlers take a sequence such as a `Vec`. As it is answered as one, all its messages must be of one kind: a
/// mixed batch is a failure of [`ErrorKind::Unrouted`], whatever the policy.
///
/// # Versions
/// Publishers change what a kind holds, and messages of the old shape are still on their way. If each shape has a kind of its
/// own, [`on_old`](Self::on_old) brings the old ones up to date. If the version is in a header, or in the payload,
/// [`on_decoded`](Self::on_decoded) reads it, and a version that it does not know is a failure under any policy.
///
/// ```
/// use pgqueue_core::{
///     Ack, BoxError, Job, NewMessage, OnUnknown, Publisher, Router, Subscription, Topic, Worker, subscribe,
/// };
/// use pgqueue_memory::MemoryQueue;
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct PaidV1 {
///     euros: u32,
/// }
///
/// #[derive(Deserialize)]
/// struct Paid {
///     cents: u32,
/// }
///
/// async fn paid(job: Job<Paid>) -> Result<Ack, BoxError> {
///     println!("got {} cents", job.value.cents);
///     Ok(Ack::Ok)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> pgqueue_core::Result<()> {
/// # let queue = MemoryQueue::new();
/// # queue.create_topic(Topic::new("orders")).await?;
/// # let stream = subscribe(queue.subscription(Subscription::new("accounts", "orders"))).await?;
/// # let (old, new) = (NewMessage::new(r#"{"euros": 7}"#), NewMessage::new(r#"{"cents": 700}"#));
/// # let messages = vec![old.with_kind("order.paid"), new.with_kind("order.paid.v2"), NewMessage::new("")];
/// # queue.publish("orders", messages).await?;
/// # let stop = queue.idle("accounts");
/// let router = Router::new()
///     .on("order.paid.v2", paid)
///     .on_old("order.paid", |old: PaidV1| Ok::<_, BoxError>(Paid { cents: old.euros * 100 }), paid)
///     .on(["order.lost", "order.stolen"], async |job: Job<String>| {
///         println!("write to {}", job.value);
///         Ok::<_, BoxError>(Ack::Ok)
///     })
///     .on_unknown(OnUnknown::Skip);
/// Worker::routed(stream.until(stop), router).with_concurrency(4).run().await?;
/// # assert_eq!(queue.acked("accounts")?.len(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
#[must_use = "a router does nothing unless a worker runs it"]
pub struct Router {
    routes: BTreeMap<String, Route>,
    on_unknown: OnUnknown,
}

/// What becomes of a message for whose kind a [`Router`] has no handler, or that has no kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive] // other policies may come
pub enum OnUnknown {
    /// It is a failure of [`ErrorKind::Unrouted`]: reported, and requeued by the subscription's
    /// [`Backoff`](crate::Backoff). The default, since nothing is lost by it: a consumer of a newer version may know the
    /// kind, and a message that nobody knows ends as a dead letter, seen by whoever looks at the reports. In ordered
    /// subscriptions, what comes after it waits until then.
    #[default]
    Fail,
    /// It is answered with OK. For consumers that want only some of a topic's kinds, and are sure that no other concerns
    /// them.
    Skip,
    /// It is rejected, with its kind in the reason: a dead letter at once.
    DeadLetter,
}

/// A decoded delivery on its way to its handler: what the [`Worker`] of a [`Router`] handles.
pub struct Routed(Box<dyn FnOnce(Arc<Held>) -> Handling + Send>);

/// A run of a handler, whatever its type.
type Handling = BoxFuture<'static, Result<Outcome, BoxError>>;

/// Decodes a delivery for its handler.
type Route = Arc<dyn Fn(&Delivery) -> Result<Routed> + Send + Sync>;

impl Router {
    /// Makes a router without handlers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives messages of these kinds to `handler`, decoded from JSON; batches as a sequence such as a `Vec`.
    pub fn on<T, H, Fut, R, E>(self, kinds: impl Into<Kinds>, handler: H) -> Self
    where
        T: DeserializeOwned + Send + 'static,
        H: Fn(Job<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: Into<Outcome>,
        E: Into<BoxError>,
    {
        self.route(kinds.into(), Delivery::decode, handler)
    }

    /// Gives messages of these kinds to `handler`, decoded from JSON as an `Old` and brought up to date by `upgrade`.
    ///
    /// An error of `upgrade` is the source of an [`ErrorKind::Decode`], and requeues the message as any failure does.
    pub fn on_old<Old, T, UpgradeError, H, Fut, R, E>(
        self,
        kinds: impl Into<Kinds>,
        upgrade: impl Fn(Old) -> Result<T, UpgradeError> + Send + Sync + 'static,
        handler: H,
    ) -> Self
    where
        Old: DeserializeOwned,
        T: Send + 'static,
        UpgradeError: Into<BoxError>,
        H: Fn(Job<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: Into<Outcome>,
        E: Into<BoxError>,
    {
        let decoder = move |delivery: &Delivery| {
            upgrade(delivery.decode()?).map_err(|error| undecodable::<T>(delivery, error.into()))
        };
        self.route(kinds.into(), decoder, handler)
    }

    /// Gives messages of these kinds to `handler`, decoded by a decoder of your own: for payloads that are not JSON, or
    /// whose version is in a header.
    ///
    /// Its error is the source of an [`ErrorKind::Decode`], unless it is one already, and requeues the message as any
    /// failure does.
    ///
    /// ```
    /// use pgqueue_core::{Ack, BoxError, Delivery, Job, Router};
    ///
    /// fn cents(delivery: &Delivery) -> Result<u32, BoxError> {
    ///     match delivery.message().headers().get("version").map(String::as_str) {
    ///         None | Some("1") => Ok(delivery.decode::<u32>()? * 100),
    ///         Some("2") => Ok(delivery.decode()?),
    ///         Some(_) => Err("the version is newer than this consumer".into()),
    ///     }
    /// }
    ///
    /// let router = Router::new().on_decoded("order.paid", cents, async |_: Job<u32>| Ok::<_, BoxError>(Ack::Ok));
    /// assert_eq!(router.kinds().collect::<Vec<_>>(), ["order.paid"]);
    /// ```
    pub fn on_decoded<T, DecodeError, H, Fut, R, E>(
        self,
        kinds: impl Into<Kinds>,
        decoder: impl Fn(&Delivery) -> Result<T, DecodeError> + Send + Sync + 'static,
        handler: H,
    ) -> Self
    where
        T: Send + 'static,
        DecodeError: Into<BoxError>,
        H: Fn(Job<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: Into<Outcome>,
        E: Into<BoxError>,
    {
        let decoder =
            move |delivery: &Delivery| decoder(delivery).map_err(|error| undecodable::<T>(delivery, error.into()));
        self.route(kinds.into(), decoder, handler)
    }

    /// Sets what becomes of messages whose kind has no handler. Default: [`OnUnknown::Fail`].
    pub fn on_unknown(mut self, policy: OnUnknown) -> Self {
        self.on_unknown = policy;
        self
    }

    /// Returns the kinds that have a handler, each once, in alphabetical order.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.routes.keys().map(String::as_str)
    }

    fn route<T, H, Fut, R, E>(
        mut self,
        kinds: Kinds,
        decoder: impl Fn(&Delivery) -> Result<T> + Send + Sync + 'static,
        handler: H,
    ) -> Self
    where
        T: Send + 'static,
        H: Fn(Job<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: Into<Outcome>,
        E: Into<BoxError>,
    {
        let handler = Arc::new(handler);
        let route: Route = Arc::new(move |delivery| {
            let value = decoder(delivery)?;
            let handler = Arc::clone(&handler);
            Ok(Routed(Box::new(move |held| {
                let handling = handler(Job::new(value, held));
                async { handling.await.map(Into::into).map_err(Into::into) }.boxed()
            })))
        });
        for kind in kinds {
            self.routes.entry(kind).or_insert_with(|| Arc::clone(&route));
        }
        self
    }

    /// Finds the handler of a delivery, and decodes the delivery for it.
    fn find(&self, delivery: &Delivery) -> Result<Routed> {
        let (id, kind) = (delivery.message().id(), delivery.message().kind());
        if let Some(other) = delivery.messages().iter().find(|message| message.kind() != kind) {
            let message = format!(
                "messages {id} and {} are of two kinds, but come in one batch; subscribe without batches",
                other.id()
            );
            return Err(Error::new(ErrorKind::Unrouted, message));
        }
        if let Some(route) = kind.and_then(|kind| self.routes.get(kind)) {
            return route(delivery);
        }
        let unknown = match kind {
            Some(kind) => format!("message {id} is of kind {kind:?}, which has no handler"),
            None => format!("message {id} has no kind, and so no handler"),
        };
        match self.on_unknown {
            OnUnknown::Fail => Err(Error::new(ErrorKind::Unrouted, unknown)),
            OnUnknown::Skip => Ok(Routed::answered(Ack::Ok)),
            OnUnknown::DeadLetter => Ok(Routed::answered(Ack::reject(unknown))),
        }
    }
}

impl Routed {
    /// One that no handler has to see.
    fn answered(ack: Ack) -> Self {
        Self(Box::new(|_| ready(Ok(ack.into())).boxed()))
    }
}

impl<S> Worker<Routed, fn(Job<Routed>) -> BoxFuture<'static, Result<Outcome, BoxError>>, S>
where
    S: Future<Output = ()> + Send,
{
    /// Makes a worker that gives each delivery to the handler that `router` has for its kind.
    pub fn routed(stream: ConsumeStream<S>, router: Router) -> Self {
        Self::with_decoder(
            stream,
            move |delivery| router.find(delivery),
            |job| {
                let (Routed(handle), held) = job.into_parts();
                handle(held)
            },
        )
    }
}

/// The error for a payload that could not be made a `T`, for a reason that is not ours.
fn undecodable<T>(delivery: &Delivery, reason: BoxError) -> Error {
    let reason = match reason.downcast::<Error>() {
        Ok(error) if error.kind() == ErrorKind::Decode => return *error,
        Ok(error) => error,
        // Its own words would quote the payload.
        Err(other) => {
            other.downcast::<serde_json::Error>().map_or_else(|other| other, |json| JsonError::new(*json).into())
        }
    };
    let message = format!("message {} cannot be made a {}", delivery.message().id(), type_name::<T>());
    Error::new(ErrorKind::Decode, message).with_source(reason).during(Operation::Handle)
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { routes, on_unknown } = self;
        f.debug_struct("Router").field("kinds", &routes.keys()).field("on_unknown", on_unknown).finish()
    }
}

impl fmt::Debug for Routed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routed").finish_non_exhaustive()
    }
}
