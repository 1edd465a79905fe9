//! [`TopicState`]: what one topic remembers beside its subscriptions.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::SystemTime,
};

use pgqueue_core::{Laggards, NewMessage, Topic};
use tokio::time::Instant;

use crate::{clock::Now, log::Log};

#[derive(Debug)]
pub(crate) struct TopicState {
    pub(crate) options: Topic,
    pub(crate) log: Log,
    /// The names of its subscriptions.
    pub(crate) subscriptions: Vec<Arc<str>>,
    /// The id of the first message published with each dedup id.
    published_once: HashMap<Arc<str>, u64>,
    /// When each of them is forgotten, the next one first.
    forgotten_at: BTreeSet<(Instant, Arc<str>)>,
    /// Messages that are not due yet, by time and id.
    scheduled: BTreeMap<(Instant, u64), (NewMessage, SystemTime)>,
}

impl TopicState {
    pub(crate) fn new(options: Topic) -> Self {
        Self {
            options,
            log: Log::default(),
            subscriptions: Vec::new(),
            published_once: HashMap::new(),
            forgotten_at: BTreeSet::new(),
            scheduled: BTreeMap::new(),
        }
    }

    /// The id under which `dedup_id` was published within the window, or else remembers `id` as the first.
    pub(crate) fn publish_once(&mut self, dedup_id: &str, id: u64, now: Now) -> Option<u64> {
        while self.forgotten_at.first().is_some_and(|(at, _)| *at <= now.instant) {
            self.forgotten_at.pop_first().map(|(_, forgotten)| self.published_once.remove(&forgotten));
        }
        if let Some(first) = self.published_once.get(dedup_id) {
            return Some(*first);
        }
        let dedup_id: Arc<str> = dedup_id.into();
        self.published_once.insert(Arc::clone(&dedup_id), id);
        self.forgotten_at.insert((now.after(self.options.dedup_window()), dedup_id));
        None
    }

    pub(crate) fn schedule(&mut self, due: Instant, id: u64, message: NewMessage, published_at: SystemTime) {
        self.scheduled.insert((due, id), (message, published_at));
    }

    /// Takes out the next message that is due.
    pub(crate) fn pop_due(&mut self, now: Now) -> Option<(u64, NewMessage, SystemTime)> {
        let next = self.scheduled.first_entry().filter(|next| next.key().0 <= now.instant)?;
        let ((_, id), (message, published_at)) = next.remove_entry();
        Some((id, message, published_at))
    }

    /// Whether messages beyond a limit go though a subscription has not passed them.
    pub(crate) fn cuts(&self) -> bool {
        self.options.retention().laggards() == Laggards::Cut
    }

    /// Whether time alone demands something by now.
    pub(crate) fn is_due(&self, now: Now) -> bool {
        self.next_due().is_some_and(|due| due <= now.instant)
            || (self.cuts() && self.log.exceeds(self.options.retention(), now))
    }

    /// When the next scheduled message is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.scheduled.first_key_value().map(|((due, _), _)| *due)
    }

    pub(crate) fn is_scheduled(&self, id: u64) -> bool {
        self.scheduled.keys().any(|(_, scheduled)| *scheduled == id)
    }
}
