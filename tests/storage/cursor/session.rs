//! [`Session`]: one connection, and the call that is under way in it.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::deed::Deed;

/// The rows of an answer, as text.
pub(crate) type Rows = Vec<Vec<Option<String>>>;

pub(crate) struct Session {
    client: Arc<Client>,
    pub(crate) pid: i32,
    pub(crate) call: Option<Call>,
}

/// What is under way.
pub(crate) struct Call {
    pub(crate) deed: Deed,
    pub(crate) answer: JoinHandle<Result<Rows, String>>,
}

impl Session {
    pub(crate) async fn open(url: &str) -> Self {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let mut session = Self { client: Arc::new(client), pid: 0, call: None };
        session.pid =
            session.ask("set synchronous_commit = off; set jit = off; select pg_backend_pid()").await.unwrap()[0][0]
                .as_ref()
                .unwrap()
                .parse()
                .unwrap();
        session
    }

    /// Runs statements and waits for their end.
    pub(crate) async fn ask(&self, sql: &str) -> Result<Rows, String> {
        ask(&self.client, sql).await
    }

    /// Runs statements beside.
    pub(crate) fn start(&mut self, deed: Deed, sql: String) {
        let client = Arc::clone(&self.client);
        let answer = tokio::spawn(async move { ask(&client, &sql).await });
        self.call = Some(Call { deed, answer });
    }
}

async fn ask(client: &Client, sql: &str) -> Result<Rows, String> {
    let messages = client.simple_query(sql).await.map_err(|error| {
        let detail =
            error.as_db_error().map_or_else(String::new, |error| format!(" ({})", error.where_().unwrap_or("")));
        let said = error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string);
        format!("{said}{detail}: {sql}")
    })?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|n| row.get(n).map(str::to_owned)).collect()),
        _ => None,
    });
    Ok(rows.collect())
}
