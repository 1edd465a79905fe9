//! What the server can do without any queue: no queue on it can be faster.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::{BARE, INSERT_BARE};
use crate::{
    drivers::{Argument, Driver, Peer},
    harness::{Bare, Bench, Contender, Measurement, Sample, Sink, pour},
};

const INSERT_ONE: &str = "insert into bare (payload) values ($1)";
const COPY: &str = "copy bare (payload) from stdin (format binary)";
const RANGE: &str = "select id, payload from bare where id > $1 order by id limit 1000";
const RANGE_ROWS: usize = 1000;
const RANGES: usize = 50;

pub(crate) async fn run<D: Driver>(bench: &mut Bench) -> Result<()> {
    let (batch, size) = (bench.arguments.batch, bench.arguments.payload);
    let mut contenders = vec![
        Contender::new("insert by unnest", move |m| insert::<D>(m, batch, size)).with("batch", batch),
        Contender::new("copy", move |m| copy::<D>(m, batch, size)).with("batch", batch),
    ];
    contenders.extend([1, 8, 32].map(|clients| {
        Contender::new("insert of one row", move |m| insert_one::<D>(m, size, clients)).with("clients", clients)
    }));
    contenders.push(Contender::new("select of 1,000 rows", move |m| select::<D>(m, size)));
    contenders.push(Contender::new("begin; commit", move |m| round_trips::<D>(m, false)));
    contenders.push(Contender::new("select 1", move |m| round_trips::<D>(m, true)));
    bench.compare("ceilings", &contenders).await
}

async fn insert<D: Driver>(m: Measurement, batch: usize, size: usize) -> Result<Sample> {
    m.sql(BARE).await?;
    let sink = Bare { peer: m.peer::<D>().await?, insert: INSERT_BARE };
    let poured = pour(&m, vec![sink], batch, size, m.duration).await?;
    m.check_table("bare", poured.total).await?;
    Ok(poured.sample())
}

/// Inserts single rows.
struct One<P>(P);

impl<P: Peer> Sink for One<P> {
    async fn put(&mut self, payloads: Vec<Vec<u8>>) -> Result<()> {
        for payload in payloads {
            self.0.execute(INSERT_ONE, &[Argument::Payload(payload)]).await?;
        }
        Ok(())
    }
}

async fn insert_one<D: Driver>(m: Measurement, size: usize, clients: usize) -> Result<Sample> {
    m.sql(BARE).await?;
    let sinks = m.peers::<D>(clients).await?.into_iter().map(One).collect();
    let poured = pour(&m, sinks, 1, size, m.duration).await?;
    m.check_table("bare", poured.total).await?;
    Ok(poured.sample())
}

/// Copies rows in PostgreSQL's binary format.
struct Copy<P>(P);

impl<P: Peer> Sink for Copy<P> {
    async fn put(&mut self, payloads: Vec<Vec<u8>>) -> Result<()> {
        let mut data = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        for payload in payloads {
            data.extend_from_slice(&1_i16.to_be_bytes());
            data.extend_from_slice(&i32::try_from(payload.len())?.to_be_bytes());
            data.extend_from_slice(&payload);
        }
        data.extend_from_slice(&(-1_i16).to_be_bytes());
        self.0.copy_in(COPY, data).await
    }
}

async fn copy<D: Driver>(m: Measurement, batch: usize, size: usize) -> Result<Sample> {
    m.sql(BARE).await?;
    let poured = pour(&m, vec![Copy(m.peer::<D>().await?)], batch, size, m.duration).await?;
    m.check_table("bare", poured.total).await?;
    Ok(poured.sample())
}

async fn select<D: Driver>(m: Measurement, size: usize) -> Result<Sample> {
    m.sql(BARE).await?;
    m.load_table::<D>(INSERT_BARE, RANGES * RANGE_ROWS, size).await?;
    m.settle().await?;
    let mut peer = m.peer::<D>().await?;
    peer.rows(RANGE, &[Argument::Number(0)]).await?;
    let start = Instant::now();
    let mut rows = 0;
    while start.elapsed() < m.duration {
        let after = i64::try_from(rows % (RANGES * RANGE_ROWS))?;
        let found = peer.rows(RANGE, &[Argument::Number(after)]).await?;
        ensure!(found.len() == RANGE_ROWS, "{} rows instead of {RANGE_ROWS}", found.len());
        rows += found.len();
    }
    Ok(Sample::rate(rows, start.elapsed()))
}

/// Goes to the server and back, for nothing.
async fn round_trips<D: Driver>(m: Measurement, is_select: bool) -> Result<Sample> {
    let mut peer = m.peer::<D>().await?;
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < m.duration {
        if is_select {
            peer.execute("select 1", &[]).await?;
        } else {
            peer.script("begin; commit").await?;
        }
        count += 1;
    }
    Ok(Sample::rate(count, start.elapsed()))
}
