//! A table: every call of a driver failing, with and without its effect, and never returning. The error surfaces, what
//! hangs can be dropped and meets its time limit, and a consumer without faults then gets whatever is left.

use std::{error::Error as _, future::Future, io, sync::Arc, time::Duration};

use futures::{StreamExt, future::try_join};
use pgqueue_core::{Error, ErrorKind, Operation, RetryConfig, Subscription, SubscriptionDriver, subscribe};
use tokio::sync::Notify;

use crate::{
    Fault, Faulty,
    expect::failed,
    failure::{CaseFailure, CaseResult, check, check_eq},
    kit::{Kit, numbered},
};

/// How many messages wait for the consumer with the fault.
const ALL: usize = 3;

/// What is left of them once one was acknowledged.
const ONE_LESS: usize = ALL - 1;

/// How long a call may take once there is a stream.
const TIME_LIMIT: Duration = Duration::from_secs(1);

type Driver = Faulty<Arc<dyn SubscriptionDriver>>;

/// Puts a fault on one of the calls.
type On = fn(Driver, Fault) -> Driver;

pub(super) async fn insert_error_surfaces(kit: &Kit) -> CaseResult {
    error_surfaces(kit, Driver::on_insert, error(), Operation::Insert, ALL).await
}

pub(super) async fn insert_error_after_the_effect_loses_nothing(kit: &Kit) -> CaseResult {
    error_surfaces(kit, Driver::on_insert, error().after_effect(), Operation::Insert, ALL).await
}

pub(super) async fn hanging_insert_can_be_dropped(kit: &Kit) -> CaseResult {
    can_be_dropped(kit, Driver::on_insert).await
}

pub(super) async fn hanging_insert_meets_the_time_limit(kit: &Kit) -> CaseResult {
    meets_the_time_limit(kit, Driver::on_insert, Operation::Insert, ErrorKind::Timeout).await
}

pub(super) async fn listen_error_surfaces(kit: &Kit) -> CaseResult {
    error_surfaces(kit, Driver::on_listen, error(), Operation::Listen, ALL).await
}

pub(super) async fn listen_error_after_the_effect_loses_nothing(kit: &Kit) -> CaseResult {
    error_surfaces(kit, Driver::on_listen, error().after_effect(), Operation::Listen, ALL).await
}

pub(super) async fn hanging_listen_can_be_dropped(kit: &Kit) -> CaseResult {
    can_be_dropped(kit, Driver::on_listen).await
}

pub(super) async fn hanging_listen_meets_the_time_limit(kit: &Kit) -> CaseResult {
    meets_the_time_limit(kit, Driver::on_listen, Operation::Listen, ErrorKind::Timeout).await
}

pub(super) async fn fetch_error_surfaces(kit: &Kit) -> CaseResult {
    error_surfaces(kit, Driver::on_fetch, error(), Operation::Fetch, ALL).await
}

pub(super) async fn fetch_error_after_the_effect_loses_nothing(kit: &Kit) -> CaseResult {
    error_surfaces(kit, Driver::on_fetch, error().after_effect(), Operation::Fetch, ALL).await
}

pub(super) async fn hanging_fetch_can_be_stopped_and_dropped(kit: &Kit) -> CaseResult {
    can_be_dropped(kit, Driver::on_fetch).await?;

    let stop = Notify::new();
    let subscription = kit.subscription_named("stopped");
    let driver = Faulty::new(kit.driver(&subscription).await?).on_fetch(Fault::hang());
    let mut stream = subscribe(driver).await?.until(Box::pin(stop.notified()));
    kit.nothing(&mut stream).await?;
    let stopping = async {
        stop.notify_one();
        Ok(())
    };
    try_join(kit.over(&mut stream), stopping).await.map(drop)
}

pub(super) async fn hanging_fetch_meets_the_time_limit(kit: &Kit) -> CaseResult {
    meets_the_time_limit(kit, Driver::on_fetch, Operation::Fetch, ErrorKind::Timeout).await
}

