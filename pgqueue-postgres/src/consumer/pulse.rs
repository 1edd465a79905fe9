//! [`Pulse`]: what is done for all consumers of a queue handle together, in one statement each round.
//!
//! It beats for those that have nothing in hand, finds out for which of those that sleep there is something, and which chores are
//! due. So an idle process asks the same little of the server, however many consumers it has.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use pgqueue_core::Result;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use uuid::Uuid;

use super::{
    Consumer, Phase,
    upkeep::{Chores, keep_house},
};
use crate::{
    Client, Parameter,
    error::About,
    presence::Presence,
    queue::Shared,
    statement,
    value::{RowExt, millis},
};

/// From one round to the next, at most: of a shorter lease a third, and no longer than the poll interval.
const ROUND: Duration = Duration::from_secs(2);

/// From one round to the next while scheduled messages are due, or somebody says that they will be.
const SOON: Duration = Duration::from_millis(100);

/// Where publishers tell of messages that are due before the next round.
const SCHEDULED: &str = "pgqueue_scheduled";

/// For how long a consumer that sleeps says so in advance: publishers ring for so long if its process dies.
pub(super) const ARMED: Duration = Duration::from_secs(30);

pub(crate) struct Pulse<C: Client> {
    members: Mutex<Members<C>>,
    /// Rung when a consumer joins or leaves.
    changed: Notify,
    /// How many streams listen.
    streams: Arc<watch::Sender<usize>>,
    /// Whether the next round is to come soon.
    hurried: AtomicBool,
    /// Whether anything was claimed or settled that the log may be trimmed for.
    pub(super) worked: AtomicBool,
}

struct Members<C: Client> {
    consumers: Vec<Weak<Consumer<C>>>,
    /// Whether the task runs.
    beating: bool,
}

impl<C: Client> Default for Pulse<C> {
    fn default() -> Self {
        let members = Members { consumers: Vec::new(), beating: false };
        let (hurried, worked) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { members: Mutex::new(members), changed: Notify::new(), streams: Arc::default(), hurried, worked }
    }
}

impl<C: Client> Pulse<C> {
    fn lock(&self) -> MutexGuard<'_, Members<C>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a consumer in, until it is over.
    pub(super) fn join(&self, consumer: &Arc<Consumer<C>>) {
        self.lock().consumers.push(Arc::downgrade(consumer));
        self.changed.notify_one();
    }

    /// Counts a stream that listens, until it is dropped.
    pub(super) fn listen(&self) -> Presence {
        Presence::new(&self.streams)
    }

    /// A consumer is over.
    pub(super) fn left(&self) {
        self.changed.notify_one();
    }

    /// Those that are at work.
    fn members(&self) -> Vec<Arc<Consumer<C>>> {
        let mut members = self.lock();
        let living: Vec<_> = members.consumers.iter().filter_map(Weak::upgrade).filter(|each| each.lives()).collect();
        members.consumers = living.iter().map(Arc::downgrade).collect();
        living
    }
}

/// Sees to it that there is a pulse while there are consumers.
pub(super) fn ensure_beats<C: Client>(shared: &Arc<Shared<C>>) {
    if std::mem::replace(&mut shared.pulse.lock().beating, true) {
        return;
    }
    let beating = Beating(Arc::clone(shared));
    tokio::spawn(async move {
        let shared = &beating.0;
        let chores = Chores::default();
        tokio::select! {
            () = beat(shared, &chores) => {}
            // Beside it, as a chore may take long.
            () = keep_house(shared, &chores) => {}
            () = hear_of_scheduled(shared) => {}
        }
    });
}

/// Notes that the pulse ends. There may be consumers: one that joined just now, or all of them if it began on a runtime that ends
/// before theirs. Whoever looks starts it again.
struct Beating<C: Client>(Arc<Shared<C>>);

impl<C: Client> Drop for Beating<C> {
    fn drop(&mut self) {
        let pulse = &self.0.pulse;
        pulse.lock().beating = false;
        for consumer in pulse.members() {
            consumer.to_look.notify_one();
        }
    }
}

