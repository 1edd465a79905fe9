//! [`DeadLetter`]: a message that was given up.

use std::time::SystemTime;

use crate::Message;

/// A message that one subscription gave up, kept until it is redriven or purged.
#[derive(Clone, Debug)]
#[non_exhaustive] // so that fields can be added
pub struct DeadLetter {
    /// The message; its attempt is the last one made.
    pub message: Message,
    /// Why it was given up.
    pub reason: String,
    /// When it was given up, by the queue's clock.
    pub died_at: SystemTime,
}

impl DeadLetter {
    /// Gives up a message. For authors of drivers.
    pub fn new(message: Message, reason: impl Into<String>, died_at: SystemTime) -> Self {
        Self { message, reason: reason.into(), died_at }
    }
}
