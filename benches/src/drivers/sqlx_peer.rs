//! [`SqlxPeer`]: a connection of sqlx.

use anyhow::{Result, anyhow};
use sqlx::{Arguments as _, Connection as _, Executor as _, PgConnection, postgres::PgArguments};

use super::{Argument, Peer};

pub(crate) struct SqlxPeer {
    connection: PgConnection,
}

fn bind(arguments: &[Argument]) -> Result<PgArguments> {
    let mut bound = PgArguments::default();
    for argument in arguments {
        let added = match argument {
            Argument::Number(number) => bound.add(number),
            Argument::Numbers(numbers) => bound.add(numbers),
            Argument::Payload(payload) => bound.add(payload),
            Argument::Payloads(payloads) => bound.add(payloads),
        };
        added.map_err(|error| anyhow!("a parameter cannot be encoded: {error}"))?;
    }
    Ok(bound)
}

impl Peer for SqlxPeer {
    async fn connect(url: &str) -> Result<Self> {
        Ok(Self { connection: PgConnection::connect(url).await? })
    }

    async fn rows(&mut self, statement: &'static str, arguments: &[Argument]) -> Result<Vec<(i64, Vec<u8>)>> {
        Ok(sqlx::query_as_with(statement, bind(arguments)?).fetch_all(&mut self.connection).await?)
    }

    async fn execute(&mut self, statement: &'static str, arguments: &[Argument]) -> Result<u64> {
        let done = sqlx::query_with(statement, bind(arguments)?).execute(&mut self.connection).await?;
        Ok(done.rows_affected())
    }

    async fn script(&mut self, script: &'static str) -> Result<()> {
        self.connection.execute(sqlx::raw_sql(script)).await?;
        Ok(())
    }

    async fn copy_in(&mut self, statement: &'static str, data: Vec<u8>) -> Result<()> {
        let mut copy = self.connection.copy_in_raw(statement).await?;
        copy.send(data).await?;
        copy.finish().await?;
        Ok(())
    }
}
