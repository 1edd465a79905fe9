//! [`TokioPostgresPeer`]: a connection of tokio-postgres.

use std::{collections::HashMap, pin::pin};

use anyhow::Result;
use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::{Client, NoTls, Statement, types::ToSql};

use super::{Argument, Peer};

pub(crate) struct TokioPostgresPeer {
    client: Client,
    prepared: HashMap<&'static str, Statement>,
}

impl TokioPostgresPeer {
    async fn prepare(&mut self, statement: &'static str) -> Result<Statement> {
        if let Some(prepared) = self.prepared.get(statement) {
            return Ok(prepared.clone());
        }
        let prepared = self.client.prepare(statement).await?;
        Ok(self.prepared.entry(statement).or_insert(prepared).clone())
    }
}

fn bind_one(argument: &Argument) -> &(dyn ToSql + Sync) {
    match argument {
        Argument::Number(number) => number,
        Argument::Numbers(numbers) => numbers,
        Argument::Payload(payload) => payload,
        Argument::Payloads(payloads) => payloads,
    }
}

fn bind(arguments: &[Argument]) -> Vec<&(dyn ToSql + Sync)> {
    arguments.iter().map(bind_one).collect()
}

impl Peer for TokioPostgresPeer {
    async fn connect(url: &str) -> Result<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection); // its errors are those of the calls
        Ok(Self { client, prepared: HashMap::new() })
    }

    async fn rows(&mut self, statement: &'static str, arguments: &[Argument]) -> Result<Vec<(i64, Vec<u8>)>> {
        let statement = self.prepare(statement).await?;
        let rows = self.client.query(&statement, &bind(arguments)).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    async fn execute(&mut self, statement: &'static str, arguments: &[Argument]) -> Result<u64> {
        let statement = self.prepare(statement).await?;
        Ok(self.client.execute(&statement, &bind(arguments)).await?)
    }

    async fn script(&mut self, script: &'static str) -> Result<()> {
        Ok(self.client.batch_execute(script).await?)
    }

    async fn copy_in(&mut self, statement: &'static str, data: Vec<u8>) -> Result<()> {
        let statement = self.prepare(statement).await?;
        let mut sink = pin!(self.client.copy_in(&statement).await?);
        sink.send(Bytes::from(data)).await?;
        sink.finish().await?;
        Ok(())
    }
}
