//! Selecting one message in a hundred where the log is, beside reading them all and dropping the others.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::{Result, ensure};
use pgqueue_core::{Comparison, Message, NewMessage, Selector, Start, Subscription};
use serde_json::json;

use crate::{
    drivers::Driver,
    harness::{Bench, Contender, Measurement, Sample, TOPIC, Tally, Target, number, work_off},
};

/// One message in so many is wanted: the last of them.
const SHARE: usize = 100;

/// What it is called, wherever that is said.
const WANTED: &str = "wanted";

/// How many keys the others have.
const KEYS: usize = 1000;

/// A topic with the first messages of the other: reading all takes long, and its rate does not depend on how many they are.
const PREFIX_TOPIC: &str = "prefix";

const PREFIX: usize = 200_000;

const PREFETCH: usize = 1000;

pub(crate) async fn run<D: Driver>(bench: &mut Bench) -> Result<()> {
    // Whole hundreds, so that the last message is a wanted one.
    let messages = bench.arguments.messages(1_000_000).next_multiple_of(SHARE);
    let (prefix, size) = (messages.min(PREFIX), bench.arguments.payload);
    let server = |by: &'static str, selector: Selector| {
        Contender::new("pgqueue, on the server", move |m| on_the_server::<D>(m, selector.clone(), messages))
            .with("by", by)
            .against(0)
            .hopes_for(Target::AtLeast(10.0))
    };
    let contenders = [
        Contender::new("pgqueue, in the handler", move |m| in_the_handler::<D>(m, prefix)).with("by", "kind"),
        server("kind", Selector::kind(WANTED)),
        server("key", Selector::key(WANTED)),
        server("tags", Selector::tags_all([WANTED])),
        server("key glob", Selector::key_like("want*")),
        server("payload", Selector::payload(json!({ "wanted": true }))),
        server("number", Selector::number(["rank"], Comparison::GreaterOrEqual, (SHARE - 1) as f64)),
        server("kind or payload", Selector::kind_like("want??").or(Selector::payload(json!({ "wanted": true })))),
    ];
    let stock = async |m: Measurement| {
        m.stock::<D>(TOPIC, messages, |n| message(n, size)).await?;
        m.stock::<D>(PREFIX_TOPIC, prefix, |n| message(n, size)).await
    };
    bench.compare_stocked("selector", stock, &contenders).await
}

fn is_wanted(n: usize) -> bool {
    n % SHARE == SHARE - 1
}

fn message(n: usize, size: usize) -> NewMessage {
    let (rank, wanted) = (n % SHARE, is_wanted(n));
    let mut payload = format!("{{\"n\":{n},\"rank\":{rank},\"wanted\":{wanted},\"pad\":\"").into_bytes();
    payload.resize(payload.len().max(size.saturating_sub(2)), b'x');
    payload.extend_from_slice(b"\"}");
    let message = NewMessage::new(payload).with_tag(if n.is_multiple_of(2) { "even" } else { "odd" });
    if wanted {
        message.with_kind(WANTED).with_key(WANTED).with_tag(WANTED)
    } else {
        message.with_kind("other").with_key(format!("customer-{}", n % KEYS)).with_tag("other")
    }
}

/// Gets what is wanted, and counts what it passes in the log.
async fn on_the_server<D: Driver>(m: Measurement, selector: Selector, messages: usize) -> Result<Sample> {
    let wanted = |message: &Message| {
        let n = number(message.payload())?;
        ensure!(is_wanted(n), "message {n} was not asked for");
        Ok(n / SHARE)
    };
    let subscription = Subscription::new("selector", TOPIC).with_selector(selector);
    let tally = Tally::new(Some(messages / SHARE));
    measure::<D>(&m, subscription, messages, tally, wanted).await
}

/// Gets everything, and counts that.
async fn in_the_handler<D: Driver>(m: Measurement, messages: usize) -> Result<Sample> {
    let handled = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&handled);
    let all = move |message: &Message| {
        if message.kind() == Some(WANTED) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        number(message.payload())
    };
    let subscription = Subscription::new("selector", PREFIX_TOPIC);
    let sample = measure::<D>(&m, subscription, messages, Tally::new(Some(messages)), all).await?;
    let handled = handled.load(Ordering::Relaxed);
    ensure!(handled == messages / SHARE, "{handled} of {} wanted messages were handled", messages / SHARE);
    Ok(sample)
}

/// Consumes from the beginning what a subscription gets of so many messages.
async fn measure<D: Driver>(
    m: &Measurement,
    subscription: Subscription,
    messages: usize,
    tally: Tally,
    place: impl Fn(&Message) -> Result<usize> + Clone + Send + Sync + 'static,
) -> Result<Sample> {
    let queue = m.stocked_queue::<D>(0).await?;
    let subscription = subscription.with_start(Start::Beginning).with_prefetch(PREFETCH);
    queue.insert_subscription(&subscription).await?;
    m.settle().await?;
    let spent = work_off(m, &queue, &subscription, 1, PREFETCH, tally, place).await?;
    Ok(Sample::metered(messages, spent))
}
