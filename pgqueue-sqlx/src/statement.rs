//! Running a statement on a connection.

use pgqueue_postgres::Parameter;
use sqlx::{
    Arguments as _, AssertSqlSafe, Connection as _, Encode, Error, PgConnection, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgArguments, PgDatabaseError, PgTypeInfo, types::Oid},
};

use crate::SqlxRow;

/// Runs a statement: prepared once for the connection if it is `persistent`; else unnamed, which takes two round trips
/// and a session that stays the same between them.
///
/// An unnamed statement must not return a type that sqlx does not know, such as `regclass`, `xid8` or `pg_lsn`: sqlx looks
/// it up in the catalogue before it goes on, and the server forgets the unnamed statement over that.
pub(crate) async fn run(
    connection: &mut PgConnection,
    statement: &str,
    parameters: &[Parameter],
    persistent: bool,
) -> Result<Vec<SqlxRow>, Error> {
    let query = sqlx::query_with(AssertSqlSafe(statement), bind(parameters)?).persistent(persistent);
    Ok(query.fetch_all(connection).await?.into_iter().map(SqlxRow).collect())
}

/// As [`run`], of a statement of which only matters how many rows it affects.
pub(crate) async fn execute(
    connection: &mut PgConnection,
    statement: &str,
    parameters: &[Parameter],
    persistent: bool,
) -> Result<u64, Error> {
    let query = sqlx::query_with(AssertSqlSafe(statement), bind(parameters)?).persistent(persistent);
    Ok(query.execute(connection).await?.rows_affected())
}

fn bind(parameters: &[Parameter]) -> Result<PgArguments, Error> {
    let mut arguments = PgArguments::default();
    for parameter in parameters {
        arguments.add(Raw(parameter)).map_err(Error::Encode)?;
    }
    Ok(arguments)
}

/// Runs a statement that is prepared once for the connection.
pub(crate) async fn run_prepared(
    connection: &mut PgConnection,
    statement: &str,
    parameters: &[Parameter],
) -> Result<Vec<SqlxRow>, Error> {
    match run(connection, statement, parameters, true).await {
        Err(error) if is_stale(&error) => {
            connection.clear_cached_statements().await?;
            run(connection, statement, parameters, true).await
        }
        answer => answer,
    }
}

/// Returns whether a prepared statement was refused, before it did anything, as the session has forgotten it or its result has
/// other columns since.
fn is_stale(error: &Error) -> bool {
    let refusal = error.as_database_error().and_then(|refusal| refusal.try_downcast_ref::<PgDatabaseError>());
    refusal.is_some_and(|refusal| refusal.code() == "26000" || refusal.routine() == Some("RevalidateCachedQuery"))
}

/// Runs a statement in a transaction of its own, which holds it to one session.
pub(crate) async fn run_in_transaction(
    connection: &mut PgConnection,
    statement: &str,
    parameters: &[Parameter],
) -> Result<Vec<SqlxRow>, Error> {
    let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
    let rows = run(&mut transaction, statement, parameters, false).await?;
    transaction.commit().await?;
    Ok(rows)
}

/// A parameter as it is. Types that go by their OID need no look into the catalogue.
struct Raw<'a>(&'a Parameter);

impl Type<Postgres> for Raw<'_> {
    /// Is not asked: [`produces`](Encode::produces) knows better.
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(0))
    }
}

impl Encode<'_, Postgres> for Raw<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Ok(match self.0.value() {
            Some(value) => {
                buffer.extend_from_slice(value);
                IsNull::No
            }
            None => IsNull::Yes,
        })
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.0.type_oid())))
    }

    fn size_hint(&self) -> usize {
        self.0.value().map_or(0, <[u8]>::len)
    }
}
