//! Subscriptions that get a part of their topic's messages.

use futures::future::try_join_all;
use pgqueue_core::{Comparison, ErrorKind, NewMessage, Order, Retention, Selector, Start, Subscription, Topic};
use serde_json::json;

use crate::{
    expect::refused,
    failure::{CaseResult, check},
    kit::{Kit, TOPIC},
};

/// How many subscriptions are consumed at the same time.
const AT_A_TIME: usize = 6;

fn selecting(kit: &Kit, name: &str, selector: Selector) -> Subscription {
    kit.subscription_named(name).with_selector(selector)
}

/// Messages that differ in everything a selector can ask for, by their payloads.
fn messages() -> Vec<NewMessage> {
    let of = |payload: &str| NewMessage::new(payload.to_owned());
    vec![
        of("bare"),
        of(r#"{"n": 1}"#).with_key("order-1").with_kind("order.paid").with_tag("a"),
        of(r#"{"n": 2.5, "in": {"list": [1, 2, {"x": true}]}}"#)
            .with_key("order-2")
            .with_kind("order.sent")
            .with_tag("b"),
        of(r#"{"n": "2", "in": {"list": []}}"#).with_key("Order-3").with_kind("order%").with_tag("a").with_tag("b"),
        of(r#"[{"n": 1}]"#).with_kind("order_"),
        of(r#"{"n": 1e2, "in": null} "#).with_key("100%").with_tag("☃'"),
    ]
}

/// Selectors, and which of the [`messages`] they select.
fn selectors() -> Vec<(Selector, Vec<usize>)> {
    let (kind, tag) = (Selector::kind("order.paid"), Selector::tags_any(["b"]));
    let nothing: [&str; 0] = [];
    vec![
        (Selector::all(), vec![0, 1, 2, 3, 4, 5]),
        (Selector::key("order-1"), vec![1]),
        (Selector::key("'; drop table pgqueue.log; --"), vec![]),
        (kind.clone(), vec![1]),
        (Selector::kinds(["order.sent", "order_"]), vec![2, 4]),
        (Selector::kinds(nothing), vec![]),
        (Selector::key_like("order-*"), vec![1, 2]),
        (Selector::key_like("?????-?"), vec![1, 2, 3]),
        (Selector::key_like("100%"), vec![5]),
        (Selector::key_like("*"), vec![1, 2, 3, 5]),
        (Selector::kind_like("order_"), vec![4]),
        (Selector::kind_like("order%"), vec![3]),
        (Selector::kind_like("*.*"), vec![1, 2]),
        (Selector::tags_any(["a", "b"]), vec![1, 2, 3]),
        (Selector::tags_all(["b", "a"]), vec![3]),
        (Selector::tags_all(["☃'"]), vec![5]),
        (Selector::tags_any(nothing), vec![]),
        (Selector::tags_all(nothing), vec![]),
        (Selector::payload(json!({})), vec![1, 2, 3, 5]),
        (Selector::payload(json!({"n": 1.0})), vec![1]),
        (Selector::payload(json!({"n": 100})), vec![5]),
        (Selector::payload(json!({"n": "2"})), vec![3]),
        (Selector::payload(json!({"in": {"list": []}})), vec![2, 3]),
        (Selector::payload(json!({"in": {"list": [{}, 2]}})), vec![2]),
        (Selector::payload(json!({"in": null})), vec![5]),
        (Selector::number(["n"], Comparison::Greater, 1.0), vec![2, 5]),
        (Selector::number(["n"], Comparison::GreaterOrEqual, 1.0), vec![1, 2, 5]),
        (Selector::number(["n"], Comparison::Less, 2.5), vec![1]),
        (Selector::number(["n"], Comparison::LessOrEqual, 2.5), vec![1, 2]),
        (Selector::number(["in", "list"], Comparison::Less, 9.0), vec![]),
        (kind.clone().or(tag.clone()), vec![1, 2, 3]),
        (Selector::key_like("*-*").and(tag.clone()), vec![2, 3]),
        (!kind.clone().or(tag.clone()), vec![0, 4, 5]),
        ((!Selector::key_like("*")).and(!kind), vec![0, 4]),
        (Selector::key("order-2").and(tag).and(Selector::kind("order.sent")), vec![2]),
        (Selector::key("order-2").and(Selector::key("order-1")), vec![]),
    ]
}

/// Checks what one consumer gets.
async fn gets(kit: &Kit, subscription: &Subscription, wanted: &[usize]) -> CaseResult {
    let mut stream = kit.consume(subscription).await?;
    let messages = messages();
    let mut wanted: Vec<_> =
        wanted.iter().map(|n| String::from_utf8_lossy(messages[*n].payload()).into_owned()).collect();
    wanted.sort();
    let seen = kit.drain(&mut stream, wanted.len()).await?;
    let selector = subscription.selector();
    check!(seen == wanted, "{selector} selects {seen:?}, not {wanted:?}");
    Ok(())
}

/// Checks what consumers get, several at a time.
async fn all_get(kit: &Kit, subscriptions: &[(Subscription, Vec<usize>)]) -> CaseResult {
    for some in subscriptions.chunks(AT_A_TIME) {
        try_join_all(some.iter().map(|(subscription, wanted)| gets(kit, subscription, wanted))).await?;
    }
    Ok(())
}

pub(super) async fn selector_keeps_out_what_does_not_match(kit: &Kit) -> CaseResult {
    let subscriptions: Vec<_> = selectors()
        .into_iter()
        .enumerate()
        .map(|(n, (selector, wanted))| (selecting(kit, &n.to_string(), selector), wanted))
        .collect();
    for (subscription, _) in &subscriptions {
        kit.insert(subscription).await?;
    }
    kit.publish_messages(messages()).await?;
    all_get(kit, &subscriptions).await?;
    // What was kept out does not come later either.
    let mut stream = kit.consume(&selecting(kit, "1", Selector::key("order-1"))).await?;
    kit.nothing(&mut stream).await
}

pub(super) async fn selector_means_the_same_in_catch_up_and_live(kit: &Kit) -> CaseResult {
    kit.harness().create_topic(Topic::new(TOPIC).with_retention(Retention::everything())).await?;
    let subscriptions: Vec<_> = [Order::Unordered, Order::ByKey, Order::Total]
        .into_iter()
        .flat_map(|order| {
            selectors().into_iter().enumerate().map(move |(n, (selector, wanted))| {
                let subscription = selecting(kit, &format!("{order} {n}"), selector).with_order(order);
                (subscription.with_start(Start::Beginning), wanted)
            })
        })
        .collect();
    // First what was published before, then what came since.
    for _ in 0..2 {
        kit.publish_messages(messages()).await?;
        all_get(kit, &subscriptions).await?;
    }
    Ok(())
}

pub(super) async fn selector_that_cannot_be_used_is_refused(kit: &Kit) -> CaseResult {
    for selector in
        [Selector::key(""), Selector::payload(json!(1)), Selector::number(["n"], Comparison::Less, f64::NAN)]
    {
        let what = selector.to_string();
        let driver = kit.harness().driver(selecting(kit, "subscription", selector)).await?;
        refused(driver.insert_subscription().await, ErrorKind::Invalid, &what)?;
    }
    // Nothing was made of it.
    let mut stream = kit.consume(&kit.subscription()).await?;
    kit.publish(["a"]).await?;
    kit.handle(&mut stream, ["a"]).await
}

pub(super) async fn selector_is_a_part_of_the_identity(kit: &Kit) -> CaseResult {
    let paid =
        selecting(kit, "subscription", Selector::kind("paid").and(Selector::payload(json!({"b": 1.50, "a": [1]}))));
    kit.insert(&paid).await?;
    kit.insert(&paid).await?;
    let sent = selecting(kit, "subscription", Selector::kind("sent"));
    let driver = kit.harness().driver(sent).await?;
    refused(driver.insert_subscription().await, ErrorKind::Conflict, "inserting it with another selector")
}
