//! [`Ledger`]: what a subscription owes to its consumers, and they to it.

mod audit;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pgqueue_core::{Ack, MessageId, Order, Requeue, Subscription, bucket};

use crate::{
    check::{Verdict, ensure},
    event::Seen,
    item::{Item, Place, State},
    log::Entry,
};

pub(crate) struct Ledger {
    pub(crate) options: Subscription,
    buckets: u16,
    items: BTreeMap<u32, Item>,
    /// The messages that are neither acked nor dead, in the order of their lanes.
    unsettled: BTreeMap<Place, u32>,
    /// The leases that are valid, by delivery.
    leases: BTreeMap<u32, Lease>,
    /// When each lane was last in somebody's hand.
    freed: BTreeMap<u16, Duration>,
    last_seat: u64,
    acked: Vec<MessageId>,
    dead: Vec<u32>,
}

struct Lease {
    consumer: u32,
    messages: Vec<u32>,
    /// When it ends, if its consumer does not beat.
    ends: Option<Duration>,
}

/// How late something may be noticed: timers are as fine as a millisecond.
pub(crate) const GRACE: Duration = Duration::from_millis(2);

impl Ledger {
    pub(crate) fn new(options: Subscription, buckets: u16) -> Self {
        Self {
            options,
            buckets,
            items: BTreeMap::new(),
            unsettled: BTreeMap::new(),
            leases: BTreeMap::new(),
            freed: BTreeMap::new(),
            last_seat: 0,
            acked: Vec::new(),
            dead: Vec::new(),
        }
    }

    /// A message entered the topic.
    pub(crate) fn enter(&mut self, at: Duration, entry: Entry) {
        let lane = match self.options.order() {
            Order::ByKey => entry.key.as_ref().map(|key| bucket(key, self.buckets)),
            Order::Total | Order::StableTotal => Some(0),
            _ => None,
        };
        self.last_seat += 1;
        let place = Place { lane, seat: self.last_seat };
        self.unsettled.insert(place, entry.number);
        self.items.insert(entry.number, Item::new(entry, place, at));
    }

    /// A consumer got a delivery.
    pub(crate) fn claim(
        &mut self,
        at: Duration,
        delivery: u32,
        (consumer, beats): (u32, bool),
        seen: &[Seen],
    ) -> Verdict {
        let most = self.options.batch();
        ensure!((1..=most).contains(&seen.len()), "a batch of at most {most} has {} messages", seen.len());
        self.check_order(seen)?;
        for message in seen {
            let Some(item) = self.items.get_mut(&message.number) else {
                return Err(format!("message {} was published before the subscription was inserted", message.number));
            };
            item.hand_out(at, delivery, message, seen.len())?;
        }
        let messages = seen.iter().map(|message| message.number).collect();
        let ends = (!beats).then(|| at + self.options.lease());
        self.leases.insert(delivery, Lease { consumer, messages, ends });
        Ok(())
    }

    /// Each lane has one delivery in hand at a time, and that begins with the first message that is unsettled.
    fn check_order(&self, seen: &[Seen]) -> Verdict {
        let lane_of = |number: u32| self.items.get(&number).and_then(|item| item.place.lane);
        let lanes: BTreeSet<_> = seen.iter().filter_map(|message| lane_of(message.number)).collect();
        ensure!(lanes.len() <= 1, "a delivery mixes the lanes {lanes:?}");
        let Some(lane) = lanes.first().copied() else { return Ok(()) };
        if let Some(held) = self.lane(lane).find(|item| matches!(item.state, State::Held { .. })) {
            return Err(format!("lane {lane} is handed out while message {} of it is in hand", held.entry.number));
        }
        let coming = seen.iter().map(|message| message.number).filter(|number| lane_of(*number) == Some(lane));
        for (coming, item) in coming.zip(self.lane(lane)) {
            let due = item.entry.number;
            ensure!(coming == due, "message {coming} overtakes message {due} in lane {lane}");
        }
        Ok(())
    }

    /// The unsettled messages of a lane, in their order.
    fn lane(&self, lane: u16) -> impl Iterator<Item = &Item> {
        let lane = Some(lane);
        let places = Place { lane, seat: 0 }..=Place { lane, seat: u64::MAX };
        self.unsettled.range(places).map(|(_, number)| &self.items[number])
    }

