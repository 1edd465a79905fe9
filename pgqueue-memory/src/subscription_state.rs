//! [`SubscriptionState`]: what one subscription has waiting, in hand, acked and dead.

use std::collections::{HashSet, VecDeque};

use pgqueue_core::{
    Ack, Consumers, DeadLetter, Error, ErrorKind, Message, MessageId, Order, Requeue, Result, Subscription,
    SubscriptionStats, bucket,
};
use tokio::{sync::watch, time::Instant};

use crate::{
    activity::Activity,
    clock::Now,
    consumer::Consumer,
    entry::Entry,
    given_up::GivenUp,
    lane::Lane,
    lease::{ConsumerId, Lease, LeaseId, Leases},
    log::Retained,
};

/// How many acked messages a subscription remembers.
pub(crate) const ACKED_HISTORY: usize = 10_000;

#[derive(Debug)]
pub(crate) struct SubscriptionState {
    pub(crate) options: Subscription,
    /// One a bucket that keeps an order, then one for messages that have none; or one for all, in order.
    lanes: Vec<Lane>,
    /// Where the next claim looks first, so that no lane starves another.
    next_lane: usize,
    leases: Leases,
    activity: Activity,
    /// How many messages came, redriven ones again.
    arrivals: u64,
    /// The ids of all messages that are waiting or in hand.
    unsettled: HashSet<u64>,
    /// The latest [`ACKED_HISTORY`], oldest first.
    acked: VecDeque<Message>,
    dead: Vec<(Entry, DeadLetter)>,
    given_up: GivenUp,
    /// How many messages its topic deleted before they were handed out.
    cut: u64,
    /// Rings when a run may have become claimable.
    bell: watch::Sender<()>,
    /// Rings when a message is settled or dead.
    settled: watch::Sender<()>,
    /// Rings when a lease expires or its deadline moves.
    deadlines: watch::Sender<()>,
}

impl SubscriptionState {
    pub(crate) fn new(options: Subscription, buckets: u16, given_up: GivenUp) -> Self {
        let (ordered, unordered) = match options.order() {
            Order::ByKey => (buckets, 1),
            Order::Total | Order::StableTotal => (1, 0),
            _ => (0, 1),
        };
        let lanes = std::iter::repeat_with(|| Lane::new(true)).take(usize::from(ordered));
        let lanes = lanes.chain(std::iter::repeat_with(|| Lane::new(false)).take(unordered)).collect();
        Self {
            options,
            lanes,
            next_lane: 0,
            leases: Leases::default(),
            activity: Activity::default(),
            arrivals: 0,
            unsettled: HashSet::new(),
            acked: VecDeque::new(),
            dead: Vec::new(),
            given_up,
            cut: 0,
            bell: watch::Sender::default(),
            settled: watch::Sender::default(),
            deadlines: watch::Sender::default(),
        }
    }

    /// Appends a published message, if it is one for this subscription. The caller [rings](Self::ring) once it appended all.
    pub(crate) fn publish(&mut self, published: &Retained) {
        let Retained { id, position, message, .. } = published;
        if self.options.selector().matches(message) {
            self.push(Entry::new(*id, *position, message.clone()));
        }
    }

    /// Checks that nobody works with this subscription, and nothing would get lost, if it were [moved](Self::rewind).
    pub(crate) fn ensure_movable(&self) -> Result<()> {
        let name = self.options.name();
        let problem = match (self.activity.living(), self.dead.len()) {
            (0, 0) => return Ok(()),
            (0, dead) => format!("has {dead} dead letters; redrive or purge them first"),
            (consumers, _) => format!("has {consumers} living consumers; stop its consumers first"),
        };
        Err(Error::new(ErrorKind::Conflict, format!("subscription {name:?} {problem}")))
    }

