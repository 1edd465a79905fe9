//! [`QueryDriver`]: one consumer of a user's table.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pgqueue_core::{Delivery, Error, Result, SubscriptionDriver, Wakeups, key_hash};
use tokio::{sync::watch, time::Instant};

use super::{Locking, PendingQuery, check, locks::ask, look, statements::Statements};
use crate::{
    Client, Parameter, PgTables,
    error::About,
    tables::{
        Shared,
        waking::{Waiting, Waking},
    },
    value::RowExt,
};

/// How soon to look again while others hold rows, who may give them back without saying so.
const HELD: Duration = Duration::from_secs(1);

/// For how long a connection that was closed may take to roll back, and how soon to look at the earliest whether it has, or
/// whether what is overdue can be handed out.
const ROLLS_BACK: Duration = Duration::from_secs(2);
const LOOKS_SOON: Duration = Duration::from_millis(10);

/// How long a consumer rests that gives back one delivery after the other: after the second the shortest, then twice as long each.
const SHORTEST_REST: Duration = Duration::from_millis(10);
const LONGEST_REST: Duration = Duration::from_secs(1);

/// One consumer of the rows that a [`PendingQuery`] selects: the driver for [`subscribe`](pgqueue_core::subscribe).
///
/// It looks when it is asked, and each delivery is a transaction on a connection of its own.
/// So a pool of n connections serves n − 1 deliveries at a time, as one is for the look that finds the next; a pool of 1 is refused.
/// With [`Tracking`](super::Tracking) a look takes two, and is a task, as others wait for it; it ends with the fetch at the latest.
///
/// Subscribing checks all that was said: the base query against the server, that its rows can be locked, that it has the columns
/// that become messages, and that the statements can be planned.
///
/// [`Locking::Ordered`] consumers that wait for another hold a connection each.
///
/// One that gives back delivery after delivery, requeued or dropped, rests before the next: for 10 ms, then twice as long each time,
/// up to 1 s. An OK or a Reject ends that. What was given back, is pending at once and comes first by the base query's order is what
/// the next look finds, and what is behind it may wait for as long as it fails: let a Requeue put it off, or its attempts end.
pub struct QueryDriver<C: Client> {
    inner: Arc<Inner<C>>,
}

pub(crate) struct Inner<C: Client> {
    pub(crate) shared: Arc<Shared<C>>,
    pub(crate) query: PendingQuery<C::Row>,
    pub(crate) statements: Statements,
    /// The advisory lock of those who have the one delivery out, or who count: the same for all consumers of the same rows.
    pub(crate) guard: Parameter,
    state: Mutex<State>,
    /// Changes when a delivery ends.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    /// How many deliveries are out, and looks for them on their way.
    out: usize,
    /// Whether the next look waits for who has a delivery out, as somebody had.
    waits: bool,
    /// How many looks in a row met a connection that had prepared its statement for other columns.
    stale: usize,
    /// When a delivery was last rolled back by closing its connection.
    rolled_back_at: Option<Instant>,
    /// How many deliveries in a row were given back, and until when it rests for it.
    given_back: u32,
    rests_until: Option<Instant>,
}

impl State {
    /// Notes that a delivery was given back. What fails again and again, and is pending at once, must not keep the server busy.
    fn give_back(&mut self) {
        self.given_back = self.given_back.saturating_add(1);
        let rest =
            2_u32.checked_pow(self.given_back.saturating_sub(2)).and_then(|times| SHORTEST_REST.checked_mul(times));
        let rest = rest.map_or(LONGEST_REST, |rest| rest.min(LONGEST_REST));
        self.rests_until = (self.given_back > 1).then(|| Instant::now() + rest);
    }

    /// How long it still rests.
    fn rest(&self) -> Option<Duration> {
        let rest = self.rests_until?.saturating_duration_since(Instant::now());
        (!rest.is_zero()).then_some(rest)
    }
}

/// The place of one delivery among those that may be out.
pub(crate) struct Slot<C: Client> {
    inner: Arc<Inner<C>>,
    /// Whether there is a delivery, whose end is reason to look.
    is_out: bool,
    /// Whether its rows need not be handed out again.
    is_done: bool,
}

impl<C: Client> Slot<C> {
    pub(super) fn hand_out(&mut self) {
        self.is_out = true;
    }

    /// Notes that the rows need not be handed out again.
    pub(super) fn note_done(&mut self) {
        self.is_done = true;
    }

    /// Notes that the server is about to roll the delivery back.
    pub(super) fn note_rollback(&self) {
        self.inner.lock().rolled_back_at = Some(Instant::now());
    }
}

impl<C: Client> Drop for Slot<C> {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        state.out -= 1;
        if !self.is_out {
            return;
        } else if self.is_done {
            (state.given_back, state.rests_until) = (0, None);
        } else {
            state.give_back();
        }
        drop(state);
        self.inner.ring();
    }
}

impl<C: Client> QueryDriver<C> {
    pub(crate) fn new(shared: Arc<Shared<C>>, query: PendingQuery<C::Row>) -> Self {
        let (statements, guard) = (Statements::of(&query), guard(&query));
        let (state, changed) = (Mutex::default(), watch::Sender::new(()));
        Self { inner: Arc::new(Inner { shared, query, statements, guard, state, changed }) }
    }
}

fn guard<R>(query: &PendingQuery<R>) -> Parameter {
    let arguments = query.base.bound([]).iter().fold(String::new(), |text, argument| match argument.value() {
        Some(value) => format!("{text}\0{}", value.escape_ascii()),
        None => format!("{text}\0\0"),
    });
    let half = |part: &str| u64::from(key_hash(&format!("pgqueue.tracking {part}\0{arguments}")));
    Parameter::new((half(query.base.sql()) << 32 | half(&query.name)).cast_signed())
}

