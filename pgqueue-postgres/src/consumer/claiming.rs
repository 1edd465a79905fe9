//! The task that claims: looks at the server when somebody asks, and ahead of need while there is more.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use pgqueue_core::{ErrorKind, Order, Result, telemetry};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use uuid::Uuid;

use super::{
    Armed, Consumer, Found, Looker, Phase, Why,
    held::{LeaseId, Run},
};
use crate::{
    Client, Parameter,
    message::{self, Texts},
    statement,
    value::RowExt,
};

/// One claim in so many takes new messages before retries that are due.
const FRESH_FIRST: u64 = 4;

/// From one look that brought something, but not all that it asked for, to the next: so that what is published singly is claimed
/// by several, at a fraction of the cost.
const GATHER: Duration = Duration::from_millis(2);

/// What a look at the server found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Looked {
    /// How many messages.
    pub(crate) messages: usize,
    /// It brought all that it asked for, so that it did not look everywhere.
    pub(crate) full: bool,
    /// Another consumer was claiming, so that this look may have missed something.
    pub(crate) busy: bool,
    /// The look ended before the log did.
    pub(crate) more: bool,
    /// A publisher is at work who may not know that this consumer sleeps.
    pub(crate) writers: bool,
    /// When the next retry is due, if that is what is next.
    pub(crate) wait: Option<Duration>,
}

/// Runs until the consumer ends.
pub(crate) async fn run<C: Client>(consumer: Arc<Consumer<C>>) {
    let mut claims: u64 = fastrand::u64(..);
    loop {
        let taken = {
            let mut state = consumer.lock();
            if state.phase != Phase::Running {
                return;
            }
            state.claiming = state.wants_more() || !state.lookers.is_empty();
            state.claiming.then(|| {
                let lookers = std::mem::take(&mut state.lookers);
                // What is armed while this claim is on its way is for the next to end.
                let is_awake = !lookers.iter().any(|looker| looker.why == Why::Arming);
                let armed = if is_awake { state.armed.take() } else { state.armed };
                state.held.has_freed = false;
                (lookers, armed, state.ring_by.take())
            })
        };
        let Some((lookers, armed, ring_by)) = taken else {
            consumer.to_claim.notified().await;
            continue;
        };
        claims = claims.wrapping_add(1);
        let mut looked = look(&consumer, claims, &lookers, armed).await;
        if looked.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            // It was deleted; the same may have been inserted again.
            consumer.forget();
            looked = look(&consumer, claims, &lookers, armed).await;
        }
        {
            let mut state = consumer.lock();
            let failed = looked.is_err();
            state.more &= !failed; // whoever needs more looks again, and hears why it fails
            state.held.has_freed |= failed;
            if failed {
                state.armed = state.armed.or(armed);
            }
            if failed || looked.as_ref().is_ok_and(|looked| looked.full) {
                state.ring_by = state.ring_by.or(ring_by);
            }
        }
        answer(&consumer, lookers, looked);
        {
            let mut state = consumer.lock();
            state.claiming = false;
            state.claimed += 1;
        }
        consumer.to_settle.notify_one(); // the consumer may be about to end
    }
}

/// Tells those who asked, and those who asked meanwhile if there is something for them. An error is for one; the others ask
/// again.
fn answer<C: Client>(consumer: &Consumer<C>, lookers: Vec<Looker>, looked: Result<Looked>) {
    match looked {
        Ok(looked) => {
            let meanwhile = if looked.messages > 0 { std::mem::take(&mut consumer.lock().lookers) } else { Vec::new() };
            for looker in lookers.into_iter().chain(meanwhile) {
                looker.reply.send(Ok(looked)).ok(); // who does not wait any more has lost nothing
            }
        }
        Err(error) => {
            let mut lookers = lookers.into_iter().filter(|looker| !looker.reply.is_closed());
            match lookers.next() {
                Some(first) => drop(first.reply.send(Err(error))),
                None => tracing::debug!(%error, "looking ahead failed"),
            }
            let mut state = consumer.lock();
            if state.phase == Phase::Running {
                state.lookers.extend(lookers);
            }
        }
    }
}

/// Looks once.
async fn look<C: Client>(
    consumer: &Arc<Consumer<C>>,
    claims: u64,
    lookers: &[Looker],
    armed: Option<Armed>,
) -> Result<Looked> {
    let _turn = turn(consumer).await;
    let look = claim(consumer, claims, lookers, armed);
    telemetry::claiming(&consumer.name, |looked: &Looked| looked.messages, look).await
}

