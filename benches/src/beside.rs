//! The queue, and what one would write by hand, as [`Contender`]s that others can be put beside.

use pgqueue_core::Order;

use crate::{
    drivers::TokioPostgresDriver,
    harness::Contender,
    scenarios::{
        drain as draining, end_to_end as working, latency as waiting, order as ordering, publish as publishing,
    },
};

pub use draining::By;

/// The queue: so many clients publish batch after batch.
#[must_use]
pub fn publish(batch: usize, size: usize, clients: usize) -> Contender {
    publish_as("pgqueue", publishing::How::Plainly, batch, size, clients)
}

/// The same where concurrent calls share a statement.
#[must_use]
pub fn publish_coalescing(batch: usize, size: usize, clients: usize) -> Contender {
    publish_as("pgqueue, coalescing", publishing::How::Coalescing, batch, size, clients)
}

fn publish_as(who: &'static str, how: publishing::How, batch: usize, size: usize, clients: usize) -> Contender {
    Contender::new(who, move |m| publishing::ours::<TokioPostgresDriver>(m, how, batch, size, clients))
        .with("batch", batch)
        .with("clients", clients)
}

/// Inserts into a table with nothing but payloads.
#[must_use]
pub fn publish_bare(batch: usize, size: usize, clients: usize) -> Contender {
    Contender::new("bare insert", move |m| publishing::bare::<TokioPostgresDriver>(m, batch, size, clients))
        .with("batch", batch)
        .with("clients", clients)
}

/// The queue: so many consumers work off a backlog, and answer each message by itself.
#[must_use]
pub fn drain(messages: usize, size: usize, consumers: usize, prefetch: usize) -> Contender {
    let run = move |m| draining::ours::<TokioPostgresDriver>(m, messages, size, consumers, prefetch, prefetch);
    Contender::new("pgqueue", run).with("consumers", consumers).with("messages", messages).with("prefetch", prefetch)
}

/// A table with `FOR UPDATE SKIP LOCKED`, worked off by so many.
#[must_use]
pub fn drain_by_hand(by: By, messages: usize, size: usize, consumers: usize) -> Contender {
    let who = match by {
        By::Lease => "by hand, leases of 100",
        By::Delete => "by hand, 100 in a transaction",
        By::One => "by hand, one by one",
    };
    Contender::new(who, move |m| draining::by_hand::<TokioPostgresDriver>(m, by, messages, size, consumers))
        .with("consumers", consumers)
        .with("messages", messages)
}

/// The queue: two publish batch after batch, and so many subscriptions, each with a consumer, get everything.
#[must_use]
pub fn end_to_end(messages: usize, batch: usize, size: usize, subscriptions: usize) -> Contender {
    let go = working::Go { messages, batch, size, subscriptions, consumers: 1 };
    Contender::new("pgqueue", move |m| working::measure::<TokioPostgresDriver>(m, go))
        .with("batch", batch)
        .with("messages", messages)
        .with("subscriptions", subscriptions)
}

/// The keys of so many messages, of which few are frequent; always the same.
#[must_use]
pub fn keys(messages: usize) -> Vec<String> {
    ordering::keys(messages).map(ordering::name).collect()
}

/// The queue: so many consumers work off a backlog in order by key.
#[must_use]
pub fn order(messages: usize, size: usize, consumers: usize) -> Contender {
    let go = ordering::Go { order: Order::ByKey, messages, size, consumers, batch: 1 };
    let run = move |m| ordering::measure::<TokioPostgresDriver>(m, go);
    Contender::new("pgqueue, by key", run).with("consumers", consumers).with("messages", messages)
}

/// The queue: from when a message is due to be published to the handler of an idle consumer.
#[must_use]
pub fn latency(size: usize) -> Contender {
    Contender::new("pgqueue", move |m| waiting::measure::<TokioPostgresDriver>(m, size, waiting::From::Due))
        .with("rate", waiting::RATE)
}
