//! Every subscription is a queue of its own.

use pgqueue_core::{ErrorKind, NewMessage, Subscription, Topic};

use crate::{
    expect::{failed, refused},
    failure::{CaseResult, check_eq},
    kit::{Kit, numbered},
};

pub(super) async fn every_subscription_gets_every_message(kit: &Kit) -> CaseResult {
    let mut streams = Vec::new();
    for name in ["one", "two", "three"] {
        streams.push(kit.consume(&kit.subscription_named(name)).await?);
    }
    let texts = numbered(10);
    kit.publish(&texts).await?;
    for stream in &mut streams {
        check_eq!(kit.drain(stream, texts.len()).await?, texts, "what a subscription gets");
        kit.nothing(stream).await?;
    }
    Ok(())
}

pub(super) async fn slow_subscription_does_not_delay_another(kit: &Kit) -> CaseResult {
    let mut slow = kit.consume(&kit.subscription_named("slow")).await?;
    let mut quick = kit.consume(&kit.subscription_named("quick")).await?;
    let texts = numbered(20);
    kit.publish(&texts).await?;
    let held = kit.next(&mut slow).await?;
    check_eq!(kit.drain(&mut quick, texts.len()).await?, texts, "what a quick subscription gets");
    Ok(held.ok().await?)
}

/// Names that are easily confused: by case, by quoting, by cutting off after 63 bytes, by normalising.
fn names() -> Vec<String> {
    let long = "long".repeat(20);
    let mut names = vec![format!("{long}1"), format!("{long}2")];
    let short = [
        "orders",
        "Orders",
        "'orders'",
        "\"orders\"",
        " orders",
        "o.r%d_e*rs",
        "\\orders",
        "Größe",
        "Gro\u{308}ße",
        "☃",
        "1",
    ];
    names.extend(short.map(str::to_owned));
    names.push("x".repeat(pgqueue_core::MAX_NAME_BYTES));
    names
}

pub(super) async fn subscription_names_are_taken_literally(kit: &Kit) -> CaseResult {
    for name in names() {
        kit.insert(&kit.subscription_named(&name)).await?;
    }
    kit.publish(["a"]).await?;
    for name in names() {
        kit.handle(&mut kit.consume(&kit.subscription_named(&name)).await?, ["a"]).await?;
    }
    Ok(())
}

pub(super) async fn topic_names_are_taken_literally(kit: &Kit) -> CaseResult {
    let subscription =
        |topic: &str| Subscription::new(format!("of {}", &topic[..topic.floor_char_boundary(200)]), topic);
    for topic in names() {
        kit.harness().create_topic(Topic::new(&topic)).await?;
        kit.insert(&subscription(&topic)).await?;
    }
    for topic in names() {
        kit.harness().publish(&topic, vec![NewMessage::new(topic.clone())]).await?;
    }
    for topic in names() {
        let mut stream = kit.consume(&subscription(&topic)).await?;
        let delivery = kit.receive(&mut stream, &topic).await?;
        check_eq!(delivery.message().topic(), topic, "the topic of a message");
        delivery.ok().await?;
        kit.nothing(&mut stream).await?;
    }
    Ok(())
}

/// A consumer that sleeps must not sleep for ever.
pub(super) async fn unsubscribing_ends_the_streams(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    let mut stream = kit.consume(&subscription).await?;
    kit.nothing(&mut stream).await?;
    kit.harness().unsubscribe(subscription.name()).await?;
    failed(&kit.failure(&mut stream).await?, ErrorKind::NotFound, "consuming after unsubscribing")
}

/// Not even what was pending, and not under the same name again.
pub(super) async fn unsubscribed_name_delivers_nothing(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    let driver = kit.driver(&subscription).await?;
    kit.publish(["a"]).await?;
    kit.harness().unsubscribe(subscription.name()).await?;
    refused(driver.fetch_pending().await, ErrorKind::NotFound, "fetching after unsubscribing")?;

    let mut stream = kit.consume(&subscription).await?;
    kit.nothing(&mut stream).await?;
    kit.publish(["b"]).await?;
    kit.handle(&mut stream, ["b"]).await
}