/// Lets the next round come soon when somebody says so, while there are streams that listen. Where nobody can be heard, rounds come
/// by themselves.
async fn hear_of_scheduled<C: Client>(shared: &Shared<C>) {
    let mut streams = shared.pulse.streams.subscribe();
    while streams.wait_for(|streams| *streams > 0).await.is_ok() {
        let rung = async {
            if let Ok(Some(mut bell)) = shared.listener.subscribe_bell(SCHEDULED).await {
                while bell.next().await.is_some() {
                    shared.pulse.hurried.store(true, Ordering::Relaxed);
                    shared.pulse.changed.notify_one();
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = rung => {}
            _ = streams.wait_for(|streams| *streams == 0) => {}
        }
    }
}

async fn beat<C: Client>(shared: &Arc<Shared<C>>, chores: &Chores) {
    // Processes that start together do not all ask together.
    let mut since = Instant::now();
    let mut pause = ROUND.mul_f64(fastrand::f64());
    loop {
        let members = shared.pulse.members();
        let Some(shortest) = members.iter().map(|consumer| consumer.lease()).min() else { return };
        let round = ROUND.min(shared.options.poll_interval()).min(shortest / 3);
        let hurried = shared.pulse.hurried.load(Ordering::Relaxed);
        let next = since + pause.min(if hurried { SOON } else { round });
        if Instant::now() < next {
            drop(members);
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = shared.pulse.changed.notified() => {}
            }
            continue;
        }
        shared.pulse.hurried.store(false, Ordering::Relaxed);
        since = Instant::now();
        pause = match ask(shared, members).await {
            Ok(due) => {
                chores.are_due(due.owners, due.scheduled);
                if due.scheduled { SOON } else { due.wait.unwrap_or(round) }
            }
            Err(error) => {
                tracing::warn!(%error, "a pulse failed");
                round
            }
        };
    }
}

/// What is to be done by anybody.
#[derive(Default)]
struct Due {
    /// Owners are silent.
    owners: bool,
    /// Scheduled messages are due.
    scheduled: bool,
    /// When the next will be.
    wait: Option<Duration>,
}

/// What is asked for one consumer.
struct Part {
    subscription: i64,
    lease: Duration,
    beats: bool,
    looks: bool,
    /// What it armed and is to last on.
    sleeper: Option<i64>,
}

/// A consumer that is asked for, which does not leave before the answer: what beats for it would bring it back.
struct Asked<C: Client> {
    part: Part,
    consumer: Arc<Consumer<C>>,
}

impl<C: Client> Drop for Asked<C> {
    fn drop(&mut self) {
        self.consumer.lock().pulsing = false;
        self.consumer.to_settle.notify_one(); // it may be about to end
    }
}

/// Asks once. Where that fails, each consumer finds out for itself.
async fn ask<C: Client>(shared: &Shared<C>, members: Vec<Arc<Consumer<C>>>) -> Result<Due> {
    let now = Instant::now();
    let asked: Vec<_> =
        members.into_iter().filter_map(|consumer| Some(Asked { part: consumer.part(now)?, consumer })).collect();
    let answer = send(shared, &asked).await;
    let said = |consumer: &Consumer<C>, what: &str| match &answer {
        Ok(rows) => rows.iter().any(|(who, said, _)| *who == Some(consumer.owner) && said == what),
        Err(_) => what == "look",
    };
    for Asked { part, consumer } in &asked {
        let mut state = consumer.lock();
        if answer.is_ok() {
            if part.beats {
                state.beaten = Some(now);
            }
            if let Some(armed) = state.armed.as_mut().filter(|armed| Some(armed.id) == part.sleeper) {
                armed.until = now + ARMED;
            }
        }
        if said(consumer, "arm") {
            state.armed.take_if(|armed| Some(armed.id) == part.sleeper);
        }
        if said(consumer, "beat") {
            state.has_strays = true;
            consumer.to_beat.notify_one();
        }
        if said(consumer, "look") || said(consumer, "arm") {
            state.asleep = None; // until it sleeps again
            consumer.to_look.notify_one();
        }
    }
    let mut due = Due::default();
    for (_, what, wait) in answer?.iter().filter(|(who, ..)| who.is_none()) {
        match what.as_str() {
            "bury" => due.owners = true,
            "publish" => due.scheduled = true,
            _ => due.wait = wait.map(|ms| Duration::from_millis(ms.unsigned_abs())),
        }
    }
    Ok(due)
}

/// Who is to do what; nobody in particular, or in how many milliseconds.
type Task = (Option<Uuid>, String, Option<i64>);

async fn send<C: Client>(shared: &Shared<C>, asked: &[Asked<C>]) -> Result<Vec<Task>> {
    let parts = || asked.iter().map(|asked| &asked.part);
    let parameters = [
        Parameter::array(asked.iter().map(|asked| Some(asked.consumer.owner)))?,
        Parameter::array(parts().map(|part| Some(part.subscription)))?,
        Parameter::array(parts().map(|part| Some(millis(part.lease))))?,
        Parameter::array(parts().map(|part| Some(part.beats)))?,
        Parameter::array(parts().map(|part| Some(part.looks)))?,
        Parameter::array(parts().map(|part| part.sleeper))?,
        Parameter::new(millis(ARMED)),
    ];
    let rows = shared.query(statement::PULSE, &parameters, About::Queue).await?;
    rows.iter().map(|row| Ok((row.read(0)?, row.get(1)?, row.read(2)?))).collect()
}

impl<C: Client> Consumer<C> {
    /// What is to be asked for this one.
    fn part(&self, now: Instant) -> Option<Part> {
        let mut state = self.lock();
        let found = state.found.as_ref().filter(|_| state.phase == Phase::Running)?;
        // Half of what it may be at most, as that may not have passed by so little that it is twice as much the next time.
        let is_due = |since: Instant, most: Duration| now.saturating_duration_since(since) >= most / 2;
        let part = Part {
            subscription: found.id,
            lease: found.lease,
            beats: state.held.leases.is_empty() && state.beaten.is_none_or(|since| is_due(since, found.lease / 3)),
            looks: state.asleep.is_some_and(|since| is_due(since, self.shared.options.poll_interval())),
            sleeper: state
                .armed
                .filter(|armed| state.asleep.is_some() && armed.until < now + ARMED / 2)
                .map(|armed| armed.id),
        };
        state.pulsing = part.beats;
        (part.beats || part.looks || part.sleeper.is_some()).then_some(part)
    }
}
