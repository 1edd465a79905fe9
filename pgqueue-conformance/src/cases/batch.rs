//! Deliveries of several messages, settled as one.

use std::time::Duration;

use pgqueue_core::{Ack, Backoff, Subscription};

use crate::{
    failure::{CaseResult, check, check_eq},
    kit::{Kit, numbered, text_of, texts_of},
};

/// The subscription with three messages waiting, which fit into one batch.
async fn three_waiting(kit: &Kit) -> CaseResult<Subscription> {
    let subscription = kit.subscription().with_batch(3);
    kit.insert(&subscription).await?;
    kit.publish(["a", "b", "c"]).await?;
    Ok(subscription)
}

pub(super) async fn batch_never_exceeds_its_limit(kit: &Kit) -> CaseResult {
    const LIMIT: usize = 3;
    let mut stream = kit.consume(&kit.subscription().with_batch(LIMIT)).await?;
    let texts = numbered(10);
    kit.publish(&texts).await?;
    let mut handled = Vec::new();
    while handled.len() < texts.len() {
        let delivery = kit.next(&mut stream).await?;
        let batch = texts_of(&delivery);
        check!(batch.len() <= LIMIT, "a delivery of {} messages with a limit of {LIMIT}", batch.len());
        handled.extend(batch);
        delivery.ok().await?;
    }
    handled.sort();
    check_eq!(handled, texts, "what was handled");
    Ok(())
}

/// A lone message is a batch as well.
pub(super) async fn partial_batch_does_not_wait(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription().with_batch(100)).await?;
    let delivery = kit.wakes(&mut stream, async { kit.publish(["17"]).await.map(drop) }).await?;
    check_eq!(delivery.decode::<Vec<u32>>()?, [17], "the decoded batch");
    Ok(delivery.ok().await?)
}

pub(super) async fn batch_settles_as_one(kit: &Kit) -> CaseResult {
    let subscription = three_waiting(kit).await?;
    let mut stream = kit.consume(&subscription).await?;
    kit.receive_batch(&mut stream, ["a", "b", "c"]).await?.ok().await?;
    kit.nothing(&mut stream).await?;
    drop(stream);
    kit.nothing(&mut kit.consume(&subscription).await?).await
}

pub(super) async fn requeued_batch_comes_back_whole_and_in_order(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&three_waiting(kit).await?).await?;
    kit.receive_batch(&mut stream, ["a", "b", "c"]).await?.requeue().await?;
    drop(kit.receive_batch(&mut stream, ["a", "b", "c"]).await?);
    kit.receive_batch(&mut stream, ["a", "b", "c"]).await?.ok().await?;
    kit.nothing(&mut stream).await
}

pub(super) async fn rejected_batch_goes_to_dead_letters(kit: &Kit) -> CaseResult {
    let subscription = three_waiting(kit).await?;
    let mut stream = kit.consume(&subscription).await?;
    kit.receive_batch(&mut stream, ["a", "b", "c"]).await?.settle(Ack::reject("all wrong")).await?;
    let mut letters: Vec<_> =
        kit.dead_letters(&subscription, 3).await?.iter().map(|letter| text_of(&letter.message)).collect();
    letters.sort();
    check_eq!(letters, ["a", "b", "c"], "the list of dead letters");
    kit.nothing(&mut stream).await
}

/// Each with its own count.
pub(super) async fn exhausted_batch_goes_to_dead_letters(kit: &Kit) -> CaseResult {
    let twice = Backoff::default().with_max_attempts(2);
    let subscription = three_waiting(kit).await?.with_backoff(twice);
    let mut stream = kit.consume(&subscription).await?;
    for attempt in 1..=2 {
        let delivery = kit.receive_batch(&mut stream, ["a", "b", "c"]).await?;
        let attempts: Vec<_> = delivery.messages().iter().map(|message| message.attempt()).collect();
        check_eq!(attempts, [attempt; 3], "the list of attempts");
        delivery.settle(Ack::requeue_after(Duration::ZERO)).await?;
    }
    kit.nothing(&mut stream).await?;
    kit.dead_letters(&subscription, 3).await.map(drop)
}
