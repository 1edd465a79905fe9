//! How do I work on the job table that I have already, and what happens when a worker dies?
//!
//! A team keeps its jobs in a table, as the Haskell framework IHP makes them: an id, a status, who has it locked and since when,
//! how often it was tried, when it is due, and the columns that it is about. Nothing of pgqueue's is installed. Three workers
//! share the jobs; one of them dies with a job in hand, which comes again once its lease is over. Some jobs fail at first, one is
//! refused, one always takes too long, and one is due only later. In the end each has its state, and none is left:
//!
//! ```text
//! cargo run --release --example existing_jobs_table
//! cargo run --release --example existing_jobs_table -- --driver sqlx
//! cargo run --release --example existing_jobs_table -- --database-url 'postgres://me@localhost/test?sslmode=disable'
//! ```
//!
//! Without a URL it starts a server of its own that goes with the program. What is in a database that it is given stays as it is:
//! the table is in a schema with a new name in every run (`existing_jobs_table_…`), which is dropped at the end unless the program
//! is interrupted.
//!
//! On stdout is the table of the final states, and on the last line how many there are of each, as JSON.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

mod team;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use futures::{TryStreamExt, try_join};
use pgqueue_core::{Ack, Backoff, BoxError, Job, Result, SubscriptionDriver, Worker, subscribe};
use pgqueue_examples::{database_url, name_of_this_run};
use pgqueue_postgres::{Client, JobTable, PgTables, TableName};
use pgqueue_sqlx::Sqlx;
use pgqueue_tokio_postgres::TokioPostgres;
use serde::Deserialize;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::team::Team;

/// How long a dead worker keeps its job. Real ones are longer.
const LEASE: Duration = Duration::from_secs(1);

/// How long one mail may take.
const TIMEOUT: Duration = Duration::from_millis(300);

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(40);

/// Sends the mails that a team's job table asks for.
#[derive(Parser)]
struct Options {
    /// The client to work with
    #[arg(long, value_enum, default_value_t = Driver::TokioPostgres)]
    driver: Driver,

    /// The database to work in, over connections without TLS [default: that of a private server]
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Driver {
    TokioPostgres,
    Sqlx,
}

/// A job: a row of the table, of which only these columns matter to the handler.
#[derive(Deserialize)]
struct SendMail {
    recipient: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Options { driver, database_url: url } = Options::parse();
    let url = database_url(url).await?;
    match driver {
        Driver::TokioPostgres => run::<TokioPostgres>(&url).await,
        Driver::Sqlx => run::<Sqlx>(&url).await,
    }
}

async fn run<C: Client>(url: &str) -> anyhow::Result<()> {
    let tables = PgTables::<C>::connect(url).await?;
    let team = Team { tables: &tables, schema: name_of_this_run("existing_jobs_table") };
    team.create_table().await?;
    let done = timeout(PATIENCE, work_on(&team)).await.context("jobs are left");
    let rows = team.final_states().await;
    team.drop_schema().await?;
    done??;

    let rows = rows?;
    println!("{:<10} {:<10} {:>8}  last error", "recipient", "status", "attempts");
    let mut states = BTreeMap::new();
    for [recipient, status, attempts, last_error] in &rows {
        println!("{recipient:<10} {status:<10} {attempts:>8}  {last_error}");
        *states.entry(status).or_insert(0) += 1;
    }
    println!("{}", serde_json::to_string(&states)?);
    Ok(())
}

async fn work_on<C: Client>(team: &Team<'_, C>) -> anyhow::Result<()> {
    // What is not said is as it usually is; all names can be set.
    let jobs = JobTable::new(TableName::new("send_mail_jobs").in_schema(&team.schema))
        .with_channel(team.channel())
        .with_lease(LEASE)
        .with_backoff(Backoff::fixed(Duration::from_millis(200)).with_max_attempts(3));

    let dying = Arc::new(team.tables.jobs(jobs.clone()));
    let mut deliveries = subscribe(Arc::clone(&dying)).await?;
    let Some(delivery) = deliveries.try_next().await? else { bail!("there are jobs") };
    eprintln!("worker 1 dies with the mail to {} in hand", delivery.decode::<SendMail>()?.recipient);
    dying.crash(); // as if its process were killed
    drop((delivery, deliveries));

    let all_done = watch::Sender::new(false);
    let worker = async |number: u32| {
        let mut stopped = all_done.subscribe();
        let stop = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
        send_mails(number, team.tables.jobs(jobs.clone()), stop).await.map_err(anyhow::Error::from)
    };
    let service = async {
        team.insert_more().await?;
        while team.unfinished().await? > 0 {
            sleep(Duration::from_millis(50)).await;
        }
        all_done.send_replace(true); // what runs is finished, and nothing new begins
        Ok(())
    };
    try_join!(worker(2), worker(3), service)?;
    Ok(())
}

/// One worker: four mails at a time.
async fn send_mails(number: u32, jobs: impl SubscriptionDriver, stop: impl Future<Output = ()> + Send) -> Result<()> {
    let handler = async |job: Job<SendMail>| {
        let attempt = job.message().attempt();
        let recipient = &job.value.recipient;
        match (recipient.as_str(), attempt) {
            ("Edsger", 1 | 2) => return Err(BoxError::from("the mail server is busy")),
            ("Mallory", _) => return Ok(Ack::reject("no such mailbox")),
            ("Zeno", _) => sleep(TIMEOUT * 2).await, // more than the worker allows
            _ => sleep(Duration::from_millis(20)).await,
        }
        eprintln!("worker {number} sends a mail to {recipient}, attempt {attempt}");
        Ok(Ack::Ok)
    };
    let deliveries = subscribe(jobs).await?.until(stop);
    Worker::new(deliveries, handler).with_concurrency(4).with_timeout(TIMEOUT).run().await
}
