//! The task that settles: all answers that wait go to the server in one statement, and come back with a verdict each.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use pgqueue_core::{Error, ErrorKind, MessageId, Operation, Order, Result, telemetry};
use tokio::time::Instant;

use super::{
    Consumer, Phase,
    held::{Answer, InDoubt, LeaseId, Verdict, reply},
};
use crate::{
    Client, Parameter,
    error::repeat,
    presence::Presence,
    statement,
    value::{RowExt, millis, storable},
};

/// For how long more answers are waited for while they come in, at most: about as long as a commit takes.
const GATHER: Duration = Duration::from_millis(1);

/// The pauses between two tries to settle while the server cannot be reached.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// For how long settling is tried again, unless the consumer is about to leave and its leases end before. Whoever waits has a time
/// limit of its own.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pauses between two looks at a caller's transaction that is still open.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// How soon a look has to follow where a lane was freed and nobody was rung for.
const TAKEN_BY: Duration = Duration::from_millis(20);

/// Runs until the consumer ends, which is when nothing is out and everything is answered.
pub(crate) async fn run<C: Client>(consumer: Arc<Consumer<C>>, _presence: Presence) {
    let mut look = FIRST_LOOK;
    loop {
        gather(&consumer).await;
        let taken = {
            let mut state = consumer.lock();
            if state.is_done() {
                Err(std::mem::replace(&mut state.phase, Phase::Over))
            } else {
                Ok((std::mem::take(&mut state.held.answers), std::mem::take(&mut state.held.in_doubt)))
            }
        };
        let (answers, in_doubt) = match taken {
            Ok(taken) => taken,
            Err(phase) => return leave(&consumer, phase == Phase::Over).await,
        };
        if !answers.is_empty() {
            look = FIRST_LOOK;
            let may_free = answers.iter().any(|answer| answer.verdict != Verdict::Ok);
            settle(&consumer, answers).await;
            consumer.lock().held.has_freed |= may_free;
            if may_free || consumer.wanted.order() != Order::Unordered {
                consumer.changed.send_replace(());
            }
        }
        if consumer.lock().ring_by.is_some_and(|by| by <= Instant::now()) {
            ring(&consumer).await;
        }
        let mut open = Vec::new();
        for doubtful in in_doubt {
            if resolve(&consumer, &doubtful).await {
                look = FIRST_LOOK;
            } else {
                open.push(doubtful);
            }
        }
        let (is_done, is_open, ring_by) = {
            let mut state = consumer.lock();
            state.held.in_doubt.extend(open);
            (state.is_done(), !state.held.in_doubt.is_empty(), state.ring_by)
        };
        if is_done {
            continue;
        }
        tokio::select! {
            () = consumer.to_settle.notified() => {} // kept, if it was rung for meanwhile
            () = tokio::time::sleep(look), if is_open => look = (look * 2).min(LONGEST_LOOK),
            () = tokio::time::sleep_until(ring_by.unwrap_or_else(Instant::now)), if ring_by.is_some() => {}
        }
    }
}

/// Waits while answers come in, for a moment: handlers that run on this thread do not wait for anything, but take turns.
async fn gather<C: Client>(consumer: &Consumer<C>) {
    let until = Instant::now() + GATHER;
    let mut gathered = 0;
    loop {
        tokio::task::yield_now().await;
        let answers = consumer.lock().held.answers.len();
        if answers <= gathered || Instant::now() >= until {
            return;
        }
        gathered = answers;
    }
}

