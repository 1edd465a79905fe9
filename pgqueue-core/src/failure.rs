//! [`Failure`]: what a worker reports when a delivery fails.

use std::fmt::{self, Write as _};

use crate::{Error, Message, error::chain, one_line::OneLine, timestamp::Rfc3339};

/// What went wrong with one delivery, as reported to [`Worker::on_error`](crate::Worker::on_error).
///
/// Its `Display` output is one line with all that an operator needs to find the message and its publisher: id, topic,
/// position, key, kind, attempt, time of publishing, trace id, and the error with its causes. It holds no payload, and of
/// the headers' values only the [trace id](Message::trace_id). What a handler says in its own error is passed on.
///
/// ```
/// use pgqueue_core::{Ack, Job, NewMessage, Publisher, Subscription, Topic, Worker, subscribe};
/// use pgqueue_memory::MemoryQueue;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> pgqueue_core::Result<()> {
/// # let queue = MemoryQueue::new();
/// # queue.create_topic(Topic::new("orders")).await?;
/// # let stream = subscribe(queue.subscription(Subscription::new("shipping", "orders"))).await?;
/// # queue.publish("orders", vec![NewMessage::json("espresso")?]).await?;
/// # let idle = queue.idle("shipping");
/// let handler = async |_: Job<String>| Err::<Ack, _>("out of beans");
/// // message 1 of topic "orders" failed (position 1, attempt 1, published 2026-07-01T08:00:00.000Z): handling a delivery:
/// // the handler failed on message 1: out of beans
/// Worker::new(stream.until(idle), handler).on_error(|failure| eprintln!("{failure}")).run().await
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive] // so that fields can be added
pub struct Failure<'a> {
    /// What went wrong.
    pub error: &'a Error,
    /// The delivery's messages, at least one.
    pub messages: &'a [Message],
}

impl<'a> Failure<'a> {
    /// Returns the message, of a batch the first.
    #[must_use]
    pub fn message(&self) -> &'a Message {
        &self.messages[0]
    }

    /// Writes an event with all that the `Display` output has, by OpenTelemetry's names where it has one.
    pub(crate) fn trace(&self) {
        let message = self.message();
        tracing::warn!(
            error = chain(self.error),
            error.type = ?self.error.kind(),
            messaging.system = "pgqueue",
            messaging.destination.name = message.topic(),
            messaging.message.id = %message.id(),
            messaging.batch.message_count = self.messages.len(),
            messaging.pgqueue.message.position = %message.position(),
            messaging.pgqueue.message.key = message.key(),
            messaging.pgqueue.message.kind = message.kind(),
            messaging.pgqueue.message.attempt = message.attempt(),
            messaging.pgqueue.message.published_at = %Rfc3339(message.published_at()),
            trace_id = message.trace_id(),
            "a delivery failed"
        );
    }
}

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.message();
        let mut line = OneLine(f);
        write!(line, "message {}", message.id())?;
        if self.messages.len() > 1 {
            write!(line, " and {} more", self.messages.len() - 1)?;
        }
        write!(line, " of topic {:?} failed (position {}", message.topic(), message.position())?;
        for (what, text) in [("key", message.key()), ("kind", message.kind())] {
            if let Some(text) = text {
                write!(line, ", {what} {text:?}")?;
            }
        }
        write!(line, ", attempt {}, published {}", message.attempt(), Rfc3339(message.published_at()))?;
        if let Some(trace_id) = message.trace_id() {
            write!(line, ", trace {trace_id}")?;
        }
        write!(line, "): {}", chain(self.error))
    }
}
