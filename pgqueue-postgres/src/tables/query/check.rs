//! Checking a query against the server, before anything is handed out.

use pgqueue_core::{Error, ErrorKind, Result};

use super::{
    Command, Mapping,
    columns::is_textual,
    driver::Inner,
    keys,
    locks::{ask, begin},
};
use crate::{
    Client, ClientError, OwnedTransaction, Parameter, Row,
    error::repeatable,
    tables::{TIME_LIMIT, type_oid::BOOLEAN},
    value::RowExt,
};

/// SQLSTATE of what exists already, of what a reference misses, and of values that a column does not allow.
const EXISTS: &str = "23505";
const NO_REFERENCE: &str = "23503";
const NOT_ALLOWED: [&str; 2] = ["23502", "23514"];

/// Inserts the subscription, if there is something to insert, and checks all that was said.
pub(super) async fn check<C: Client>(inner: &Inner<C>) -> Result<()> {
    inner.query.validate()?;
    ensure_connections(inner)?;
    if let Some(command) = &inner.query.insert {
        insert(inner, command).await?;
    }
    let key_oid = check_columns(inner).await?;
    check_lock(inner).await?;
    check_commands(inner, key_oid).await
}

/// Inserts the subscription, unless there is another in its place.
async fn insert<C: Client>(inner: &Inner<C>, command: &Command) -> Result<()> {
    let mut transaction = begin(inner).await?;
    let inserted = within_limit(transaction.query(command.sql(), &command.bound([]))).await;
    let (verdict, ended) = match inserted {
        Ok(rows) if rows.first().is_some_and(is_false) => {
            (Err(another(&inner.query.name)), ask(inner, transaction.rollback()).await)
        }
        Ok(_) => (Ok(()), ask(inner, transaction.commit()).await),
        Err(error) => (not_inserted(inner, error), ask(inner, transaction.rollback()).await),
    };
    verdict.and(ended)
}

fn is_false(row: &impl Row) -> bool {
    row.type_oid(0) == Some(BOOLEAN) && row.column(0) == Some(&[0])
}

fn another(name: &str) -> Error {
    let message = format!("the subscription of {name:?} exists and differs; delete it first or choose another name");
    Error::new(ErrorKind::Conflict, message)
}

fn not_inserted<C: Client>(inner: &Inner<C>, error: ClientError) -> Result<()> {
    let ClientError::Refused { code, message, source } = error else { return Err(repeatable(error, inner.about())) };
    let kind = match &*code {
        EXISTS => return Ok(()),
        NO_REFERENCE => ErrorKind::NotFound,
        code if NOT_ALLOWED.contains(&code) => ErrorKind::Invalid,
        _ => return Err(repeatable(ClientError::Refused { code, message, source }, inner.about())),
    };
    let message = format!("the subscription of {:?} cannot be inserted: {message}", inner.query.name);
    Err(Error::new(kind, message).with_source(source))
}

/// A consumer needs a connection for the look that finds the next delivery.
fn ensure_connections<C: Client>(inner: &Inner<C>) -> Result<()> {
    let connections = inner.shared.client.max_connections();
    let most = inner.most();
    if most > 0 && most < connections {
        return Ok(());
    }
    let name = &inner.query.name;
    let message = format!(
        "the client has {connections} connections, of which {name:?} needs one for each of {} deliveries and one to look; allow it more",
        most.max(1)
    );
    Err(Error::new(ErrorKind::Invalid, message))
}

/// Returns the type of the key.
async fn check_columns<C: Client>(inner: &Inner<C>) -> Result<u32> {
    let query = &inner.query;
    let rows = run(inner, &inner.statements.describe, &inner.bound([])).await;
    let rows = rows.map_err(|error| refused(inner, "the base query", error))?;
    let missing = |column: &str| {
        let message =
            format!("the base query of {:?} has no column {column:?}, which was said to be there", query.name);
        Error::new(ErrorKind::Invalid, message)
    };
    let row = rows.first().ok_or_else(|| missing(&query.key))?;
    let find = |column: &str| row.find(column).ok_or_else(|| missing(column));
    if let Mapping::Columns(columns) = &query.mapping {
        for (column, is_wanted, wanted) in columns.wanted() {
            if !row.type_oid(find(column)?).is_some_and(is_wanted) {
                let name = &query.name;
                let message = format!("the column {column:?} of {name:?} is not {wanted}; cast it in the base query");
                return Err(Error::new(ErrorKind::Invalid, message));
            }
        }
    }
    let is_key = |oid: &u32| is_textual(*oid) && Parameter::array_of(*oid, &[]).is_some();
    let key_oid = row.type_oid(find(&query.key)?).filter(is_key);
    key_oid.ok_or_else(|| keys::unusable(&query.name, &query.key))
}