    /// Ends a delivery by an answer; returns whether its lease was valid. If not, nothing changes.
    pub(crate) fn settle(&mut self, at: Duration, delivery: u32, ack: &Ack) -> bool {
        let Some(lease) = self.leases.remove(&delivery) else { return false };
        self.free(at, &lease.messages);
        match ack {
            Ack::Requeue(requeue) => self.requeue(at, &lease.messages, requeue),
            Ack::Reject { reason } => lease.messages.iter().for_each(|number| self.bury(*number, Some(reason))),
            _ => lease.messages.iter().for_each(|number| self.acknowledge(*number)),
        }
        true
    }

    fn acknowledge(&mut self, number: u32) {
        let Some(item) = self.items.get_mut(&number) else { return };
        item.state = State::Acked;
        self.acked.push(item.entry.id.clone());
        self.unsettled.remove(&item.place);
    }

    fn bury(&mut self, number: u32, reason: Option<&String>) {
        let Some(item) = self.items.get_mut(&number) else { return };
        item.state = State::Dead { reason: reason.cloned() };
        self.dead.push(number);
        self.unsettled.remove(&item.place);
    }

    /// Messages that are out of attempts die, the others wait.
    fn requeue(&mut self, at: Duration, messages: &[u32], requeue: &Requeue) {
        let backoff = *self.options.backoff();
        let attempts = |number: &u32| self.items[number].attempts;
        let (exhausted, others): (Vec<u32>, Vec<u32>) =
            messages.iter().partition(|number| attempts(number) >= backoff.max_attempts());
        let most_attempts = others.iter().map(attempts).max().unwrap_or_default();
        exhausted.into_iter().for_each(|number| self.bury(number, requeue.reason.as_ref()));
        for number in others {
            let item = self.items.get_mut(&number);
            item.into_iter().for_each(|item| item.requeue(at, requeue, &backoff, most_attempts));
        }
    }

    fn free(&mut self, at: Duration, messages: &[u32]) {
        for number in messages {
            // A message without a key may have been in any lane.
            let lanes = self.items[number].place.lane.map_or(0..=self.buckets, |lane| lane..=lane);
            self.freed.extend(lanes.map(|lane| (lane, at)));
        }
    }

    /// A consumer's heartbeat stops, or sets in again.
    pub(crate) fn set_beating(&mut self, at: Duration, consumer: u32, beats: bool) {
        let ends = (!beats).then(|| at + self.options.lease());
        self.leases.values_mut().filter(|lease| lease.consumer == consumer).for_each(|lease| lease.ends = ends);
    }

    /// Ends all leases.
    pub(crate) fn expire_all(&mut self, at: Duration) -> Vec<(u32, Duration)> {
        self.leases.values_mut().for_each(|lease| lease.ends = Some(at));
        self.expire(at)
    }

    /// Ends the leases that have ended by now; returns their deliveries, and when they were lost.
    pub(crate) fn expire(&mut self, now: Duration) -> Vec<(u32, Duration)> {
        let ends = self.leases.iter().filter_map(|(delivery, lease)| Some((lease.ends?, *delivery)));
        let mut lost: Vec<_> = ends.filter(|(at, _)| *at <= now).collect();
        lost.sort_unstable();
        for (at, delivery) in &lost {
            let Some(lease) = self.leases.remove(delivery) else { continue };
            self.free(*at, &lease.messages);
            let (alone, most) = (lease.messages.len() == 1, self.options.backoff().max_attempts());
            for number in lease.messages {
                match self.items.get_mut(&number) {
                    Some(item) if !alone || item.attempts < most => item.expire(*at, alone),
                    _ => self.bury(number, None),
                }
            }
        }
        lost.into_iter().map(|(at, delivery)| (delivery, at)).collect()
    }

    /// Brings dead letters back, one or all.
    pub(crate) fn redrive(&mut self, at: Duration, one: Option<&MessageId>, count: usize) -> Verdict {
        let chosen = |item: &Item| one.is_none_or(|id| item.entry.id == *id);
        let (redriven, dead): (Vec<u32>, Vec<u32>) = self.dead.iter().partition(|number| chosen(&self.items[number]));
        ensure!(redriven.len() == count, "{count} dead letters were redriven, not {}", redriven.len());
        self.dead = dead;
        for number in redriven {
            let Some(item) = self.items.get_mut(&number) else { continue };
            self.last_seat += 1;
            item.redrive(at, self.last_seat);
            self.unsettled.insert(item.place, number);
        }
        Ok(())
    }
}