    /// Forgets what waits and what is in hand, so that it can be moved. Returns it, to be dropped outside the lock.
    pub(crate) fn rewind(&mut self) -> impl Sized + use<> {
        let lanes: Vec<_> = self.lanes.iter_mut().map(Lane::clear).collect();
        let leases = std::mem::take(&mut self.leases);
        self.cut = 0;
        self.unsettled.clear();
        self.activity = Activity::default();
        self.settled.send_replace(());
        self.deadlines.send_replace(());
        (lanes, leases)
    }

    /// Loses what was never handed out and stands in the log up to `position`.
    pub(crate) fn cut(&mut self, position: u64) {
        let cut: Vec<_> = self.lanes.iter_mut().flat_map(|lane| lane.cut(position)).collect();
        if !cut.is_empty() {
            self.cut += cut.len() as u64;
            for entry in cut {
                self.unsettled.remove(&entry.id);
            }
            self.ring();
            self.settled.send_replace(());
        }
    }

    fn push(&mut self, mut entry: Entry) {
        self.arrivals += 1;
        entry.arrival = self.arrivals;
        let lane = self.lane_of(&entry);
        self.unsettled.insert(entry.id);
        self.lanes[lane].push(entry);
    }

    pub(crate) fn ring(&self) {
        self.bell.send_replace(());
    }

    fn lane_of(&self, entry: &Entry) -> usize {
        let last = self.lanes.len() - 1;
        match entry.message().key() {
            // As many lanes as the topic has buckets, whose number is a u16, stand before the last.
            Some(key) if last > 0 => usize::from(bucket(key, last as u16)),
            _ => last,
        }
    }

    /// Hands the next run to a consumer, as the lease `id`, if it is one that gets any.
    pub(crate) fn claim(&mut self, id: LeaseId, consumer: &Consumer, now: Now) -> Result<Option<Vec<Message>>> {
        if self.cut > 0 {
            return Err(Error::cut_off(self.options.name()));
        }
        if self.options.consumers() == Consumers::Exclusive && !self.activity.is_first(consumer.id) {
            return Err(Error::in_use(self.options.name()));
        }
        let deadline = consumer.is_silent().then(|| now.after(self.options.lease()));
        self.activity.enter(consumer.id, deadline);
        if !self.serves(consumer.id) {
            return Ok(None);
        }
        let Some((lane, mut entries)) = self.next_run(now) else { return Ok(None) };

        let messages = entries.iter_mut().map(|entry| entry.hand_out(now)).collect();
        self.leases.insert(id, Lease { consumer: consumer.id, lane, entries, deadline });
        self.activity.take(consumer.id);
        Ok(Some(messages))
    }

    /// Whether a consumer may get messages, as things stand.
    fn serves(&self, consumer: ConsumerId) -> bool {
        self.options.consumers() == Consumers::Competing || self.activity.is_first(consumer)
    }

    /// Takes the next run out of its lane.
    fn next_run(&mut self, now: Now) -> Option<(usize, Vec<Entry>)> {
        let lanes = self.lanes.len();
        let order = (0..lanes).map(|n| (self.next_lane + n) % lanes);
        let batch = self.options.batch();
        let (lane, entries) =
            order.into_iter().find_map(|lane| Some((lane, self.lanes[lane].claim(now.instant, batch)?)))?;
        self.next_lane = (lane + 1) % lanes;
        Some((lane, entries))
    }

    /// Ends a lease by its consumer's answer.
    pub(crate) fn settle(&mut self, id: LeaseId, ack: Ack, now: Now) -> Result<()> {
        let lease = self.leases.remove(id).ok_or_else(|| Error::lease_lost(self.options.name()))?;
        let passes_on = self.activity.release(lease.consumer);
        let frees_only_the_lane = !passes_on && !matches!(ack, Ack::Requeue(_));
        match ack {
            Ack::Ok => self.acknowledge(&lease),
            Ack::Reject { reason } => self.bury(lease.entries, &reason, now),
            Ack::Requeue(requeue) => self.requeue(lease.lane, lease.entries, requeue, now),
            other => {
                // An answer that this driver does not know is safest as one that loses nothing.
                let requeue = Requeue::default().with_reason(format!("unknown answer {other:?}"));
                self.requeue(lease.lane, lease.entries, requeue, now);
            }
        }
        self.lanes[lease.lane].release();
        if !(frees_only_the_lane && self.options.order() == Order::Unordered) {
            self.ring();
        }
        self.settled.send_replace(());
        Ok(())
    }

