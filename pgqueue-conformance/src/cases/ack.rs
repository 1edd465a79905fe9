//! OK removes a message, from one subscription, for good; and only the holder can say it.

use std::time::Duration;

use pgqueue_core::{Ack, ErrorKind};

use crate::{
    expect::refused,
    failure::CaseResult,
    kit::{Kit, LEASE},
};

/// Not even when the lease it was handed out under would have ended.
pub(super) async fn acknowledged_message_is_not_redelivered(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription().with_lease(LEASE);
    let mut stream = kit.consume(&subscription).await?;
    kit.publish(["a"]).await?;
    kit.handle(&mut stream, ["a"]).await?;
    kit.nothing_for(&mut stream, 2 * LEASE).await?;
    drop(stream);
    kit.nothing(&mut kit.consume(&subscription).await?).await
}

pub(super) async fn acknowledgement_outlives_its_consumer(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    let mut stream = kit.consume(&subscription).await?;
    kit.publish(["a"]).await?;
    let delivery = kit.receive(&mut stream, "a").await?;
    drop(stream);
    delivery.ok().await?;
    kit.nothing(&mut kit.consume(&subscription).await?).await
}

pub(super) async fn acknowledgement_leaves_other_subscriptions_alone(kit: &Kit) -> CaseResult {
    let mut here = kit.consume(&kit.subscription_named("here")).await?;
    let mut there = kit.consume(&kit.subscription_named("there")).await?;
    kit.publish(["a"]).await?;
    kit.handle(&mut here, ["a"]).await?;
    kit.handle(&mut there, ["a"]).await
}

pub(super) async fn deliveries_can_be_acknowledged_out_of_order(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    let mut stream = kit.consume(&subscription).await?;
    kit.publish(["a", "b", "c"]).await?;
    let first = kit.next(&mut stream).await?;
    let second = kit.next(&mut stream).await?;
    let third = kit.next(&mut stream).await?;
    for delivery in [third, first, second] {
        delivery.ok().await?;
    }
    kit.nothing(&mut stream).await?;
    drop(stream);
    kit.nothing(&mut kit.consume(&subscription).await?).await
}

/// Whatever a consumer answers that lost its lease, the message stays with the one who holds it now.
pub(super) async fn stale_acknowledgement_is_refused_and_changes_nothing(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    let mut zombie = kit.consume(&subscription).await?;
    let mut heir = kit.consume(&subscription).await?;
    kit.publish(["a"]).await?;
    let at_once = || Ack::requeue_after(Duration::ZERO);

    for answer in [Some(Ack::Ok), Some(at_once()), Some(Ack::reject("stale")), None] {
        let stale = kit.receive(&mut zombie, "a").await?;
        kit.harness().expire_leases().await?;
        let held = kit.receive(&mut heir, "a").await?;
        match answer {
            Some(ack) => refused(stale.settle(ack).await, ErrorKind::LeaseLost, "a stale acknowledgement")?,
            None => drop(stale),
        }
        kit.nothing(&mut zombie).await?;
        held.settle(at_once()).await?;
    }
    kit.handle(&mut zombie, ["a"]).await?;
    kit.nothing(&mut heir).await
}

pub(super) async fn acknowledgement_after_unsubscribe_is_an_error(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    let mut stream = kit.consume(&subscription).await?;
    kit.publish(["a"]).await?;
    let delivery = kit.receive(&mut stream, "a").await?;
    kit.harness().unsubscribe(subscription.name()).await?;
    refused(delivery.ok().await, ErrorKind::NotFound, "an acknowledgement after unsubscribing")
}
