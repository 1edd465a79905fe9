//! What cases wait for and what they find: every wait is bounded, and says what came instead.

use std::{future::Future, panic::Location, pin::pin, time::Duration};

use futures::{
    Stream, StreamExt, TryFutureExt,
    future::{self, Either},
};
use pgqueue_core::{DeadLetter, Delivery, Error, ErrorKind, Result, Start, Subscription, SubscriptionDriver, Wakeups};
use tokio::time::Instant;

use crate::{
    failure::{CaseFailure, CaseResult, chain, check, check_eq},
    kit::{Kit, texts_of},
};

/// How often something that gives no sign is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// More wake-ups than these within the quiet time are noise.
const NOISE: usize = 100;

/// A stream of deliveries, whatever stops it.
pub(crate) trait Deliveries: Stream<Item = Result<Delivery>> + Unpin + Send {}

impl<S: Stream<Item = Result<Delivery>> + Unpin + Send> Deliveries for S {}

/// A step of a case, which fails with the place of its call: that is why steps are no async functions.
pub(crate) trait Step<T = ()>: Future<Output = CaseResult<T>> + Send {}

impl<T, F: Future<Output = CaseResult<T>> + Send> Step<T> for F {}

/// Names the caller's place in a failure.
#[track_caller]
fn located() -> impl Fn(CaseFailure) -> CaseFailure + Send {
    let at = Location::caller();
    move |failure| failure.at(at)
}

impl Kit {
    /// Awaits what must happen; `None` if it does not within the patience.
    pub(crate) async fn patiently<T>(&self, event: impl Future<Output = T> + Send) -> Option<T> {
        self.within(self.harness().patience(), event).await
    }

    /// Awaits an event for at most `time`.
    pub(crate) async fn within<T>(&self, time: Duration, event: impl Future<Output = T> + Send) -> Option<T> {
        match future::select(pin!(event), self.harness().pass(time)).await {
            Either::Left((outcome, _)) => Some(outcome),
            Either::Right(_) => None,
        }
    }

    /// Awaits the next delivery.
    #[track_caller]
    pub(crate) fn next(&self, stream: &mut impl Deliveries) -> impl Step<Delivery> {
        self.delivery(stream).map_err(located())
    }

    /// Awaits a delivery of this text.
    #[track_caller]
    pub(crate) fn receive(&self, stream: &mut impl Deliveries, text: &str) -> impl Step<Delivery> {
        self.delivery_of(stream, vec![text.to_owned()]).map_err(located())
    }

    /// Awaits one delivery of all these texts.
    #[track_caller]
    pub(crate) fn receive_batch<const N: usize>(
        &self,
        stream: &mut impl Deliveries,
        texts: [&str; N],
    ) -> impl Step<Delivery> {
        self.delivery_of(stream, texts.map(str::to_owned).into()).map_err(located())
    }

    /// Awaits deliveries of these texts, one after the other in this order, and acknowledges each.
    #[track_caller]
    pub(crate) fn handle(
        &self,
        stream: &mut impl Deliveries,
        texts: impl IntoIterator<Item = impl Into<String>>,
    ) -> impl Step {
        let texts: Vec<String> = texts.into_iter().map(Into::into).collect();
        let handle = async move {
            for text in texts {
                self.delivery_of(stream, vec![text]).await?.ok().await?;
            }
            Ok(())
        };
        handle.map_err(located())
    }

    /// Awaits deliveries of so many messages in all, in any order, and acknowledges each. Returns the texts, sorted.
    #[track_caller]
    pub(crate) fn drain(&self, stream: &mut impl Deliveries, messages: usize) -> impl Step<Vec<String>> {
        let drain = async move {
            let mut texts = Vec::new();
            while texts.len() < messages {
                let delivery = self.delivery(stream).await?;
                texts.extend(texts_of(&delivery));
                delivery.ok().await?;
            }
            texts.sort();
            Ok(texts)
        };
        drain.map_err(located())
    }

