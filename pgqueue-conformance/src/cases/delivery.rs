//! A message reaches the consumers of a subscription, and the subscription is what it was inserted as.

use pgqueue_core::{Backoff, ErrorKind, Order, Subscription, Topic};

use crate::{
    expect::refused,
    failure::{CaseResult, check_eq},
    kit::{DELAY, FOREVER, Kit, TOPIC},
};

pub(super) async fn published_message_is_delivered(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    let ids = kit.publish(["a"]).await?;

    let delivery = kit.receive(&mut stream, "a").await?;
    let message = delivery.message();
    check_eq!(message.id(), &ids[0], "the id of a delivered message");
    check_eq!(message.topic(), TOPIC, "its topic");
    check_eq!(message.key(), None, "the key of a message without one");
    check_eq!(message.attempt(), 1, "the attempt of a first delivery");
    check_eq!(message.last_delivered_at(), None, "the time of the delivery before the first");
    delivery.ok().await?;
    kit.nothing(&mut stream).await
}

pub(super) async fn message_published_while_idle_is_delivered(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    let delivery = kit.wakes(&mut stream, async { kit.publish(["a"]).await.map(drop) }).await?;
    Ok(delivery.ok().await?)
}

/// A driver that wakes once passes all but this.
pub(super) async fn every_idle_period_ends_with_a_wakeup(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    for text in ["a", "b", "c", "d"] {
        let delivery = kit.wakes(&mut stream, async { kit.publish([text]).await.map(drop) }).await?;
        delivery.ok().await?;
    }
    Ok(())
}

pub(super) async fn message_published_before_subscribing_is_not_delivered(kit: &Kit) -> CaseResult {
    kit.publish(["early"]).await?;
    let mut stream = kit.consume(&kit.subscription()).await?;
    kit.nothing(&mut stream).await?;
    kit.publish(["late"]).await?;
    kit.handle(&mut stream, ["late"]).await?;
    kit.nothing(&mut stream).await
}

pub(super) async fn message_published_without_a_consumer_waits(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    kit.insert(&subscription).await?;
    kit.publish(["a"]).await?;
    kit.harness().pass(kit.harness().quiet()).await;
    kit.handle(&mut kit.consume(&subscription).await?, ["a"]).await
}

pub(super) async fn unpolled_stream_takes_nothing(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    let _unpolled = kit.consume(&subscription).await?;
    let mut polled = kit.consume(&subscription).await?;
    kit.publish(["a", "b", "c"]).await?;
    let texts = kit.drain(&mut polled, 3).await?;
    check_eq!(texts, ["a", "b", "c"], "what the only active consumer gets");
    Ok(())
}

pub(super) async fn subscribing_again_keeps_what_is_pending(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    let mut stream = kit.consume(&subscription).await?;
    kit.publish(["a", "b"]).await?;
    let in_flight = kit.next(&mut stream).await?;

    kit.insert(&subscription).await?;
    in_flight.requeue().await?;
    let texts = kit.drain(&mut stream, 2).await?;
    check_eq!(texts, ["a", "b"], "what is pending");
    kit.nothing(&mut stream).await
}

/// Batch, lease and backoff are the last inserter's, for consumers that were there before as well.
pub(super) async fn subscribing_again_changes_the_options(kit: &Kit) -> CaseResult {
    let slow = kit.subscription().with_backoff(Backoff::fixed(FOREVER));
    let mut stream = kit.consume(&slow).await?;
    kit.insert(&slow.with_backoff(Backoff::fixed(DELAY))).await?;
    kit.publish(["a"]).await?;
    kit.receive(&mut stream, "a").await?.requeue().await?;
    kit.handle(&mut stream, ["a"]).await
}

pub(super) async fn subscribing_differently_is_an_error(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    let mut stream = kit.consume(&subscription).await?;
    kit.harness().create_topic(Topic::new("other")).await?;

    let elsewhere = Subscription::new(subscription.name(), "other");
    let inserted = kit.harness().driver(elsewhere).await?.insert_subscription().await;
    refused(inserted, ErrorKind::Conflict, "the same name with another topic")?;
    kit.publish(["a"]).await?;
    kit.handle(&mut stream, ["a"]).await
}

pub(super) async fn subscribing_in_another_order_is_an_error(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    kit.insert(&subscription).await?;
    let ordered = subscription.with_order(Order::ByKey);
    let inserted = kit.harness().driver(ordered).await?.insert_subscription().await;
    refused(inserted, ErrorKind::Conflict, "the same name with another order")
}

pub(super) async fn subscribing_to_an_unknown_topic_is_an_error(kit: &Kit) -> CaseResult {
    let nowhere = Subscription::new("subscription", "nowhere");
    let inserted = kit.harness().driver(nowhere).await?.insert_subscription().await;
    refused(inserted, ErrorKind::NotFound, "subscribing to an unknown topic")
}

pub(super) async fn subscribing_with_unusable_options_is_an_error(kit: &Kit) -> CaseResult {
    let nameless = kit.subscription_named("");
    let empty = kit.subscription().with_batch(0);
    let hopeless = kit.subscription().with_backoff(Backoff::default().with_max_attempts(0));
    for unusable in [nameless, empty, hopeless] {
        let inserted = match kit.harness().driver(unusable.clone()).await {
            Ok(driver) => driver.insert_subscription().await,
            Err(error) => Err(error), // the earlier, the better
        };
        refused(inserted, ErrorKind::Invalid, &format!("inserting {unusable:?}"))?;
    }
    Ok(())
}
