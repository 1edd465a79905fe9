//! [`Conduct`]: how core deals with one consumer and its deliveries.

use std::{collections::BTreeMap, time::Duration};

use pgqueue_core::{Ack, ErrorKind, Requeue};

use crate::{
    check::{Verdict, ensure},
    event::Outcome,
    ledger::GRACE,
    temper::{Answer, Temper},
};

pub(crate) struct Conduct {
    pub(crate) subscription: String,
    temper: Temper,
    pub(crate) beats: bool,
    pub(crate) crashed: bool,
    /// Its stream was told to stop.
    told: bool,
    killed: bool,
    /// Its subscription is gone.
    deserted: bool,
    /// What its stream must end with.
    doom: Option<ErrorKind>,
    ended: bool,
    /// Something did not end with an OK.
    failed: bool,
    /// When it requeued a delivery first and heard of it.
    requeued: Option<Duration>,
    deliveries: BTreeMap<u32, Handling>,
}

/// What became of one delivery.
#[derive(Default)]
struct Handling {
    /// What the consumer is about to answer, once the stream yielded it.
    answer: Option<Answer>,
    /// Since when the consumer watches its lease, if it does.
    watched: Option<Duration>,
    /// A fault befell it.
    garbled: bool,
    end: Option<End>,
}

#[derive(PartialEq)]
enum End {
    Settled(Outcome),
    Dropped,
}

impl Conduct {
    pub(crate) fn new(subscription: String, temper: Temper) -> Self {
        Self {
            subscription,
            temper,
            beats: true,
            crashed: false,
            told: false,
            killed: false,
            deserted: false,
            doom: None,
            ended: false,
            failed: false,
            requeued: None,
            deliveries: BTreeMap::new(),
        }
    }

    pub(crate) fn tell(&mut self) {
        self.told = true;
    }

    pub(crate) fn kill(&mut self) {
        self.killed = true;
    }

    pub(crate) fn crash(&mut self) {
        self.crashed = true;
    }

    pub(crate) fn desert(&mut self) {
        self.deserted = true;
    }

    pub(crate) fn doom(&mut self, error: ErrorKind) {
        self.doom = Some(error);
    }

    /// A stream that is over, or should be, fetches nothing.
    pub(crate) fn claim(&mut self, at: Duration, delivery: u32) -> Verdict {
        let over = self.told || self.killed || self.ended || self.doom.is_some();
        ensure!(!over, "a consumer fetches after its end");
        let had_enough = self.temper.picky && self.requeued.is_some_and(|then| then + GRACE < at);
        ensure!(!had_enough, "a consumer fetches though a requeue was to end its stream");
        self.deliveries.insert(delivery, Handling::default());
        Ok(())
    }

    pub(crate) fn garble(&mut self, delivery: u32) {
        self.failed = true;
        self.delivery(delivery).garbled = true;
    }

    /// A stream that was told to stop yields nothing, and no stream yields anything twice.
    pub(crate) fn take(&mut self, at: Duration, delivery: u32, answer: &Answer, watched: bool) -> Verdict {
        ensure!(!self.told, "a stream yields after it was told to stop");
        let handling = self.delivery(delivery);
        ensure!(handling.answer.is_none(), "a stream yields a delivery twice");
        ensure!(handling.end.is_none(), "a stream yields a delivery that is over");
        (handling.answer, handling.watched) = (Some(answer.clone()), watched.then_some(at));
        Ok(())
    }

    /// The store is told what the consumer answered, once; and not by one who should have heard that its lease is lost.
    pub(crate) fn settle(
        &mut self,
        at: Duration,
        delivery: u32,
        ack: &Ack,
        outcome: Outcome,
        lost: Option<Duration>,
    ) -> Verdict {
        let handling = self.delivery(delivery);
        ensure!(handling.end.is_none(), "a delivery is settled that is over");
        let as_answered = match &handling.answer {
            Some(Answer::Settle(answer)) => answer == ack,
            Some(Answer::Fail(_)) => matches!(ack, Ack::Requeue(Requeue { delay: None, reason: Some(_), .. })),
            Some(Answer::Drop) | None => false,
        };
        ensure!(as_answered, "{ack:?} settles a delivery that was to end as {:?}", handling.answer);
        let watched = handling.watched.filter(|_| !handling.garbled);
        if let (Some(watched), Some(lost)) = (watched, lost) {
            ensure!(at <= lost.max(watched) + GRACE, "a consumer does not hear that it lost its lease at {lost:?}");
        }
        handling.end = Some(End::Settled(outcome));
        let (requeued, garbled) = (matches!(ack, Ack::Requeue(_)), handling.garbled);
        self.failed |= requeued || outcome.is_err();
        self.requeued = self.requeued.or((requeued && !garbled).then_some(at));
        Ok(())
    }

    /// Nothing is dropped but what the consumer drops, what it lost, and what dies with it or its stream.
    pub(crate) fn drop(&mut self, delivery: u32, lost: bool) -> Verdict {
        let stream_over = self.told || self.deserted || self.doom.is_some() || self.temper.picky;
        let cancelled = self.temper.worker && self.temper.watchful && lost;
        let killed = self.killed;
        let handling = self.delivery(delivery);
        ensure!(handling.end.is_none(), "a delivery is dropped that is over");
        let allowed = match &handling.answer {
            None => stream_over,
            Some(Answer::Drop) => true,
            Some(Answer::Settle(_) | Answer::Fail(_)) => cancelled,
        };
        let answer = &handling.answer;
        ensure!(allowed || killed || handling.garbled, "a delivery is dropped that was to end as {answer:?}");
        handling.end = Some(End::Dropped);
        self.failed = true;
        Ok(())
    }

    /// The consumer hears what the store said, unless that got lost on the way.
    pub(crate) fn conclude(&mut self, delivery: u32, heard: Outcome) -> Verdict {
        let handling = self.delivery(delivery);
        let lost = handling.garbled && matches!(heard, Err(ErrorKind::Connection | ErrorKind::Unknown));
        ensure!(lost || handling.end == Some(End::Settled(heard)), "a consumer hears {heard:?}, and nobody said so");
        Ok(())
    }

    /// A stream ends when it is told to, with its subscription, by what it cannot survive, or by its policy.
    pub(crate) fn end(&mut self, end: Outcome) -> Verdict {
        ensure!(!self.ended, "a consumer ends twice");
        let allowed = match end {
            Ok(()) => self.told,
            Err(error) => {
                let deserted = self.deserted && error == ErrorKind::NotFound;
                deserted || self.doom == Some(error) || (self.temper.picky && self.failed)
            }
        };
        ensure!(allowed, "a consumer ends with {end:?}");
        self.ended = true;
        Ok(())
    }

    pub(crate) fn check_end(&self) -> Verdict {
        ensure!(self.ended || self.killed, "a consumer never ends");
        let left = self.deliveries.iter().find(|(_, handling)| handling.end.is_none());
        left.map_or(Ok(()), |(delivery, _)| Err(format!("delivery {delivery} was neither settled nor dropped")))
    }

    fn delivery(&mut self, delivery: u32) -> &mut Handling {
        self.deliveries.entry(delivery).or_default()
    }
}
