//! A consumer in a process of its own, for tests that kill it.
//!
//! `consumer URL SUBSCRIPTION TOPIC PREFETCH hold` takes deliveries and answers none; each is a line with the message's payload.

use std::io::Write;

use futures::StreamExt;
use pgqueue_core::{Subscription, subscribe};
use pgqueue_tokio_postgres::PgQueue;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, subscription, topic, prefetch] = &arguments[..] else {
        return Err("usage: consumer URL SUBSCRIPTION TOPIC PREFETCH".into());
    };
    let queue = PgQueue::connect(url).await?;
    let subscription = Subscription::new(subscription, topic).with_prefetch(prefetch.parse()?);
    let mut deliveries = subscribe(queue.subscription(subscription)).await?;
    let mut held = Vec::new();
    while let Some(delivery) = deliveries.next().await {
        let delivery = delivery?;
        let line = [delivery.message().payload(), &b"\n"[..]].concat();
        std::io::stdout().write_all(&line)?;
        std::io::stdout().flush()?;
        held.push(delivery);
    }
    Ok(())
}