    fn acknowledge(&mut self, lease: &Lease) {
        for entry in &lease.entries {
            self.unsettled.remove(&entry.id);
            self.acked.push_back(entry.message());
        }
        self.acked.drain(..self.acked.len().saturating_sub(ACKED_HISTORY));
    }

    /// Lets a run wait for its next attempt; those of its messages that have none left die.
    fn requeue(&mut self, lane: usize, mut entries: Vec<Entry>, requeue: Requeue, now: Now) {
        let backoff = *self.options.backoff();
        let exhausted: Vec<_> = entries.extract_if(.., |entry| entry.attempts >= backoff.max_attempts()).collect();
        let reason = requeue.reason.unwrap_or_else(|| "requeued".to_owned());
        self.bury(exhausted, &reason, now);

        let attempts = entries.iter().map(|entry| entry.attempts).max().unwrap_or_default();
        let delay = requeue.delay.unwrap_or_else(|| backoff.delay(attempts));
        entries.iter_mut().for_each(|entry| entry.requeue(now));
        self.lanes[lane].put_back(now.after(delay), entries);
    }

    /// Sends messages to the dead letters.
    fn bury(&mut self, entries: Vec<Entry>, reason: &str, now: Now) {
        for entry in entries {
            self.unsettled.remove(&entry.id);
            let letter = DeadLetter::new(entry.message(), reason, now.time);
            self.given_up.note(letter.message.clone(), self.options.name());
            self.dead.push((entry, letter));
        }
    }

    /// Takes back the runs of consumers that have been silent for too long.
    ///
    /// Nobody knows which message of a run silenced its consumer. So a run of several comes back message by message, and
    /// that attempt counts for none of them; only a message that was in hand alone counts it.
    pub(crate) fn expire(&mut self, now: Now) {
        let mut expired = false;
        while let Some(Lease { consumer, lane, entries, .. }) = self.leases.pop_expired(now.instant) {
            let alone = entries.len() == 1;
            for mut entry in entries {
                if alone && entry.attempts >= self.options.backoff().max_attempts() {
                    self.bury(vec![entry], "its consumer went silent", now);
                } else {
                    entry.attempts -= u32::from(!alone);
                    self.lanes[lane].put_back(now.instant, vec![entry]);
                }
            }
            self.lanes[lane].release();
            self.activity.release(consumer);
            expired = true;
        }
        if self.activity.expire(|deadline| deadline <= now.instant) || expired {
            self.ring();
            self.settled.send_replace(());
            self.deadlines.send_replace(());
        }
    }

    /// Sets whether a consumer beats; if not, its leases end after the subscription's lease time.
    pub(crate) fn set_beating(&mut self, consumer: ConsumerId, beating: bool, now: Now) {
        let deadline = (!beating).then(|| now.after(self.options.lease()));
        self.leases.set_deadline(|lease| lease.consumer == consumer, deadline);
        self.activity.set_deadline(consumer, deadline);
        // Whoever waits for one of them must look at them again.
        self.ring();
        self.deadlines.send_replace(());
    }

    /// Notes that a consumer's driver is gone: another may take its place, once what it holds is settled.
    pub(crate) fn leave(&mut self, consumer: ConsumerId) {
        if self.activity.leave(consumer) {
            self.ring();
        }
    }

    /// Ends all leases now, as if their consumers had been silent for too long. Those who really are silent are dead.
    pub(crate) fn expire_all(&mut self, now: Now) {
        self.leases.set_deadline(|_| true, Some(now.instant));
        if self.activity.expire(|_| true) {
            self.ring();
        }
        self.expire(now);
    }

    pub(crate) fn can_claim(&self, now: Instant) -> bool {
        self.lanes.iter().any(|lane| lane.can_claim(now))
    }

