//! Subscriptions whose messages all go to one consumer at a time.

use futures::{StreamExt, stream::select};
use pgqueue_core::{ConsumeStream, Consumers, ErrorKind, Order, Subscription};

use crate::{
    expect::{POLL, failed, refused},
    failure::{CaseFailure, CaseResult, chain, check, check_eq},
    kit::{Kit, LEASE, numbered, texts_of},
};

fn single(kit: &Kit) -> Subscription {
    kit.subscription().with_consumers(Consumers::SingleActive)
}

fn exclusive(kit: &Kit) -> Subscription {
    kit.subscription().with_consumers(Consumers::Exclusive)
}

/// The stream of the consumer that has the subscription, as it got and handled this message.
async fn active(kit: &Kit, subscription: &Subscription, text: &str) -> CaseResult<ConsumeStream> {
    let mut stream = kit.consume(subscription).await?;
    kit.publish([text]).await?;
    kit.handle(&mut stream, [text]).await?;
    Ok(stream)
}

/// The stream of a consumer that gets an exclusive subscription, once the one before is gone, and handled this message.
async fn heir(kit: &Kit, subscription: &Subscription, text: &str) -> CaseResult<ConsumeStream> {
    let admitted = kit.patiently(async {
        loop {
            let mut stream = kit.consume(subscription).await?;
            match stream.next().await {
                Some(Ok(delivery)) => {
                    check_eq!(texts_of(&delivery), [text], "the first that an heir gets");
                    delivery.ok().await?;
                    return CaseResult::Ok(stream);
                }
                Some(Err(error)) if error.kind() == ErrorKind::Conflict => kit.harness().pass(POLL).await,
                Some(Err(error)) => return Err(error.into()),
                None => return Err(CaseFailure::new("the end of the stream instead of a delivery")),
            }
        }
    });
    admitted.await.unwrap_or_else(|| Err(CaseFailure::new("an exclusive subscription that nobody gets any more")))
}

pub(super) async fn one_of_three_gets_all(kit: &Kit) -> CaseResult {
    let texts = numbered(20);
    let mut first = active(kit, &single(kit), "first").await?;
    let mut others = select(kit.consume(&single(kit)).await?, kit.consume(&single(kit)).await?);
    kit.nothing(&mut others).await?;
    kit.publish(&texts).await?;
    kit.nothing(&mut others).await?; // though the one that may take them does not ask
    let mut all = select(first.by_ref().map(|delivery| (true, delivery)), others.map(|delivery| (false, delivery)));
    let mut acked = Vec::new();
    while acked.len() < texts.len() {
        match kit.patiently(all.next()).await {
            Some(Some((true, Ok(delivery)))) => {
                acked.extend(texts_of(&delivery));
                delivery.ok().await?;
            }
            Some(Some((false, Ok(delivery)))) => {
                return Err(CaseFailure::new(format!("{:?} in the hands of a standby", texts_of(&delivery))));
            }
            Some(Some((_, Err(error)))) => return Err(error.into()),
            Some(None) | None => return Err(CaseFailure::new(format!("{} messages, and then nothing", acked.len()))),
        }
    }
    acked.sort();
    check_eq!(acked, texts, "what the active consumer handled");
    Ok(())
}

/// What the one before was handed in advance goes to it too.
pub(super) async fn standby_takes_over_when_the_active_one_leaves(kit: &Kit) -> CaseResult {
    let texts = numbered(20);
    let mut first = active(kit, &single(kit), "first").await?;
    let mut standby = kit.consume(&single(kit)).await?;
    kit.publish(&texts).await?;
    let mut handled = kit.drain(&mut first, 5).await?;
    let in_hand = kit.next(&mut first).await?;
    handled.extend(texts_of(&in_hand));
    let leaving = async {
        in_hand.ok().await?;
        drop(first);
        Ok(())
    };
    let delivery = kit.wakes(&mut standby, leaving).await?;
    handled.extend(texts_of(&delivery));
    delivery.ok().await?;
    handled.extend(kit.drain(&mut standby, 13).await?);
    handled.sort();
    check_eq!(handled, texts, "what was handled before and after the takeover");
    kit.publish(["last"]).await?;
    kit.handle(&mut standby, ["last"]).await?;
    kit.nothing(&mut standby).await
}

