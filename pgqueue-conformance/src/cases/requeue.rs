//! What is not acknowledged comes again, when it should, as often as it should, and then is a dead letter.

use std::time::Duration;

use pgqueue_core::{Ack, Backoff, Requeue};
use tokio::time::Instant;

use crate::{
    expect::not_before,
    failure::{CaseResult, check, check_eq},
    kit::{DELAY, FOREVER, Kit, LEASE, numbered, text_of, texts_of},
};

pub(super) async fn requeued_message_is_redelivered(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription().with_lease(FOREVER)).await?; // no lease that ends helps
    let ids = kit.publish(["a"]).await?;
    kit.receive(&mut stream, "a").await?.requeue().await?;
    let again = kit.receive(&mut stream, "a").await?;
    check_eq!(again.message().id(), &ids[0], "the id of a redelivered message");
    again.ok().await?;
    kit.nothing(&mut stream).await
}

/// At once, whatever the backoff and the lease.
pub(super) async fn dropped_delivery_is_redelivered(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription().with_backoff(Backoff::fixed(FOREVER)).with_lease(FOREVER);
    let mut stream = kit.consume(&subscription).await?;
    kit.publish(["a"]).await?;
    drop(kit.receive(&mut stream, "a").await?);
    kit.handle(&mut stream, ["a"]).await?;
    kit.nothing(&mut stream).await
}

pub(super) async fn dropped_delivery_wakes_another_consumer(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription().with_backoff(Backoff::fixed(FOREVER)).with_lease(FOREVER);
    let mut stream = kit.consume(&subscription).await?;
    kit.publish(["a"]).await?;
    let delivery = kit.receive(&mut stream, "a").await?;
    drop(stream);

    let mut idle = kit.consume(&subscription).await?;
    let dropping = async {
        drop(delivery);
        Ok(())
    };
    Ok(kit.wakes(&mut idle, dropping).await?.ok().await?)
}

pub(super) async fn requeued_message_can_go_to_another_consumer(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    let mut stream = kit.consume(&subscription).await?;
    kit.publish(["a"]).await?;
    let delivery = kit.receive(&mut stream, "a").await?;
    drop(stream);

    let mut idle = kit.consume(&subscription).await?;
    let redelivered = kit.wakes(&mut idle, async { Ok(delivery.requeue().await?) }).await?;
    Ok(redelivered.ok().await?)
}

pub(super) async fn redelivery_has_the_same_payload(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    kit.publish(["{\"naïve\": [1, 2]}"]).await?;
    let delivery = kit.next(&mut stream).await?;
    let first = delivery.message().clone();
    delivery.requeue().await?;

    let delivery = kit.next(&mut stream).await?;
    let again = delivery.message();
    check_eq!(again.payload(), first.payload(), "the payload of a redelivery");
    check_eq!(again.id(), first.id(), "its id");
    check_eq!(again.position(), first.position(), "its position");
    check_eq!(again.topic(), first.topic(), "its topic");
    check_eq!(again.published_at(), first.published_at(), "the time it was published");
    Ok(delivery.ok().await?)
}

pub(super) async fn redeliveries_are_counted(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    kit.publish(["a"]).await?;
    let first = kit.receive(&mut stream, "a").await?;
    check_eq!(first.message().attempt(), 1, "the attempt of the first delivery");
    check_eq!(first.message().last_requeued_at(), None, "the time of a requeue before the first delivery");
    first.requeue().await?;

    let second = kit.receive(&mut stream, "a").await?;
    check_eq!(second.message().attempt(), 2, "the attempt after a requeue");
    check!(second.message().last_delivered_at().is_some(), "a second delivery that does not know when the first was");
    check!(second.message().last_requeued_at().is_some(), "a second delivery that does not know when it was requeued");
    drop(second);

    let third = kit.receive(&mut stream, "a").await?;
    check_eq!(third.message().attempt(), 3, "the attempt after a drop");
    Ok(third.ok().await?)
}

pub(super) async fn requeue_with_delay_waits(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    kit.publish(["a"]).await?;
    let delivery = kit.receive(&mut stream, "a").await?;
    let requeued = Instant::now();
    delivery.settle(Ack::requeue_after(DELAY)).await?;
    let again = kit.receive(&mut stream, "a").await?;
    not_before(requeued, DELAY)?;
    Ok(again.ok().await?)
}

