//! [`Peer`]: one connection of a client, with statements that it prepares once.

use anyhow::{Result, anyhow};
use pgqueue_postgres::ClientError;

/// A connection for statements that are written by hand.
pub(crate) trait Peer: Sized + Send + Sync + 'static {
    fn connect(url: &str) -> impl Future<Output = Result<Self>> + Send;

    /// Runs a statement and returns its rows: a number and a payload each.
    fn rows(
        &mut self,
        statement: &'static str,
        arguments: &[Argument],
    ) -> impl Future<Output = Result<Vec<(i64, Vec<u8>)>>> + Send;

    /// Runs a statement without rows and returns how many it changed.
    fn execute(&mut self, statement: &'static str, arguments: &[Argument]) -> impl Future<Output = Result<u64>> + Send;

    /// Runs what has no parameters and no rows, by the simple protocol.
    fn script(&mut self, script: &'static str) -> impl Future<Output = Result<()>> + Send;

    /// Copies what is in PostgreSQL's binary format.
    fn copy_in(&mut self, statement: &'static str, data: Vec<u8>) -> impl Future<Output = Result<()>> + Send;
}

/// A parameter.
pub(crate) enum Argument {
    Number(i64),
    Numbers(Vec<i64>),
    Payload(Vec<u8>),
    Payloads(Vec<Vec<u8>>),
}

/// The client's own error.
pub(super) fn of_client(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Unreachable(source)
        | ClientError::PoolExhausted(source)
        | ClientError::Lost(source)
        | ClientError::Refused { source, .. }
        | ClientError::Unusable(source) => anyhow!(source),
    }
}
