//! The task that beats for what a consumer holds: says that it lives, and hears what it lost.

use std::{collections::HashMap, sync::Arc};

use pgqueue_core::Result;
use tokio::time::Instant;

use super::{Consumer, Found, Phase, held::LeaseId};
use crate::{
    Client, Parameter, statement,
    value::{RowExt, millis},
};

/// Runs until the consumer ends.
pub(crate) async fn run<C: Client>(consumer: Arc<Consumer<C>>) {
    let mut strays = Strays::new();
    let mut floor = Floor::default();
    let mut last_beat = Instant::now();
    let begun = Instant::now();
    loop {
        let now = Instant::now();
        let lease = consumer.lease();
        let is_needed = {
            let mut state = consumer.lock();
            if state.phase == Phase::Over {
                return;
            }
            // The pulse beats for who has nothing when it comes, unless it is held up.
            let has_leases = !state.held.leases.is_empty();
            let had_leases = std::mem::replace(&mut state.had_leases, has_leases);
            let is_silent = now.saturating_duration_since(state.beaten.unwrap_or(begun)) > lease / 2;
            let has_strays = std::mem::take(&mut state.has_strays);
            if has_strays {
                floor = Floor::default(); // wherever they are
            }
            // Who is about to leave would wait for its beats while nobody answers them.
            let is_leaving = state.is_done() && !has_leases;
            state.beating = !is_leaving && (has_strays || !strays.is_empty() || has_leases || had_leases || is_silent);
            state.beating
        };
        if is_needed {
            let beaten = beat(&consumer, &mut strays, &mut floor).await;
            let mut state = consumer.lock();
            match beaten {
                Ok(()) => (last_beat, state.beaten) = (now, Some(now)),
                Err(error) => tracing::warn!(%error, "a beat failed"),
            }
            state.beating = false;
            if last_beat.elapsed() > lease {
                state.held.doubt_all();
            }
        } else {
            last_beat = now;
        }
        consumer.to_settle.notify_one(); // the consumer may be about to end
        tokio::time::timeout_at(now + lease / 3, consumer.to_beat.notified()).await.ok();
    }
}

/// Leases that the server says are this consumer's and that it does not know, each with how many claims must have ended until
/// it is certain that none of them brings it.
type Strays = HashMap<i64, u64>;

/// From which lease on the server is asked for those that are not known: what is below was settled or given back, and while vacuum
/// is held up its remains are read again each time.
///
/// It rises some beats late, as a claim whose answer was lost may still be at work, and have drawn its numbers before a later one.
#[derive(Default)]
struct Floor([i64; 4]);

impl Floor {
    fn now(&self) -> i64 {
        self.0[0]
    }

    fn raise(&mut self, lowest: Option<i64>) {
        let Self([_, second, third, last]) = *self;
        self.0 = [second, third, last, last.max(lowest.unwrap_or(last))];
    }
}

/// Beats with all it has, and hears what it lost and what it does not know. What no claim brought, as its answer was lost, it
/// gives back with the next beat.
async fn beat<C: Client>(consumer: &Consumer<C>, strays: &mut Strays, floor: &mut Floor) -> Result<()> {
    let Some(found) = consumer.lock().found.clone() else { return Ok(()) };
    let (known, abandoned) = {
        let state = consumer.lock();
        let known: Vec<LeaseId> = state.held.leases.keys().copied().collect();
        strays.retain(|stray, _| known.iter().all(|lease| lease.number != *stray));
        let abandoned: Vec<i64> =
            strays.iter().filter(|(_, ended)| state.claimed >= **ended).map(|(id, _)| *id).collect();
        (known, abandoned)
    };
    let answer = send(consumer, &found, floor.now(), &known, &abandoned).await?;
    strays.retain(|stray, _| !abandoned.contains(stray));
    let mut state = consumer.lock();
    let ended = state.claimed + u64::from(state.claiming);
    for (lease, is_stray) in answer {
        if !is_stray {
            state.held.lost(lease);
        } else if !abandoned.contains(&lease.number) && !state.held.leases.contains_key(&lease) {
            strays.entry(lease.number).or_insert(ended);
        }
    }
    // What is below was known or given back: of what came meanwhile, the answer says nothing.
    floor.raise(known.iter().map(|lease| lease.number).chain(strays.keys().copied()).min());
    state.held.has_freed |= !abandoned.is_empty();
    drop(state);
    consumer.changed.send_replace(());
    Ok(())
}

/// Returns the leases that are lost (false) or stray (true).
async fn send<C: Client>(
    consumer: &Consumer<C>,
    found: &Found,
    floor: i64,
    known: &[LeaseId],
    abandoned: &[i64],
) -> Result<Vec<(LeaseId, bool)>> {
    let parameters = [
        Parameter::new(consumer.owner),
        Parameter::new(found.id),
        Parameter::new(millis(found.lease)),
        Parameter::new(floor),
        Parameter::array(known.iter().map(|lease| Some(lease.number)))?,
        Parameter::array(known.iter().map(|lease| Some(lease.token)))?,
        Parameter::array(abandoned.iter().copied().map(Some))?,
    ];
    let rows = consumer.query(statement::BEAT, &parameters).await?;
    rows.iter()
        .map(|row| Ok((LeaseId { number: row.get(0)?, token: row.get(1)? }, row.get::<String>(2)? == "stray")))
        .collect()
}
