//! Asking the server for locks: those of rows, and the one of whose turn it is.

use std::time::Duration;

use pgqueue_core::{Error, Result};

use super::driver::Inner;
use crate::{
    Client, ClientError, OwnedTransaction, Parameter,
    error::{repeatable, within},
    tables::TIME_LIMIT,
    value::{RowExt, millis},
};

/// For how long the server waits for whose turn it is, before the look begins anew. Less than the time limit of a look.
const WAIT: Duration = Duration::from_secs(5);

/// SQLSTATE of a lock that somebody else has, and of a prepared statement whose result has other columns by now.
const LOCK_NOT_AVAILABLE: &str = "55P03";
const STALE: &str = "0A000";

/// A statement that bounds the wait for locks in its transaction by `$1`, and then asks. The wait ends before the statement must.
macro_rules! asking_in_time {
    ($asked:literal) => {
        concat!(
            "select set_config('lock_timeout', \
                least($1, nullif(extract(epoch from current_setting('statement_timeout')::interval) * 500, 0))::bigint::text, \
                true), ",
            $asked
        )
    };
}

/// Waits until nobody has a delivery out, and says whether nobody had. It is shared, and let go at once: nobody waits for who waits.
const TURN: &str = asking_in_time!("pg_try_advisory_xact_lock_shared($2), pg_advisory_xact_lock_shared($2)::text");

/// Lets nobody else have a delivery out until the transaction ends, if nobody has; says whether.
const TRY_GUARD: &str = "select pg_try_advisory_xact_lock($1)";

/// Waits until nobody else counts; and ends the session of a consumer that hangs meanwhile, as it should take milliseconds.
const GUARD_COUNT: &str =
    asking_in_time!("pg_advisory_xact_lock($2)::text, set_config('idle_in_transaction_session_timeout', $3, true)");

/// Whose turn it is, where one at a time has a delivery out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nobody asked.
    Unknown,
    /// Others had one out for as long as the wait took.
    Others,
    /// Others had one out, and no more.
    Next,
    /// Nobody had one out.
    Mine,
}

/// Waits while others have a delivery out, but not for too long. Holds nothing when it returns.
pub(super) async fn wait_for_turn<C: Client>(inner: &Inner<C>) -> Result<Turn> {
    let given = [Parameter::new(millis(WAIT)), inner.guard.clone()];
    match ask_for_locks(inner, inner.shared.client.query(TURN, &given)).await? {
        Answer::Here(rows) => {
            let had_nobody = rows.first().map_or(Ok(true), |row| row.get(1))?;
            Ok(if had_nobody { Turn::Mine } else { Turn::Next })
        }
        Answer::Held => Ok(Turn::Others),
        Answer::Stale(error) => Err(error),
    }
}

/// Waits until nobody else counts, and so long as the transaction lasts, nobody does. `None` if the wait was too long, which it
/// notes.
pub(super) async fn guard_count<C: Client>(inner: &Inner<C>) -> Result<Option<C::Transaction>> {
    let mut transaction = begin(inner).await?;
    let limit_hanging = Parameter::new(TIME_LIMIT.as_millis().to_string());
    let given = [Parameter::new(millis(WAIT)), inner.guard.clone(), limit_hanging];
    match ask_for_locks(inner, transaction.query(GUARD_COUNT, &given)).await? {
        Answer::Here(_) => Ok(Some(transaction)),
        Answer::Held => end(inner, transaction, true).await,
        Answer::Stale(error) => Err(error),
    }
}

/// Whether nobody else has a delivery out; nobody has then as long as the transaction lasts.
pub(super) async fn is_alone<C: Client>(inner: &Inner<C>, transaction: &mut C::Transaction) -> Result<bool> {
    let rows = ask(inner, transaction.query(TRY_GUARD, std::slice::from_ref(&inner.guard))).await?;
    rows.first().map_or(Ok(false), |row| row.get(0))
}

/// What a transaction that was to lock rows found.
pub(super) enum Found<R> {
    Rows(Vec<R>),
    Nothing,
    /// Somebody else holds them.
    Busy,
    /// The connection cannot be used, and the next look is to be on another.
    Stale,
}

pub(super) async fn lock_in<C: Client>(
    inner: &Inner<C>,
    transaction: &mut C::Transaction,
    statement: &str,
    bound: &[Parameter],
) -> Result<Found<C::Row>> {
    let found = match ask_for_locks(inner, transaction.query(statement, bound)).await? {
        Answer::Here(rows) if rows.is_empty() => Found::Nothing,
        Answer::Here(rows) => Found::Rows(rows),
        Answer::Held => Found::Busy,
        Answer::Stale(error) => return if inner.note_stale() { Ok(Found::Stale) } else { Err(error) },
    };
    inner.note_fresh();
    Ok(found)
}

/// Ends a look that found no rows, and notes why.
pub(super) async fn give_up<C: Client, T>(
    inner: &Inner<C>,
    transaction: C::Transaction,
    found: Found<C::Row>,
    turn: Turn,
) -> Result<Option<T>> {
    match found {
        Found::Stale => Ok(None),
        // Nobody has a delivery out, so those who hold the rows are no consumers, and cannot be waited for.
        Found::Busy if turn == Turn::Mine => end(inner, transaction, false).await,
        Found::Busy => end(inner, transaction, true).await,
        Found::Nothing | Found::Rows(_) => {
            inner.note_free();
            end(inner, transaction, false).await
        }
    }
}

/// Gives the connection back, after a look in vain. Notes whether others are busy, so that the next look waits for them.
pub(super) async fn end<C: Client, T>(
    inner: &Inner<C>,
    transaction: C::Transaction,
    is_busy: bool,
) -> Result<Option<T>> {
    ask(inner, transaction.rollback()).await?;
    if is_busy {
        inner.note_busy();
    }
    Ok(None)
}

pub(super) async fn begin<C: Client>(inner: &Inner<C>) -> Result<C::Transaction> {
    ask(inner, inner.shared.client.begin()).await
}

/// Asks the server, within the time limit.
pub(super) async fn ask<C: Client, T>(
    inner: &Inner<C>,
    call: impl Future<Output = Result<T, ClientError>>,
) -> Result<T> {
    within(TIME_LIMIT, async { call.await.map_err(|error| repeatable(error, inner.about())) }).await
}

/// What the server says to who asks for locks.
pub(super) enum Answer<T> {
    Here(T),
    /// Somebody else holds what was asked for.
    Held,
    /// The connection prepared its statement when the table had other columns; or the server cannot do it.
    Stale(Error),
}

/// As [`ask`], for locks.
pub(super) async fn ask_for_locks<C: Client, T>(
    inner: &Inner<C>,
    call: impl Future<Output = Result<T, ClientError>>,
) -> Result<Answer<T>> {
    within(TIME_LIMIT, async {
        match call.await {
            Ok(answer) => Ok(Answer::Here(answer)),
            Err(ClientError::Refused { code, .. }) if code == LOCK_NOT_AVAILABLE => Ok(Answer::Held),
            Err(error) => {
                let is_stale = matches!(&error, ClientError::Refused { code, .. } if code == STALE);
                let error = repeatable(error, inner.about());
                if is_stale { Ok(Answer::Stale(error)) } else { Err(error) }
            }
        }
    })
    .await
}
