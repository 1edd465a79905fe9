//! Positions at random, for subscriptions and checkpoints: places in the log, or refused.

use std::collections::BTreeMap;

use fastrand::Rng;
use pgqueue_core::{ErrorKind, Order, Position, Start, Subscription};
use pgqueue_postgres::Client;

use super::{arguments::attempt_all, chance, inputs, text};
use crate::{
    both_clients::on_both_clients,
    common::{publish_numbers, queue},
};

on_both_clients!(positions_are_places_or_refused);

const BATCH: usize = 200;

/// What looks like a position: parts of one in any order, changed here and there.
fn position(rng: &mut Rng) -> String {
    let number = |rng: &mut Rng| match rng.u8(..6) {
        0 => "0".to_owned(),
        1 => rng.u64(..).to_string(),
        2 => "9".repeat(rng.usize(1..25)),
        _ => rng.u16(..2000).to_string(),
    };
    let snapshot = |rng: &mut Rng| {
        let xip: Vec<_> = (0..rng.usize(..3)).map(|_| number(rng)).collect();
        format!("{}:{}:{}", number(rng), number(rng), xip.join(","))
    };
    let mut made = match rng.u8(..5) {
        0 => number(rng),
        1 => format!("{}-{}-{}", number(rng), number(rng), snapshot(rng)),
        2 => format!(
            "{}-{}-{}-{}-{}-{}",
            number(rng),
            number(rng),
            snapshot(rng),
            number(rng),
            number(rng),
            snapshot(rng)
        ),
        3 => format!("{:0>20}.{:0>19}", number(rng), number(rng)),
        _ => text(rng).replace('\0', ""),
    };
    while rng.u8(..4) == 0 {
        let at = made.floor_char_boundary(rng.usize(..=made.len()));
        match rng.u8(..3) {
            0 => made.insert(at, ['-', '.', ':', ',', '0', ' ', '\'', '٣'][rng.usize(..8)]),
            1 => made.truncate(at),
            _ => made = made.split_off(at),
        }
    }
    made
}

async fn positions_are_places_or_refused<C: Client>() {
    let (database, queue) = queue::<C>().await;
    publish_numbers(&queue, 1..=20).await;
    let mut rng = chance();
    let (count, mut done) = (inputs(5), 0);
    let mut states = BTreeMap::<String, usize>::new();
    while done < count {
        let made: Vec<_> = (0..BATCH.min(count - done)).map(|_| position(&mut rng)).collect();
        done += made.len();
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let ask = |(n, made): (usize, &String)| match n % 3 {
            0 => format!("select pgqueue.advance_checkpoint('c', {})", quoted(made)),
            order => format!(
                "select pgqueue.insert_subscription('s', 'orders', '{}', 1, 1, 1000, 1, 0, 1, 0, 0, {}),
                        pgqueue.seek('s', {})",
                ["by key", "stable total"][order - 1],
                quoted(made),
                quoted(made)
            ),
        };
        let asked: Vec<_> = made.iter().enumerate().map(ask).collect();
        for (asked, state) in asked.iter().zip(attempt_all(&queue, &asked).await) {
            assert!(matches!(&state[..2], "OK" | "PQ" | "22"), "{state} for {asked}");
            *states.entry(state).or_default() += 1;
        }
        // Through the whole of the library, and a claim from where it starts.
        for (made, order) in made.iter().zip([Order::Unordered, Order::ByKey, Order::Total, Order::StableTotal]) {
            let start = Start::After(Position::new(made.clone()));
            let subscription = Subscription::new("s", "orders").with_order(order).with_start(start);
            match queue.insert_subscription(&subscription).await {
                Ok(()) => {
                    let claim =
                        "select count(*) from pgqueue.claim((select id from pgqueue.subscription where name = 's'),
                                 gen_random_uuid(), gen_random_uuid(), 10, true, true, 0, false)";
                    let claimed =
                        database.sql(claim).await.unwrap_or_else(|error| panic!("{made:?} in {order}: {error}"));
                    assert!(claimed.parse::<usize>().unwrap() <= 11);
                    queue.delete_subscription("s").await.unwrap();
                }
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Truncated), "{made:?}: {error:?}");
                }
            }
        }
    }
    assert!(states.contains_key("OK000") && states.contains_key("PQ006"), "{states:?}");
    println!("{count} inputs: {states:?}");
}
