//! Working off messages of few busy and many quiet keys, in order by key, beside the same without order.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use pgqueue_core::{Message, NewMessage, Order, Subscription};

use crate::{
    drivers::Driver,
    harness::{
        Bench, Contender, Measurement, Queue, Sample, TOPIC, Tally, Target, Zipf, load, number, payload, work_off,
    },
};

const KEYS: usize = 1000;

pub(crate) const CONSUMERS: usize = 8;

/// How many messages a consumer has in hand and handles at the same time.
const PREFETCH: usize = 100;

/// How many messages of a lane a delivery has at most, where they come in batches.
const BATCH: usize = 100;

pub(crate) async fn run<D: Driver>(bench: &mut Bench) -> Result<()> {
    let (messages, size) = (bench.arguments.messages(100_000), bench.arguments.payload);
    let consumers = bench.arguments.consumers.unwrap_or(CONSUMERS);
    let contender = |who, order, batch| {
        let go = Go { order, messages, size, consumers, batch };
        Contender::new(who, move |m| measure::<D>(m, go))
            .with("batch", batch)
            .with("consumers", consumers)
            .with("keys", KEYS)
            .with("prefetch", PREFETCH)
    };
    let contenders = [
        contender("pgqueue, unordered", Order::Unordered, 1),
        contender("pgqueue, by key", Order::ByKey, 1).against(0).hopes_for(Target::AtLeast(0.5)),
        contender("pgqueue, unordered", Order::Unordered, BATCH),
        contender("pgqueue, by key", Order::ByKey, BATCH).against(2).hopes_for(Target::AtLeast(0.5)),
    ];
    bench.compare("order", &contenders).await
}

/// Whose messages they are.
pub(crate) fn keys(messages: usize) -> impl Iterator<Item = usize> {
    Zipf::new(KEYS).take(messages)
}

pub(crate) fn name(key: usize) -> String {
    format!("customer-{key}")
}

#[derive(Clone, Copy)]
pub(crate) struct Go {
    pub(crate) order: Order,
    pub(crate) messages: usize,
    pub(crate) size: usize,
    pub(crate) consumers: usize,
    /// How many messages a delivery has at most.
    pub(crate) batch: usize,
}

pub(crate) async fn measure<D: Driver>(m: Measurement, go: Go) -> Result<Sample> {
    let queue = m.queue::<D>(3 * go.consumers).await?;
    let loading = m.stocked_queue::<D>(0).await?;
    measure_on(m, queue, loading, go).await
}

/// As [`measure`], with a handle of the queue to consume with, and one to load it with before.
pub(crate) async fn measure_on<Q: Queue>(m: Measurement, queue: Q, loading: Q, go: Go) -> Result<Sample> {
    let Go { order, size, consumers, batch, .. } = go;
    let messages = m.scaled(go.messages);
    let subscription = Subscription::new("order", TOPIC).with_order(order).with_prefetch(PREFETCH).with_batch(batch);
    queue.insert_subscription(&subscription).await?;
    let keys: Vec<usize> = keys(messages).collect();
    let make = |n: usize| NewMessage::new(payload(n, size)).with_key(name(keys[n]));
    load(&loading, TOPIC, messages, make).await?;
    m.settle().await?;

    let sequences = Arc::new(Sequences::default());
    let noting = Arc::clone(&sequences);
    let place = move |message: &Message| {
        let n = number(message.payload())?;
        noting.note(message.key().context("a message without its key")?, n);
        Ok(n)
    };
    let tally = Tally::new(Some(messages));
    let spent = work_off(&m, &queue, &subscription, consumers, PREFETCH, tally, place).await?;
    let inversions = sequences.inversions();
    ensure!(order != Order::ByKey || inversions == 0, "{inversions} messages came after a later one of their key");
    Ok(Sample::metered(messages, spent))
}

/// In which order the messages of each key came.
#[derive(Default)]
struct Sequences {
    state: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    latest: HashMap<String, usize>,
    inversions: usize,
}

impl Sequences {
    fn note(&self, key: &str, n: usize) {
        let mut seen = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.latest.get_mut(key) {
            Some(latest) if *latest > n => seen.inversions += 1,
            Some(latest) => *latest = n,
            None => {
                seen.latest.insert(key.to_owned(), n);
            }
        }
    }

    fn inversions(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).inversions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_a_later_one_of_its_key_is_counted() {
        let sequences = Sequences::default();
        for (key, n) in [("a", 1), ("b", 5), ("a", 2), ("b", 3), ("a", 4)] {
            sequences.note(key, n);
        }
        assert_eq!(sequences.inversions(), 1);
    }
}
