//! [`Consumer`]: one consumer of a subscription: what it holds, and the tasks that work for it.
//!
//! Three tasks serve it while it lives: one [claims](claiming), one [settles](settling), one [beats](beating) for what it holds.
//! They end when the driver and all its deliveries are gone, and give back what is left. What it needs while it has nothing to do, and
//! the [chores](upkeep), is done for all consumers of a queue handle at once, by their [pulse].

mod acker;
mod beating;
mod claiming;
mod held;
mod pulse;
mod settling;
mod turns;
mod upkeep;
mod wakeups;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pgqueue_core::{Delivery, Error, MessageId, Result, Subscription, telemetry};
use tokio::{
    sync::{Notify, oneshot, watch},
    time::Instant,
};
use uuid::Uuid;

pub(crate) use acker::PgAcker;
use claiming::Looked;
use held::{Held, InDoubt, Portion};
pub(crate) use pulse::Pulse;
pub(crate) use turns::Turns;
pub(crate) use wakeups::wakeups;

use crate::{Client, Parameter, error::About, presence::Presence, queue::Shared, statement, value::RowExt};

pub(crate) struct Consumer<C: Client> {
    pub(crate) shared: Arc<Shared<C>>,
    pub(crate) wanted: Subscription,
    /// The subscription's.
    name: Arc<str>,
    /// Names this consumer among the owners of leases.
    owner: Uuid,
    state: Mutex<State>,
    /// Rung for the task that claims.
    to_claim: Notify,
    /// Rung for the task that settles.
    to_settle: Notify,
    /// Rung for the task that beats.
    to_beat: Notify,
    /// Rung for whoever sleeps.
    to_look: Notify,
    /// Changes with everything that a wake-up may follow from.
    changed: watch::Sender<()>,
}

struct State {
    held: Held,
    /// Who waits for a look that begins after they asked, or for one on its way that finds something.
    lookers: Vec<Looker>,
    /// What was armed for the sleep that the next claim ends.
    armed: Option<Armed>,
    /// When to ring for a lane that was freed without, as a look was to take what follows in it.
    ring_by: Option<Instant>,
    /// Since when it sleeps, if it does.
    asleep: Option<Instant>,
    /// When the server was last told that it lives.
    beaten: Option<Instant>,
    /// Whether it has had leases since it last saw whether to beat: each pulse since may have come while it did.
    had_leases: bool,
    /// Whether the server says that it has leases, though it knows of none.
    has_strays: bool,
    /// Whether a claim is on its way.
    claiming: bool,
    /// How many claims have come to their end, with an answer or without.
    claimed: u64,
    /// Whether a beat is on its way.
    beating: bool,
    /// Whether a pulse that beats for it is on its way.
    pulsing: bool,
    /// Whether the last claim got all that it asked for, so that there is probably more.
    more: bool,
    /// When it is worthwhile to claim again.
    gather_until: Instant,
    /// Whether the last look that brought something was one that was rung for, and there was no more: messages are rare.
    was_rung_for: bool,
    /// Whether the next fetch may leave the look to who goes to sleep.
    may_rest: bool,
    /// The subscription on the server, once it was looked up.
    found: Option<Arc<Found>>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No task was started.
    Idle,
    Running,
    /// The driver is gone: what is out may still be answered.
    Closing,
    /// Over, or as dead as a killed process.
    Over,
}

/// What makes publishers ring.
#[derive(Clone, Copy, Debug)]
struct Armed {
    id: i64,
    /// For how long they do, at least.
    until: Instant,
}

/// Why somebody looks at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// A delivery is wanted, and none is in hand.
    Wanted,
    /// The consumer was rung for in its sleep.
    Rung,
    /// It is going to sleep.
    Arming,
}

/// Somebody who waits for a look at the server.
struct Looker {
    why: Why,
    reply: oneshot::Sender<Result<Looked>>,
}

/// A subscription as the server has it.
#[derive(Clone, Debug)]
struct Found {
    id: i64,
    topic: i64,
    topic_name: Arc<str>,
    channel: Arc<str>,
    batch: usize,
    prefetch: usize,
    lease: Duration,
}