    /// Whether a consumer that looks now finds something, or is told that it was cut off.
    pub(crate) fn has_news_for(&self, consumer: ConsumerId, now: Instant) -> bool {
        self.cut > 0 || (self.serves(consumer) && self.can_claim(now))
    }

    /// The first moment after `past` at which time alone makes something happen.
    pub(crate) fn due_after(&self, past: Instant) -> Option<Instant> {
        let lanes = self.lanes.iter().filter_map(|lane| lane.due_after(past));
        lanes.chain(self.next_deadline()).min()
    }

    /// Whether a lease is still held, and when it will end.
    pub(crate) fn deadline(&self, id: LeaseId) -> Option<Option<Instant>> {
        self.leases.get(id).map(|lease| lease.deadline)
    }

    pub(crate) fn bell(&self) -> watch::Receiver<()> {
        self.bell.subscribe()
    }

    pub(crate) fn listeners(&self) -> usize {
        self.bell.receiver_count()
    }

    pub(crate) fn settled(&self) -> watch::Receiver<()> {
        self.settled.subscribe()
    }

    pub(crate) fn deadlines(&self) -> watch::Receiver<()> {
        self.deadlines.subscribe()
    }

    /// Whether nothing is in hand and nothing may go now.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        self.leases.values().next().is_none() && !self.can_claim(now)
    }

    pub(crate) fn is_unsettled(&self, id: u64) -> bool {
        self.unsettled.contains(&id)
    }

    pub(crate) fn stats(&self, now: Now) -> SubscriptionStats {
        let mut stats = SubscriptionStats::new(self.options.name());
        for (fresh, returned) in self.lanes.iter().map(Lane::counts) {
            stats.waiting += fresh as u64;
            stats.retrying += returned as u64;
        }
        let in_hand = self.leases.values().flat_map(|lease| &lease.entries);
        let waiting = self.lanes.iter().flat_map(Lane::waiting);
        let oldest = in_hand.clone().chain(waiting).map(Entry::published_at).min();
        stats.oldest = oldest.map(|oldest| now.time.duration_since(oldest).unwrap_or_default());
        stats.in_flight = in_hand.count() as u64;
        stats.dead = self.dead.len() as u64;
        stats.consumers = self.activity.living() as u64;
        stats.cut = self.cut;
        stats
    }

    pub(crate) fn pending(&self) -> Vec<Message> {
        in_order_of_arrival(self.lanes.iter().flat_map(Lane::waiting))
    }

    pub(crate) fn in_flight(&self) -> Vec<Message> {
        in_order_of_arrival(self.leases.values().flat_map(|lease| &lease.entries))
    }

    pub(crate) fn acked(&self) -> impl DoubleEndedIterator<Item = &Message> {
        self.acked.iter()
    }

    pub(crate) fn dead(&self) -> impl Iterator<Item = &DeadLetter> {
        self.dead.iter().map(|(_, letter)| letter)
    }

    /// Hands dead letters out again, from their first attempt, behind what waits already; returns how many.
    pub(crate) fn redrive(&mut self, which: impl Fn(&MessageId) -> bool) -> usize {
        let redriven: Vec<_> = self.dead.extract_if(.., |(_, letter)| which(letter.message.id())).collect();
        let count = redriven.len();
        for (mut entry, _) in redriven {
            entry.reset();
            self.push(entry);
        }
        self.ring();
        count
    }

    /// Takes out all dead letters, to be dropped outside the lock.
    pub(crate) fn purge(&mut self) -> Vec<impl Sized + use<>> {
        std::mem::take(&mut self.dead)
    }

    /// When the next lease ends by itself, or the next consumer is taken for dead.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.leases.next_deadline().into_iter().chain(self.activity.next_deadline()).min()
    }
}

fn in_order_of_arrival<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<Message> {
    let mut entries: Vec<_> = entries.collect();
    entries.sort_unstable_by_key(|entry| entry.arrival);
    entries.into_iter().map(Entry::message).collect()
}
