//! Selectors mean the same on the server as they do in core, whatever the messages and the selectors.

use std::collections::BTreeSet;

use fastrand::Rng;
use pgqueue_core::{Ack, Comparison, Message, NewMessage, Order, Publisher, Selector, Subscription};
use pgqueue_postgres::{Client, PgQueue};
use serde_json::{Map, Value, json};

use crate::{
    both_clients::on_both_clients,
    common::{consume, invoices, next, number, queue},
};

on_both_clients!(
    random_selectors_select_what_core_selects,
    random_selectors_select_the_same_where_every_payload_can_be_read,
    waiting_messages_are_counted_as_far_as_they_were_examined,
    a_selector_reaches_what_is_far_between,
    a_redriven_message_passes_nothing_that_was_not_examined,
    numbers_beyond_every_float_stop_nobody,
    selectors_come_back_as_they_were,
);

const MESSAGES: usize = 150;
const SELECTORS: usize = 60;

/// A word out of few, so that they meet.
fn word(rng: &mut Rng) -> String {
    let words = ["a", "b", "ab", "a.b", "%", "_", "\\", "*", "'", "\"", "ß", "x"];
    rng.choice(words).unwrap_or_default().to_owned()
}

fn words(rng: &mut Rng) -> Vec<String> {
    (0..rng.usize(..3)).map(|_| word(rng)).collect()
}

fn value(rng: &mut Rng, depth: usize) -> Value {
    match rng.u8(..if depth == 0 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => rng.bool().into(),
        2 => rng.i64(-2..3).into(),
        3 => json!(f64::from(rng.i8(-4..5)) / 2.0),
        4 => rng.choice([json!(1e20), json!(9_007_199_254_740_993_i64), json!(0.1), json!(-1e-7)]).unwrap_or_default(),
        5 => word(rng).into(),
        6 => (0..rng.usize(..3)).map(|_| value(rng, depth - 1)).collect(),
        _ => object(rng, depth - 1).into(),
    }
}

fn object(rng: &mut Rng, depth: usize) -> Map<String, Value> {
    (0..rng.usize(..4))
        .map(|_| (rng.choice(["a", "b", "c"]).unwrap_or_default().to_owned(), value(rng, depth)))
        .collect()
}

fn any_payload(rng: &mut Rng) -> Vec<u8> {
    match rng.u8(..8) {
        0 => b"no json".to_vec(),
        1 => vec![0xff, 0x00],
        2 => br#"{"a": "\u0000"}"#.to_vec(),
        3 => serde_json::to_vec(&value(rng, 2)).unwrap(),
        _ => serde_json::to_vec(&object(rng, 2)).unwrap(),
    }
}

/// JSON of numbers and objects: no condition meets what it cannot read.
fn readable_payload(rng: &mut Rng) -> Vec<u8> {
    fn readable(value: Value) -> Value {
        match value {
            Value::Number(_) => value,
            Value::Object(members) => {
                members.into_iter().map(|(name, value)| (name, readable(value))).collect::<Map<_, _>>().into()
            }
            _ => json!(-1),
        }
    }
    serde_json::to_vec(&readable(object(rng, 2).into())).unwrap()
}

fn message(rng: &mut Rng, payload: fn(&mut Rng) -> Vec<u8>) -> NewMessage {
    let mut message = NewMessage::new(payload(rng));
    if rng.bool() {
        message = message.with_key(word(rng));
    }
    if rng.bool() {
        message = message.with_kind(word(rng));
    }
    words(rng).into_iter().fold(message, NewMessage::with_tag)
}

fn selector(rng: &mut Rng, depth: usize) -> Selector {
    let glob = |rng: &mut Rng| {
        let parts: Vec<_> = (0..rng.usize(1..4)).map(|_| if rng.bool() { "*".into() } else { word(rng) }).collect();
        if rng.bool() { parts.concat() } else { format!("?{}", parts.concat()) }
    };
    match rng.u8(..if depth == 0 { 8 } else { 12 }) {
        0 => Selector::key(word(rng)),
        1 => Selector::key_like(glob(rng)),
        2 => Selector::kinds(words(rng)),
        3 => Selector::kind_like(glob(rng)),
        4 => Selector::tags_any(words(rng)),
        5 => Selector::tags_all(words(rng)),
        6 => Selector::payload(object(rng, 2).into()),
        7 => {
            let is = [Comparison::Greater, Comparison::GreaterOrEqual, Comparison::Less, Comparison::LessOrEqual];
            let path: Vec<_> = (0..rng.usize(1..3)).map(|_| rng.choice(["a", "b", "c"]).unwrap_or_default()).collect();
            Selector::number(path, rng.choice(is).unwrap_or(Comparison::Less), f64::from(rng.i8(-4..5)) / 2.0)
        }
        8 => !selector(rng, depth - 1),
        9 => selector(rng, depth - 1).or(selector(rng, depth - 1)),
        _ => selector(rng, depth - 1).and(selector(rng, depth - 1)),
    }
}

/// Takes so many messages of a subscription, after which none may be waiting.
async fn drain<C: Client>(queue: &PgQueue<C>, subscription: Subscription, count: usize) -> BTreeSet<String> {
    let name = subscription.name().to_owned();
    let mut stream = consume(queue, subscription).await;
    let mut ids = BTreeSet::new();
    for _ in 0..count {
        let delivery = next(&mut stream).await;
        ids.insert(delivery.message().id().to_string());
        delivery.ok().await.unwrap();
    }
    let stats = queue.stats(&name).await.unwrap();
    assert_eq!((stats.waiting, stats.in_flight), (0, 0), "{name} has more");
    ids
}

async fn random_selectors_select_what_core_selects<C: Client>() {
    select_at_random::<C>(any_payload).await;
}

