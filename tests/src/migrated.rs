//! Databases with the queue's schema.

use anyhow::Result;
use pgqueue_postgres::{Client, PgQueue};
use pgqueue_testserver::{Database, test_server};
use tokio::sync::OnceCell;

/// Creates a database with the queue's schema, as a copy of one that was migrated once: a migration takes longer than most tests.
///
/// # Errors
/// What kept the first from being made, or a copy.
pub async fn migrated<C: Client>() -> Result<Database> {
    const COPIED: &str = "migrated";
    static MADE: OnceCell<()> = OnceCell::const_new();
    let make = async || {
        let server = test_server().await?;
        server.create_database(COPIED).await?;
        PgQueue::<C>::connect(&server.url(COPIED)).await?.migrate().await?;
        // Nobody may be connected to what is copied.
        let leave = format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{COPIED}'");
        server.sql("postgres", &leave).await?;
        anyhow::Ok(())
    };
    MADE.get_or_try_init(make).await?;
    Ok(Database::copy_of(COPIED).await?)
}
