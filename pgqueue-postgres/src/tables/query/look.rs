//! Looking for pending rows: lock them, count them if that is wanted, and hand them out in the transaction that holds them.

use std::{
    collections::HashMap,
    panic::resume_unwind,
    sync::Arc,
    time::{Duration, SystemTime},
};

use pgqueue_core::{Delivery, Error, ErrorKind, Message, Result};
use tokio::task::JoinSet;

use super::{
    Locking, Mapping,
    columns::{find, text},
    driver::{Inner, Slot},
    held::{HeldDelivery, lost},
};
use crate::{
    Client, ClientError, OwnedTransaction, Parameter, Row,
    error::{repeatable, within},
    tables::TIME_LIMIT,
    value::RowExt,
};

/// For how long the server waits for who holds the first row, before the look begins anew. Less than the time limit of a look.
const WAIT: Duration = Duration::from_secs(5);

/// SQLSTATE of a row that somebody else holds, and of a prepared statement whose result has other columns by now.
const LOCK_NOT_AVAILABLE: &str = "55P03";
const STALE: &str = "0A000";

/// Bounds the wait for locks in a transaction.
const LIMIT_WAIT: &str = "select set_config('lock_timeout', $1, true)";

/// Lets the consumers of a query count one after the other, until the transaction ends.
const GUARD: &str = "select set_config('lock_timeout', $1, true), pg_advisory_xact_lock($2)::text";

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
            // Not in the hands of who may poll it later: others wait for the guard.
            let (mut looks, inner) = (JoinSet::new(), Arc::clone(inner));
            looks.spawn(async move { look_and_count(&inner).await });
            match looks.join_next().await {
                Some(Ok(found)) => found?,
                Some(Err(ended)) if ended.is_panic() => resume_unwind(ended.into_panic()),
                _ => return Ok(None), // the runtime is about to end
            }
        }
        None => {
            let wait = inner.waits();
            let statement = if wait { &inner.statements.lock_waiting } else { &inner.statements.lock };
            let locked = lock(inner, statement, &inner.bound([limit(inner.query.batch)]), wait).await?;
            locked.map(|locked| (locked, Counted::new()))
        }
    };
    let Some(((mut transaction, rows), counted)) = found else { return Ok(None) };
    if inner.query.locking == Locking::Ordered && !are_first(inner, &mut transaction, &rows).await? {
        ask(inner, transaction.rollback()).await?;
        inner.note_busy(true);
        return Ok(None);
    }
    let messages = messages(inner, &rows, &counted)?;
    let keys = keys(&rows, &inner.query.key, &inner.query.name)?;
    slot.hand_out();
    let held = HeldDelivery::new(Arc::clone(inner), transaction, messages.clone(), keys, slot);
    match <[Message; 1]>::try_from(messages) {
        Ok([message]) if inner.query.batch == 1 => Ok(Some(Delivery::new(message, held))),
        Ok(messages) => Delivery::batch(messages.into(), held).map(Some),
        Err(messages) => Delivery::batch(messages, held).map(Some),
    }
}

/// Locks rows in a transaction of their own; `None` if there are none, or if somebody holds them, which it notes.
async fn lock<C: Client>(
    inner: &Inner<C>,
    statement: &str,
    bound: &[Parameter],
    wait: bool,
) -> Result<Option<Locked<C>>> {
    let mut transaction = begin(inner).await?;
    if wait {
        ask(inner, transaction.query(LIMIT_WAIT, &[wait_limit()])).await?;
    }
    let is_busy = match ask_for_locks(inner, transaction.query(statement, bound)).await? {
        Answer::Here(rows) if !rows.is_empty() => {
            inner.note_stale(false);
            return Ok(Some((transaction, rows)));
        }
        Answer::Here(_) => false,
        Answer::Held => true,
        // The connection goes, with what it has prepared.
        Answer::Stale(_) if inner.note_stale(true) => {
            inner.ring();
            return Ok(None);
        }
        Answer::Stale(error) => return Err(repeatable(error, inner.about())),
    };
    ask(inner, transaction.rollback()).await?;
    inner.note_busy(is_busy);
    Ok(None)
}

/// Whether locked rows are those that come first. Whoever locks sees a row that changed meanwhile as it is, but all others as they
/// were: after a wait for one that was requeued, those behind it, though it holds them back.
async fn are_first<C: Client>(inner: &Inner<C>, transaction: &mut C::Transaction, rows: &[C::Row]) -> Result<bool> {
    let key = |row: &C::Row| Ok(row.column(find(row, &inner.query.key)?).map(<[u8]>::to_vec));
    let locked = rows.iter().map(key).collect::<Result<Vec<_>>>()?;
    let next = inner.bound([limit(rows.len())]);
    let first = ask(inner, transaction.query(&inner.statements.first, &next)).await?;
    Ok(first.iter().map(|row| row.column(0).map(<[u8]>::to_vec)).eq(locked))
}

