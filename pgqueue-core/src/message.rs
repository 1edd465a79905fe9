//! [`Message`]: what a subscriber gets.

use std::{any::type_name, collections::BTreeMap, fmt, sync::Arc, time::SystemTime};

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::{
    Error, ErrorKind, JsonError, MessageId, NewMessage, Operation, Position, Result,
    traceparent::{self, TRACEPARENT},
};

/// A published message, as one subscription sees it.
///
/// What was published is shared by all clones; the attempt and the times of earlier deliveries belong to the
/// subscription. Cloning is cheap.
#[derive(Clone)]
pub struct Message {
    published: Arc<Published>,
    attempt: u32,
    last_delivered_at: Option<SystemTime>,
    last_requeued_at: Option<SystemTime>,
}

/// The part of a message that is the same for every subscription.
struct Published {
    id: MessageId,
    position: Position,
    topic: Arc<str>,
    content: NewMessage,
    published_at: SystemTime,
}

impl Message {
    /// Makes the first delivery of a message. For authors of drivers.
    pub fn new(
        id: MessageId,
        position: Position,
        topic: impl Into<Arc<str>>,
        content: NewMessage,
        published_at: SystemTime,
    ) -> Self {
        let published = Published { id, position, topic: topic.into(), content, published_at };
        Self { published: Arc::new(published), attempt: 1, last_delivered_at: None, last_requeued_at: None }
    }

    /// Sets which delivery of the message this is, counted from 1. For authors of drivers.
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// Sets when the message was last handed out before this delivery. For authors of drivers.
    #[must_use]
    pub fn with_last_delivered_at(mut self, time: Option<SystemTime>) -> Self {
        self.last_delivered_at = time;
        self
    }

    /// Sets when the message was last requeued. For authors of drivers.
    #[must_use]
    pub fn with_last_requeued_at(mut self, time: Option<SystemTime>) -> Self {
        self.last_requeued_at = time;
        self
    }

    /// Returns the id that `publish` returned, the same for every subscription.
    #[must_use]
    pub fn id(&self) -> &MessageId {
        &self.published.id
    }

    /// Returns the message's place in its topic's log.
    #[must_use]
    pub fn position(&self) -> &Position {
        &self.published.position
    }

    /// Returns the name of the topic it was published to.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.published.topic
    }

    /// Returns the key that orders it.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.published.content.key()
    }

    /// Returns what sort of message this is.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        self.published.content.kind()
    }

    /// Returns the tags, in the order they were added.
    #[must_use]
    pub fn tags(&self) -> &[String] {
        self.published.content.tags()
    }

    /// Returns the headers, by name.
    #[must_use]
    pub fn headers(&self) -> &BTreeMap<String, String> {
        self.published.content.headers()
    }

    /// Returns the id of the trace that it was published in: 32 hex digits of its `traceparent` header, as W3C Trace
    /// Context defines it. `None` if there is no such header, or a malformed one.
    #[must_use]
    pub fn trace_id(&self) -> Option<&str> {
        Some(traceparent::parse(self.headers().get(TRACEPARENT)?)?.trace_id)
    }

    /// Returns the payload.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        self.published.content.payload()
    }

    /// Reads the payload as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`], naming the message and the type; its source is a [`JsonError`].
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(self.payload()).map_err(|source| self.decode_error::<T>(source))
    }

    /// Returns which delivery of the message this is to its subscription, counted from 1. Deliveries are at least this
    /// many: a crash of the store may forget the last. Of a message that is not being delivered, such as a dead letter, it
    /// is how many deliveries there were.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns when it was published, by the queue's clock.
    #[must_use]
    pub fn published_at(&self) -> SystemTime {
        self.published.published_at
    }

    /// Returns when it was last handed out before this delivery, by the queue's clock; `None` on the first.
    #[must_use]
    pub fn last_delivered_at(&self) -> Option<SystemTime> {
        self.last_delivered_at
    }

    /// Returns when a handler last requeued it, by the queue's clock; `None` if none has.
    #[must_use]
    pub fn last_requeued_at(&self) -> Option<SystemTime> {
        self.last_requeued_at
    }

    pub(crate) fn decode_error<T>(&self, source: serde_json::Error) -> Error {
        let message = format!("message {} cannot be read as {}", self.id(), type_name::<T>());
        Error::new(ErrorKind::Decode, message).with_source(JsonError::new(source)).during(Operation::Handle)
    }
}

impl fmt::Debug for Message {
    /// Shows everything but the payload and the headers' values, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, attempt, last_delivered_at, last_requeued_at } = self;
        f.debug_struct("Message")
            .field("id", &published.id)
            .field("position", &published.position)
            .field("topic", &published.topic)
            .field("content", &published.content)
            .field("attempt", attempt)
            .field("published_at", &published.published_at)
            .field("last_delivered_at", last_delivered_at)
            .field("last_requeued_at", last_requeued_at)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::error::chain;

    #[test]
    fn decode_errors_quote_the_payload_only_when_asked() {
        let content = NewMessage::new("{\"card\": \"4111\"}");
        let message = Message::new(MessageId::new("7"), Position::new("7"), "t", content, SystemTime::UNIX_EPOCH);
        let error = message.json::<BTreeMap<String, u8>>().unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Decode, Some(Operation::Handle)));
        assert!(error.to_string().starts_with("handling a delivery: message 7 cannot be read as "), "{error}");

        let source = error.source().unwrap().downcast_ref::<JsonError>().unwrap();
        assert_eq!(source.to_string(), "JSON of another shape at line 1 column 15");
        assert!(source.details().contains("4111"));
        assert!(!format!("{error:?} {}", chain(&error)).contains("4111"));
    }
}