/// Whether rows can be locked, and deliveries counted.
async fn check_lock<C: Client>(inner: &Inner<C>) -> Result<()> {
    let one = || Parameter::new(1_i64);
    let statements = &inner.statements;
    let questions = [
        (Some(&statements.lock), "the base query", vec![one()], true),
        (statements.count.as_ref(), "the tracking", vec![one(), one()], true),
        (Some(&statements.outlook), "when the next row is due", vec![], false),
        (statements.exists.as_ref(), "whether the subscription exists", vec![], false),
    ];
    for (statement, what, after, locks) in questions {
        let Some(statement) = statement else { continue };
        let steps = plan(inner, statement, &inner.bound(after)).await.map_err(|error| refused(inner, what, error))?;
        if locks {
            ensure_locks(&inner.query.name, &steps)?;
        }
    }
    Ok(())
}

/// Refuses a plan that locks nothing: the server skips, and does not say so, what is no row of a table.
fn ensure_locks(name: &str, steps: &[impl Row]) -> Result<()> {
    let has = |what: &str| steps.iter().any(|step| step.get::<String>(0).is_ok_and(|step| step.contains(what)));
    // Nothing is locked either where there is nothing yet, as in a table without partitions.
    if has("LockRows") || has("One-Time Filter: false") {
        return Ok(());
    }
    let message = format!(
        "the base query of {name:?} selects no rows that can be locked; select from tables or their views, not from WITH, functions or values"
    );
    Err(Error::new(ErrorKind::Invalid, message))
}

/// Whether the statements of the answers can be planned, those of which the server can tell.
async fn check_commands<C: Client>(inner: &Inner<C>, key_oid: u32) -> Result<()> {
    const PLANNED: [&str; 6] = ["select", "insert", "update", "delete", "merge", "with"];
    let query = &inner.query;
    let no_text = || Parameter::nullable::<&str>(None);
    let commands = [
        (Some(&query.ok), "OK", vec![]),
        (query.requeue.as_ref(), "Requeue", vec![Parameter::nullable::<i64>(None), no_text()]),
        (query.reject.as_ref(), "Reject", vec![no_text()]),
    ];
    for (command, purpose, given) in commands {
        let Some(command) = command else { continue };
        let word = command.sql().split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
        if word == "call" {
            let message = format!(
                "the statement of {purpose} of {:?} is a procedure, which does not say how many rows it touches; select a function instead",
                query.name
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let keys = Parameter::array_of(key_oid, &[]).ok_or_else(|| keys::unusable(&query.name, &query.key))?;
        if PLANNED.contains(&&*word) {
            let statement = command.labelled(purpose, &keys);
            let bound = command.bound(std::iter::once(keys).chain(given));
            let what = format!("the statement of {purpose}");
            plan(inner, &statement, &bound).await.map_err(|error| refused(inner, &what, error))?;
        }
    }
    Ok(())
}

/// Lets the server plan a statement, which checks names, types and privileges, and runs nothing. Returns the steps.
async fn plan<C: Client>(inner: &Inner<C>, statement: &str, bound: &[Parameter]) -> Result<Vec<C::Row>, ClientError> {
    run(inner, &format!("explain {statement}"), bound).await
}

async fn run<C: Client>(inner: &Inner<C>, statement: &str, bound: &[Parameter]) -> Result<Vec<C::Row>, ClientError> {
    within_limit(inner.shared.client.query(statement, bound)).await
}

/// Waits for an answer within the time limit, for who looks into refusals.
async fn within_limit<T>(answer: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    let answer = tokio::time::timeout(TIME_LIMIT, answer).await;
    answer.unwrap_or_else(|elapsed| Err(ClientError::Lost(elapsed.into())))
}

/// What the server does not accept is the caller's to mend.
fn refused<C: Client>(inner: &Inner<C>, what: &str, error: ClientError) -> Error {
    match error {
        // Syntax and access rules (but privileges), what is not supported, and values that do not fit, or of another number.
        ClientError::Refused { code, message, source }
            if code != "42501" && ["42", "0A", "22", "08P01"].iter().any(|class| code.starts_with(class)) =>
        {
            let message = format!("{what} of {:?} cannot be used: {message}", inner.query.name);
            Error::new(ErrorKind::Invalid, message).with_source(source)
        }
        // Such as a number of values that the client has checked itself.
        ClientError::Unusable(source) => {
            let message = format!("{what} of {:?} cannot be used: {source}", inner.query.name);
            Error::new(ErrorKind::Invalid, message).with_source(source)
        }
        error => repeatable(error, inner.about()),
    }
}
