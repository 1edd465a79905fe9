//! Order by key and in total, through requeues, crashes and many consumers.

use std::{collections::BTreeMap, time::Duration};

use pgqueue_core::{Ack, Backoff, NewMessage, Order, Subscription};

use crate::{
    crew::MOODY,
    failure::{CaseResult, check, check_eq},
    kit::{DELAY, Kit, LEASE, TOPIC, numbered, text_of, texts_of},
};

const KEY: &str = "key";

fn by_key(kit: &Kit) -> Subscription {
    kit.subscription().with_order(Order::ByKey)
}

fn total(kit: &Kit) -> Subscription {
    kit.subscription().with_order(Order::Total)
}

/// Numbered messages whose keys take turns.
fn of_keys(messages: usize, keys: usize) -> Vec<NewMessage> {
    let message = |(n, text)| NewMessage::new(text).with_key(format!("key-{}", n % keys));
    numbered(messages).into_iter().enumerate().map(message).collect()
}

/// Checks that the numbers of [`of_keys`] rise within every key.
fn check_order(texts: &[String], keys: usize) -> CaseResult {
    let mut by_key = BTreeMap::<_, Vec<_>>::new();
    for text in texts {
        let number: usize = text.parse().unwrap_or(usize::MAX);
        by_key.entry(number % keys).or_default().push(text);
    }
    for (key, texts) in by_key {
        check!(texts.is_sorted(), "messages of key-{key} in the order {texts:?}");
    }
    Ok(())
}

pub(super) async fn messages_arrive_in_publishing_order(kit: &Kit) -> CaseResult {
    const KEYS: usize = 3;
    let mut stream = kit.consume(&by_key(kit)).await?;
    kit.publish_messages(of_keys(30, KEYS)).await?;
    kit.publish(["without a key"]).await?;
    let mut texts = Vec::new();
    while texts.len() < 31 {
        let delivery = kit.next(&mut stream).await?;
        texts.push(text_of(delivery.message()));
        delivery.ok().await?;
    }
    texts.retain(|text| text != "without a key");
    check_eq!(texts.len(), 30, "the number of messages with a key");
    check_order(&texts, KEYS)
}

pub(super) async fn total_order_holds_over_all_keys(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&total(kit)).await?;
    kit.publish_messages(of_keys(30, 7)).await?;
    kit.handle(&mut stream, numbered(30)).await
}

pub(super) async fn delivery_in_flight_holds_back_its_key(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&by_key(kit)).await?;
    kit.publish_keyed(KEY, ["a", "b"]).await?;
    let first = kit.receive(&mut stream, "a").await?;
    let second = kit.wakes(&mut stream, async { Ok(first.ok().await?) }).await?;
    check_eq!(texts_of(&second), ["b"], "what comes after the first of its key");
    Ok(second.ok().await?)
}

pub(super) async fn delivery_in_flight_holds_back_its_key_from_others(kit: &Kit) -> CaseResult {
    let subscription = by_key(kit).with_prefetch(1); // or the one who has the first may have taken the second in advance
    let mut stream = kit.consume(&subscription).await?;
    let mut other = kit.consume(&subscription).await?;
    kit.publish_keyed(KEY, ["a", "b"]).await?;
    let first = kit.receive(&mut stream, "a").await?;
    let second = kit.wakes(&mut other, async { Ok(first.ok().await?) }).await?;
    check_eq!(texts_of(&second), ["b"], "what comes after the first of its key");
    Ok(second.ok().await?)
}

pub(super) async fn total_order_has_one_delivery_in_flight(kit: &Kit) -> CaseResult {
    let subscription = total(kit).with_prefetch(1);
    let mut stream = kit.consume(&subscription).await?;
    let mut other = kit.consume(&subscription).await?;
    kit.publish_messages(of_keys(2, 2)).await?;
    let first = kit.receive(&mut stream, "0000").await?;
    kit.nothing(&mut stream).await?;
    let second = kit.wakes(&mut other, async { Ok(first.ok().await?) }).await?;
    check_eq!(texts_of(&second), ["0001"], "what comes after the first");
    Ok(second.ok().await?)
}

/// A consumer that cannot get what waits must not be kept busy by it.
pub(super) async fn held_back_message_makes_no_noise(kit: &Kit) -> CaseResult {
    let driver = kit.driver(&by_key(kit)).await?;
    let mut wakeups = driver.listen().await?;
    kit.publish_keyed(KEY, ["a", "b"]).await?;
    let first = kit.fetch(&*driver, &mut wakeups).await?;
    check!(driver.fetch_pending().await?.is_none(), "a second delivery of a key in flight");

    kit.no_noise(&mut wakeups).await?;
    first.ok().await?;
    let second = kit.fetch(&*driver, &mut wakeups).await?;
    check_eq!(texts_of(&second), ["b"], "what comes after the first of its key");
    Ok(second.ok().await?)
}

