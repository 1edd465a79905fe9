//! [`NewMessage`]: what a publisher hands in.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use serde::Serialize;

#[cfg(feature = "opentelemetry")]
use crate::traceparent::{TRACEPARENT, TRACESTATE};
use crate::{
    Error, ErrorKind, Result,
    limits::{MAX_HEADER_VALUE_BYTES, MAX_LABELS, MAX_PAYLOAD_BYTES, MAX_TEXT_BYTES, check_secret, check_text},
};

/// A message to publish: a payload, and what the queue should know about it.
///
/// ```
/// use std::time::Duration;
/// use pgqueue_core::NewMessage;
///
/// # fn main() -> pgqueue_core::Result<()> {
/// let message = NewMessage::json(&("cart", 17))?
///     .with_key("customer-4")
///     .with_kind("cart.abandoned")
///     .with_header("content-type", "application/json")
///     .with_dedup_id("cart-17-abandoned")
///     .with_delay(Duration::from_secs(3600));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq)]
pub struct NewMessage {
    key: Option<String>,
    kind: Option<String>,
    tags: Vec<String>,
    headers: BTreeMap<String, String>,
    payload: Bytes,
    dedup_id: Option<String>,
    due: Option<Due>,
}

/// When a scheduled message enters its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive] // calendars may come
pub enum Due {
    /// So long after it was published, by the queue's clock.
    After(Duration),
    /// At this time, by the queue's clock; at once if it has passed.
    At(SystemTime),
}

impl NewMessage {
    /// Makes a message of these bytes.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            key: None,
            kind: None,
            tags: Vec::new(),
            headers: BTreeMap::new(),
            payload: payload.into(),
            dedup_id: None,
            due: None,
        }
    }

    /// Makes a message of `value` as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the value cannot be written as JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        let payload = serde_json::to_vec(value).map_err(|source| {
            let message = format!("a value of type {} cannot be written as JSON", std::any::type_name::<T>());
            Error::new(ErrorKind::Invalid, message).with_source(source)
        })?;
        Ok(Self::new(payload))
    }

    /// Sets the key: messages of one key stay in order where a subscription asks for it. No key, no order.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets what sort of message this is, such as `order.paid`.
    #[must_use]
    pub fn with_kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn with_tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Sets a header; the last value of a name stands.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Publishes at most one message with this id to the topic within its
    /// [dedup window](crate::Topic::with_dedup_window); a repetition returns the id of the first.
    #[must_use]
    pub fn with_dedup_id(mut self, id: impl Into<String>) -> Self {
        self.dedup_id = Some(id.into());
        self
    }

    /// Lets the message enter its topic only after `delay`, by the queue's clock. Replaces a delivery time.
    #[must_use]
    pub fn with_delay(mut self, delay: Duration) -> Self {
        self.due = Some(Due::After(delay));
        self
    }

    /// Lets the message enter its topic only at `time`, by the queue's clock. Replaces a delay.
    #[must_use]
    pub fn with_delivery_time(mut self, time: SystemTime) -> Self {
        self.due = Some(Due::At(time));
        self
    }

    /// Adds the trace that it is published in, unless it has one already, or as many headers as it may have.
    #[cfg(feature = "opentelemetry")]
    pub(crate) fn add_trace(&mut self, parent: &str, state: &str) {
        let headers = [(TRACEPARENT, parent), (TRACESTATE, state)];
        if self.headers.contains_key(TRACEPARENT) || self.headers.len() + headers.len() > MAX_LABELS {
            return;
        }
        let headers = headers.into_iter().filter(|(_, value)| !value.is_empty());
        self.headers.extend(headers.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Returns what sort of message this is.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        self.kind.as_deref()
    }

    /// Returns the tags, in the order they were added.
    #[must_use]
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// Returns the headers, by name.
    #[must_use]
    pub fn headers(&self) -> &BTreeMap<String, String> {
        &self.headers
    }

    /// Returns the payload.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Returns the id under which this is published once.
    #[must_use]
    pub fn dedup_id(&self) -> Option<&str> {
        self.dedup_id.as_deref()
    }

    /// Returns when the message enters its topic, if not at once.
    #[must_use]
    pub fn due(&self) -> Option<Due> {
        self.due
    }

    /// Checks every limit of this module's constants, as drivers do before they publish anything.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], naming the part that cannot be used.
    pub fn validate(&self) -> Result<()> {
        if self.payload.len() > MAX_PAYLOAD_BYTES {
            let message = format!(
                "the payload has {} bytes; the limit is {MAX_PAYLOAD_BYTES}: store it elsewhere and publish its address",
                self.payload.len()
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        for (what, count) in [("tags", self.tags.len()), ("headers", self.headers.len())] {
            if count > MAX_LABELS {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("the message has {count} {what}; the limit is {MAX_LABELS}"),
                ));
            }
        }
        let named = [("key", &self.key), ("kind", &self.kind), ("dedup id", &self.dedup_id)];
        let texts = named.into_iter().filter_map(|(what, text)| Some((what, text.as_ref()?)));
        let tags = self.tags.iter().map(|tag| ("tag", tag));
        let header_names = self.headers.keys().map(|name| ("header name", name));
        for (what, text) in texts.chain(tags).chain(header_names) {
            check_text(what, text, 1, MAX_TEXT_BYTES)?;
        }
        self.headers.iter().try_for_each(|(name, value)| {
            check_secret(format_args!("the value of header {name:?}"), value, 0, MAX_HEADER_VALUE_BYTES)
        })
    }
}

impl fmt::Debug for NewMessage {
    /// Shows everything but the payload and the headers' values, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, kind, tags, headers, payload, dedup_id, due } = self;
        f.debug_struct("NewMessage")
            .field("key", key)
            .field("kind", kind)
            .field("tags", tags)
            .field("headers", &headers.keys())
            .field("payload_bytes", &payload.len())
            .field("dedup_id", dedup_id)
            .field("due", due)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_checked_part_by_part() {
        let message = || NewMessage::new("x");
        let long = "k".repeat(MAX_TEXT_BYTES + 1);
        let labels = |count: usize| (0..count).fold(message(), |message, n| message.with_header(n.to_string(), ""));
        for (bad, says) in [
            (message().with_key(""), "key \"\" is empty"),
            (message().with_kind("a\0"), "kind \"a\\0\" has a NUL at byte 1"),
            (message().with_tag(&long), "the limit is 1024"),
            (message().with_header(&long, ""), "the limit is 1024"),
            (message().with_header("h", "v".repeat(8193)), "the limit is 8192"),
            (message().with_header("h", "s3cret\0"), "the value of header \"h\" has a NUL at byte 6"),
            (message().with_dedup_id(""), "dedup id \"\" is empty"),
            (labels(65), "the message has 65 headers; the limit is 64"),
            (NewMessage::new(vec![0; MAX_PAYLOAD_BYTES + 1]), "the payload has 16777217 bytes"),
        ] {
            let error = bad.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(says), "{error}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
        for good in
            [message(), NewMessage::new(vec![0; MAX_PAYLOAD_BYTES]), labels(64), message().with_key("k".repeat(1024))]
        {
            good.validate().unwrap();
        }
    }

    #[test]
    fn values_that_are_no_json_are_refused() {
        let keys_that_are_no_text = BTreeMap::from([((1, 2), 3)]);
        assert_eq!(NewMessage::json(&keys_that_are_no_text).unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn debug_output_shows_no_payload() {
        let text = format!("{:?}", NewMessage::new("secret").with_header("token", "hidden"));
        assert!(!text.contains("secret") && !text.contains("hidden") && text.contains("token"), "{text}");
    }
}
