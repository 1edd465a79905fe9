//! [`Store`]: everything a queue holds, behind one lock, each operation one step of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use pgqueue_core::{
    Ack, Delivery, Error, Message, MessageId, NewMessage, Position, Result, Start, Subscription, Topic,
};

use crate::{
    acker::MemoryAcker,
    checkpoints::Checkpoints,
    clock::{Clock, Now},
    consumer::Consumer,
    given_up::{GivenUp, Locked},
    lease::LeaseId,
    log::Retained,
    subscription_state::SubscriptionState,
    topic_state::TopicState,
};

#[derive(Debug)]
pub(crate) struct Store {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    topics: HashMap<String, TopicState>,
    subscriptions: HashMap<Arc<str>, SubscriptionState>,
    last_id: u64,
    last_position: u64,
    last_lease: LeaseId,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) given_up: GivenUp,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self { clock: Clock::start(), state: Mutex::default() }
    }

    /// Locks the state. No handler and no driver runs under the lock, so a poisoned lock holds a whole state.
    pub(crate) fn lock(&self) -> (Locked<'_>, Now) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (Locked::new(state), self.clock.now())
    }

    pub(crate) fn publish(&self, topic: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>> {
        messages.iter().try_for_each(NewMessage::validate)?;
        let (mut state, now) = self.lock();
        state.advance_topic(topic, now)?;
        let ids = messages.into_iter().map(|message| state.publish(topic, message, now)).collect::<Result<_>>()?;
        state.ring(topic);
        Ok(ids)
    }

    pub(crate) fn insert_subscription(&self, wanted: &Subscription) -> Result<()> {
        let (mut state, now) = self.lock();
        state.insert_subscription(wanted, now)
    }

    pub(crate) fn alter_subscription(&self, wanted: &Subscription) -> Result<()> {
        let (mut state, now) = self.lock();
        state.alter_subscription(wanted, now)
    }

    /// Hands the next run of a subscription to a consumer.
    pub(crate) fn claim(self: &Arc<Self>, consumer: &Arc<Consumer>) -> Result<Option<Delivery>> {
        let (mut state, now) = self.lock();
        state.last_lease += 1;
        let lease = state.last_lease;
        let subscription = state.consumed_by(consumer, now)?;
        let Some(mut messages) = subscription.claim(lease, consumer, now)? else { return Ok(None) };
        let batch = subscription.options.batch() > 1 || messages.len() > 1;
        drop(state); // a delivery that is dropped locks again

        let acker = MemoryAcker::new(Arc::clone(self), Arc::clone(consumer), lease);
        let delivery = match messages.pop() {
            Some(message) if !batch => Delivery::new(message, acker),
            last => {
                messages.extend(last);
                Delivery::batch(messages, acker)?
            }
        };
        Ok(Some(delivery.for_subscription(Arc::clone(&consumer.name))))
    }

    pub(crate) fn settle(&self, subscription: &str, lease: LeaseId, ack: Ack) -> Result<()> {
        let (mut state, now) = self.lock();
        state.advance(subscription, now)?;
        state.subscription_mut(subscription)?.settle(lease, ack, now)
    }

    /// Resolves once a lease is no longer held, or its subscription is gone.
    pub(crate) async fn lease_lost(&self, subscription: &str, lease: LeaseId) {
        loop {
            let (mut changed, deadline) = {
                let (mut state, now) = self.lock();
                let Ok(subscription) = state.advance(subscription, now) else { return };
                let Some(deadline) = subscription.deadline(lease) else { return };
                (subscription.deadlines(), deadline)
            };
            tokio::select! {
            biased;
                            gone = changed.changed() => if gone.is_err() { return },
                            () = sleep_until(deadline) => {}
                        }
        }
    }
}