/// Settles until the server has answered, or for as long as it makes sense.
async fn settle<C: Client>(consumer: &Arc<Consumer<C>>, mut answers: Vec<Answer>) {
    let since = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut repeated = false;
    loop {
        match send(consumer, &answers).await {
            Ok(settled) => return conclude(consumer, answers, &settled, repeated),
            Err(error) if error.is_transient() && since.elapsed() < patience(consumer) => {
                tracing::warn!(%error, answers = answers.len(), ?pause, "settling is interrupted and will be tried again");
                repeated = true;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(error) => {
                let error = if repeated && error.is_transient() { unknown(error) } else { error };
                if error.kind() == ErrorKind::NotFound {
                    consumer.forget();
                }
                let mut state = consumer.lock();
                for answer in &mut answers {
                    reply(answer, Err(repeat(&error)));
                    state.held.lost(answer.lease);
                }
                return;
            }
        }
    }
}

fn patience<C: Client>(consumer: &Consumer<C>) -> Duration {
    let phase = consumer.lock().phase;
    match phase {
        Phase::Idle | Phase::Running => PATIENCE,
        Phase::Closing => PATIENCE.min(consumer.lease()),
        Phase::Over => Duration::ZERO,
    }
}

fn unknown(error: Error) -> Error {
    Error::new(ErrorKind::Unknown, "the answer may or may not have reached the server; if not, the message comes again")
        .with_source(error)
}

/// What became of the answers that were sent.
struct Settled {
    /// The leases that are somebody else's by now.
    refused: HashSet<LeaseId>,
    /// Whether whoever sleeps was rung for, if a lane is free.
    rang: bool,
}

/// Sends the answers; those that end a lease with OK as one.
async fn send<C: Client>(consumer: &Arc<Consumer<C>>, answers: &[Answer]) -> Result<Settled> {
    let found = consumer.find().await?;
    let (parameters, rings) = {
        let state = consumer.lock();
        // Where everything is out that may be, a look follows.
        let rings = state.phase != Phase::Running || !consumer.is_listening() || state.held.has_deliverable();
        let leases = &state.held.leases;

        let mut done: HashMap<LeaseId, usize> = HashMap::new();
        for answer in answers.iter().filter(|answer| answer.verdict == Verdict::Ok) {
            *done.entry(answer.lease).or_default() += answer.ids.len();
        }
        done.retain(|lease, count| leases.get(lease).is_some_and(|lease| lease.unsettled == *count));
        let mut done: Vec<_> = done.into_keys().collect();
        done.sort_unstable();

        let rows = rows(answers.iter().filter(|answer| done.binary_search(&answer.lease).is_err()));
        let parameters = [
            Parameter::new(found.id),
            Parameter::array(done.iter().map(|lease| Some(lease.number)))?,
            Parameter::array(done.iter().map(|lease| Some(lease.token)))?,
            Parameter::array(rows.iter().map(|row| Some(row.answer.lease.number)))?,
            Parameter::array(rows.iter().map(|row| Some(row.answer.lease.token)))?,
            Parameter::array(rows.iter().map(|row| Some(row.first)))?,
            Parameter::array(rows.iter().map(|row| Some(code(&row.answer.verdict))))?,
            Parameter::array(rows.iter().map(|row| i32::try_from(row.delivery).ok()))?,
            Parameter::array(rows.iter().map(|row| delay_ms(&row.answer.verdict)))?,
            Parameter::array(rows.iter().map(|row| reason(row.answer)))?,
            Parameter::new(rings),
            Parameter::array(rows.iter().map(|row| Some(row.last)))?,
        ];
        (parameters, rings)
    };
    let settle = consumer.query(statement::SETTLE, &parameters);
    let rows = telemetry::settling(&consumer.name, answers.len(), settle).await?;
    consumer.shared.pulse.worked.store(true, Ordering::Relaxed);
    let mut refused = HashSet::new();
    for row in &rows {
        match row.read::<String>(2)? {
            Some(id) => telemetry::given_up(&found.topic_name, &consumer.name, &MessageId::new(id)),
            None => drop(refused.insert(LeaseId { number: row.get(0)?, token: row.get(1)? })),
        }
    }
    Ok(Settled { refused, rang: rings })
}

/// What the server is told of a message, or of several that are OK and whose ids follow each other.
struct Row<'a> {
    answer: &'a Answer,
    /// What was delivered together comes back together.
    delivery: usize,
    first: i64,
    last: i64,
}

fn rows<'a>(answers: impl Iterator<Item = &'a Answer>) -> Vec<Row<'a>> {
    let each = |(delivery, answer): (usize, &'a Answer)| {
        answer.ids.iter().map(move |id| Row { answer, delivery, first: *id, last: *id })
    };
    let (mut ok, others): (Vec<_>, Vec<_>) =
        answers.enumerate().flat_map(each).partition(|row| row.answer.verdict == Verdict::Ok);
    ok.sort_unstable_by_key(|row| (row.answer.lease, row.first));
    ok.dedup_by(|next, row| {
        let follows = row.answer.lease == next.answer.lease && row.last + 1 == next.first;
        if follows {
            row.last = next.last;
        }
        follows
    });
    ok.into_iter().chain(others).collect()
}

