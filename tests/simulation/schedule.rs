//! [`Schedule`]: everything that is done to the queue, drawn from the seed.

use std::{iter::repeat_n, time::Duration};

use fastrand::Rng;
use pgqueue_core::{Backoff, Order, Subscription, Topic};

use crate::{
    step::{Blow, Draft, Step},
    temper::Temper,
};

pub(crate) const TOPICS: [&str; 2] = ["orders", "payments"];

/// Name, topic and order; the last is inserted only when its first consumer comes.
pub(crate) const SUBSCRIPTIONS: [(&str, &str, Order); 4] = [
    ("parcels", "orders", Order::Unordered),
    ("stock", "orders", Order::ByKey),
    ("ledger", "payments", Order::Total),
    ("invoices", "payments", Order::ByKey),
];
const EARLY: usize = 3;

pub(crate) struct Schedule {
    rng: Rng,
    /// How many messages there have been.
    messages: u32,
}

/// Draws a step of one kind.
type Kind = fn(&mut Schedule) -> Step;

/// What is done beside publishing, and how often compared to the rest.
const KINDS: [(usize, Kind); 7] = [
    (6, Schedule::start),
    (4, Schedule::insert),
    (10, Schedule::strike),
    (5, Schedule::expire),
    (4, Schedule::redrive),
    (2, Schedule::stall),
    (2, Schedule::publish_invalid),
];

/// What makes messages come again.
const AGAIN: [Kind; 4] = [Schedule::redrive, Schedule::redrive, Schedule::expire, Schedule::expire];

impl Schedule {
    pub(crate) fn new(rng: Rng) -> Self {
        Self { rng, messages: 0 }
    }

    pub(crate) fn topics(&mut self) -> [Topic; 2] {
        TOPICS.map(|topic| {
            let window = Duration::from_millis(self.rng.u64(500..8_000));
            Topic::new(topic).with_buckets(self.rng.u16(1..=4)).with_dedup_window(window)
        })
    }

    /// Time of trouble, each time with more of some kinds of steps than of others, so that all of them meet.
    pub(crate) fn trouble(&mut self) -> Vec<(Duration, Step)> {
        let kinds = KINDS.into_iter().flat_map(|(weight, kind)| repeat_n(kind, weight * self.rng.usize(..4)));
        let kinds: Vec<_> = kinds.collect();
        let mut steps: Vec<_> = (0..EARLY).map(|which| Step::Insert(self.subscription(which))).collect();
        steps.extend((0..self.rng.usize(1..=4)).map(|_| self.start()));
        steps.extend((0..self.rng.usize(10..45)).map(|_| self.step(&kinds)));
        let longest_pause = self.rng.u64(1..400);
        self.with_pauses(steps, longest_pause)
    }

    /// What leaves the consumers alone.
    pub(crate) fn drain(&mut self) -> Vec<(Duration, Step)> {
        let steps = (0..10).map(|_| self.step(&AGAIN)).collect();
        self.with_pauses(steps, 600)
    }

    /// The same, and blows.
    pub(crate) fn calm(&mut self) -> Vec<(Duration, Step)> {
        let mut steps: Vec<_> = (0..4).map(|_| self.step(&AGAIN)).collect();
        steps.extend((0..4).map(|_| self.step(&[Self::strike])));
        self.rng.shuffle(&mut steps);
        self.with_pauses(steps, 300)
    }

    /// A consumer of every subscription.
    pub(crate) fn consumers(&mut self, temper: fn(&mut Rng) -> Temper) -> Vec<(Subscription, Temper)> {
        (0..SUBSCRIPTIONS.len()).map(|which| (self.subscription(which), temper(&mut self.rng))).collect()
    }

    fn with_pauses(&mut self, steps: Vec<Step>, longest_ms: u64) -> Vec<(Duration, Step)> {
        steps.into_iter().map(|step| (Duration::from_millis(self.rng.u64(..longest_ms)), step)).collect()
    }

    fn step(&mut self, kinds: &[Kind]) -> Step {
        match self.rng.choice(kinds) {
            Some(kind) if self.rng.bool() => kind(self),
            _ => self.publish(),
        }
    }

    fn publish(&mut self) -> Step {
        let topic = TOPICS[self.rng.usize(..TOPICS.len())];
        let drafts = (0..self.rng.usize(1..=4)).map(|_| self.draft()).collect();
        Step::Publish { topic, drafts }
    }

    /// Messages of which one is invalid, so that none must be published.
    fn publish_invalid(&mut self) -> Step {
        let mut step = self.publish();
        if let Step::Publish { drafts, .. } = &mut step {
            drafts.push(Draft { key: Some(String::new()), ..self.draft() });
        }
        step
    }

    fn draft(&mut self) -> Draft {
        self.messages += 1;
        let rng = &mut self.rng;
        Draft {
            number: self.messages,
            key: (rng.u8(..8) > 0).then(|| format!("key-{}", rng.u8(..5))),
            delay: (rng.u8(..5) == 0).then(|| Duration::from_millis(rng.u64(..4_000))),
            dedup_id: (rng.u8(..4) == 0).then(|| format!("once-{}", rng.u8(..6))),
        }
    }

    /// A subscription with options of its own.
    fn subscription(&mut self, which: usize) -> Subscription {
        let (name, topic, order) = SUBSCRIPTIONS[which];
        let rng = &mut self.rng;
        let base = if rng.u8(..4) == 0 { 0 } else { rng.u64(1..2_000) };
        let backoff = Backoff::default()
            .with_max_attempts(rng.u32(1..=3))
            .with_base(Duration::from_millis(base))
            .with_cap(Duration::from_secs(3))
            .with_jitter(rng.f64() / 2.0);
        Subscription::new(name, topic)
            .with_order(order)
            .with_batch(rng.usize(1..=5))
            .with_lease(Duration::from_millis(rng.u64(200..3_000)))
            .with_backoff(backoff)
    }

    fn start(&mut self) -> Step {
        let which = self.rng.usize(..SUBSCRIPTIONS.len());
        Step::Start(self.subscription(which), Temper::draw(&mut self.rng))
    }

    fn insert(&mut self) -> Step {
        let which = self.rng.usize(..EARLY);
        Step::Insert(self.subscription(which))
    }

    fn strike(&mut self) -> Step {
        let blow = match self.rng.u8(..6) {
            0 => Blow::Stop,
            1 => Blow::Kill,
            2 => Blow::Crash { zombie: self.rng.bool() },
            _ => Blow::Freeze(Duration::from_millis(self.rng.u64(..4_000))),
        };
        Step::Strike(self.rng.usize(..), blow)
    }

    fn expire(&mut self) -> Step {
        Step::Expire(SUBSCRIPTIONS[self.rng.usize(..SUBSCRIPTIONS.len())].0)
    }

    fn redrive(&mut self) -> Step {
        let one = (self.rng.u8(..4) == 0).then(|| self.rng.usize(..));
        Step::Redrive(SUBSCRIPTIONS[self.rng.usize(..SUBSCRIPTIONS.len())].0, one)
    }

    fn stall(&mut self) -> Step {
        Step::Stall(Duration::from_millis(self.rng.u64(1..6_000)))
    }
}
