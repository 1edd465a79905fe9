//! [`Log`]: what a topic retains, for subscriptions that start in the past.

use std::collections::VecDeque;

use pgqueue_core::{Error, ErrorKind, Message, Result, Retention, Start};
use tokio::time::Instant;

use crate::clock::Now;

/// A topic's messages in the order of their positions, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Log {
    retained: VecDeque<Retained>,
    /// Of all payloads that are retained.
    bytes: u64,
    /// The position of the last message that is not retained any more.
    trimmed: u64,
    /// The position of the last message.
    last: u64,
}

/// A message of the log.
#[derive(Debug)]
pub(crate) struct Retained {
    pub(crate) position: u64,
    /// The number behind its id.
    pub(crate) id: u64,
    pub(crate) message: Message,
    pub(crate) since: Instant,
}

impl Log {
    pub(crate) fn push(&mut self, message: Retained) {
        self.last = message.position;
        self.bytes += message.message.payload().len() as u64;
        self.retained.push_back(message);
    }

    /// Whether the first message is beyond one of the limits.
    pub(crate) fn exceeds(&self, retention: Retention, now: Now) -> bool {
        self.retained.front().is_some_and(|first| {
            retention.max_age().is_some_and(|age| now.instant.saturating_duration_since(first.since) >= age)
                || retention.max_messages().is_some_and(|most| self.retained.len() as u64 > most)
                || retention.max_bytes().is_some_and(|most| self.bytes > most)
        })
    }

    /// Forgets what is beyond the limits. Returns whether there was something.
    pub(crate) fn trim(&mut self, retention: Retention, now: Now) -> bool {
        let before = self.trimmed;
        while self.exceeds(retention, now)
            && let Some(first) = self.retained.pop_front()
        {
            self.bytes -= first.message.payload().len() as u64;
            self.trimmed = first.position;
        }
        self.trimmed > before
    }

    /// The position of the last message that is not retained any more.
    pub(crate) fn trimmed(&self) -> u64 {
        self.trimmed
    }

    /// What a subscription gets that starts so.
    pub(crate) fn from(&self, start: &Start) -> Result<impl Iterator<Item = &Retained>> {
        let after = match start {
            Start::Now => self.last,
            Start::Beginning => 0,
            Start::After(position) => {
                let invalid = |problem| Error::new(ErrorKind::Invalid, format!("the position {position} {problem}"));
                let after = position.as_str().parse().map_err(|_| invalid("is not one of this queue"))?;
                if after > self.last {
                    return Err(invalid("lies beyond the end of the log"));
                }
                if after < self.trimmed {
                    let message = format!(
                        "the log does not have all any more that came after the position {position}: start from the \
                         beginning of what is retained, or let the topic retain more"
                    );
                    return Err(Error::new(ErrorKind::Truncated, message));
                }
                after
            }
            other => return Err(Error::new(ErrorKind::Invalid, format!("a subscription cannot start {other:?}"))),
        };
        let first = self.retained.partition_point(|retained| retained.position <= after);
        Ok(self.retained.range(first..))
    }
}