/// Rings for lanes that were freed without. Who is not rung for finds them by the pulse.
async fn ring<C: Client>(consumer: &Arc<Consumer<C>>) {
    consumer.lock().ring_by = None;
    let Ok(found) = consumer.find().await else { return };
    if let Err(error) = consumer.query(statement::RING, &[Parameter::new(found.id)]).await {
        tracing::debug!(%error, "nobody was rung for");
    }
}

fn code(verdict: &Verdict) -> i32 {
    match verdict {
        Verdict::Ok => 0,
        Verdict::Requeue { .. } => 1,
        Verdict::Reject { .. } => 2,
        Verdict::Release => 3,
    }
}

fn delay_ms(verdict: &Verdict) -> Option<i64> {
    match verdict {
        Verdict::Requeue { delay, .. } => delay.map(millis),
        Verdict::Ok | Verdict::Reject { .. } | Verdict::Release => None,
    }
}

/// The reason as text that PostgreSQL can hold.
fn reason(answer: &Answer) -> Option<String> {
    let reason = match &answer.verdict {
        Verdict::Requeue { reason, .. } => reason.as_ref()?,
        Verdict::Reject { reason } => reason,
        Verdict::Ok | Verdict::Release => return None,
    };
    Some(storable(reason.clone()))
}

/// Tells everybody how it ended.
fn conclude<C: Client>(consumer: &Consumer<C>, answers: Vec<Answer>, settled: &Settled, repeated: bool) {
    let Settled { refused, rang } = settled;
    let name = consumer.wanted.name();
    let mut state = consumer.lock();
    for mut answer in answers {
        if refused.contains(&answer.lease) {
            state.held.lost(answer.lease);
            // The first try may have been the one that settled it.
            let error = if repeated { unknown(Error::lease_lost(name)) } else { Error::lease_lost(name) };
            reply(&mut answer, Err(error.during(Operation::Settle)));
        } else {
            state.held.settled(answer.lease, answer.place.as_ref(), answer.ids.len());
            reply(&mut answer, Ok(()));
        }
    }
    if !rang && state.held.has_freed {
        state.ring_by.get_or_insert(Instant::now() + TAKEN_BY);
    }
}

/// Looks what became of an answer inside a caller's transaction; false while that is open.
async fn resolve<C: Client>(consumer: &Consumer<C>, doubtful: &InDoubt) -> bool {
    let InDoubt { lease, place, ids, transaction } = doubtful;
    let Ok(array) = Parameter::array(ids.iter().copied().map(Some)) else { return true };
    let parameters =
        [Parameter::new(lease.number), Parameter::new(lease.token), array, Parameter::nullable(*transaction)];
    let outcome = match consumer.query(statement::OUTCOME, &parameters).await {
        Ok(rows) => rows.first().and_then(|row| {
            consumer.say_given_up(row.read(1).ok()?.unwrap_or_default());
            row.get::<String>(0).ok()
        }),
        Err(error) => {
            tracing::debug!(%error, "the outcome of a caller's transaction cannot be seen yet");
            None
        }
    };
    let mut state = consumer.lock();
    match outcome.as_deref() {
        Some("done") => state.held.settled(*lease, place.as_ref(), ids.len()),
        Some("rolled back") => {
            state.held.came_back(*lease, place.as_ref(), ids.len());
            consumer.to_settle.notify_one();
        }
        Some("lost") => state.held.lost(*lease),
        _ => return false,
    }
    drop(state);
    consumer.changed.send_replace(());
    true
}

/// Gives back what is left, so that nobody waits for the lease to end. No claim, beat or pulse is on its way, which would come back.
async fn leave<C: Client>(consumer: &Consumer<C>, was_killed: bool) {
    consumer.ring_all();
    if !was_killed && let Err(error) = consumer.query(statement::LEAVE, &[Parameter::new(consumer.owner)]).await {
        tracing::debug!(%error, "leaving failed; the lease ends by itself");
    }
}
