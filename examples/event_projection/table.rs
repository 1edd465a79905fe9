//! The table: what each seismic network saw, as each projection knows it.

use pgqueue_examples::Earthquake;
use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction, postgres::PgConnectOptions};

const TABLE: &str = "
    create table by_network (
      projection text not null,
      network    text not null,
      events     bigint not null,
      strongest  float8 not null,
      latest     text not null,
      primary key (projection, network)
    )
";

/// What one network saw: its name, how many events, the strongest, and the latest place, which depends on their order.
pub(crate) type Row = (String, i64, f64, String);

/// Connections that find the table in its schema.
pub(crate) async fn connect(url: &str, schema: &str) -> anyhow::Result<PgPool> {
    let options = url.parse::<PgConnectOptions>()?.options([("search_path", schema)]);
    Ok(PgPool::connect_with(options).await?)
}

pub(crate) async fn create(pool: &PgPool, schema: &str) -> anyhow::Result<()> {
    sqlx::query(AssertSqlSafe(format!("create schema {schema}"))).execute(pool).await?;
    sqlx::query(TABLE).execute(pool).await?;
    Ok(())
}

pub(crate) async fn drop(pool: &PgPool, schema: &str) -> anyhow::Result<()> {
    sqlx::query(AssertSqlSafe(format!("drop schema {schema} cascade"))).execute(pool).await?;
    Ok(())
}

/// Counts an event.
pub(crate) async fn count(
    transaction: &mut Transaction<'_, Postgres>,
    projection: &str,
    event: &Earthquake,
) -> anyhow::Result<()> {
    const COUNT: &str = "
        insert into by_network as n (projection, network, events, strongest, latest) values ($1, $2, 1, $3, $4)
        on conflict (projection, network) do update
        set events = n.events + 1, strongest = greatest(n.strongest, excluded.strongest), latest = excluded.latest
    ";
    let count = sqlx::query(COUNT).bind(projection).bind(&event.net).bind(event.mag).bind(&event.place);
    count.execute(&mut **transaction).await?;
    Ok(())
}

/// How many events a projection has counted.
pub(crate) async fn events(pool: &PgPool, projection: &str) -> anyhow::Result<i64> {
    const EVENTS: &str = "select coalesce(sum(events), 0)::bigint from by_network where projection = $1";
    Ok(sqlx::query_scalar(EVENTS).bind(projection).fetch_one(pool).await?)
}

pub(crate) async fn rows(pool: &PgPool, projection: &str) -> anyhow::Result<Vec<Row>> {
    const ROWS: &str = "
        select network, events, strongest, latest from by_network where projection = $1 order by network
    ";
    Ok(sqlx::query_as(ROWS).bind(projection).fetch_all(pool).await?)
}
