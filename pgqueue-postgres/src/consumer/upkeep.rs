//! The chores of a queue, which every process with consumers shares.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use pgqueue_core::{MessageId, Result, telemetry};
use tokio::{sync::Notify, time::Instant};
use uuid::Uuid;

use crate::{Client, Row, error::About, queue::Shared, statement, value::RowExt};

/// How often the log is trimmed while messages are consumed, and while none are.
const TRIM: Duration = Duration::from_secs(2);
const TRIM_IDLE: Duration = Duration::from_secs(15);

/// How often the slower chores are done.
const KEEP_STUCK: Duration = Duration::from_secs(15);
const SWEEP: Duration = Duration::from_secs(30);

/// How many batches a chore does at a time, at most.
const BATCHES: usize = 20;

/// How many messages a full batch has.
const TRIMMED: i32 = 5000;
const PUBLISHED: i32 = 500;

/// Which chores are due, as the server said.
#[derive(Default)]
pub(super) struct Chores {
    owners: AtomicBool,
    scheduled: AtomicBool,
    /// Rung for what is due.
    changed: Notify,
    /// Rung for what is done from time to time.
    rounds: Notify,
}

impl Chores {
    /// Notes what is due, each round.
    pub(super) fn are_due(&self, owners: bool, scheduled: bool) {
        self.owners.fetch_or(owners, Ordering::Relaxed);
        self.scheduled.fetch_or(scheduled, Ordering::Relaxed);
        self.changed.notify_one();
        self.rounds.notify_one();
    }
}

/// When something that is done from time to time was done last.
struct Rounds(Instant);

impl Rounds {
    /// Begins anywhere in between, so that processes that start together do not clean up together.
    fn new(every: Duration) -> Self {
        let now = Instant::now();
        Self(now.checked_sub(every.mul_f64(fastrand::f64())).unwrap_or(now))
    }

    fn is_due(&mut self, every: Duration) -> bool {
        let is_due = self.0.elapsed() >= every;
        if is_due {
            self.0 = Instant::now();
        }
        is_due
    }
}

/// Does the chores, each a call of its own, for as long as it is polled. What somebody waits for does not wait for the rest.
pub(super) async fn keep_house<C: Client>(shared: &Shared<C>, chores: &Chores) {
    tokio::join!(hand_on(shared, chores), clean_up(shared, chores));
}

/// Does what messages wait for, when it is due.
async fn hand_on<C: Client>(shared: &Shared<C>, chores: &Chores) {
    loop {
        chores.changed.notified().await;
        let done = async {
            if chores.owners.swap(false, Ordering::Relaxed) {
                let dead = telemetry::chore("bury", shared.query(statement::BURY_OWNERS, &[], About::Queue)).await?;
                dead.iter().try_for_each(say_dead)?;
            }
            if chores.scheduled.swap(false, Ordering::Relaxed) {
                telemetry::chore("publish", repeat(shared, statement::PUBLISH_SCHEDULED, PUBLISHED)).await?;
            }
            Ok(())
        };
        tell(done.await);
    }
}

/// Does what is done from time to time, while there are pulses.
async fn clean_up<C: Client>(shared: &Shared<C>, chores: &Chores) {
    let (mut trimmed, mut kept, mut swept) = (Rounds::new(TRIM), Rounds::new(KEEP_STUCK), Rounds::new(SWEEP));
    loop {
        chores.rounds.notified().await;
        let done = async {
            if kept.is_due(KEEP_STUCK) {
                telemetry::chore("keep", shared.query(statement::KEEP_STUCK, &[], About::Queue)).await?;
            }
            let has_worked = shared.pulse.worked.load(Ordering::Relaxed);
            if trimmed.is_due(if has_worked { TRIM } else { TRIM_IDLE }) {
                shared.pulse.worked.store(false, Ordering::Relaxed);
                let is_left = telemetry::chore("trim", repeat(shared, statement::TRIM, TRIMMED)).await?;
                shared.pulse.worked.fetch_or(is_left, Ordering::Relaxed);
            }
            if swept.is_due(SWEEP) {
                let dead = telemetry::chore("sweep", shared.query(statement::SWEEP, &[], About::Queue)).await?;
                dead.iter().try_for_each(say_dead)?;
            }
            Ok(())
        };
        tell(done.await);
    }
}

/// Notes which consumer died, and what was given up of what it had.
fn say_dead<R: Row>(dead: &R) -> Result<()> {
    let (subscription, topic): (String, String) = (dead.get(1)?, dead.get(2)?);
    if let Some(consumer) = dead.read::<Uuid>(0)? {
        tracing::warn!(
            messaging.system = "pgqueue",
            messaging.destination.name = topic,
            messaging.destination.subscription.name = subscription,
            messaging.client.id = %consumer,
            "a consumer died, and others get what it had"
        );
    }
    for id in dead.read::<Vec<String>>(3)?.unwrap_or_default() {
        telemetry::given_up(&topic, &subscription, &MessageId::new(id));
    }
    Ok(())
}

fn tell(done: Result<()>) {
    if let Err(error) = done {
        tracing::debug!(%error, "a chore failed and will be tried again");
    }
}

/// Does a chore batch by batch, while batches are full. Returns whether something is left.
async fn repeat<C: Client>(shared: &Shared<C>, chore: &str, full: i32) -> Result<bool> {
    for _ in 0..BATCHES {
        let rows = shared.query(chore, &[], About::Queue).await?;
        if rows.first().map_or(Ok(0), |row| row.get::<i32>(0))? < full {
            return Ok(false);
        }
    }
    Ok(true)
}