pub(super) async fn settle_error_surfaces(kit: &Kit) -> CaseResult {
    error_surfaces(kit, Driver::on_settle, error(), Operation::Settle, ALL).await
}

pub(super) async fn settle_error_after_the_effect_loses_nothing(kit: &Kit) -> CaseResult {
    error_surfaces(kit, Driver::on_settle, error().after_effect(), Operation::Settle, ONE_LESS).await
}

pub(super) async fn hanging_settle_can_be_dropped(kit: &Kit) -> CaseResult {
    can_be_dropped(kit, Driver::on_settle).await
}

pub(super) async fn hanging_settle_meets_the_time_limit(kit: &Kit) -> CaseResult {
    meets_the_time_limit(kit, Driver::on_settle, Operation::Settle, ErrorKind::Unknown).await
}

fn error() -> Fault {
    Fault::error(planned)
}

/// An error with a cause, as a client's own.
pub(super) fn planned() -> Error {
    let cause = io::Error::from(io::ErrorKind::StorageFull);
    Error::new(ErrorKind::Query, "a planned fault").with_source(cause)
}

/// Checks that nothing of the planned error was lost on the way.
pub(super) fn is_planned(error: &Error, operation: Operation) -> CaseResult {
    failed(error, ErrorKind::Query, "a planned fault")?;
    check_eq!(error.operation(), Some(operation), "what was being done");
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind);
    check_eq!(cause, Some(io::ErrorKind::StorageFull), "the cause");
    Ok(())
}

async fn error_surfaces(kit: &Kit, on: On, fault: Fault, operation: Operation, left: usize) -> CaseResult {
    let subscription = all_waiting(kit).await?;
    let error = first_error(kit, &subscription, on, fault).await?;
    is_planned(&error, operation)?;
    is_left(kit, &subscription, left).await
}

/// Before its effect: what a call did that hung after it is as good as unknown.
async fn can_be_dropped(kit: &Kit, on: On) -> CaseResult {
    let subscription = all_waiting(kit).await?;
    let ended = kit.within(kit.harness().quiet(), first_error(kit, &subscription, on, Fault::hang())).await;
    check!(ended.is_none(), "an end of what hangs");
    is_left(kit, &subscription, ALL).await
}

async fn meets_the_time_limit(kit: &Kit, on: On, operation: Operation, kind: ErrorKind) -> CaseResult {
    let subscription = all_waiting(kit).await?;
    let error = first_error(kit, &subscription, on, Fault::hang()).await?;
    failed(&error, kind, "what hangs")?;
    check_eq!(error.operation(), Some(operation), "what was being done");
    is_left(kit, &subscription, ALL).await
}

async fn all_waiting(kit: &Kit) -> CaseResult<Subscription> {
    let subscription = kit.subscription();
    kit.insert(&subscription).await?;
    kit.publish(numbered(ALL)).await?;
    Ok(subscription)
}

/// Consumes with a fault until a call fails, and lets nothing be retried.
fn first_error<'a>(
    kit: &'a Kit,
    subscription: &'a Subscription,
    on: On,
    fault: Fault,
) -> impl Future<Output = CaseResult<Error>> + Send + 'a {
    let error = async move {
        let driver = on(Faulty::new(kit.harness().driver(subscription.clone()).await?), fault);
        let stream = subscribe(driver).await?;
        let mut stream = stream.with_retry(RetryConfig::never().with_time_limit(TIME_LIMIT));
        match stream.next().await {
            Some(delivery) => delivery?.ok().await,
            None => Ok(()),
        }
    };
    async move { error.await.err().ok_or_else(|| CaseFailure::new("no error")) }
}

/// Checks that a consumer without faults gets so many of the messages, once.
async fn is_left(kit: &Kit, subscription: &Subscription, messages: usize) -> CaseResult {
    let mut stream = kit.consume(subscription).await?;
    let mut texts = kit.drain(&mut stream, messages).await?;
    texts.dedup();
    check_eq!(texts.len(), messages, "the number of messages that are left");
    kit.nothing(&mut stream).await
}
