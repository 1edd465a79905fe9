//! Looking for pending rows: lock them, count them if that is wanted, and hand them out in the transaction that holds them.

use std::{collections::HashMap, panic::resume_unwind, sync::Arc, time::SystemTime};

use pgqueue_core::{Delivery, Error, ErrorKind, Message, Result};
use tokio::task::JoinSet;

use super::{
    Locking, Mapping,
    columns::{find, text},
    driver::{Inner, Slot},
    held::{HeldDelivery, lost},
    keys::{Keys, keyless},
    locks::{
        Answer, Found, Turn, ask, ask_for_locks, begin, end, give_up, guard_count, is_alone, lock_in, wait_for_turn,
    },
};
use crate::{Client, OwnedTransaction, Parameter, Row, value::RowExt};

/// What was locked, and the transaction that holds it.
type Locked<C> = (<C as Client>::Transaction, Vec<<C as Client>::Row>);

/// Keys in binary format, with what is known of their deliveries.
type Counted = HashMap<Vec<u8>, Count>;

struct Count {
    /// With this one.
    deliveries: u32,
    /// Before this one.
    last_delivered_at: Option<SystemTime>,
}

/// Hands out the next rows, if there are any that nobody holds. Dropping the future closes the connection, and so holds nothing.
pub(super) async fn look<C: Client>(inner: &Arc<Inner<C>>, mut slot: Slot<C>) -> Result<Option<Delivery>> {
    let found = match &inner.statements.count {
        Some(_) => {
            // Not in the hands of who may poll it later: others wait for it.
            let (mut looks, inner) = (JoinSet::new(), Arc::clone(inner));
            looks.spawn(async move { look_and_count(&inner).await });
            match looks.join_next().await {
                Some(Ok(found)) => found?,
                Some(Err(ended)) if ended.is_panic() => resume_unwind(ended.into_panic()),
                _ => return Ok(None), // the runtime is about to end
            }
        }
        None => {
            let Some(turn) = turn(inner).await? else { return Ok(None) };
            let locked = lock(inner, &inner.statements.lock, &inner.bound([limit(inner.query.batch)]), turn).await?;
            locked.map(|locked| (locked, Counted::new()))
        }
    };
    let Some(((transaction, rows), counted)) = found else { return Ok(None) };
    let messages = messages(inner, &rows, &counted)?;
    let keys = Keys::of(&rows, &inner.query.key, &inner.query.name)?;
    slot.hand_out();
    let held = HeldDelivery::new(Arc::clone(inner), transaction, messages.clone(), keys, slot);
    let delivery = match <[Message; 1]>::try_from(messages) {
        Ok([message]) if inner.query.batch == 1 => Delivery::new(message, held),
        Ok(messages) => Delivery::batch(messages.into(), held)?,
        Err(messages) => Delivery::batch(messages, held)?,
    };
    Ok(Some(delivery.for_subscription(&*inner.query.name)))
}

/// Waits for the turn, where somebody else had it; `None` if they have it still. The wait is over before the transaction of a
/// delivery begins, so that its time is what it sees, and no older.
async fn turn<C: Client>(inner: &Inner<C>) -> Result<Option<Turn>> {
    let turn = if inner.waits() { wait_for_turn(inner).await? } else { Turn::Unknown };
    if turn == Turn::Others {
        inner.note_busy();
        return Ok(None);
    }
    Ok(Some(turn))
}

/// Locks rows in a transaction of their own; `None` if there are none, or if somebody holds them or has a delivery out where
/// there may be one, which it notes.
async fn lock<C: Client>(
    inner: &Inner<C>,
    statement: &str,
    bound: &[Parameter],
    turn: Turn,
) -> Result<Option<Locked<C>>> {
    let mut transaction = begin(inner).await?;
    // First, so that what the last delivery left is seen: whoever locks a row sees what became of it meanwhile, but all others
    // as they were.
    if inner.query.locking == Locking::Ordered && !is_alone(inner, &mut transaction).await? {
        return end(inner, transaction, true).await;
    }
    match lock_in(inner, &mut transaction, statement, bound).await? {
        Found::Rows(rows) => {
            inner.note_free();
            Ok(Some((transaction, rows)))
        }
        found => give_up(inner, transaction, found, turn).await,
    }
}

/// Counts the next deliveries, which commits, and then locks what was counted. Of several consumers only one does so at a time, so
/// that nobody counts what another is about to lock.
async fn look_and_count<C: Client>(inner: &Inner<C>) -> Result<Option<(Locked<C>, Counted)>> {
    let Some(turn) = turn(inner).await? else { return Ok(None) };
    match inner.query.locking {
        Locking::Ordered => count_alone(inner, turn).await,
        Locking::Unordered => count_guarded(inner).await,
    }
}

/// Makes sure that nobody else has a delivery out, and goes on in the same transaction.
async fn count_alone<C: Client>(inner: &Inner<C>, turn: Turn) -> Result<Option<(Locked<C>, Counted)>> {
    let mut transaction = begin(inner).await?;
    if !is_alone(inner, &mut transaction).await? {
        return end(inner, transaction, true).await;
    }
    let counted = match count_next(inner).await? {
        Found::Rows(counted) => counted,
        found => return give_up(inner, transaction, found, turn).await,
    };
    match lock_in(inner, &mut transaction, &inner.statements.relock, &these(inner, &counted)?).await? {
        Found::Rows(rows) => {
            inner.note_free();
            Ok(Some(((transaction, rows), numbers(&counted)?)))
        }
        found => give_up(inner, transaction, found, turn).await,
    }
}

