//! [`Step`]: something that is done to the queue.

use std::time::Duration;

use pgqueue_core::{NewMessage, Subscription};

use crate::temper::Temper;

#[derive(Debug)]
pub(crate) enum Step {
    Publish {
        topic: &'static str,
        drafts: Vec<Draft>,
    },
    /// Inserts a subscription, or gives it other options.
    Insert(Subscription),
    /// Starts a consumer.
    Start(Subscription, Temper),
    /// Strikes one of the consumers there are, whichever the number falls upon.
    Strike(usize, Blow),
    /// Ends all leases of a subscription.
    Expire(&'static str),
    /// Redrives the dead letters of a subscription: one, whichever the number falls upon, or all.
    Redrive(&'static str, Option<usize>),
    /// Lets time pass while nothing runs.
    Stall(Duration),
}

/// What happens to a consumer.
#[derive(Debug)]
pub(crate) enum Blow {
    /// Its stream is told to stop.
    Stop,
    /// It is dropped.
    Kill,
    /// Its heartbeat stops for a while.
    Freeze(Duration),
    /// It dies without a word. A zombie goes on all the same, but without a heartbeat.
    Crash { zombie: bool },
}

/// A message to publish.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Draft {
    /// What its payload consists of.
    pub(crate) number: u32,
    pub(crate) key: Option<String>,
    pub(crate) delay: Option<Duration>,
    pub(crate) dedup_id: Option<String>,
}

impl Draft {
    pub(crate) fn message(&self) -> NewMessage {
        let mut message = NewMessage::new(self.number.to_string());
        if let Some(key) = &self.key {
            message = message.with_key(key);
        }
        if let Some(delay) = self.delay {
            message = message.with_delay(delay);
        }
        if let Some(dedup_id) = &self.dedup_id {
            message = message.with_dedup_id(dedup_id);
        }
        message
    }

    /// Whether no queue takes it: its key is empty.
    pub(crate) fn is_invalid(&self) -> bool {
        self.key.as_deref() == Some("")
    }
}