/// Two never work side by side, though the first will not ask again.
pub(super) async fn standby_waits_for_what_is_in_hand(kit: &Kit) -> CaseResult {
    let mut first = active(kit, &single(kit), "first").await?;
    let mut standby = kit.consume(&single(kit)).await?;
    kit.publish(["a", "b"]).await?;
    let in_hand = kit.next(&mut first).await?;
    let text = texts_of(&in_hand).concat();
    drop(first);
    kit.nothing(&mut standby).await?;
    in_hand.ok().await?;
    kit.handle(&mut standby, [if text == "a" { "b" } else { "a" }]).await?;
    kit.nothing(&mut standby).await
}

/// By itself, with what the dead one held.
pub(super) async fn standby_takes_over_when_the_active_one_dies(kit: &Kit) -> CaseResult {
    let subscription = single(kit).with_lease(LEASE);
    let mut first = active(kit, &subscription, "first").await?;
    kit.publish(["a", "b", "c"]).await?;
    let _abandoned = kit.next(&mut first).await?;
    kit.harness().crash_consumers().await?;
    let mut standby = kit.consume(&subscription).await?;
    check_eq!(kit.drain(&mut standby, 3).await?, ["a", "b", "c"], "what came after a takeover");
    kit.nothing_for(&mut standby, 2 * LEASE).await
}

/// It stands by again, and its answer changes nothing.
pub(super) async fn demoted_consumer_is_refused(kit: &Kit) -> CaseResult {
    let subscription = single(kit).with_lease(LEASE);
    let mut first = active(kit, &subscription, "first").await?;
    kit.publish(["a"]).await?;
    let stale = kit.receive(&mut first, "a").await?;
    kit.harness().disconnect().await?;
    let mut second = kit.consume(&subscription).await?;
    let held = kit.receive(&mut second, "a").await?;
    kit.harness().reconnect().await?;
    refused(stale.ok().await, ErrorKind::LeaseLost, "the answer of a consumer that lost its subscription")?;

    kit.publish(["b"]).await?;
    kit.nothing(&mut first).await?;
    held.ok().await?;
    kit.handle(&mut second, ["b"]).await?;
    kit.nothing(&mut select(first, second)).await
}

pub(super) async fn order_holds_over_a_takeover(kit: &Kit) -> CaseResult {
    let texts = numbered(12);
    for (name, order) in [("by key", Order::ByKey), ("total", Order::Total)] {
        let subscription =
            kit.subscription_named(name).with_consumers(Consumers::SingleActive).with_order(order).with_batch(2);
        let mut first = kit.consume(&subscription).await?;
        kit.publish_keyed("key", &texts).await?;
        kit.receive_batch(&mut first, ["0000", "0001"]).await?.ok().await?;
        let in_hand = kit.receive_batch(&mut first, ["0002", "0003"]).await?;
        let mut standby = kit.consume(&subscription).await?;
        let leaving = async {
            drop(first);
            Ok(in_hand.requeue().await?)
        };
        let again = kit.wakes(&mut standby, leaving).await?;
        check_eq!(texts_of(&again), ["0002", "0003"], "the first after a takeover");
        again.ok().await?;
        for pair in texts[4..].chunks(2) {
            kit.receive_batch(&mut standby, [&*pair[0], &*pair[1]]).await?.ok().await?;
        }
        kit.nothing(&mut standby).await?;
    }
    Ok(())
}

pub(super) async fn exclusive_subscription_has_one_consumer(kit: &Kit) -> CaseResult {
    let mut first = active(kit, &exclusive(kit), "first").await?;
    for waiting in [false, true] {
        if waiting {
            kit.publish(["a"]).await?;
        }
        let error = kit.failure(&mut kit.consume(&exclusive(kit)).await?).await?;
        failed(&error, ErrorKind::Conflict, "a second consumer of an exclusive subscription")?;
        check!(!error.is_transient(), "an error that promises to pass by itself: {}", chain(&error));
    }
    kit.handle(&mut first, ["a"]).await?;
    kit.publish(["b"]).await?;
    drop(first);
    let mut second = heir(kit, &exclusive(kit), "b").await?;
    kit.nothing(&mut second).await
}

pub(super) async fn exclusive_subscription_of_a_dead_consumer_is_reclaimed(kit: &Kit) -> CaseResult {
    let subscription = exclusive(kit).with_lease(LEASE);
    let mut first = active(kit, &subscription, "first").await?;
    kit.publish(["a"]).await?;
    let _abandoned = kit.receive(&mut first, "a").await?;
    kit.harness().crash_consumers().await?;
    let mut second = heir(kit, &subscription, "a").await?;
    kit.nothing(&mut second).await
}