    /// Watches that nothing arrives.
    #[track_caller]
    pub(crate) fn nothing(&self, stream: &mut impl Deliveries) -> impl Step {
        self.silence(stream, self.harness().quiet()).map_err(located())
    }

    /// Watches that nothing arrives for so long.
    #[track_caller]
    pub(crate) fn nothing_for(&self, stream: &mut impl Deliveries, time: Duration) -> impl Step {
        self.silence(stream, time).map_err(located())
    }

    /// Lets a consumer fall asleep, acts, and awaits the delivery that this must wake it for.
    #[track_caller]
    pub(crate) fn wakes(&self, stream: &mut impl Deliveries, action: impl Step) -> impl Step<Delivery> {
        let wakes = async move {
            self.silence(stream, self.harness().quiet()).await?;
            // The stream is polled first, so that it sleeps when the action comes.
            let (delivery, acted) = future::join(self.delivery(stream), action).await;
            acted.and(delivery)
        };
        wakes.map_err(located())
    }

    /// Awaits the end of a stream.
    #[track_caller]
    pub(crate) fn over(&self, stream: &mut impl Deliveries) -> impl Step {
        let over = async move {
            match self.patiently(stream.next()).await {
                Some(None) => Ok(()),
                seen => Err(instead_of("the end of the stream", seen)),
            }
        };
        over.map_err(located())
    }

    /// Awaits the error that ends a stream.
    #[track_caller]
    pub(crate) fn failure(&self, stream: &mut impl Deliveries) -> impl Step<Error> {
        let failure = async move {
            let error = match self.patiently(stream.next()).await {
                Some(Some(Err(error))) => error,
                seen => return Err(instead_of("an error", seen)),
            };
            match stream.next().await {
                None => Ok(error),
                seen => Err(instead_of("the end of the stream after its error", Some(seen))),
            }
        };
        failure.map_err(located())
    }

    /// Awaits a delivery, or the first dead letter, for which it returns `None`.
    #[track_caller]
    pub(crate) fn next_unless_dead(
        &self,
        stream: &mut impl Deliveries,
        subscription: &Subscription,
    ) -> impl Step<Option<Delivery>> {
        let next = async move {
            let dead = self.dead_letters(subscription, 1);
            match future::select(pin!(self.delivery(stream)), pin!(dead)).await {
                Either::Left((delivery, _)) => delivery.map(Some),
                Either::Right((letters, _)) => letters.map(|_| None),
            }
        };
        next.map_err(located())
    }

    /// Awaits that a subscription has so many dead letters, and returns them.
    #[track_caller]
    pub(crate) fn dead_letters(&self, subscription: &Subscription, count: usize) -> impl Step<Vec<DeadLetter>> {
        let dead_letters = async move {
            let mut letters = Vec::new();
            let counted = self.patiently(async {
                loop {
                    letters = self.harness().dead_letters(subscription.name()).await?;
                    if letters.len() == count {
                        return CaseResult::Ok(());
                    }
                    self.harness().pass(POLL).await;
                }
            });
            counted.await.transpose()?;
            check_eq!(letters.len(), count, "the number of dead letters");
            Ok(letters)
        };
        dead_letters.map_err(located())
    }

    /// Moves a subscription to another start, or is refused for another reason than consumers that are about to leave.
    #[track_caller]
    pub(crate) fn seek(&self, subscription: &Subscription, start: Start) -> impl Step<Result<()>> {
        let seek = async move {
            let answer = self.patiently(async {
                loop {
                    match self.harness().seek(subscription.name(), &start).await {
                        Err(error) if error.kind() == ErrorKind::Conflict => self.harness().pass(POLL).await,
                        answer => return answer,
                    }
                }
            });
            answer
                .await
                .ok_or_else(|| CaseFailure::new("a subscription that cannot be moved though its consumers left"))
        };
        seek.map_err(located())
    }

