//! [`Event`]: something that happened in a run.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use pgqueue_core::{Ack, ErrorKind, Message, MessageId, Position, Subscription, Topic};

use crate::{
    step::Draft,
    temper::{Answer, Temper},
};

/// Something that happened, and when, counted from the beginning of the run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) at: Duration,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    Created(Topic),
    /// A subscription exists from now on, or has other options from now on.
    Inserted(Subscription),
    Published {
        topic: String,
        drafts: Vec<Draft>,
        outcome: Outcome<Vec<MessageId>>,
    },
    /// All leases of a subscription ended.
    Expired(String),
    /// So many dead letters of a subscription were redriven: one, or all.
    Redriven {
        subscription: String,
        one: Option<MessageId>,
        count: usize,
    },
    /// A topic is gone, and its subscriptions with it.
    Deleted(String),
    /// Something about a consumer; they are numbered as they come.
    Consumer(u32, ConsumerEvent),
    /// Something about a delivery; they are numbered as they come.
    Delivery(u32, DeliveryEvent),
    /// So much time passes, and nothing runs.
    Stalled(Duration),
    /// Fetching went on and on.
    Spun,
    /// By now everything must be settled.
    Drained,
    /// From now on every subscription has a consumer with time, whom nothing disturbs.
    Calm,
    /// What the queue itself says in the end.
    Account(Account),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ConsumerEvent {
    Started {
        subscription: String,
        temper: Temper,
    },
    /// The store handed it a delivery.
    Claimed {
        delivery: u32,
        messages: Vec<Seen>,
    },
    /// Its heartbeat sets in again, or stops.
    Beats(bool),
    /// It has to get over this.
    Disturbed(&'static str),
    /// Its stream met this error, which it cannot survive.
    Doomed(ErrorKind),
    /// Its stream was told to stop, or is about to be dropped.
    Told,
    Killed,
    Crashed,
    Ended(Outcome),
    /// Its stream goes on after its end.
    Undead,
    /// It did not end when it should.
    Hung,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum DeliveryEvent {
    /// Its stream yielded it to the consumer, who is about to answer like this.
    Yielded {
        answer: Answer,
        /// Whether the consumer wants to hear that the lease is lost.
        watched: bool,
    },
    /// It was swallowed on its way, or its answer was, or that of the store to it.
    Garbled,
    /// The consumer heard that the lease is lost.
    LeaseLost,
    /// The store heard the answer, and what it said.
    Settled(Ack, Outcome),
    Dropped,
    /// What the consumer heard of its answer.
    Concluded(Outcome),
}

pub(crate) type Outcome<T = ()> = Result<T, ErrorKind>;

/// A message as it was handed out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    /// The number that its payload consists of.
    pub(crate) number: u32,
    pub(crate) id: MessageId,
    pub(crate) position: Position,
    pub(crate) attempt: u32,
    /// How long after it was published it was last delivered.
    pub(crate) last_delivered: Option<Duration>,
    /// How long after it was published it was last requeued.
    pub(crate) last_requeued: Option<Duration>,
}

/// A subscription as the queue itself describes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Account {
    pub(crate) subscription: String,
    pub(crate) pending: Vec<MessageId>,
    pub(crate) in_flight: Vec<MessageId>,
    pub(crate) acked: Vec<MessageId>,
    /// With their attempts and reasons.
    pub(crate) dead: Vec<(MessageId, u32, String)>,
    pub(crate) listeners: usize,
}

impl From<&Message> for Seen {
    fn from(message: &Message) -> Self {
        let number = str::from_utf8(message.payload()).ok().and_then(|payload| payload.parse().ok());
        let since = |time: SystemTime| time.duration_since(message.published_at()).unwrap_or_default();
        Self {
            number: number.unwrap_or_default(), // no message has the number 0
            id: message.id().clone(),
            position: message.position().clone(),
            attempt: message.attempt(),
            last_delivered: message.last_delivered_at().map(since),
            last_requeued: message.last_requeued_at().map(since),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12.6} ", self.at.as_secs_f64())?;
        match &self.what {
            What::Consumer(number, event) => write!(f, "consumer {number}: {event:?}"),
            What::Delivery(number, event) => write!(f, "delivery {number}: {event:?}"),
            other => write!(f, "{other:?}"),
        }
    }
}