/// Waits for the turn of this consumer among those of the same handle, where all of them claim from one lane.
async fn turn<C: Client>(consumer: &Consumer<C>) -> Option<OwnedSemaphorePermit> {
    if consumer.wanted.order() == Order::ByKey {
        return None;
    }
    let found = consumer.find().await.ok()?; // the claim says why not
    consumer.shared.turns.take(found.id).await
}

async fn claim<C: Client>(
    consumer: &Arc<Consumer<C>>,
    claims: u64,
    lookers: &[Looker],
    armed: Option<Armed>,
) -> Result<Looked> {
    let found = consumer.find().await?;
    let buffered = consumer.lock().held.buffered();
    let arming = lookers.iter().any(|looker| looker.why == Why::Arming);
    let prefetch = found.prefetch.max(found.batch);
    let most = (prefetch + prefetch / 2).saturating_sub(buffered).clamp(1, prefetch);
    let token = Uuid::new_v4();
    let parameters = [
        Parameter::new(found.id),
        Parameter::new(consumer.owner),
        Parameter::new(token),
        Parameter::new(i32::try_from(most).unwrap_or(i32::MAX)),
        Parameter::new(claims.is_multiple_of(FRESH_FIRST)),
        Parameter::new(buffered == 0 && !lookers.is_empty()),
        Parameter::new(fastrand::i32(0..i32::from(u16::MAX))),
        Parameter::new(arming),
        Parameter::nullable(armed.map(|armed| armed.id)),
    ];
    consumer.shared.pulse.worked.store(true, Ordering::Relaxed);
    let rows = consumer.shared.insist(statement::CLAIM, &parameters, consumer.about()).await?;
    let Some((last, rows)) = rows.split_last() else { return Ok(Looked::default()) };

    let mut runs: Vec<Run> = Vec::new();
    let mut place: Option<String> = None;
    let mut texts = Texts::default();
    for row in rows {
        let lease = LeaseId { number: row.get(0)?, token };
        if runs.last().is_none_or(|run| run.lease != lease) {
            let lane = Some(row.get(1)?).filter(|lane| *lane >= 0);
            runs.push(Run { lease, lane, messages: Vec::new() });
        }
        place = row.read(6)?.or(place);
        let id = row.get(2)?;
        let message = message::of_claim(row, &found.topic_name, &mut texts, id, place.as_deref())?;
        if row.get::<i32>(5)? > 0 {
            let (id, attempt) = (message.id(), message.attempt());
            tracing::warn!(%id, attempt, "the consumer that had this message died; it comes with few others, or alone");
        }
        if let Some(run) = runs.last_mut() {
            run.messages.push((id, message));
        }
    }
    let looked = Looked {
        messages: rows.len(),
        full: rows.len() >= most,
        busy: last.get(15)?,
        more: last.get(16)?,
        writers: last.get(17)?,
        wait: last.read::<i64>(18)?.map(|ms| Duration::from_millis(ms.max(0).unsigned_abs())),
    };
    let updated = Found {
        batch: usize::try_from(last.get::<i32>(19)?).unwrap_or(1),
        prefetch: usize::try_from(last.get::<i32>(20)?).unwrap_or(1),
        lease: Duration::from_millis(last.get::<i64>(21)?.unsigned_abs()),
        ..Found::clone(&found)
    };

    // A batch is of messages that follow one another.
    let by_key = consumer.wanted.order() == Order::ByKey && updated.batch == 1;
    let mut state = consumer.lock();
    if state.phase == Phase::Over {
        return Ok(Looked::default());
    }
    state.found = Some(Arc::new(updated));
    state.more = looked.full || looked.more;
    if looked.messages > 0 {
        state.was_rung_for = !state.more && lookers.iter().any(|looker| looker.why == Why::Rung);
        state.may_rest = state.was_rung_for;
        if !state.more {
            state.gather_until = Instant::now() + GATHER;
        }
    }
    state.had_leases |= !runs.is_empty();
    for run in runs {
        state.held.push(run, by_key);
    }
    if state.phase == Phase::Closing {
        state.held.release(|_| true);
    }
    drop(state);
    if looked.messages > 0 {
        consumer.ring_all();
    }
    Ok(looked)
}
