//! The task that claims: looks at the server when somebody asks, and ahead of need while there is more.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use pgqueue_core::{ErrorKind, Order, Result};
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    Consumer, Found, Looker, Phase,
    held::{Lease, LeaseId, Run},
};
use crate::{Client, Parameter, message, statement, value::RowExt};

/// One claim in so many takes new messages before retries that are due.
const FRESH_FIRST: u64 = 4;

/// What a look at the server found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Looked {
    /// How many messages.
    pub(crate) messages: usize,
    /// Another consumer was claiming, so that this look may have missed something.
    pub(crate) busy: bool,
    /// A publisher is at work who may not know that this consumer sleeps.
    pub(crate) writers: bool,
    /// When the next retry is due, if that is what is next.
    pub(crate) wait: Option<Duration>,
}

/// Runs until the consumer ends.
pub(crate) async fn run<C: Client>(consumer: Arc<Consumer<C>>) {
    let mut claims: u64 = fastrand::u64(..);
    let mut more = false;
    loop {
        let lookers = {
            let mut state = consumer.lock();
            if state.phase != Phase::Running {
                return;
            }
            let buffered = state.held.buffered();
            let half = state.found.as_ref().map_or(0, |found| found.prefetch / 2);
            let ahead = more && buffered <= half;
            state.claiming = ahead || !state.lookers.is_empty();
            state.claiming.then(|| std::mem::take(&mut state.lookers))
        };
        let Some(lookers) = lookers else {
            consumer.to_claim.notified().await;
            continue;
        };
        claims = claims.wrapping_add(1);
        let mut looked = look(&consumer, claims, &lookers).await;
        if looked.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            // It was deleted; the same may have been inserted again.
            consumer.forget();
            looked = look(&consumer, claims, &lookers).await;
        }
        more = looked.as_ref().is_ok_and(|(_, more)| *more);
        answer(&consumer, lookers, looked.map(|(looked, _)| looked));
        consumer.lock().claiming = false;
        consumer.to_settle.notify_one(); // the consumer may be about to end
    }
}

/// Tells those who asked. An error is for one; the others ask again.
fn answer<C: Client>(consumer: &Consumer<C>, lookers: Vec<Looker>, looked: Result<Looked>) {
    match looked {
        Ok(looked) => {
            for looker in lookers {
                looker.reply.send(Ok(looked)).ok(); // who does not wait any more has lost nothing
            }
        }
        Err(error) => {
            let mut lookers = lookers.into_iter().filter(|looker| !looker.reply.is_closed());
            match lookers.next() {
                Some(first) => drop(first.reply.send(Err(error))),
                None => tracing::debug!(%error, "looking ahead failed"),
            }
            consumer.lock().lookers.extend(lookers);
        }
    }
}

/// Looks once; also returns whether there is probably more.
async fn look<C: Client>(consumer: &Arc<Consumer<C>>, claims: u64, lookers: &[Looker]) -> Result<(Looked, bool)> {
    let found = consumer.find().await?;
    let (buffered, armed) = {
        let state = consumer.lock();
        (state.held.buffered(), state.armed)
    };
    let arming = lookers.iter().any(|looker| looker.arming);
    let most = found.prefetch.max(found.batch).saturating_sub(buffered).max(1);
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
        Parameter::nullable(armed),
    ];
    let rows = consumer.query(statement::CLAIM, &parameters).await?;
    let Some((last, rows)) = rows.split_last() else { return Ok((Looked::default(), false)) };

    let mut runs: VecDeque<(Run, Option<i32>)> = VecDeque::new();
    for row in rows {
        let lease = LeaseId { number: row.get(0)?, token };
        if runs.back().is_none_or(|(run, _)| run.lease != lease) {
            let lane = (consumer.wanted.order() != Order::Unordered).then(|| row.get(1)).transpose()?;
            runs.push_back((Run { lease, messages: VecDeque::new() }, lane));
        }
        let message = message::of_claim(row, consumer.wanted.topic())?;
        if let Some((run, _)) = runs.back_mut() {
            run.messages.push_back((row.get(2)?, message));
        }
    }
    let looked = Looked {
        messages: rows.len(),
        busy: last.get(14)?,
        writers: last.get(15)?,
        wait: last.read::<i64>(16)?.map(|ms| Duration::from_millis(ms.max(0).unsigned_abs())),
    };
    let updated = Found {
        batch: usize::try_from(last.get::<i32>(17)?).unwrap_or(1),
        prefetch: usize::try_from(last.get::<i32>(18)?).unwrap_or(1),
        lease: Duration::from_millis(last.get::<i64>(19)?.unsigned_abs()),
        ..found
    };

    let mut state = consumer.lock();
    if state.phase == Phase::Over {
        return Ok((Looked::default(), false));
    }
    state.found = Some(updated);
    if !arming {
        state.armed = None;
    }
    for (run, lane) in runs {
        let lease = Lease { lane, unsettled: run.messages.len(), lost: watch::Sender::new(false) };
        state.held.push(run, lease);
    }
    if state.phase == Phase::Closing {
        state.held.release(|_| true);
    }
    drop(state);
    if looked.messages > 0 {
        consumer.ring_all();
    }
    Ok((looked, looked.messages >= most))
}
