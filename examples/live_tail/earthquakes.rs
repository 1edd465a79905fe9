//! A topic to look at, where no database is given: a week of earthquakes, the last of them live.

use std::{iter, time::Duration};

use pgqueue_core::{NewMessage, Publisher, PublisherExt, Retention, Topic};
use pgqueue_examples::{ALERT_MAGNITUDE, bundled_messages};
use pgqueue_postgres::{Client, PgQueue};
use serde::Deserialize;
use tokio::time::sleep;

/// How many events come live.
const LIVE: usize = 12;

/// How long it is quiet before each of those.
const PAUSE: Duration = Duration::from_millis(250);

/// What the tags are made of.
#[derive(Deserialize)]
struct Details {
    mag: f64,
    /// `reviewed` or `automatic`.
    status: String,
    tsunami: u8,
    /// How many people said that they felt it.
    felt: Option<u32>,
}

/// Makes the topic, which keeps all it gets, and publishes the events but the last, which it returns.
pub(crate) async fn fill<C: Client>(queue: &PgQueue<C>, topic: &str) -> anyhow::Result<Vec<NewMessage>> {
    queue.migrate().await?;
    queue.create_topic(Topic::new(topic).with_retention(Retention::everything())).await?;
    let mut messages: Vec<_> = bundled_messages().await?.into_iter().map(tagged).collect::<Result<_, _>>()?;
    let live = messages.split_off(messages.len().saturating_sub(LIVE));
    queue.publish(topic, messages).await?;
    Ok(live)
}

/// Adds tags that say what the payload does.
fn tagged(message: NewMessage) -> serde_json::Result<NewMessage> {
    let Details { mag, status, tsunami, felt } = serde_json::from_slice(message.payload())?;
    let more = [(mag >= ALERT_MAGNITUDE, "strong"), (tsunami > 0, "tsunami"), (felt > Some(0), "felt")];
    let more = more.into_iter().filter(|(is_so, _)| *is_so).map(|(_, tag)| tag.to_owned());
    Ok(iter::once(status).chain(more).fold(message, NewMessage::with_tag))
}

/// Publishes messages one after the other, with pauses.
pub(crate) async fn publish_slowly(
    queue: &impl Publisher,
    topic: &str,
    messages: Vec<NewMessage>,
) -> pgqueue_core::Result<()> {
    for message in messages {
        sleep(PAUSE).await;
        queue.publish_one(topic, message).await?;
    }
    Ok(())
}
