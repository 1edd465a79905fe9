//! Publishing appends all or nothing, once if asked, later if asked.

use std::{collections::HashSet, time::SystemTime};

use futures::future::try_join_all;
use pgqueue_core::{ErrorKind, NewMessage, Subscription, Topic};
use tokio::time::Instant;

use crate::{
    expect::{not_before, refused},
    failure::{CaseResult, check, check_eq},
    kit::{DELAY, FOREVER, Kit, TOPIC, numbered, text_of},
};

/// Ids and positions follow the order of the call, also where deliveries need not.
pub(super) async fn batch_keeps_its_order(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    let texts = numbered(100);
    let ids = kit.publish(&texts).await?;

    let mut messages = Vec::new();
    while messages.len() < texts.len() {
        let delivery = kit.next(&mut stream).await?;
        messages.extend_from_slice(delivery.messages());
        delivery.ok().await?;
    }
    messages.sort_by(|a, b| a.position().cmp(b.position()));
    let seen: Vec<_> = messages.iter().map(|message| (message.id().clone(), text_of(message))).collect();
    let promised: Vec<_> = ids.into_iter().zip(texts).collect();
    check_eq!(seen, promised, "ids and texts by position");
    Ok(())
}

pub(super) async fn empty_batch_is_fine(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    kit.publish_messages(Vec::new()).await?;
    kit.nothing(&mut stream).await?;
    kit.publish(["a"]).await?;
    kit.handle(&mut stream, ["a"]).await
}

pub(super) async fn no_subscription_is_fine(kit: &Kit) -> CaseResult {
    kit.publish(["a"]).await.map(drop)
}

pub(super) async fn hundred_subscriptions_each_get_it(kit: &Kit) -> CaseResult {
    // One after the other, so that no server runs out of connections.
    let subscriptions: Vec<_> = (0..100).map(|n| kit.subscription_named(&format!("subscription-{n}"))).collect();
    for subscription in &subscriptions {
        kit.insert(subscription).await?;
    }
    kit.publish(["a"]).await?;
    for subscription in &subscriptions {
        kit.handle(&mut kit.consume(subscription).await?, ["a"]).await?;
    }
    Ok(())
}

pub(super) async fn refused_message_publishes_nothing(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    let unusable = NewMessage::new("b").with_key("");
    let published = kit.harness().publish(TOPIC, vec![NewMessage::new("a"), unusable]).await;
    refused(published, ErrorKind::Invalid, "publishing a message with an empty key")?;
    kit.nothing(&mut stream).await
}

pub(super) async fn unknown_topic_is_an_error(kit: &Kit) -> CaseResult {
    let published = kit.harness().publish("nowhere", vec![NewMessage::new("a")]).await;
    refused(published, ErrorKind::NotFound, "publishing to an unknown topic")
}

fn once(text: &str, dedup_id: &str) -> NewMessage {
    NewMessage::new(text.to_owned()).with_dedup_id(dedup_id)
}

/// In two calls, in one call, and in calls that race.
pub(super) async fn same_dedup_id_publishes_once(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    let first = kit.publish_messages(vec![once("a", "one")]).await?;
    let second = kit.publish_messages(vec![once("ignored", "one"), once("b", "two"), once("ignored", "two")]).await?;
    check_eq!(second[0], first[0], "the id of a repetition in a later call");
    check_eq!(second[2], second[1], "the id of a repetition in the same call");
    check!(second[1] != first[0], "one id for two dedup ids");

    let race = (0..8).map(|_| kit.publish_messages(vec![once("c", "three")]));
    let ids: HashSet<_> = try_join_all(race).await?.concat().into_iter().collect();
    check_eq!(ids.len(), 1, "the number of ids of publications that race");

    let texts = kit.drain(&mut stream, 3).await?;
    check_eq!(texts, ["a", "b", "c"], "what is delivered");
    kit.nothing(&mut stream).await
}

pub(super) async fn dedup_ids_belong_to_their_topic(kit: &Kit) -> CaseResult {
    kit.harness().create_topic(Topic::new("other")).await?;
    let mut stream = kit.consume(&kit.subscription()).await?;
    kit.harness().publish("other", vec![once("elsewhere", "one")]).await?;
    kit.publish_messages(vec![once("here", "one")]).await?;
    kit.handle(&mut stream, ["here"]).await
}

pub(super) async fn dedup_id_is_forgotten_after_its_window(kit: &Kit) -> CaseResult {
    let forgetful = Topic::new("forgetful").with_dedup_window(DELAY);
    kit.harness().create_topic(forgetful.clone()).await?;
    let mut stream = kit.consume(&Subscription::new("subscription", forgetful.name())).await?;
    let publish = async |text| kit.harness().publish(forgetful.name(), vec![once(text, "one")]).await;
    let first = publish("first").await?;
    kit.handle(&mut stream, ["first"]).await?;

    let forgotten = kit.patiently(async {
        while publish("again").await? == first {
            kit.harness().pass(DELAY).await;
        }
        CaseResult::Ok(())
    });
    forgotten.await.transpose()?;
    kit.handle(&mut stream, ["again"]).await
}

pub(super) async fn scheduled_message_comes_when_due_and_not_before(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    let published = Instant::now();
    let later = NewMessage::new("later").with_delay(DELAY);
    let much_later = NewMessage::new("much later").with_delay(FOREVER);
    kit.publish_messages(vec![NewMessage::new("now"), much_later, later]).await?;

    kit.handle(&mut stream, ["now"]).await?;
    kit.handle(&mut stream, ["later"]).await?;
    not_before(published, DELAY)?;
    kit.nothing(&mut stream).await
}

pub(super) async fn scheduled_message_comes_at_its_time(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    kit.publish_messages(vec![NewMessage::new("overdue").with_delivery_time(SystemTime::UNIX_EPOCH)]).await?;
    let published = Instant::now();
    kit.handle(&mut stream, ["overdue"]).await?;

    // Times are by the queue's clock, which need not be this machine's: a message says what time it is there.
    kit.publish(["clock"]).await?;
    let clock = kit.receive(&mut stream, "clock").await?;
    let due = clock.message().published_at() + DELAY;
    clock.ok().await?;
    kit.publish_messages(vec![NewMessage::new("on time").with_delivery_time(due)]).await?;
    kit.handle(&mut stream, ["on time"]).await?;
    not_before(published, DELAY)
}
