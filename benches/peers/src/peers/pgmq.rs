//! pgmq's SQL, as its crate installs it, called through tokio-postgres.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use pgmq::PGMQueueExt;
use pgqueue_bench::{Measurement, Sink, Tally};
use sqlx_09::postgres::PgPoolOptions;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, Statement};

use crate::{
    job::Job,
    peer::{ByKey, Peer, Style},
};

const SEND: &str = "
    select pgmq.send_batch('bench', array(select convert_from(payload, 'UTF8')::jsonb from unnest($1::bytea[]) payload))";

const READ: &str = "select msg_id, message::text from pgmq.read('bench', 30, $1)";

/// The next of several keys, of which nobody has read an earlier one and not deleted it.
const READ_BY_KEY: &str = "select msg_id, message::text from pgmq.read_grouped('bench', 30, $1)";

const SEND_BY_KEY: &str = "
    select pgmq.send_batch(
      'bench', array(select convert_from(payload, 'UTF8')::jsonb from unnest($1::bytea[]) payload),
      array(select jsonb_build_object('x-pgmq-group', key) from unnest($2::text[]) key))";

const INDEX: &str = "select pgmq.create_fifo_index('bench')";

const DELETE: &str = "select count(*) from pgmq.delete('bench', $1::bigint[])";

/// The pause before looking again, by default and at best.
const PAUSE: Duration = Duration::from_millis(100);
const SHORT_PAUSE: Duration = Duration::from_millis(10);

pub(crate) struct Pgmq {
    url: String,
}

pub(crate) struct Sender {
    client: Client,
    send: Statement,
}

pub(crate) struct Reader {
    client: Client,
    read: Statement,
    delete: Statement,
    /// How many messages it takes at a time.
    most: i32,
    pause: Duration,
    tally: Arc<Tally>,
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection); // its errors are those of the calls
    Ok(client)
}

impl Reader {
    async fn work(self) -> Result<()> {
        while !self.tally.is_complete() {
            let rows = self.client.query(&self.read, &[&self.most]).await?;
            if rows.is_empty() {
                tokio::time::sleep(self.pause).await;
                continue;
            }
            let mut ids = Vec::with_capacity(rows.len());
            for row in &rows {
                ids.push(row.try_get::<_, i64>(0)?);
                self.tally.arrived(Job::parse(row.try_get::<_, &str>(1)?.as_bytes())?.n);
            }
            let deleted: i64 = self.client.query_one(&self.delete, &[&ids]).await?.try_get(0)?;
            ensure!(deleted == i64::try_from(ids.len())?, "a lease was lost");
            self.tally.settled(ids.len());
        }
        Ok(())
    }
}

impl Peer for Pgmq {
    type Sink = Sender;
    type Ready = Vec<Reader>;
    type Working = Vec<JoinHandle<Result<()>>>;

    const LEFT: &'static str = "select count(*) from pgmq.q_bench";

    async fn set_up(m: &Measurement) -> Result<Self> {
        let pool = PgPoolOptions::new().max_connections(1).connect(&m.url()).await?;
        PGMQueueExt::new_with_pool(pool).await.install_sql_from_embedded().await?;
        m.sql("select pgmq.create('bench')").await?;
        Ok(Self { url: m.url() })
    }

    async fn sink(&self) -> Result<Sender> {
        let client = connect(&self.url).await?;
        let send = client.prepare(SEND).await?;
        Ok(Sender { client, send })
    }

    async fn consumers(&self, count: usize, style: Style, tally: Arc<Tally>) -> Result<Vec<Reader>> {
        if style == Style::ByKey {
            connect(&self.url).await?.batch_execute(INDEX).await?;
        }
        let read = if style == Style::ByKey { READ_BY_KEY } else { READ };
        let (most, pause) = match style {
            Style::Default | Style::Once => (1, PAUSE),
            Style::Best | Style::ByKey => (100, SHORT_PAUSE),
        };
        let reader = |_| async {
            let client = connect(&self.url).await?;
            let (read, delete) = (client.prepare(read).await?, client.prepare(DELETE).await?);
            anyhow::Ok(Reader { client, read, delete, most, pause, tally: Arc::clone(&tally) })
        };
        try_join_all((0..count).map(reader)).await
    }

    async fn start(readers: Vec<Reader>) -> Result<Self::Working> {
        Ok(readers.into_iter().map(|reader| tokio::spawn(reader.work())).collect())
    }

    async fn stop(working: Self::Working) -> Result<()> {
        try_join_all(working).await?.into_iter().collect()
    }
}

impl Sink for Sender {
    async fn put(&mut self, payloads: Vec<Vec<u8>>) -> Result<()> {
        self.client.query(&self.send, &[&payloads]).await?;
        Ok(())
    }
}

impl ByKey for Pgmq {
    async fn put_keyed(&self, messages: Vec<(&str, Vec<u8>)>) -> Result<()> {
        let (keys, payloads): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
        connect(&self.url).await?.query(SEND_BY_KEY, &[&payloads, &keys]).await?;
        Ok(())
    }
}