/// Keys may share what is held back together, but most must not.
pub(super) async fn other_keys_go_on(kit: &Kit) -> CaseResult {
    const KEYS: usize = 64;
    let mut stream = kit.consume(&by_key(kit)).await?;
    kit.publish_keyed("held", ["held"]).await?;
    let held = kit.receive(&mut stream, "held").await?;
    kit.publish_messages(of_keys(KEYS, KEYS)).await?;
    let mut texts = kit.drain(&mut stream, KEYS / 2).await?;
    held.ok().await?;
    texts.extend(kit.drain(&mut stream, KEYS / 2).await?);
    texts.sort();
    check_eq!(texts, numbered(KEYS), "the messages of other keys");
    Ok(())
}

pub(super) async fn message_without_a_key_waits_for_none(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&by_key(kit)).await?;
    let texts = numbered(40); // more than there may be lanes
    kit.publish(&texts).await?;
    let mut in_flight = Vec::new();
    for _ in &texts {
        in_flight.push(kit.next(&mut stream).await?);
    }
    let mut seen: Vec<_> = in_flight.iter().flat_map(texts_of).collect();
    seen.sort();
    check_eq!(seen, texts, "what is in flight at once");
    for delivery in in_flight {
        delivery.ok().await?;
    }
    Ok(())
}

pub(super) async fn requeue_holds_back_the_rest_of_its_key(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&by_key(kit).with_backoff(Backoff::fixed(DELAY))).await?;
    kit.publish_keyed(KEY, ["a", "b"]).await?;
    kit.receive(&mut stream, "a").await?.requeue().await?;
    kit.handle(&mut stream, ["a", "b"]).await
}

pub(super) async fn requeued_message_comes_first_in_its_key(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&by_key(kit).with_backoff(Backoff::fixed(Duration::ZERO))).await?;
    kit.publish_keyed(KEY, ["a", "b"]).await?;
    let requeued = kit.receive(&mut stream, "a").await?;
    kit.publish_keyed(KEY, ["c"]).await?;
    requeued.requeue().await?;
    kit.handle(&mut stream, ["a"]).await?;

    drop(kit.receive(&mut stream, "b").await?);
    kit.handle(&mut stream, ["b", "c"]).await
}

pub(super) async fn dead_letter_unblocks_its_key(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&by_key(kit)).await?;
    kit.publish_keyed(KEY, ["a", "b"]).await?;
    let first = kit.receive(&mut stream, "a").await?;
    let second = kit.wakes(&mut stream, async { Ok(first.settle(Ack::reject("dead")).await?) }).await?;
    check_eq!(texts_of(&second), ["b"], "what comes after a dead letter of its key");
    Ok(second.ok().await?)
}

pub(super) async fn order_survives_reopening(kit: &Kit) -> CaseResult {
    let subscription = by_key(kit).with_lease(LEASE);
    let mut stream = kit.consume(&subscription).await?;
    let texts = numbered(10);
    kit.publish_keyed(KEY, &texts).await?;
    kit.handle(&mut stream, &texts[..1]).await?;
    let _in_flight = kit.receive(&mut stream, &texts[1]).await?;
    kit.harness().reopen().await?;
    kit.handle(&mut kit.consume(&subscription).await?, &texts[1..]).await
}

pub(super) async fn order_survives_a_crash(kit: &Kit) -> CaseResult {
    let subscription = by_key(kit).with_lease(LEASE);
    let mut stream = kit.consume(&subscription).await?;
    kit.publish_keyed(KEY, ["a", "b", "c"]).await?;
    let _in_flight = kit.receive(&mut stream, "a").await?;
    kit.harness().crash_consumers().await?;
    kit.handle(&mut kit.consume(&subscription).await?, ["a", "b", "c"]).await
}

pub(super) async fn order_survives_many_consumers_and_batches(kit: &Kit) -> CaseResult {
    const KEYS: usize = 8;
    many_consumers(kit, &by_key(kit).with_batch(5), KEYS).await
}

pub(super) async fn total_order_survives_many_consumers(kit: &Kit) -> CaseResult {
    many_consumers(kit, &total(kit), 1).await
}

async fn many_consumers(kit: &Kit, subscription: &Subscription, keys: usize) -> CaseResult {
    const MESSAGES: usize = 200;
    kit.insert(subscription).await?;
    for messages in of_keys(MESSAGES, keys).chunks(20) {
        kit.publish_messages(messages.to_vec()).await?;
    }
    let mut texts = kit.share(subscription, 4, MESSAGES, MOODY).await?;
    check_order(&texts, keys)?;
    texts.sort();
    check_eq!(texts, numbered(MESSAGES), "what was acknowledged");
    Ok(())
}

/// What is committed late comes late; what began after the commit comes after it.
pub(super) async fn late_commit_is_delivered_and_breaks_no_order(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&by_key(kit)).await?;
    let late = kit.harness().publish_uncommitted(TOPIC, vec![NewMessage::new("late").with_key(KEY)]).await?;
    kit.publish_keyed(KEY, ["a", "b"]).await?;
    kit.handle(&mut stream, ["a"]).await?;
    let in_flight = kit.receive(&mut stream, "b").await?;
    late.commit().await?;
    kit.publish_keyed(KEY, ["c"]).await?;
    in_flight.ok().await?;
    kit.handle(&mut stream, ["late", "c"]).await?;
    kit.nothing(&mut stream).await
}