/// The one who requeued need not be there when the delay is over.
pub(super) async fn delayed_requeue_wakes_another_consumer(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    let mut stream = kit.consume(&subscription).await?;
    kit.publish(["a"]).await?;
    let delivery = kit.receive(&mut stream, "a").await?;
    drop(stream);

    let mut idle = kit.consume(&subscription).await?;
    let redelivered = kit.wakes(&mut idle, async { Ok(delivery.settle(Ack::requeue_after(DELAY)).await?) }).await?;
    Ok(redelivered.ok().await?)
}

pub(super) async fn delayed_requeue_lets_others_pass(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    kit.publish(["a"]).await?;
    kit.receive(&mut stream, "a").await?.settle(Ack::requeue_after(FOREVER)).await?;
    kit.publish(["b"]).await?;
    kit.handle(&mut stream, ["b"]).await?;
    kit.nothing(&mut stream).await
}

pub(super) async fn backoff_follows_the_policy(kit: &Kit) -> CaseResult {
    let base = Duration::from_millis(100);
    let backoff = Backoff::default().with_base(base).with_multiplier(2.0).with_cap(3 * base).with_jitter(0.0);
    let mut stream = kit.consume(&kit.subscription().with_backoff(backoff)).await?;
    kit.publish(["a"]).await?;
    let mut delivery = kit.receive(&mut stream, "a").await?;
    for delay in [base, 2 * base, 3 * base, 3 * base] {
        let requeued = Instant::now();
        delivery.requeue().await?;
        delivery = kit.receive(&mut stream, "a").await?;
        not_before(requeued, delay)?;
    }
    Ok(delivery.ok().await?)
}

pub(super) async fn attempts_exhausted_goes_to_dead_letters(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription().with_backoff(Backoff::fixed(Duration::ZERO).with_max_attempts(3));
    let mut stream = kit.consume(&subscription).await?;
    let ids = kit.publish(["a"]).await?;
    for reason in ["first", "second", "third"] {
        let delivery = kit.receive(&mut stream, "a").await?;
        delivery.settle(Ack::Requeue(Requeue::default().with_reason(reason))).await?;
    }
    kit.nothing(&mut stream).await?;

    let letters = kit.dead_letters(&subscription, 1).await?;
    check_eq!(letters[0].message.id(), &ids[0], "the id of the dead letter");
    check_eq!(text_of(&letters[0].message), "a", "its payload");
    check_eq!(letters[0].message.attempt(), 3, "its attempt");
    check!(letters[0].reason.contains("third"), "the reason {:?} without that of the last requeue", letters[0].reason);
    Ok(())
}

pub(super) async fn dropping_exhausts_attempts_too(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription().with_backoff(Backoff::default().with_max_attempts(2));
    let mut stream = kit.consume(&subscription).await?;
    kit.publish(["a"]).await?;
    for _ in 0..2 {
        drop(kit.receive(&mut stream, "a").await?);
    }
    kit.nothing(&mut stream).await?;
    kit.dead_letters(&subscription, 1).await.map(drop)
}

pub(super) async fn rejected_goes_to_dead_letters_at_once(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    let mut stream = kit.consume(&subscription).await?;
    let ids = kit.publish(["a"]).await?;
    kit.receive(&mut stream, "a").await?.settle(Ack::reject("no such customer")).await?;

    let letters = kit.dead_letters(&subscription, 1).await?;
    check_eq!(letters[0].message.id(), &ids[0], "the id of the dead letter");
    check_eq!(letters[0].reason, "no such customer", "its reason");
    check!(letters[0].died_at >= letters[0].message.published_at(), "a message that died before it was published");
    kit.nothing(&mut stream).await?;
    kit.publish(["b"]).await?;
    kit.handle(&mut stream, ["b"]).await
}

pub(super) async fn redriven_dead_letter_comes_again(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    let mut stream = kit.consume(&subscription).await?;
    check_eq!(
        kit.harness().redrive(subscription.name()).await?,
        0,
        "the number of redriven messages where none is dead"
    );
    let ids = kit.publish(["a"]).await?;
    kit.receive(&mut stream, "a").await?.settle(Ack::reject("not today")).await?;
    kit.dead_letters(&subscription, 1).await?;

    let redriving = async {
        check_eq!(kit.harness().redrive(subscription.name()).await?, 1, "the number of redriven messages");
        Ok(())
    };
    let again = kit.wakes(&mut stream, redriving).await?;
    check_eq!(again.message().id(), &ids[0], "the id of a redriven message");
    kit.dead_letters(&subscription, 0).await?;
    again.ok().await?;
    kit.nothing(&mut stream).await
}

