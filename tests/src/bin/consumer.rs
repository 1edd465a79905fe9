//! A consumer in a process of its own.
//!
//! `consumer URL SUBSCRIPTION TOPIC PREFETCH ANSWER` writes a line with the message's payload for each delivery. If the answer is
//! `ok` that is after it was answered; if it is `hold`, none is answered.

use std::io::Write;

use futures::StreamExt;
use pgqueue_core::{Subscription, subscribe};
use pgqueue_tokio_postgres::PgQueue;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, subscription, topic, prefetch, answer] = &arguments[..] else {
        return Err("usage: consumer URL SUBSCRIPTION TOPIC PREFETCH ok|hold".into());
    };
    let queue = PgQueue::connect(url).await?;
    let subscription = Subscription::new(subscription, topic).with_prefetch(prefetch.parse()?);
    let mut deliveries = subscribe(queue.subscription(subscription)).await?;
    let mut held = Vec::new();
    while let Some(delivery) = deliveries.next().await {
        let delivery = delivery?;
        let line = [delivery.message().payload(), &b"\n"[..]].concat();
        match answer.as_str() {
            "ok" => delivery.ok().await?,
            _ => held.push(delivery),
        }
        std::io::stdout().write_all(&line)?;
        std::io::stdout().flush()?;
    }
    Ok(())
}
