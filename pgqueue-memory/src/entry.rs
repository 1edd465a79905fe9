//! [`Entry`]: one message as one subscription holds it.

use std::time::SystemTime;

use pgqueue_core::Message;

use crate::clock::Now;

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The number behind the message's id.
    pub(crate) id: u64,
    /// The how manyth message of its subscription it is: the order of the log, redriven ones at its end.
    pub(crate) arrival: u64,
    pub(crate) attempts: u32,
    /// Where it stands in its topic's log, without which it goes if it was not handed out; `None` if it was redriven.
    pub(crate) position: Option<u64>,
    message: Message,
    last_delivered_at: Option<SystemTime>,
    last_requeued_at: Option<SystemTime>,
}

impl Entry {
    pub(crate) fn new(id: u64, position: u64, message: Message) -> Self {
        Self {
            id,
            arrival: 0,
            attempts: 0,
            position: Some(position),
            message,
            last_delivered_at: None,
            last_requeued_at: None,
        }
    }

    /// The message as it stands: before its first delivery its attempt is 0.
    pub(crate) fn message(&self) -> Message {
        self.message
            .clone()
            .with_attempt(self.attempts)
            .with_last_delivered_at(self.last_delivered_at)
            .with_last_requeued_at(self.last_requeued_at)
    }

    pub(crate) fn published_at(&self) -> SystemTime {
        self.message.published_at()
    }

    /// Counts an attempt and returns the message for it.
    pub(crate) fn hand_out(&mut self, now: Now) -> Message {
        self.attempts += 1;
        let message = self.message();
        self.last_delivered_at = Some(now.time);
        message
    }

    pub(crate) fn requeue(&mut self, now: Now) {
        self.last_requeued_at = Some(now.time);
    }

    /// Starts over, as if never delivered.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
        self.position = None;
        self.last_delivered_at = None;
        self.last_requeued_at = None;
    }
}
