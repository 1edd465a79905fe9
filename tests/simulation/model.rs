//! [`Model`]: the queue as its promises describe it. It follows a history and objects to what it must not hold.

use std::{borrow::Borrow, collections::BTreeMap, fmt::Debug, mem::replace, time::Duration};

use pgqueue_core::{Ack, ErrorKind, Requeue, Subscription};

use crate::{
    check::{Verdict, ensure},
    conduct::Conduct,
    event::{ConsumerEvent, DeliveryEvent, Event, Outcome, Seen, What},
    ledger::Ledger,
    log::Log,
};

#[derive(Default)]
pub(crate) struct Model {
    now: Duration,
    /// By topic.
    logs: BTreeMap<String, Log>,
    /// By subscription.
    ledgers: BTreeMap<String, Ledger>,
    consumers: BTreeMap<u32, Conduct>,
    /// Who got each delivery.
    holders: BTreeMap<u32, u32>,
    /// The deliveries whose leases were lost, and when.
    lost: BTreeMap<u32, Duration>,
    /// Since when everything runs.
    running: Duration,
    /// Since when all is calm.
    calm: Option<Duration>,
}

impl Model {
    pub(crate) fn apply(&mut self, event: &Event) -> Verdict {
        let at = event.at;
        self.advance(at)?;
        match &event.what {
            What::Created(topic) => {
                self.logs.insert(topic.name().to_owned(), Log::new(topic.clone()));
            }
            What::Inserted(options) => self.insert(options),
            What::Published { topic, drafts, outcome } => {
                for entry in found(&mut self.logs, topic)?.publish(at, drafts, outcome)? {
                    self.ledgers_of(topic).for_each(|ledger| ledger.enter(at, entry.clone()));
                }
            }
            What::Expired(subscription) => {
                let lost = found(&mut self.ledgers, subscription)?.expire_all(at);
                self.lost.extend(lost);
            }
            What::Redriven { subscription, one, count } => {
                found(&mut self.ledgers, subscription)?.redrive(at, one.as_ref(), *count)?;
            }
            What::Deleted(topic) => {
                let gone: Vec<_> = self.ledgers_of(topic).map(|ledger| ledger.options.name().to_owned()).collect();
                let deserted = self.consumers.values_mut().filter(|consumer| gone.contains(&consumer.subscription));
                deserted.for_each(Conduct::desert);
            }
            What::Consumer(consumer, event) => self.apply_to_consumer(at, *consumer, event)?,
            What::Delivery(delivery, event) => self.apply_to_delivery(at, *delivery, event)?,
            What::Stalled(time) => self.running = at + *time,
            What::Spun => return Err("there is no end of fetching".into()),
            What::Drained => self.ledgers.values().try_for_each(Ledger::check_drained)?,
            What::Calm => self.calm = Some(at),
            What::Account(account) => found(&mut self.ledgers, &account.subscription)?.check_account(account)?,
        }
        Ok(())
    }

    /// Lets happen what time alone demands.
    fn advance(&mut self, now: Duration) -> Verdict {
        if replace(&mut self.now, now) == now {
            return Ok(());
        }
        for (topic, log) in &mut self.logs {
            while let Some((due, entry)) = log.enter_next(now) {
                let ledgers = self.ledgers.values_mut().filter(|ledger| ledger.options.topic() == topic);
                ledgers.for_each(|ledger| ledger.enter(due, entry.clone()));
            }
        }
        for ledger in self.ledgers.values_mut() {
            self.lost.extend(ledger.expire(now));
            if let Some(calm) = self.calm {
                ledger.check_prompt(now, calm)?;
            }
        }
        Ok(())
    }

    fn insert(&mut self, options: &Subscription) {
        let buckets = self.logs.get(options.topic()).map_or(1, |log| log.options.buckets());
        let ledger = self.ledgers.entry(options.name().to_owned());
        ledger.or_insert_with(|| Ledger::new(options.clone(), buckets)).options = options.clone();
    }

    fn ledgers_of(&mut self, topic: &str) -> impl Iterator<Item = &mut Ledger> {
        self.ledgers.values_mut().filter(move |ledger| ledger.options.topic() == topic)
    }

