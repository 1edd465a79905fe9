//! [`Event`]: what a process notes in its log.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Microseconds since 1970. All processes run on one machine, so their moments compare.
pub(crate) type Moment = u64;

pub(crate) fn now() -> Moment {
    micros(SystemTime::now())
}

pub(crate) fn micros(time: SystemTime) -> Moment {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// A line of a log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) at: Moment,
    pub(crate) event: Event,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// A publisher is about to publish a message. Without a word on what became of it, that is in doubt.
    Began { n: u64, key: Option<String>, poison: bool },
    /// What a publisher was told.
    Ended { ns: Vec<u64>, fate: Fate },
    /// A consumer was handed a message. `serial` numbers the deliveries of its process, and `before` is when the message was handed
    /// out the last time, as the server says.
    Delivered { n: u64, serial: u64, attempt: u32, before: Option<Moment> },
    /// It is about to answer: with OK, or else to give the message back.
    Answering { serial: u64, ok: bool },
    /// It heard what became of its answer.
    Answered { serial: u64, outcome: Outcome },
    /// A consumer's stream ended by itself, which it never should.
    Gave { up: String },
    /// Something was broken on purpose, and, if it lasts, is until [`Event::Healed`]; `process` if it befell one.
    Fault { name: String, process: Option<String>, lasts: bool },
    /// The last fault is over.
    Healed,
}

/// What became of messages that were published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fate {
    Committed,
    RolledBack,
    /// Nobody knows: the connection was lost before the server answered.
    InDoubt,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Accepted,
    /// The lease was somebody else's.
    Refused,
    /// The connection was lost before the server said so: it may have taken effect.
    Unknown,
    /// It certainly had no effect, for another reason.
    Failed,
}