    /// Fetches as a consume stream does: looks, waits for a wake-up, and looks again.
    #[track_caller]
    pub(crate) fn fetch(&self, driver: &dyn SubscriptionDriver, wakeups: &mut Wakeups) -> impl Step<Delivery> {
        let fetch = async move {
            loop {
                match driver.fetch_pending().await? {
                    Some(delivery) => return Ok(delivery),
                    None => self.wakeup(wakeups).await?,
                }
            }
        };
        fetch.map_err(located())
    }

    /// Awaits a wake-up.
    #[track_caller]
    pub(crate) fn wakeup(&self, wakeups: &mut Wakeups) -> impl Step {
        let wakeup = async move {
            match self.patiently(wakeups.next()).await {
                Some(Some(Ok(_))) => Ok(()),
                Some(Some(Err(error))) => Err(error.into()),
                Some(None) => Err(CaseFailure::new("the end of the wake-ups instead of one")),
                None => Err(CaseFailure::new("no wake-up")),
            }
        };
        wakeup.map_err(located())
    }

    /// Watches that wake-ups do not come again and again. A few may: some stores look regularly.
    #[track_caller]
    pub(crate) fn no_noise(&self, wakeups: &mut Wakeups) -> impl Step {
        let no_noise = async move {
            let quiet = self.harness().quiet();
            let noise = self.within(quiet, wakeups.by_ref().take(NOISE).count()).await;
            check!(noise.is_none(), "{} wake-ups, or their end, within {quiet:?}", noise.unwrap_or_default());
            Ok(())
        };
        no_noise.map_err(located())
    }

    async fn delivery(&self, stream: &mut impl Deliveries) -> CaseResult<Delivery> {
        match self.patiently(stream.next()).await {
            Some(Some(Ok(delivery))) => Ok(delivery),
            seen => Err(instead_of("a delivery", seen)),
        }
    }

    async fn delivery_of(&self, stream: &mut impl Deliveries, texts: Vec<String>) -> CaseResult<Delivery> {
        match self.patiently(stream.next()).await {
            Some(Some(Ok(delivery))) if texts_of(&delivery) == texts => Ok(delivery),
            seen => Err(instead_of(&format!("a delivery of {texts:?}"), seen)),
        }
    }

    async fn silence(&self, stream: &mut impl Deliveries, time: Duration) -> CaseResult {
        match self.within(time, stream.next()).await {
            None => Ok(()),
            seen => Err(instead_of("silence", seen)),
        }
    }
}

/// Says what a stream did instead of what it promised.
fn instead_of(promised: &str, seen: Option<Option<Result<Delivery>>>) -> CaseFailure {
    let seen = match seen {
        None => "nothing, for as long as the harness has patience,".to_owned(),
        Some(None) => "the end of the stream".to_owned(),
        Some(Some(Err(error))) => format!("an error ({})", chain(&error)),
        Some(Some(Ok(delivery))) => {
            format!("a delivery of {:?}, attempt {},", texts_of(&delivery), delivery.message().attempt())
        }
    };
    CaseFailure::new(format!("{seen} instead of {promised}"))
}

/// Checks that something was refused, with an error of this kind.
#[track_caller]
pub(crate) fn refused<T>(result: Result<T>, kind: ErrorKind, what: &str) -> CaseResult {
    match result {
        Err(error) => failed(&error, kind, what),
        Ok(_) => Err(CaseFailure::new(format!("{what} succeeds instead of failing with {kind:?}"))),
    }
}

/// Checks the kind of an error.
#[track_caller]
pub(crate) fn failed(error: &Error, kind: ErrorKind, what: &str) -> CaseResult {
    check!(error.kind() == kind, "{what} fails with {:?} instead of {kind:?}: {}", error.kind(), chain(error));
    Ok(())
}

/// Checks that something did not come before its time.
#[track_caller]
pub(crate) fn not_before(since: Instant, delay: Duration) -> CaseResult {
    let waited = since.elapsed();
    check!(waited >= delay, "a delivery after {waited:?} instead of {delay:?} or more");
    Ok(())
}
