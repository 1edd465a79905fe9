//! [`Summary`]: what the program prints when all is done.

use std::collections::{HashMap, HashSet};

use pgqueue_core::MessageId;
use serde::Serialize;

use crate::audit::Audit;

/// What was published.
#[derive(Default)]
pub(crate) struct Published {
    /// The messages in publishing order, with their keys.
    pub(crate) messages: Vec<(MessageId, Option<String>)>,
    /// How many lines held no message.
    pub(crate) skipped: usize,
}

#[derive(Serialize)]
pub(crate) struct Summary {
    published: usize,
    skipped: usize,
    subscriptions: Subscriptions,
}

#[derive(Serialize)]
struct Subscriptions {
    archive: Archive,
    alerts: Alerts,
}

#[derive(Serialize)]
struct Archive {
    #[serde(flatten)]
    counts: Counts,
    /// Messages that were acked after a later one of their key.
    order_breaks: usize,
}

#[derive(Serialize)]
struct Alerts {
    #[serde(flatten)]
    counts: Counts,
    /// Messages for which an alert was sent.
    matched: usize,
}

#[derive(Serialize)]
struct Counts {
    /// Calls of the handler.
    delivered: usize,
    acked: usize,
    requeued: usize,
    dead: usize,
}

impl Summary {
    pub(crate) fn new(
        published: &Published,
        archive: &Audit,
        alerts: &Audit,
        matched: impl Iterator<Item = MessageId>,
    ) -> Self {
        Self {
            published: published.messages.len(),
            skipped: published.skipped,
            subscriptions: Subscriptions {
                archive: Archive {
                    counts: Counts::of(archive),
                    order_breaks: order_breaks(&published.messages, archive.tally().acked.values()),
                },
                // A set, since a message that comes again may send its alert again.
                alerts: Alerts { counts: Counts::of(alerts), matched: matched.collect::<HashSet<_>>().len() },
            },
        }
    }
}

impl Counts {
    fn of(audit: &Audit) -> Self {
        let tally = audit.tally();
        Self { delivered: tally.delivered, acked: tally.acked.len(), requeued: tally.requeued, dead: tally.dead }
    }
}

/// Counts the messages that were acked after one of the same key that was published later.
fn order_breaks<'a>(published: &[(MessageId, Option<String>)], acked: impl Iterator<Item = &'a MessageId>) -> usize {
    let published: HashMap<_, _> = published.iter().enumerate().map(|(n, (id, key))| (id, (n, key))).collect();
    let mut latest = HashMap::new();
    acked
        .filter_map(|id| published.get(id))
        .filter(|(n, key)| {
            let latest = latest.entry(key).or_insert(*n);
            let late = *n < *latest;
            *latest = (*latest).max(*n);
            late
        })
        .count()
}
