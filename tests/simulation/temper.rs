//! [`Temper`]: how a consumer behaves, and [`Choice`]: what it does with one delivery.

use std::time::Duration;

use fastrand::Rng;
use pgqueue_core::{Ack, Requeue};

use crate::faults::Faults;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Temper {
    /// Decides everything that the rest leaves open.
    pub(crate) seed: u64,
    /// Whether it uses a [`Worker`](pgqueue_core::Worker), or the bare stream.
    pub(crate) worker: bool,
    /// How many deliveries it takes at a time.
    pub(crate) capacity: usize,
    /// How many of a hundred deliveries it answers with OK.
    diligence: u8,
    /// How long it holds a delivery at most.
    slowness: Duration,
    /// Whether it wants to hear that a lease is lost.
    pub(crate) watchful: bool,
    /// Whether it drops `next()` futures mid-way, and now and then the stream.
    pub(crate) restless: bool,
    /// Whether a requeue ends its stream.
    pub(crate) picky: bool,
    pub(crate) faults: Faults,
}

/// What a consumer does with one delivery.
pub(crate) struct Choice {
    pub(crate) delivery: u32,
    pub(crate) answer: Answer,
    /// For how long it is held before.
    pub(crate) hold: Duration,
    /// Whether a worker's handler takes it to settle it itself.
    pub(crate) takes: bool,
}

/// How a delivery is to end, if nothing comes in between.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Settle(Ack),
    Drop,
    /// The handler fails, and its worker requeues.
    Fail(Failure),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Failure {
    Decode,
    Error,
    Overrun,
    Panic,
}

impl Temper {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        Self {
            seed: rng.u64(..),
            worker: rng.bool(),
            capacity: rng.usize(1..=4),
            diligence: rng.u8(40..=100),
            slowness: Duration::from_millis(rng.u64(1..4_000)),
            watchful: rng.u8(..4) > 0,
            restless: rng.bool(),
            picky: rng.u8(..6) == 0,
            faults: Faults::draw(rng),
        }
    }

    /// A consumer who stays, over a bad line that loses nothing; it still fails now and then.
    pub(crate) fn patient(rng: &mut Rng) -> Self {
        let faults = Faults::draw_harmless(rng);
        Self { diligence: 85, restless: false, picky: false, faults, ..Self::draw(rng) }
    }

    /// Such a consumer who has time, and whom nothing disturbs.
    pub(crate) fn calm(rng: &mut Rng) -> Self {
        Self { capacity: 1_000, slowness: Duration::from_secs(2), faults: Faults::NONE, ..Self::patient(rng) }
    }
}

impl Choice {
    pub(crate) fn draw(rng: &mut Rng, temper: &Temper, delivery: u32) -> Self {
        let reason = || format!("delivery {delivery}");
        let delay = Duration::from_millis(rng.u64(..3_000));
        let answer = match rng.u8(..if temper.worker { 9 } else { 5 }) {
            _ if rng.u8(..100) < temper.diligence => Answer::Settle(Ack::Ok),
            0 => Answer::Settle(Ack::requeue()),
            1 => Answer::Settle(Ack::requeue_after(delay)),
            2 => Answer::Settle(Ack::Requeue(Requeue::default().with_delay(Duration::ZERO).with_reason(reason()))),
            3 => Answer::Settle(Ack::reject(reason())),
            4 => Answer::Drop,
            5 => Answer::Fail(Failure::Decode),
            6 => Answer::Fail(Failure::Error),
            7 => Answer::Fail(Failure::Overrun),
            _ => Answer::Fail(Failure::Panic),
        };
        let hold = match rng.u8(..10) {
            0..4 => 0,
            4..7 => rng.u64(..200),
            _ => rng.u64(..=temper.slowness.as_millis() as u64),
        };
        Self { delivery, answer, hold: Duration::from_millis(hold), takes: rng.bool() }
    }
}
