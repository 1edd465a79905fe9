//! Consumers, connections and stores that go away take nothing with them.

use std::time::Duration;

use futures::future;
use pgqueue_core::{Ack, Backoff, ErrorKind, Order, RetryConfig};

use crate::{
    expect::refused,
    failure::{CaseResult, check, check_eq},
    kit::{Kit, LEASE, numbered},
};

pub(super) async fn lost_connection_releases_its_delivery(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription().with_lease(LEASE);
    let mut stream = kit.consume(&subscription).await?;
    kit.publish(["a"]).await?;
    let _lost = kit.receive(&mut stream, "a").await?;
    kit.harness().disconnect().await?;
    kit.handle(&mut kit.consume(&subscription).await?, ["a"]).await
}

/// Whatever the answer says is true: done is done, and an error loses nothing.
pub(super) async fn acknowledging_after_a_lost_connection_is_an_error_or_done(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription().with_lease(LEASE);
    let stream = kit.consume(&subscription).await?;
    let mut stream = stream.with_retry(RetryConfig::default().with_time_limit(LEASE));
    kit.publish(["a"]).await?;
    let delivery = kit.receive(&mut stream, "a").await?;
    kit.harness().disconnect().await?;
    let answered = delivery.ok().await;

    let mut other = kit.consume(&subscription).await?;
    match answered {
        Ok(()) => kit.nothing_for(&mut other, 2 * LEASE).await,
        Err(_) => kit.handle(&mut other, ["a"]).await,
    }
}

pub(super) async fn lost_listener_recovers_and_looks_again(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    let harness = kit.harness();
    let outage = async {
        harness.disconnect().await?;
        harness.pass(harness.quiet()).await;
        harness.reconnect().await?;
        harness.pass(harness.quiet()).await;
        kit.publish(["a"]).await.map(drop)
    };
    kit.wakes(&mut stream, outage).await?.ok().await?;
    let again = kit.wakes(&mut stream, async { kit.publish(["b"]).await.map(drop) }).await?;
    Ok(again.ok().await?)
}

/// Nobody rings for it after the connection is back.
pub(super) async fn message_published_while_disconnected_arrives(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    let harness = kit.harness();
    let outage = async {
        harness.disconnect().await?;
        harness.pass(harness.quiet()).await;
        kit.publish(["a"]).await?;
        harness.pass(harness.quiet()).await;
        Ok(harness.reconnect().await?)
    };
    Ok(kit.wakes(&mut stream, outage).await?.ok().await?)
}

pub(super) async fn pending_messages_survive_reopening(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription().with_lease(LEASE);
    let texts = numbered(10);
    let mut stream = kit.consume(&subscription).await?;
    kit.publish(&texts).await?;
    let mut handled = kit.drain(&mut stream, 3).await?;
    let _in_flight = kit.next(&mut stream).await?;
    kit.harness().reopen().await?;

    let mut stream = kit.consume(&subscription).await?;
    handled.extend(kit.drain(&mut stream, 7).await?);
    handled.sort();
    check_eq!(handled, texts, "what was handled before and after reopening");
    kit.publish(["new"]).await?;
    kit.handle(&mut stream, ["new"]).await?;
    kit.nothing(&mut stream).await
}

pub(super) async fn acknowledgement_outlives_a_crash(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription().with_lease(LEASE);
    let mut stream = kit.consume(&subscription).await?;
    kit.publish(["a", "b"]).await?;
    kit.next(&mut stream).await?.ok().await?;
    kit.harness().crash_consumers().await?;
    let mut stream = kit.consume(&subscription).await?;
    kit.drain(&mut stream, 1).await?;
    kit.nothing_for(&mut stream, 2 * LEASE).await
}

/// By itself, and others need not ask.
pub(super) async fn expired_lease_is_redelivered(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription().with_lease(LEASE);
    let mut stream = kit.consume(&subscription).await?;
    kit.publish(["a"]).await?;
    let _abandoned = kit.receive(&mut stream, "a").await?;
    kit.harness().crash_consumers().await?;
    kit.handle(&mut kit.consume(&subscription).await?, ["a"]).await
}

/// And in order, without an attempt counted for any: nobody knows which message was to blame.
pub(super) async fn abandoned_run_comes_back_one_by_one(kit: &Kit) -> CaseResult {
    let once = Backoff::default().with_max_attempts(1);
    let subscription = kit.subscription().with_order(Order::Total).with_batch(3).with_lease(LEASE).with_backoff(once);
    kit.insert(&subscription).await?;
    kit.publish(["a", "b", "c"]).await?;
    let mut stream = kit.consume(&subscription).await?;
    let _abandoned = kit.receive_batch(&mut stream, ["a", "b", "c"]).await?;
    kit.harness().crash_consumers().await?;
    kit.handle(&mut kit.consume(&subscription).await?, ["a", "b", "c"]).await
}

pub(super) async fn heartbeat_keeps_a_long_handler_alone(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription().with_lease(LEASE);
    let mut stream = kit.consume(&subscription).await?;
    let mut other = kit.consume(&subscription).await?;
    kit.publish(["a"]).await?;
    let delivery = kit.receive(&mut stream, "a").await?;
    kit.nothing_for(&mut other, 3 * LEASE).await?;
    delivery.ok().await?;
    kit.nothing(&mut other).await
}

pub(super) async fn lost_lease_tells_the_handler(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    kit.publish(["a"]).await?;
    let delivery = kit.receive(&mut stream, "a").await?;
    let told = kit.within(kit.harness().quiet(), delivery.lease_lost()).await;
    check!(told.is_none(), "a lease called lost while it was held");

    let handler = kit.patiently(delivery.lease_lost());
    let (told, expired) = future::join(handler, kit.harness().expire_leases()).await;
    expired?;
    check!(told.is_some(), "a handler that is not told");
    refused(delivery.ok().await, ErrorKind::LeaseLost, "settling without a lease")
}

/// Not even for the consumer that lost it and holds the message again.
pub(super) async fn token_of_a_lost_claim_is_never_valid_again(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    kit.publish(["a"]).await?;
    let stale = kit.receive(&mut stream, "a").await?;
    kit.harness().expire_leases().await?;
    let held = kit.receive(&mut stream, "a").await?;
    refused(stale.ok().await, ErrorKind::LeaseLost, "the first claim of a message that was claimed again")?;

    held.settle(Ack::requeue_after(Duration::ZERO)).await?;
    kit.handle(&mut stream, ["a"]).await?;
    kit.nothing(&mut stream).await
}