async fn random_selectors_select_the_same_where_every_payload_can_be_read<C: Client>() {
    select_at_random::<C>(readable_payload).await;
}

/// What a random selector selects, by its number: some in an order that is looked at in another way.
fn selecting(n: usize, selector: &Selector) -> Subscription {
    let order = if n.is_multiple_of(4) { Order::StableTotal } else { Order::Unordered };
    Subscription::new(n.to_string(), "orders").with_order(order).with_selector(selector.clone())
}

#[expect(clippy::print_stderr, reason = "whoever sees it fail wants to see it again")]
async fn select_at_random<C: Client>(payload: fn(&mut Rng) -> Vec<u8>) {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let (_database, queue) = queue::<C>().await;
    let selectors: Vec<_> = (0..SELECTORS).map(|_| selector(&mut rng, 3)).collect();
    for (n, selector) in selectors.iter().enumerate() {
        let subscription = selecting(n, selector);
        queue.insert_subscription(&subscription).await.unwrap();
        queue.insert_subscription(&subscription).await.unwrap(); // it comes back as it was
    }
    queue.insert_subscription(&invoices()).await.unwrap();
    let messages = (0..MESSAGES).map(|_| message(&mut rng, payload)).collect();
    queue.publish("orders", messages).await.unwrap();

    let mut stream = consume(&queue, invoices()).await;
    let mut all: Vec<Message> = Vec::new();
    while all.len() < MESSAGES {
        let delivery = next(&mut stream).await;
        all.push(delivery.message().clone());
        delivery.ok().await.unwrap();
    }
    for (n, selector) in selectors.into_iter().enumerate() {
        let wanted = all.iter().filter(|message| selector.matches(message)).map(|message| message.id().to_string());
        let wanted: BTreeSet<_> = wanted.collect();
        let seen = drain(&queue, selecting(n, &selector), wanted.len()).await;
        let wrong = all.iter().find(|message| {
            let id = &message.id().to_string();
            seen.contains(id) != wanted.contains(id)
        });
        assert!(wrong.is_none(), "{selector} is wrong about {wrong:?} of payload {:?}", wrong.map(Message::payload));
    }
}

async fn waiting_messages_are_counted_as_far_as_they_were_examined<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let rare = invoices().with_selector(Selector::kind("rare"));
    queue.insert_subscription(&rare).await.unwrap();
    queue.publish("orders", vec![NewMessage::new("0").with_kind("rare"), NewMessage::new("1")]).await.unwrap();
    let stats = queue.stats("invoices").await.unwrap();
    assert_eq!((stats.waiting, stats.waiting_is_exact), (1, true));
    for _ in 0..5 {
        queue.publish("orders", vec![NewMessage::new("2"); 10_000]).await.unwrap();
    }
    queue.publish("orders", vec![NewMessage::new("3").with_kind("rare")]).await.unwrap();
    let stats = queue.stats("invoices").await.unwrap();
    assert_eq!((stats.waiting, stats.waiting_is_exact), (1, false));
}

async fn a_selector_reaches_what_is_far_between<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let rare = invoices().with_selector(Selector::payload(json!({"rare": true})));
    queue.insert_subscription(&rare).await.unwrap();
    for _ in 0..3 {
        queue.publish("orders", vec![NewMessage::new("{}"); 15_000]).await.unwrap();
        queue.publish("orders", vec![NewMessage::new(r#"{"rare": true}"#)]).await.unwrap();
    }
    drain(&queue, rare, 3).await;
}

async fn a_redriven_message_passes_nothing_that_was_not_examined<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let rare = invoices().with_order(Order::Total).with_selector(Selector::kind("rare"));
    let mut stream = consume(&queue, rare).await;
    let publish = async |text: &'static str| {
        queue.publish("orders", vec![NewMessage::new(text).with_kind("rare")]).await.unwrap();
    };
    publish("1").await;
    next(&mut stream).await.settle(Ack::reject("dead")).await.unwrap();
    drop(stream);
    queue.consumers_gone().await;
    queue.publish("orders", vec![NewMessage::new("0"); 15_000]).await.unwrap();
    publish("2").await;
    queue.redrive("invoices").await.unwrap();
    let rare = invoices().with_order(Order::Total).with_selector(Selector::kind("rare"));
    let mut stream = consume(&queue, rare).await;
    for expected in [2, 1] {
        let delivery = next(&mut stream).await;
        assert_eq!(number(&delivery), expected);
        delivery.ok().await.unwrap();
    }
}

async fn numbers_beyond_every_float_stop_nobody<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let small = invoices().with_selector(Selector::number(["n"], Comparison::Less, 5.0));
    queue.insert_subscription(&small).await.unwrap();
    let payloads = [r#"{"n": 1e400}"#, r#"{"n": 1e-400}"#, r#"{"n": -1e308}"#, r#"{"n": 1}"#];
    queue.publish("orders", payloads.map(NewMessage::new).to_vec()).await.unwrap();
    assert_eq!(drain(&queue, small, 3).await.len(), 3);
}

async fn selectors_come_back_as_they_were<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    for to in [999.104_852_582_298_5, 1e17, -0.0, 5e-324, f64::MAX, 0.1] {
        let name = format!("{to:e}");
        let selector = Selector::number(["n"], Comparison::Less, to).and(Selector::payload(json!({"n": [to]})));
        let subscription = Subscription::new(name, "orders").with_selector(selector);
        queue.insert_subscription(&subscription).await.unwrap();
        queue.alter_subscription(&subscription).await.unwrap();
        drop(consume(&queue, subscription).await);
    }
    assert_eq!(queue.subscriptions().await.unwrap().len(), 6);
}
