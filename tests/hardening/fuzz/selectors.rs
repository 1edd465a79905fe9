//! Selectors at random: what is accepted is evaluated by the server without an error, and selects what it selects here.

use std::time::SystemTime;

use fastrand::Rng;
use pgqueue_core::{Comparison, Message, MessageId, NewMessage, Position, Selector, Subscription};
use pgqueue_postgres::{Client, Parameter, PgQueue, Row};
use serde_json::{Value, json};

use super::{chance, inputs, json, limits::message, text};
use crate::{both_clients::on_both_clients, common::queue};

on_both_clients!(selectors_are_evaluated_as_here);

const BATCH: usize = 250;

/// Evaluates conditions, each on a message of its own, in one statement.
const EVALUATE: &str = "
    select string_agg(
      pgqueue.holds(e -> 'condition', e ->> 'key', e ->> 'kind', array(select jsonb_array_elements_text(e -> 'tags')),
                    pgqueue.payload_json(decode(e ->> 'payload', 'hex')))::int::text, '' order by n)
    from jsonb_array_elements($1::jsonb) with ordinality x (e, n)";

/// A tree of conditions that is so deep at most; some are far too deep, too many, or too absurd to be used.
pub(crate) fn selector(rng: &mut Rng, depth: usize) -> Selector {
    if rng.u16(..400) == 0 {
        let deep = (0..rng.usize(10..60)).fold(Selector::key("k1"), |inner, n| !inner.or(Selector::key(n.to_string())));
        return deep;
    }
    match rng.u8(..if depth == 0 { 8 } else { 14 }) {
        0 => Selector::key(text(rng)),
        1 => Selector::key_like(text(rng)),
        2 => Selector::kinds(texts(rng)),
        3 => Selector::kind_like(text(rng)),
        4 => Selector::tags_any(texts(rng)),
        5 => Selector::tags_all(texts(rng)),
        6 => Selector::payload(if rng.u8(..20) == 0 { json::value(rng, 2) } else { json::object(rng, 3) }),
        7 => {
            let comparisons =
                [Comparison::Greater, Comparison::GreaterOrEqual, Comparison::Less, Comparison::LessOrEqual];
            let path: Vec<_> =
                (0..[1, 1, 1, 0, 3][rng.usize(..5)]).map(|_| ["a", "b", "n", "0", "-1"][rng.usize(..5)]).collect();
            let to =
                [0.0, 1.0, -2.5, 1e308, 5e-324, f64::NAN, f64::INFINITY, f64::from_bits(rng.u64(..))][rng.usize(..8)];
            Selector::number(path, comparisons[rng.usize(..4)], to)
        }
        8..=10 => selector(rng, depth - 1).and(selector(rng, depth - 1)),
        11..=12 => selector(rng, depth - 1).or(selector(rng, depth - 1)),
        _ => !selector(rng, depth - 1),
    }
}

/// No texts, few, or a great many.
fn texts(rng: &mut Rng) -> Vec<String> {
    let count = if rng.u8(..200) == 0 { 5000 } else { rng.usize(..4) };
    (0..count).map(|_| text(rng)).collect()
}

/// A selector that is accepted and a message, as the server is asked about them.
fn pair(rng: &mut Rng) -> (Selector, NewMessage, bool) {
    loop {
        let (selector, message) = (selector(rng, 4), message(rng));
        if selector.validate().is_ok() && message.validate().is_ok() {
            // What a store may know better is not compared.
            let payload = serde_json::from_slice::<Value>(message.payload());
            let condition = serde_json::to_value(selector.condition()).unwrap();
            let is_plain = payload.map_or(!message.payload().starts_with(b"{"), |payload| json::is_plain(&payload))
                && json::is_plain(&condition);
            return (selector, message, is_plain);
        }
    }
}

async fn evaluate<C: Client>(queue: &PgQueue<C>, pairs: &[(Selector, NewMessage, bool)]) -> Result<String, String> {
    let asked: Vec<_> = pairs
        .iter()
        .map(|(selector, message, _)| {
            let payload: String = message.payload().iter().map(|byte| format!("{byte:02x}")).collect();
            json!({"condition": selector.condition(), "key": message.key(), "kind": message.kind(), "tags": message.tags(), "payload": payload})
        })
        .collect();
    let asked = serde_json::to_string(&asked).unwrap();
    let rows = queue.client().query(EVALUATE, &[Parameter::from(asked)]).await.map_err(|error| format!("{error:?}"))?;
    Ok(String::from_utf8(rows[0].column(0).unwrap().to_vec()).unwrap())
}

async fn selectors_are_evaluated_as_here<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let mut rng = chance();
    let (count, mut done, mut compared, mut selected) = (inputs(10), 0, 0, 0);
    while done < count {
        let pairs: Vec<_> = (0..BATCH.min(count - done)).map(|_| pair(&mut rng)).collect();
        done += pairs.len();
        let answers = match evaluate(&queue, &pairs).await {
            Ok(answers) => answers,
            Err(error) => {
                for pair in &pairs {
                    if let Err(error) = evaluate(&queue, std::slice::from_ref(pair)).await {
                        panic!("{} of {:?} {:?}: {error}", pair.0, pair.1, pair.1.payload());
                    }
                }
                panic!("together only: {error}");
            }
        };
        assert_eq!(answers.len(), pairs.len());
        for ((selector, content, is_plain), answer) in pairs.iter().zip(answers.chars()) {
            let message = Message::new(
                MessageId::new("1"),
                Position::new("1"),
                "orders",
                content.clone(),
                SystemTime::UNIX_EPOCH,
            );
            let here = selector.matches(&message);
            selected += usize::from(here);
            if *is_plain {
                compared += 1;
                assert_eq!(here, answer == '1', "{selector} of {message:?} {:?}", content.payload());
            }
        }
        // And the whole way: stored, and found again.
        let (selector, ..) = &pairs[0];
        let subscription = Subscription::new("s", "orders").with_selector(selector.clone());
        queue.insert_subscription(&subscription).await.unwrap();
        queue.insert_subscription(&subscription).await.unwrap_or_else(|error| panic!("{selector}: {error:?}"));
        assert!(queue.find_subscription("s").await.unwrap().is_some());
        queue.delete_subscription("s").await.unwrap();
    }
    assert!(
        compared > count / 4 && selected > count / 50 && selected < count,
        "{compared} compared, {selected} selected"
    );
    println!("{count} inputs, of which {compared} were compared, and {selected} selected");
}