pub(super) async fn message_that_kills_its_consumer_is_bounded(kit: &Kit) -> CaseResult {
    const MAX_ATTEMPTS: u32 = 2;
    let backoff = Backoff::fixed(Duration::ZERO).with_max_attempts(MAX_ATTEMPTS);
    let subscription = kit.subscription().with_lease(LEASE).with_backoff(backoff);
    kit.insert(&subscription).await?;
    kit.publish(["poison"]).await?;

    for killed in 0.. {
        let mut stream = kit.consume(&subscription).await?;
        let Some(_poison) = kit.next_unless_dead(&mut stream, &subscription).await? else {
            check_eq!(killed, MAX_ATTEMPTS, "the number of consumers that the message killed");
            break;
        };
        check!(killed < MAX_ATTEMPTS, "delivery {} of {MAX_ATTEMPTS}", killed + 1);
        kit.harness().crash_consumers().await?;
    }
    Ok(())
}

/// A run of several that was abandoned comes back one by one, so that only the guilty message is blamed.
pub(super) async fn poison_message_does_not_take_its_neighbours(kit: &Kit) -> CaseResult {
    let backoff = Backoff::fixed(Duration::ZERO).with_max_attempts(2);
    let subscription = kit.subscription().with_lease(LEASE).with_backoff(backoff).with_batch(3);
    kit.insert(&subscription).await?;
    kit.publish(["left", "poison", "right"]).await?;

    let mut handled = Vec::new();
    let mut stream = kit.consume(&subscription).await?;
    while let Some(delivery) = kit.next_unless_dead(&mut stream, &subscription).await? {
        let texts = texts_of(&delivery);
        if texts.iter().any(|text| text == "poison") {
            kit.harness().crash_consumers().await?;
            stream = kit.consume(&subscription).await?;
        } else {
            handled.extend(texts);
            delivery.ok().await?;
        }
    }
    handled.extend(kit.drain(&mut stream, 2_usize.saturating_sub(handled.len())).await?);
    handled.sort();
    check_eq!(handled, ["left", "right"], "what was handled");
    let letters = kit.dead_letters(&subscription, 1).await?;
    check_eq!(text_of(&letters[0].message), "poison", "the dead letter");
    Ok(())
}

pub(super) async fn attempts_of_run_mates_are_separate(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    kit.publish(["fails once", "fails twice", "succeeds"]).await?;
    let mut attempts = Vec::new();
    for _ in 0..6 {
        let delivery = kit.next(&mut stream).await?;
        let (text, attempt) = (text_of(delivery.message()), delivery.message().attempt());
        match (&*text, attempt) {
            ("fails once", 1) | ("fails twice", 1 | 2) => delivery.requeue().await?,
            _ => delivery.ok().await?,
        }
        attempts.push((text, attempt));
    }
    attempts.sort();
    let promised = [
        ("fails once", 1),
        ("fails once", 2),
        ("fails twice", 1),
        ("fails twice", 2),
        ("fails twice", 3),
        ("succeeds", 1),
    ];
    check_eq!(attempts, promised.map(|(text, attempt)| (text.to_owned(), attempt)), "the list of attempts");
    kit.nothing(&mut stream).await
}

/// What a driver fetched ahead was delivered to nobody.
pub(super) async fn unyielded_message_burns_no_attempt(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    let mut stream = kit.consume(&subscription).await?;
    let texts = numbered(10);
    kit.publish(&texts).await?;
    let delivery = kit.next(&mut stream).await?;
    drop(stream);
    let mut handled = texts_of(&delivery);
    delivery.ok().await?;

    let mut stream = kit.consume(&subscription).await?;
    while handled.len() < texts.len() {
        let delivery = kit.next(&mut stream).await?;
        check_eq!(delivery.message().attempt(), 1, "the attempt of a message that nobody got before");
        handled.extend(texts_of(&delivery));
        delivery.ok().await?;
    }
    handled.sort();
    check_eq!(handled, texts, "what was handled");
    Ok(())
}
