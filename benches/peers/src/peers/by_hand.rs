//! A table with `FOR UPDATE SKIP LOCKED`, whose publishers notify and whose consumers listen and look.

use std::{future::poll_fn, sync::Arc};

use anyhow::{Context, Result};
use futures::{StreamExt, channel::mpsc, future::try_join_all};
use pgqueue_bench::{Measurement, Sink, Tally, number};
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client, NoTls, Statement};

use crate::peer::{Peer, Style};

const TABLE: &str = "create table jobs (id bigint generated always as identity primary key, payload bytea not null)";

const INSERT: &str = "
    with inserted as (insert into jobs (payload) select * from unnest($1::bytea[]))
    select pg_notify('jobs', '')";

const TAKE: &str = "
    delete from jobs where id = (select id from jobs order by id limit 1 for update skip locked)
    returning payload";

pub(crate) struct ByHand {
    url: String,
}

pub(crate) struct Inserter {
    client: Client,
    insert: Statement,
}

pub(crate) struct Listener {
    client: Client,
    take: Statement,
    bells: mpsc::UnboundedReceiver<()>,
    tally: Arc<Tally>,
}

impl Listener {
    async fn open(url: &str, tally: Arc<Tally>) -> Result<Self> {
        let (client, mut connection) = tokio_postgres::connect(url, NoTls).await?;
        let (ring, bells) = mpsc::unbounded();
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notification(_) = message {
                    ring.unbounded_send(()).ok();
                }
            }
        });
        client.batch_execute("listen jobs").await?;
        let take = client.prepare(TAKE).await?;
        Ok(Self { client, take, bells, tally })
    }

    async fn work(mut self) -> Result<()> {
        loop {
            while let Some(row) = self.client.query_opt(&self.take, &[]).await? {
                self.tally.arrived(number(row.try_get(0)?)?);
                self.tally.settled(1);
            }
            let tally = Arc::clone(&self.tally);
            tokio::select! {
                bell = self.bells.next() => bell.context("the connection is gone")?,
                () = tally.complete() => return Ok(()),
            }
        }
    }
}

impl Peer for ByHand {
    type Sink = Inserter;
    type Ready = Vec<Listener>;
    type Working = Vec<JoinHandle<Result<()>>>;

    const LEFT: &'static str = "select count(*) from jobs";

    async fn set_up(m: &Measurement) -> Result<Self> {
        m.sql(TABLE).await?;
        Ok(Self { url: m.url() })
    }

    async fn sink(&self) -> Result<Inserter> {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
        tokio::spawn(connection); // its errors are those of the calls
        let insert = client.prepare(INSERT).await?;
        Ok(Inserter { client, insert })
    }

    async fn consumers(&self, count: usize, _: Style, tally: Arc<Tally>) -> Result<Vec<Listener>> {
        try_join_all((0..count).map(|_| Listener::open(&self.url, Arc::clone(&tally)))).await
    }

    async fn start(listeners: Vec<Listener>) -> Result<Self::Working> {
        Ok(listeners.into_iter().map(|listener| tokio::spawn(listener.work())).collect())
    }

    async fn stop(working: Self::Working) -> Result<()> {
        try_join_all(working).await?.into_iter().collect()
    }
}

impl Sink for Inserter {
    async fn put(&mut self, payloads: Vec<Vec<u8>>) -> Result<()> {
        self.client.query(&self.insert, &[&payloads]).await?;
        Ok(())
    }
}
