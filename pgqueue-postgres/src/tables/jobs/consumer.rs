//! [`Consumer`]: one consumer of a job table: what it has in hand, and who waits for more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgqueue_core::{Delivery, Error, Message, Result};
use tokio::sync::{Notify, oneshot, watch};
use uuid::Uuid;

use super::{
    acker::JobAcker,
    asking::Found,
    held::{Claim, Held},
    keeping,
    table::JobTable,
    verdict::Verdict,
};
use crate::{Client, presence::Presence, tables::Shared};

pub(super) struct Consumer<C: Client> {
    pub(super) shared: Arc<Shared<C>>,
    pub(super) table: JobTable,
    /// The table's name as SQL.
    pub(super) name: String,
    pub(super) topic: Arc<str>,
    /// Names this consumer in the table.
    pub(super) owner: Uuid,
    state: Mutex<State<C>>,
    /// Rung for the consumer's task.
    pub(super) to_do: Notify,
    /// Changes when there is reason to look.
    pub(super) changed: watch::Sender<()>,
}

pub(super) struct State<C: Client> {
    pub(super) held: Held,
    /// Who waits for a look at the table. A job for one who is gone is given back.
    lookers: Vec<Looker<C>>,
    /// The table, once it was looked up.
    pub(super) found: Option<Arc<Found>>,
    pub(super) phase: Phase,
}

type Looker<C> = oneshot::Sender<Result<Option<(Message, JobAcker<C>)>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No task was started.
    Idle,
    Running,
    /// The driver is gone: what is out may still be answered.
    Closing,
    /// Over, or as dead as a killed process.
    Over,
}

/// What the consumer's task has to see to.
pub(super) struct Agenda {
    pub(super) is_done: bool,
    pub(super) has_jobs: bool,
    pub(super) has_answers: bool,
    pub(super) has_lookers: bool,
}

impl<C: Client> Consumer<C> {
    pub(super) fn new(shared: Arc<Shared<C>>, table: JobTable) -> Arc<Self> {
        let state = State { held: Held::default(), lookers: Vec::new(), found: None, phase: Phase::Idle };
        Arc::new(Self {
            shared,
            name: table.table().to_string(),
            topic: table.table().name().into(),
            table,
            owner: Uuid::new_v4(),
            state: Mutex::new(state),
            to_do: Notify::new(),
            changed: watch::Sender::new(()),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lease_lost(&self) -> Error {
        Error::lease_lost(&self.topic)
    }

    /// Returns the next delivery, through the consumer's task: whoever stops waiting loses nothing.
    pub(super) async fn fetch(self: &Arc<Self>) -> Result<Option<Delivery>> {
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.lock();
            match state.phase {
                Phase::Idle => {
                    state.phase = Phase::Running;
                    tokio::spawn(keeping::run(Arc::clone(self), Presence::new(&self.shared.consumers)));
                }
                Phase::Running => {}
                Phase::Closing | Phase::Over => return Ok(None),
            }
            state.lookers.push(reply);
        }
        self.to_do.notify_one();
        let claimed = answer.await.unwrap_or(Ok(None))?; // the consumer is over
        Ok(claimed
            .map(|(message, acker)| Delivery::new(message, acker.hand_out()).for_subscription(Arc::clone(&self.topic))))
    }

    pub(super) fn agenda(&self) -> Agenda {
        let mut state = self.lock();
        state.lookers.retain(|looker| !looker.is_closed());
        Agenda {
            is_done: match state.phase {
                Phase::Over => true,
                Phase::Closing => state.held.is_empty(),
                Phase::Idle | Phase::Running => false,
            },
            has_jobs: !state.held.is_empty(),
            has_answers: state.held.has_answers(),
            has_lookers: !state.lookers.is_empty(),
        }
    }

    /// Claims a job for whoever has waited longest. Returns whether the server may have given one of which nobody here knows.
    pub(super) async fn look(self: &Arc<Self>) -> bool {
        let looked = self.claim().await;
        let is_in_doubt = looked.as_ref().is_err_and(Error::is_transient);
        let mut state = self.lock();
        if state.lookers.is_empty() {
            drop(state);
            drop(looked); // gives back what nobody wants any more
        } else {
            let looker = state.lookers.remove(0);
            drop(state);
            looker.send(looked).ok();
        }
        is_in_doubt
    }

    /// Notes that a job is being answered; whether it is still in hand, `None` if the consumer is over.
    pub(super) fn begin_answer(&self, claim: &Claim) -> Option<bool> {
        let mut state = self.lock();
        (state.phase != Phase::Over).then(|| state.held.begin_answer(claim))
    }

    /// Leaves an answer to the consumer's task.
    pub(super) fn leave_answer(&self, claim: Claim, verdict: Verdict) {
        self.lock().held.leave_answer(claim, verdict);
        self.to_do.notify_one();
    }

    pub(super) fn doubt_all(&self) {
        self.lock().held.doubt_all();
    }

    /// The driver is gone.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.phase = match state.phase {
            Phase::Running | Phase::Closing => Phase::Closing,
            Phase::Idle | Phase::Over => Phase::Over,
        };
        state.lookers.clear();
        drop(state);
        self.to_do.notify_one();
    }

    /// Stops as a killed process does: nothing is given back, and nothing is sent any more.
    pub(super) fn crash(&self) {
        let mut state = self.lock();
        state.phase = Phase::Over;
        state.held = Held::default();
        state.lookers.clear();
        drop(state);
        self.to_do.notify_one();
    }
}