/// Makes sure that nobody else counts until the rows are locked.
async fn count_guarded<C: Client>(inner: &Inner<C>) -> Result<Option<(Locked<C>, Counted)>> {
    let Some(guard) = guard_count(inner).await? else { return Ok(None) };
    let counted = match count_next(inner).await? {
        Found::Rows(counted) => counted,
        found => return give_up(inner, guard, found, Turn::Mine).await,
    };
    let locked = lock(inner, &inner.statements.relock, &these(inner, &counted)?, Turn::Mine).await?;
    ask(inner, guard.rollback()).await?;
    locked.map(|locked| Ok((locked, numbers(&counted)?))).transpose()
}

/// What is bound to lock what was counted.
fn these<C: Client>(inner: &Inner<C>, counted: &[C::Row]) -> Result<Vec<Parameter>> {
    let keys = Keys::of(counted, "key", &inner.query.name)?;
    Ok(inner.bound([keys.all().clone(), limit(counted.len())]))
}

/// Counts the next deliveries, but of those that had their last one: they are rejected.
async fn count_next<C: Client>(inner: &Inner<C>) -> Result<Found<C::Row>> {
    let Some(count) = &inner.statements.count else { return Ok(Found::Nothing) };
    let last_attempt = inner.query.last_attempt().map_or(i64::MAX, |(attempts, _)| i64::from(attempts));
    let next = inner.bound([limit(inner.query.batch), Parameter::new(last_attempt)]);
    let picked = match ask_for_locks(inner, inner.shared.client.query(count, &next)).await? {
        Answer::Here(picked) => picked,
        Answer::Held => return Ok(Found::Busy),
        Answer::Stale(error) => return Err(error), // the client has tried again
    };
    if picked.iter().any(|row| row.column(3) == Some(&[0])) {
        let message = format!(
            "the table in which deliveries of {:?} are counted has no such row: is it the one it selects from?",
            inner.query.name
        );
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    let (spent, counted): (Vec<_>, Vec<_>) = picked.into_iter().partition(|row| row.column(1).is_none());
    if !spent.is_empty() {
        reject(inner, &spent).await?;
    }
    Ok(if counted.is_empty() { Found::Nothing } else { Found::Rows(counted) })
}

/// Rejects rows that had their last attempt and were never answered.
async fn reject<C: Client>(inner: &Inner<C>, spent: &[C::Row]) -> Result<()> {
    let Some((attempts, reject)) = inner.query.last_attempt() else { return Ok(()) };
    let name = &inner.query.name;
    let mut transaction = begin(inner).await?;
    if let Found::Rows(rows) = lock_in(inner, &mut transaction, &inner.statements.relock, &these(inner, spent)?).await?
    {
        let keys = Keys::of(&rows, &inner.query.key, name)?;
        let statement = reject.labelled("Reject", keys.all());
        let bound = reject.bound([keys.all().clone(), Parameter::new(format!("given up after {attempts} attempts"))]);
        if ask(inner, transaction.execute(&statement, &bound)).await? == 0 {
            return Err(lost(name));
        }
        ask(inner, transaction.commit()).await?;
    }
    inner.ring(); // there may be more behind them
    Ok(())
}

/// Reads what was counted.
fn numbers(counted: &[impl Row]) -> Result<Counted> {
    let number = |row: &_| {
        let deliveries = u32::try_from(RowExt::get::<i64>(row, 1)?).unwrap_or(u32::MAX);
        let count = Count { deliveries, last_delivered_at: RowExt::read(row, 2)? };
        Ok((Row::column(row, 0).unwrap_or_default().to_vec(), count))
    };
    counted.iter().map(number).collect()
}

fn limit(rows: usize) -> Parameter {
    Parameter::new(i64::try_from(rows).unwrap_or(i64::MAX))
}

/// Makes messages of rows. A row that cannot be read is named by its key.
fn messages<C: Client>(inner: &Inner<C>, rows: &[C::Row], counted: &Counted) -> Result<Vec<Message>> {
    let query = &inner.query;
    let read = |row: &C::Row| {
        let id = text(row, &query.key)?.ok_or_else(|| keyless(&query.name, &query.key))?;
        let message = match &query.mapping {
            Mapping::Columns(columns) => columns.read(row, &id, &query.name),
            Mapping::Closure(read) => read(row).map_err(|source| {
                let message = format!("the row {id} of {:?} is no message", query.name);
                Error::new(ErrorKind::Decode, message).with_source(source)
            }),
        }?;
        let key = row.column(find(row, &query.key)?).unwrap_or_default();
        let Some(count) = counted.get(key) else { return Ok(message) };
        let message = message.with_attempt(count.deliveries.max(1));
        let is_dated = query.tracking.as_ref().is_some_and(|tracking| tracking.last_delivered_at.is_some());
        Ok(if is_dated { message.with_last_delivered_at(count.last_delivered_at) } else { message })
    };
    rows.iter().map(read).collect()
}