impl State {
    /// Whether to claim ahead of need: half of what a claim brings is delivered.
    fn wants_more(&self) -> bool {
        let half = self.found.as_ref().map_or(0, |found| found.prefetch / 2);
        self.more && !self.claiming && self.held.buffered() <= half
    }

    /// Whether what is in hand waits for lanes, and a look would find nothing besides.
    fn waits_for_lanes(&self) -> bool {
        self.held.buffered() > 0 && !self.more && !self.held.has_freed
    }

    /// Whether nothing is left to be done: it was killed, or it is closing and has settled everything.
    fn is_done(&self) -> bool {
        match self.phase {
            Phase::Over => true,
            Phase::Closing => !self.claiming && !self.beating && !self.pulsing && self.held.is_idle(),
            Phase::Idle | Phase::Running => false,
        }
    }
}

impl<C: Client> Consumer<C> {
    pub(crate) fn new(shared: Arc<Shared<C>>, wanted: Subscription) -> Arc<Self> {
        let state = State {
            held: Held::default(),
            lookers: Vec::new(),
            armed: None,
            ring_by: None,
            asleep: None,
            beaten: None,
            had_leases: false,
            has_strays: false,
            claiming: false,
            claimed: 0,
            beating: false,
            pulsing: false,
            more: false,
            gather_until: Instant::now(),
            was_rung_for: true,
            may_rest: false,
            found: None,
            phase: Phase::Idle,
        };
        Arc::new(Self {
            shared,
            name: wanted.name().into(),
            wanted,
            owner: Uuid::new_v4(),
            state: Mutex::new(state),
            to_claim: Notify::new(),
            to_settle: Notify::new(),
            to_beat: Notify::new(),
            to_look: Notify::new(),
            changed: watch::Sender::new(()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn about(&self) -> About<'_> {
        About::Subscription(self.wanted.name())
    }

    /// Asks the server, within the time limit.
    async fn query(&self, statement: &str, parameters: &[Parameter]) -> Result<Vec<C::Row>> {
        self.shared.query(statement, parameters, self.about()).await
    }

    /// Looks the subscription up, unless that was done.
    async fn find(&self) -> Result<Arc<Found>> {
        if let Some(found) = self.lock().found.clone() {
            return Ok(found);
        }
        let rows = self.query(statement::DESCRIBE_SUBSCRIPTION, &[Parameter::new(self.wanted.name())]).await?;
        let not_found = || Error::subscription_not_found(self.wanted.name());
        let row = rows.first().ok_or_else(not_found)?;
        let stored = crate::subscriptions::read(row)?;
        if stored.ensure_same_identity(&self.wanted).is_err() {
            return Err(not_found()); // another of the same name is none of its business
        }
        let found = Arc::new(Found {
            id: row.get(0)?,
            topic: row.get(12)?,
            topic_name: stored.topic().into(),
            channel: row.get::<String>(13)?.into(),
            batch: stored.batch(),
            prefetch: stored.prefetch(),
            lease: stored.lease(),
        });
        self.lock().found = Some(Arc::clone(&found));
        Ok(found)
    }

    /// Forgets the subscription that was found, and what it had: it is gone, though another of its name may be there.
    fn forget(&self) {
        let mut state = self.lock();
        state.found = None;
        state.held.doubt_all();
        state.held.abandon();
        drop(state);
        self.to_look.notify_one(); // no pulse asks for what is not found
    }

    /// Notes which messages were given up.
    fn say_given_up(&self, ids: Vec<String>) {
        let Some(found) = self.lock().found.clone() else { return };
        for id in ids {
            telemetry::given_up(&found.topic_name, &self.name, &MessageId::new(id));
        }
    }

    /// Starts the tasks, unless they run.
    fn start(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.phase == Phase::Idle {
            state.phase = Phase::Running;
            drop(state);
            tokio::spawn(claiming::run(Arc::clone(self)));
            tokio::spawn(settling::run(Arc::clone(self), Presence::new(&self.shared.consumers)));
            tokio::spawn(beating::run(Arc::clone(self)));
            self.shared.pulse.join(self);
        } else {
            drop(state);
        }
        pulse::ensure_beats(&self.shared);
    }

    /// Whether there is a stream that fetches when there may be something.
    fn is_listening(&self) -> bool {
        self.changed.receiver_count() > 0
    }

    fn lives(&self) -> bool {
        self.lock().phase != Phase::Over
    }

    /// For how long it may be silent.
    fn lease(&self) -> Duration {
        self.lock().found.as_ref().map_or(self.wanted.lease(), |found| found.lease)
    }

    /// Returns the next delivery in hand, unless it is time to claim more.
    pub(crate) fn fetch_ready(self: &Arc<Self>) -> Result<Option<Delivery>> {
        let state = self.lock();
        if state.wants_more() { Ok(None) } else { self.pop(state) }
    }

    /// Returns the next delivery, after a look at the server if none is at hand.
    pub(crate) async fn fetch(self: &Arc<Self>) -> Result<Option<Delivery>> {
        if self.lock().wants_more() {
            self.to_claim.notify_one();
            tokio::task::yield_now().await; // so that it is on its way while the rest is delivered
        }
        if let Some(delivery) = self.pop(self.lock())? {
            return Ok(Some(delivery));
        }
        let (may_rest, gather_until) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.may_rest) || state.waits_for_lanes(), state.gather_until)
        };
        if may_rest && self.is_listening() {
            return Ok(None); // what else comes wakes it up
        }
        tokio::time::sleep_until(gather_until).await;
        self.look(Why::Wanted).await?;
        self.pop(self.lock())
    }

