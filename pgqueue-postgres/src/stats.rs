//! [`SubscriptionStats`]: how a subscription stands.

use std::time::{Duration, SystemTime};

use pgqueue_core::Result;

use crate::{Row, value::RowExt};

/// How a subscription stands: what waits, what is being handled, what was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive] // so that fields can be added
pub struct SubscriptionStats {
    /// The subscription's name.
    pub name: String,
    /// How many messages were never handed out: its lag in messages. Counted up to 10,000, so that looking costs the same
    /// whatever the backlog.
    pub waiting: u64,
    /// Whether `waiting` is all there are; if not, there are more.
    pub waiting_is_exact: bool,
    /// How long ago the oldest message that is not done was published: its lag in time. `None` if all are done.
    pub oldest: Option<Duration>,
    /// How many messages are in the hands of consumers, those included that they took in advance, and those of consumers that
    /// died until a living one, or [`maintain`](crate::PgQueue::maintain), finds out.
    pub in_flight: u64,
    /// How many messages came back and wait to be handed out again.
    pub retrying: u64,
    /// How many dead letters there are.
    pub dead: u64,
    /// How many consumers live: have beaten within their lease.
    pub consumers: u64,
    /// How many of those waiting in [stable total order](pgqueue_core::Order::StableTotal) do so for transactions that are still
    /// open, anywhere on the server: [`horizon_holder`](crate::PgQueue::horizon_holder) may say whose.
    pub held_back: u64,
}

/// What keeps vacuum from removing what the queue has deleted.
///
/// Claims do not slow down under it, but disk space does not come back before it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive] // so that fields can be added
pub struct HorizonHolder {
    /// What it is: a session, a prepared transaction, a replication slot.
    pub what: String,
    /// Which one it is.
    pub who: String,
    /// How many transactions have begun since.
    pub age: u64,
    /// Since when, if the server knows.
    pub since: Option<SystemTime>,
}

fn count<R: Row>(row: &R, column: usize) -> Result<u64> {
    row.get::<i64>(column).map(i64::unsigned_abs)
}

impl SubscriptionStats {
    /// Reads a row of [`STATS`](crate::statement::STATS).
    pub(crate) fn read<R: Row>(row: &R, name: &str) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            waiting: count(row, 0)?,
            waiting_is_exact: row.get(1)?,
            oldest: row.read::<i64>(2)?.map(|millis| Duration::from_millis(millis.max(0).unsigned_abs())),
            in_flight: count(row, 3)?,
            retrying: count(row, 4)?,
            dead: count(row, 5)?,
            consumers: count(row, 6)?,
            held_back: count(row, 7)?,
        })
    }
}

impl HorizonHolder {
    /// Reads a row of [`HORIZON_HOLDER`](crate::statement::HORIZON_HOLDER).
    pub(crate) fn read<R: Row>(row: &R) -> Result<Self> {
        let age = row.read::<i64>(2)?.unwrap_or_default().unsigned_abs();
        Ok(Self { what: row.get(0)?, who: row.get(1)?, age, since: row.read(3)? })
    }
}