/// Sleeps until `due`, for ever if there is none.
pub(crate) async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl State {
    pub(crate) fn topic(&self, name: &str) -> Result<&TopicState> {
        self.topics.get(name).ok_or_else(|| Error::topic_not_found(name))
    }

    fn topic_mut(&mut self, name: &str) -> Result<&mut TopicState> {
        self.topics.get_mut(name).ok_or_else(|| Error::topic_not_found(name))
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.values().map(|topic| &topic.options)
    }

    pub(crate) fn subscription(&self, name: &str) -> Result<&SubscriptionState> {
        self.subscriptions.get(name).ok_or_else(|| Error::subscription_not_found(name))
    }

    pub(crate) fn subscription_mut(&mut self, name: &str) -> Result<&mut SubscriptionState> {
        self.subscriptions.get_mut(name).ok_or_else(|| Error::subscription_not_found(name))
    }

    pub(crate) fn subscriptions(&self) -> impl Iterator<Item = &Subscription> {
        self.subscriptions.values().map(|subscription| &subscription.options)
    }

    pub(crate) fn create_topic(&mut self, wanted: Topic) -> Result<()> {
        wanted.validate()?;
        let name = wanted.name().to_owned();
        let Some(existing) = self.topics.get_mut(&name) else {
            self.topics.insert(name, TopicState::new(wanted));
            return Ok(());
        };
        existing.options.ensure_same_identity(&wanted)?;
        existing.options = wanted;
        self.cut_laggards(&name) // those who lag behind what was forgotten while they were not cut
    }

    /// Takes a topic out with its subscriptions, to be dropped outside the lock: there may be much of it.
    pub(crate) fn delete_topic(&mut self, name: &str) -> Result<impl Sized + use<>> {
        let topic = self.topics.remove(name).ok_or_else(|| Error::topic_not_found(name))?;
        let subscriptions: Vec<_> = topic.subscriptions.iter().map(|name| self.subscriptions.remove(name)).collect();
        Ok((topic, subscriptions))
    }

    fn insert_subscription(&mut self, wanted: &Subscription, now: Now) -> Result<()> {
        wanted.validate()?;
        if self.subscriptions.contains_key(wanted.name()) {
            return self.alter_subscription(wanted, now);
        }
        self.advance_topic(wanted.topic(), now)?; // what is due by now came before it
        let given_up = self.given_up.clone();
        let topic = self.topic_mut(wanted.topic())?;
        let mut state = SubscriptionState::new(wanted.clone(), topic.options.buckets(), given_up);
        topic.log.from(wanted.start())?.for_each(|published| state.publish(published));
        let name: Arc<str> = wanted.name().into();
        topic.subscriptions.push(Arc::clone(&name));
        self.subscriptions.insert(name, state);
        Ok(())
    }

    fn alter_subscription(&mut self, wanted: &Subscription, now: Now) -> Result<()> {
        wanted.validate()?;
        let existing = self.advance(wanted.name(), now)?; // what was due by now goes by the old options
        existing.options.ensure_same_identity(wanted)?;
        existing.options = wanted.clone();
        existing.ring(); // others may get messages than before
        Ok(())
    }

    /// Moves a subscription to another start. Returns what it forgets, to be dropped outside the lock.
    pub(crate) fn seek(&mut self, name: &str, start: &Start, now: Now) -> Result<impl Sized + use<>> {
        let topic = self.subscription(name)?.options.topic().to_owned();
        self.advance_topic(&topic, now)?; // what is due by now comes before "now"
        self.advance(name, now)?.ensure_movable()?;
        let Self { topics, subscriptions, .. } = self;
        let log = &topics.get(&topic).ok_or_else(|| Error::topic_not_found(&topic))?.log;
        let published = log.from(start)?;
        let subscription = subscriptions.get_mut(name).ok_or_else(|| Error::subscription_not_found(name))?;
        let forgotten = subscription.rewind();
        published.for_each(|published| subscription.publish(published));
        subscription.ring();
        Ok(forgotten)
    }

    /// Takes a subscription out, to be dropped outside the lock.
    pub(crate) fn delete_subscription(&mut self, name: &str) -> Result<impl Sized + use<>> {
        let gone = self.subscriptions.remove(name).ok_or_else(|| Error::subscription_not_found(name))?;
        self.topic_mut(gone.options.topic())?.subscriptions.retain(|other| **other != *name);
        Ok(gone)
    }

    /// Publishes one message, now or when it is due; the caller [rings](Self::ring).
    fn publish(&mut self, topic: &str, message: NewMessage, now: Now) -> Result<MessageId> {
        let id = self.last_id + 1;
        let state = self.topic_mut(topic)?;
        if let Some(first) = message.dedup_id().and_then(|dedup_id| state.publish_once(dedup_id, id, now)) {
            return Ok(message_id(first));
        }
        let due = message.due().map(|due| now.when(due)).filter(|due| *due > now.instant);
        if let Some(due) = due {
            state.schedule(due, id, message, now.time);
        } else {
            self.append(topic, id, message, now.time, now)?;
        }
        self.last_id = id;
        Ok(message_id(id))
    }

    /// Gives a message its position, and itself to every subscription of its topic.
    fn append(&mut self, topic: &str, id: u64, message: NewMessage, published_at: SystemTime, now: Now) -> Result<()> {
        self.last_position += 1;
        let position = self.last_position;
        // Twenty digits, so that positions compare as texts.
        let message =
            Message::new(message_id(id), Position::new(format!("{position:020}")), topic, message, published_at);
        let published = Retained { position, id, message, since: now.instant };
        for name in self.topic_mut(topic)?.subscriptions.clone() {
            self.subscription_mut(&name)?.publish(&published);
        }
        self.topic_mut(topic)?.log.push(published);
        self.trim(topic, now)
    }

    /// Forgets what is beyond a topic's limits.
    fn trim(&mut self, topic: &str, now: Now) -> Result<()> {
        let state = self.topic_mut(topic)?;
        if state.log.trim(state.options.retention(), now) { self.cut_laggards(topic) } else { Ok(()) }
    }

    /// Takes from the subscriptions of a topic what it has forgotten, if it [cuts](TopicState::cuts) them.
    fn cut_laggards(&mut self, topic: &str) -> Result<()> {
        let state = self.topic(topic)?;
        if state.cuts() {
            let trimmed = state.log.trimmed();
            for name in state.subscriptions.clone() {
                self.subscription_mut(&name)?.cut(trimmed);
            }
        }
        Ok(())
    }

    /// Wakes every consumer of a topic.
    fn ring(&self, topic: &str) {
        let names = self.topics.get(topic).into_iter().flat_map(|topic| &topic.subscriptions);
        names.filter_map(|name| self.subscriptions.get(name)).for_each(SubscriptionState::ring);
    }

    /// Lets the scheduled messages of a topic that are due enter it, and those go that are too old.
    fn advance_topic(&mut self, topic: &str, now: Now) -> Result<()> {
        let mut moved = false;
        while let Some((id, message, published_at)) = self.topic_mut(topic)?.pop_due(now) {
            self.append(topic, id, message, published_at, now)?;
            moved = true;
        }
        if moved {
            self.ring(topic);
        }
        self.trim(topic, now)
    }

    /// Does for a subscription what time alone demands by now.
    pub(crate) fn advance(&mut self, subscription: &str, now: Now) -> Result<&mut SubscriptionState> {
        let topic = self.subscription(subscription)?.options.topic();
        if self.topic(topic)?.is_due(now) {
            let topic = topic.to_owned();
            self.advance_topic(&topic, now)?;
        }
        let subscription = self.subscription_mut(subscription)?;
        subscription.expire(now);
        Ok(subscription)
    }

    /// Like [`advance`](Self::advance), for a consumer that wants this very subscription.
    pub(crate) fn consumed_by(&mut self, consumer: &Consumer, now: Now) -> Result<&mut SubscriptionState> {
        let subscription = self.advance(consumer.subscription(), now)?;
        subscription.options.ensure_same_identity(&consumer.wanted)?;
        Ok(subscription)
    }

    /// The first moment after `past` at which time alone makes something happen to a subscription.
    pub(crate) fn due_after(
        &self,
        subscription: &str,
        past: tokio::time::Instant,
    ) -> Result<Option<tokio::time::Instant>> {
        let subscription = self.subscription(subscription)?;
        let scheduled = self.topic(subscription.options.topic())?.next_due();
        Ok(subscription.due_after(past).into_iter().chain(scheduled).min())
    }

    /// Whether a message is waiting, in hand or scheduled for a subscription.
    pub(crate) fn is_unsettled(&self, subscription: &SubscriptionState, id: &MessageId) -> bool {
        let scheduled = |id| self.topics.get(subscription.options.topic()).is_some_and(|topic| topic.is_scheduled(id));
        id.as_str().parse().is_ok_and(|id| subscription.is_unsettled(id) || scheduled(id))
    }
}

fn message_id(id: u64) -> MessageId {
    MessageId::new(id.to_string())
}