/// Counts the next deliveries, which commits, and then locks what was counted. Of several consumers only one does so at a time, so
/// that nobody counts what another is about to lock.
async fn look_and_count<C: Client>(inner: &Inner<C>) -> Result<Option<(Locked<C>, Counted)>> {
    let mut guard = begin(inner).await?;
    let guarded = ask_for_locks(inner, guard.query(GUARD, &[wait_limit(), inner.guard()])).await?;
    let counted = match guarded {
        Answer::Here(_) => count_next(inner).await?,
        Answer::Held | Answer::Stale(_) => {
            inner.note_busy(true);
            Vec::new()
        }
    };
    let (spent, counted): (Vec<_>, Vec<_>) = counted.into_iter().partition(|row| row.column(1).is_none());
    if !spent.is_empty() {
        give_up(inner, &spent).await?;
    }
    let locked = match &counted[..] {
        [] => None,
        rows => {
            let these = inner.bound([keys(rows, "key", &inner.query.name)?, limit(rows.len())]);
            lock(inner, &inner.statements.relock, &these, false).await?
        }
    };
    ask(inner, guard.rollback()).await?;
    let Some(locked) = locked else { return Ok(None) };
    let count = |row: &C::Row| {
        let deliveries = u32::try_from(row.get::<i64>(1)?).unwrap_or(u32::MAX);
        Ok((row.column(0).unwrap_or_default().to_vec(), Count { deliveries, last_delivered_at: row.read(2)? }))
    };
    let counted: Result<Counted> = counted.iter().map(count).collect();
    Ok(Some((locked, counted?)))
}

/// Counts the next deliveries, under the guard, once nobody holds what is first.
async fn count_next<C: Client>(inner: &Inner<C>) -> Result<Vec<C::Row>> {
    let Some(count) = &inner.statements.count else { return Ok(Vec::new()) };
    let batch = limit(inner.query.batch);
    if inner.waits() {
        let next = inner.bound([batch.clone()]);
        let Some((transaction, _)) = lock(inner, &inner.statements.lock_waiting, &next, true).await? else {
            return Ok(Vec::new());
        };
        ask(inner, transaction.rollback()).await?;
    }
    let last_attempt = inner.query.last_attempt().map_or(i64::MAX, |(attempts, _)| i64::from(attempts));
    let next = inner.bound([batch, Parameter::new(last_attempt)]);
    match ask_for_locks(inner, inner.shared.client.query(count, &next)).await? {
        Answer::Here(counted) => {
            inner.note_busy(false);
            Ok(counted)
        }
        Answer::Held | Answer::Stale(_) => {
            inner.note_busy(true);
            Ok(Vec::new())
        }
    }
}

/// Rejects rows that had their last attempt and were never answered.
async fn give_up<C: Client>(inner: &Inner<C>, spent: &[C::Row]) -> Result<()> {
    let Some((attempts, reject)) = inner.query.last_attempt() else { return Ok(()) };
    let name = &inner.query.name;
    let these = inner.bound([keys(spent, "key", name)?, limit(spent.len())]);
    if let Some((mut transaction, rows)) = lock(inner, &inner.statements.relock, &these, false).await? {
        let keys = keys(&rows, &inner.query.key, name)?;
        let statement = reject.labelled("Reject", &keys);
        let bound = reject.bound([keys, Parameter::new(format!("given up after {attempts} attempts"))]);
        if ask(inner, transaction.execute(&statement, &bound)).await? == 0 {
            return Err(lost(name));
        }
        ask(inner, transaction.commit()).await?;
    }
    inner.ring(); // there may be more behind them
    Ok(())
}

async fn begin<C: Client>(inner: &Inner<C>) -> Result<C::Transaction> {
    ask(inner, inner.shared.client.begin()).await
}

/// Asks the server, within the time limit.
async fn ask<C: Client, T>(inner: &Inner<C>, call: impl Future<Output = Result<T, ClientError>>) -> Result<T> {
    within(TIME_LIMIT, async { call.await.map_err(|error| repeatable(error, inner.about())) }).await
}

/// What the server says to who asks for locks.
enum Answer<T> {
    Here(T),
    /// Somebody else holds what was asked for.
    Held,
    /// The connection prepared its statement when the table had other columns.
    Stale(ClientError),
}

/// As [`ask`], for locks.
async fn ask_for_locks<C: Client, T>(
    inner: &Inner<C>,
    call: impl Future<Output = Result<T, ClientError>>,
) -> Result<Answer<T>> {
    within(TIME_LIMIT, async {
        match call.await {
            Ok(answer) => Ok(Answer::Here(answer)),
            Err(ClientError::Refused { code, .. }) if code == LOCK_NOT_AVAILABLE => Ok(Answer::Held),
            Err(error) if matches!(&error, ClientError::Refused { code, .. } if code == STALE) => {
                Ok(Answer::Stale(error))
            }
            Err(error) => Err(repeatable(error, inner.about())),
        }
    })
    .await
}

fn limit(rows: usize) -> Parameter {
    Parameter::new(i64::try_from(rows).unwrap_or(i64::MAX))
}

fn wait_limit() -> Parameter {
    Parameter::new(WAIT.as_millis().to_string())
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

/// The keys of rows, as the user's statements get them.
fn keys(rows: &[impl Row], column: &str, name: &str) -> Result<Parameter> {
    let key = |row| Ok(Row::column(row, find(row, column)?).ok_or_else(|| keyless(name, column))?.to_vec());
    let keys = rows.iter().map(key).collect::<Result<Vec<_>>>()?;
    let type_oid = rows.first().and_then(|row| row.type_oid(row.find(column)?));
    type_oid.and_then(|type_oid| Parameter::array_of(type_oid, &keys)).ok_or_else(|| unusable(name, column))
}

fn keyless(name: &str, key: &str) -> Error {
    Error::new(ErrorKind::Decode, format!("a row of {name:?} has no {key:?}, by which it could be found again"))
}

/// Of a key whose type cannot be one.
pub(super) fn unusable(name: &str, key: &str) -> Error {
    let message =
        format!("the column {key:?} of {name:?} has a type that cannot be a key; cast it to text in the base query");
    Error::new(ErrorKind::Invalid, message)
}
