//! Migrations: bring the schema to the version that this binary knows.

use pgqueue_core::{Error, Result};

use crate::{
    Client, ClientError,
    error::{About, MISSING_PRIVILEGE, repeatable},
    value::RowExt,
};

/// The version of the schema that this binary was made for.
pub(crate) const VERSION: i32 = 1;

/// What brings the schema from one version to the next: the first makes version 1 of nothing. Each is one transaction, and
/// notes its version last.
const MIGRATIONS: [&str; VERSION as usize] = [concat!(
    include_str!("../sql/tables.sql"),
    include_str!("../sql/era.sql"),
    include_str!("../sql/publish.sql"),
    include_str!("../sql/select.sql"),
    include_str!("../sql/claim.sql"),
    include_str!("../sql/settle.sql"),
    include_str!("../sql/owner.sql"),
    include_str!("../sql/upkeep.sql"),
    include_str!("../sql/pulse.sql"),
    include_str!("../sql/manage.sql"),
    include_str!("../sql/checkpoint.sql"),
    include_str!("../sql/rebase.sql"),
    include_str!("../sql/stats.sql"),
    include_str!("../sql/privileges.sql"),
    "insert into pgqueue.era (number, system) values (0, pgqueue.here());",
    "insert into pgqueue.migration (version) values (1);",
)];

/// Excludes other migrations, and gives up rather than make others wait behind a lock that it cannot get. Whatever the session
/// searches first, names mean the server's own.
const BEGIN: &str = "
    set local search_path = pg_catalog, pg_temp;
    set local lock_timeout = '5s';
    select pg_advisory_xact_lock(hashtextextended('pgqueue.migrate', 0));
";

/// Brings the schema to [`VERSION`] and by `further` migrations beyond, whatever it is now, and leaves a newer one as it is.
pub(crate) async fn migrate<C: Client>(client: &C, further: &[&str]) -> Result<()> {
    loop {
        let version = version(client).await?;
        let done = usize::try_from(version).unwrap_or(0);
        let Some(migration) = MIGRATIONS.iter().chain(further).nth(done) else { break };
        let target = version + 1;
        // A migration that others have done meanwhile fails on what it would make, and the version says so.
        if let Err(error) = client.run_script(&[BEGIN, migration].concat()).await
            && !self::version(client).await.is_ok_and(|version| version >= target)
        {
            return Err(explained(error, target));
        }
    }
    rebase(client).await
}

/// Begins another era if the database was restored from another server.
async fn rebase<C: Client>(client: &C) -> Result<()> {
    const IS_ELSEWHERE: &str = "select pgqueue.is_elsewhere()";
    const REBASE: &str = "select pgqueue.rebase()";
    let ask = async |statement| client.query(statement, &[]).await.map_err(|error| repeatable(error, About::Queue));
    if ask(IS_ELSEWHERE).await?.first().map_or(Ok(false), |row| row.get(0))? {
        ask(REBASE).await?;
        tracing::warn!("the queue's database was restored from another server; its cursors now speak of this one");
    }
    Ok(())
}

/// The version of the schema; 0 if there is none.
async fn version<C: Client>(client: &C) -> Result<i32> {
    const EXISTS: &str = "select pg_catalog.to_regclass('pgqueue.migration') is not null";
    const VERSION: &str = "select coalesce(pg_catalog.max(version), 0) from pgqueue.migration";
    let ask = async |statement| client.query(statement, &[]).await.map_err(|error| repeatable(error, About::Queue));
    let exists = ask(EXISTS).await?;
    if !exists.first().map_or(Ok(false), |row| row.get::<bool>(0))? {
        return Ok(0);
    }
    ask(VERSION).await?.first().map_or(Ok(0), |row| row.get(0))
}

fn explained(error: ClientError, target: i32) -> Error {
    let remedy = match &error {
        ClientError::Refused { code, .. } if code == MISSING_PRIVILEGE => {
            "; migrate as the owner of the schema, or for a new one as a role with CREATE on the database"
        }
        _ => "",
    };
    let outcome = match &error {
        ClientError::Lost(_) => "was interrupted, and is done as a whole or not at all",
        _ => "failed, and it is as before",
    };
    let error = repeatable(error, About::Queue);
    let message = format!("bringing the schema \"pgqueue\" to version {target} {outcome}: {error}{remedy}");
    Error::new(error.kind(), message).with_transient(error.is_transient()).with_source(error)
}