    fn apply_to_consumer(&mut self, at: Duration, consumer: u32, event: &ConsumerEvent) -> Verdict {
        if let ConsumerEvent::Started { subscription, temper } = event {
            self.consumers.insert(consumer, Conduct::new(subscription.clone(), temper.clone()));
        }
        let conduct = found(&mut self.consumers, &consumer)?;
        match event {
            ConsumerEvent::Started { .. } | ConsumerEvent::Disturbed(_) => {}
            ConsumerEvent::Claimed { delivery, messages } => self.claim(at, consumer, *delivery, messages)?,
            ConsumerEvent::Beats(beats) => self.set_beating(at, consumer, *beats)?,
            ConsumerEvent::Doomed(error) => conduct.doom(*error),
            ConsumerEvent::Told => conduct.tell(),
            ConsumerEvent::Killed => conduct.kill(),
            ConsumerEvent::Crashed => {
                self.set_beating(at, consumer, false)?;
                found(&mut self.consumers, &consumer)?.crash();
            }
            ConsumerEvent::Ended(end) => conduct.end(*end)?,
            ConsumerEvent::Undead => return Err(format!("the stream of consumer {consumer} goes on after its end")),
            ConsumerEvent::Hung => return Err(format!("consumer {consumer} does not end")),
        }
        Ok(())
    }

    fn apply_to_delivery(&mut self, at: Duration, delivery: u32, event: &DeliveryEvent) -> Verdict {
        let holder = *found(&mut self.holders, &delivery)?;
        let conduct = found(&mut self.consumers, &holder)?;
        match event {
            DeliveryEvent::Yielded { answer, watched } => conduct.take(at, delivery, answer, *watched),
            DeliveryEvent::Garbled => {
                conduct.garble(delivery);
                Ok(())
            }
            DeliveryEvent::LeaseLost => {
                ensure!(self.lost.contains_key(&delivery), "a consumer hears that it lost a lease, and it did not");
                Ok(())
            }
            DeliveryEvent::Settled(ack, outcome) => self.settle(at, holder, delivery, ack, *outcome),
            DeliveryEvent::Dropped => self.drop(at, holder, delivery),
            DeliveryEvent::Concluded(outcome) => conduct.conclude(delivery, *outcome),
        }
    }

    fn claim(&mut self, at: Duration, consumer: u32, delivery: u32, messages: &[Seen]) -> Verdict {
        self.holders.insert(delivery, consumer);
        let conduct = found(&mut self.consumers, &consumer)?;
        conduct.claim(at, delivery)?;
        let ledger = found(&mut self.ledgers, &conduct.subscription)?;
        let log = found(&mut self.logs, ledger.options.topic())?;
        messages.iter().try_for_each(|seen| log.recognize(seen))?;
        ledger.claim(at, delivery, (consumer, conduct.beats), messages)
    }

    fn set_beating(&mut self, at: Duration, consumer: u32, beats: bool) -> Verdict {
        let conduct = found(&mut self.consumers, &consumer)?;
        // Who was silent already is not heard later for that; who is dead is not heard again.
        if !conduct.crashed && (beats || conduct.beats) {
            conduct.beats = beats;
            let ledger = self.ledgers.get_mut(&conduct.subscription); // it may not be inserted yet
            ledger.into_iter().for_each(|ledger| ledger.set_beating(at, consumer, beats));
        }
        Ok(())
    }

    /// Who has the lease is heard; who lost it is refused.
    fn settle(&mut self, at: Duration, holder: u32, delivery: u32, ack: &Ack, outcome: Outcome) -> Verdict {
        let conduct = found(&mut self.consumers, &holder)?;
        // While nothing ran, nobody could hear of it.
        let lost = self.lost.get(&delivery).map(|lost| self.running.max(*lost));
        conduct.settle(at, delivery, ack, outcome, lost)?;
        let valid = found(&mut self.ledgers, &conduct.subscription)?.settle(at, delivery, ack);
        let expected = if valid { Ok(()) } else { Err(ErrorKind::LeaseLost) };
        ensure!(outcome == expected, "{ack:?} to delivery {delivery} has the outcome {outcome:?}, not {expected:?}");
        Ok(())
    }

    /// To drop a delivery is to requeue it at once, unless its consumer is dead.
    fn drop(&mut self, at: Duration, holder: u32, delivery: u32) -> Verdict {
        let conduct = found(&mut self.consumers, &holder)?;
        conduct.drop(delivery, self.lost.contains_key(&delivery))?;
        if !conduct.crashed {
            let requeue = Ack::Requeue(Requeue::default().with_delay(Duration::ZERO));
            found(&mut self.ledgers, &conduct.subscription)?.settle(at, delivery, &requeue);
        }
        Ok(())
    }

    pub(crate) fn check_end(&self) -> Verdict {
        self.logs.values().try_for_each(Log::check_positions)?;
        self.consumers.values().try_for_each(Conduct::check_end)
    }
}

fn found<'a, K, Q, V>(map: &'a mut BTreeMap<K, V>, key: &Q) -> Verdict<&'a mut V>
where
    K: Borrow<Q> + Ord,
    Q: Debug + Ord + ?Sized,
{
    map.get_mut(key).ok_or_else(|| format!("nobody knows {key:?}"))
}