    /// Looks at the server, through the task that claims: whoever stops waiting loses nothing.
    async fn look(self: &Arc<Self>, why: Why) -> Result<Looked> {
        self.start();
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.phase != Phase::Running {
                return Ok(Looked::default());
            }
            state.lookers.push(Looker { why, reply });
        }
        self.to_claim.notify_one();
        answer.await.unwrap_or_else(|_| Ok(Looked::default())) // the consumer is over
    }

    fn pop(self: &Arc<Self>, mut state: MutexGuard<'_, State>) -> Result<Option<Delivery>> {
        let batch = state.found.as_ref().map_or(1, |found| found.batch);
        let popped = state.held.pop(batch);
        drop(state);
        let Some(Portion { hand, mut messages }) = popped else { return Ok(None) };
        let acker = PgAcker::new(Arc::clone(self), hand);
        let single = if self.wanted.batch() == 1 && messages.len() == 1 { messages.pop() } else { None };
        let delivery = match single {
            Some(message) => Delivery::new(message, acker),
            None => Delivery::batch(messages.into_vec(), acker)?,
        };
        Ok(Some(delivery.for_subscription(Arc::clone(&self.name))))
    }

    /// The driver is gone: gives back what was not delivered.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.phase = match state.phase {
            Phase::Running | Phase::Closing => Phase::Closing,
            Phase::Idle | Phase::Over => Phase::Over,
        };
        state.held.release(|_| true);
        state.lookers.clear();
        drop(state);
        self.ring_all();
    }

    /// Stops as a killed process does: nothing is given back, and nothing is sent any more.
    pub(crate) fn crash(&self) {
        let mut state = self.lock();
        state.phase = Phase::Over;
        state.held.abandon();
        state.lookers.clear();
        drop(state);
        self.ring_all();
    }

    fn ring_all(&self) {
        if !self.lives() {
            self.to_beat.notify_one();
            self.shared.pulse.left();
        }
        self.to_claim.notify_one();
        self.to_settle.notify_one();
        self.changed.send_replace(());
    }

    /// Notes that messages were settled inside a transaction of the caller's.
    fn doubt(&self, in_doubt: InDoubt) {
        let mut state = self.lock();
        state.held.out -= 1;
        state.held.in_doubt.push(in_doubt);
        drop(state);
        self.to_settle.notify_one();
    }
}