impl<C: Client> Inner<C> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn about(&self) -> About<'_> {
        About::Table(&self.query.name)
    }

    /// Asks the server, within the time limit, outside of any delivery.
    pub(crate) async fn ask(&self, statement: &str, parameters: &[Parameter]) -> Result<Vec<C::Row>> {
        ask(self, self.shared.client.query(statement, parameters)).await
    }

    /// Whether what was asked of the server says that the subscription does not exist.
    pub(crate) fn ensure_exists(&self, answer: &[C::Row]) -> Result<()> {
        match answer.first().map(|row| row.get(0)).transpose()? {
            Some(false) => Err(Error::subscription_not_found(&self.query.name)),
            _ => Ok(()),
        }
    }

    /// Looks whether the subscription exists, where that can be asked.
    async fn look_whether_it_exists(&self) -> Result<()> {
        match &self.statements.exists {
            Some(exists) => self.ensure_exists(&self.ask(exists, &self.bound([])).await?),
            None => Ok(()),
        }
    }

    /// What is bound to a statement around the base query: its arguments, and what comes after.
    pub(crate) fn bound(&self, after: impl IntoIterator<Item = Parameter>) -> Vec<Parameter> {
        self.query.base.bound([]).into_iter().chain(after).collect()
    }

    /// How many deliveries may be out at a time.
    pub(crate) fn most(&self) -> usize {
        let most = self.query.max_deliveries.unwrap_or_else(|| self.shared.client.max_connections().saturating_sub(1));
        if self.query.locking == Locking::Ordered { most.min(1) } else { most }
    }

    /// Takes a place for a delivery, if there is one, and unless the consumer rests.
    fn take_slot(self: &Arc<Self>) -> Option<Slot<C>> {
        let most = self.most();
        let mut state = self.lock();
        if state.out >= most || state.rest().is_some() {
            return None;
        }
        state.out += 1;
        Some(Slot { inner: Arc::clone(self), is_out: false, is_done: false })
    }

    pub(crate) fn waits(&self) -> bool {
        self.query.locking == Locking::Ordered && self.lock().waits
    }

    /// Notes that somebody else has a delivery out, or holds what is first. Who does may end it without saying so, so that the
    /// next look, which is at once, waits.
    pub(crate) fn note_busy(&self) {
        self.lock().waits = true;
        self.ring();
    }

    /// Notes that nobody was in the way.
    pub(crate) fn note_free(&self) {
        self.lock().waits = false;
    }

    /// Notes that a connection had prepared its statement for other columns; it is closed. Once all can have been, it is no
    /// wonder any more, and `false`.
    pub(crate) fn note_stale(&self) -> bool {
        let mut state = self.lock();
        state.stale += 1;
        let may_be = state.stale <= self.shared.client.max_connections();
        if may_be {
            drop(state);
            self.ring();
        } else {
            state.stale = 0;
        }
        may_be
    }

    pub(crate) fn note_fresh(&self) {
        self.lock().stale = 0;
    }

    /// Lets the consumer look again.
    pub(crate) fn ring(&self) {
        self.changed.send_replace(());
    }
}

#[async_trait]
impl<C: Client> SubscriptionDriver for QueryDriver<C> {
    async fn insert_subscription(&self) -> Result<()> {
        check::check(&self.inner).await
    }

    async fn listen(&self) -> Result<Wakeups> {
        self.inner.look_whether_it_exists().await?;
        let Inner { shared, query, changed, .. } = &*self.inner;
        let tables = PgTables::from_shared(Arc::clone(shared));
        let (rings, changed) = (query.rings.clone(), changed.subscribe());
        Waking::listen(tables, Arc::clone(&self.inner), rings, changed, query.poll_interval).await
    }

    async fn fetch_pending(&self) -> Result<Option<Delivery>> {
        let Some(slot) = self.inner.take_slot() else { return Ok(None) }; // the end of a delivery wakes
        let delivery = look::look(&self.inner, slot).await?;
        if delivery.is_none() {
            self.inner.look_whether_it_exists().await?;
        }
        Ok(delivery)
    }
}

#[async_trait]
impl<C: Client> Waiting for Inner<C> {
    async fn due_in(&self) -> Result<Option<Duration>> {
        let (out, rest, rolled_back_at) = {
            let state = self.lock();
            (state.out, state.rest(), state.rolled_back_at)
        };
        if out >= self.most() {
            return Ok(None);
        } else if rest.is_some() {
            return Ok(rest);
        }
        let closed = rolled_back_at.map(|at| at.elapsed()).filter(|elapsed| *elapsed < ROLLS_BACK);
        if let Some(elapsed) = closed {
            return Ok(Some((elapsed / 2).max(LOOKS_SOON)));
        }
        let rows = self.ask(&self.statements.outlook, &self.bound([])).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let due_in: Option<i64> = row.read(1)?;
        let due_in = due_in.map(|millis| {
            let away = Duration::from_millis(millis.unsigned_abs());
            // What is overdue and was not found is held, or not pending for another reason: it is looked for ever more seldom.
            if millis > 0 { away } else { (away / 2).clamp(LOOKS_SOON, HELD) }
        });
        let are_held = row.get::<bool>(0)?.then_some(HELD);
        Ok(are_held.into_iter().chain(due_in).min())
    }
}

impl<C: Client> fmt::Debug for QueryDriver<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryDriver").field("query", &self.inner.query).finish_non_exhaustive()
    }
}
