//! [`History`]: what happened in a run, in the order it did. The checks look at nothing else.

use std::{
    mem::take,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use pgqueue_core::Message;
use tokio::time::Instant;

use crate::event::{ConsumerEvent, DeliveryEvent, Event, Seen, What};

pub(crate) struct History {
    began: Instant,
    events: Mutex<Vec<Event>>,
    fetches: AtomicUsize,
}

/// Far more than a run needs.
const MOST_FETCHES: usize = 100_000;

impl History {
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now(), events: Mutex::default(), fetches: AtomicUsize::new(0) }
    }

    pub(crate) fn record(&self, what: What) {
        self.events().push(Event { at: self.began.elapsed(), what });
    }

    pub(crate) fn of_consumer(&self, consumer: u32, event: ConsumerEvent) {
        self.record(What::Consumer(consumer, event));
    }

    pub(crate) fn of_delivery(&self, delivery: u32, event: DeliveryEvent) {
        self.record(What::Delivery(delivery, event));
    }

    /// Records that a consumer was handed a delivery, and returns the number that it gets.
    pub(crate) fn claimed(&self, consumer: u32, messages: &[Message]) -> u32 {
        let messages = messages.iter().map(Seen::from).collect();
        let delivery = self.latest_claim(|_| true) + 1;
        self.of_consumer(consumer, ConsumerEvent::Claimed { delivery, messages });
        delivery
    }

    /// The number of the latest delivery to a consumer: when its stream yields one, it is this.
    pub(crate) fn latest_delivery_to(&self, consumer: u32) -> u32 {
        self.latest_claim(|by| by == consumer)
    }

    fn latest_claim(&self, by: impl Fn(u32) -> bool) -> u32 {
        let latest = self.events().iter().rev().find_map(|event| match event.what {
            What::Consumer(consumer, ConsumerEvent::Claimed { delivery, .. }) if by(consumer) => Some(delivery),
            _ => None,
        });
        latest.unwrap_or_default()
    }

    /// Counts a fetch; returns whether there have been so many that the run is to end.
    pub(crate) fn has_spun(&self) -> bool {
        let fetches = self.fetches.fetch_add(1, Ordering::Relaxed);
        if fetches == MOST_FETCHES {
            self.record(What::Spun);
        }
        fetches >= MOST_FETCHES
    }

    pub(crate) fn take(&self) -> Vec<Event> {
        take(&mut self.events())
    }

    fn events(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
