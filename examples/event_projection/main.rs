//! How do I keep a table that is made from events, so that each event counts exactly once, whatever dies?
//!
//! A week of earthquakes is a log. A projector reads it from the beginning, in stable total order, and keeps a table of what
//! each seismic network saw. It commits the effect of each event together with its checkpoint, and dies on purpose: once
//! before a commit, and once between a commit and the acknowledgement. Others go on after the checkpoint. In the end the
//! table must be the one that an undisturbed projector makes:
//!
//! ```text
//! cargo run --release --example event_projection
//! cargo run --release --example event_projection -- --database-url 'postgres://me@localhost/test?sslmode=disable'
//! ```
//!
//! Without a URL it starts a server of its own that goes with the program. What is in a database that it is given stays as
//! it is: topic, subscriptions, checkpoints and the schema of the table have a new name in every run (`event_projection_…`), and
//! are deleted at the end unless the program is interrupted. The schema `pgqueue` is made if it is missing, and stays.
//!
//! The last line on stdout is a summary as JSON.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

mod projector;
mod table;

use std::env;

use anyhow::{Context, ensure};
use clap::Parser;
use futures::TryStreamExt;
use pgqueue_core::{CheckpointStore, ErrorKind, Publisher, Retention, Topic};
use pgqueue_examples::{BUNDLED, database_url, name_of_this_run, read_messages};
use pgqueue_sqlx::PgQueue;
use serde::Serialize;
use sqlx::PgPool;
use tokio::process::Command;

use crate::projector::{Death, Projector};

/// Keeps a table that is made from events, by projectors that are killed, and compares it with an undisturbed one.
#[derive(Parser)]
struct Options {
    /// The database to work in [default: that of a private server]
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,

    /// Be one projector, as the program does for each of its own
    #[command(subcommand)]
    projector: Option<Role>,
}

#[derive(clap::Subcommand)]
enum Role {
    #[command(hide = true)]
    Projector(Projector),
}

#[derive(Serialize)]
struct Summary {
    events: i64,
    networks: usize,
    /// How many projectors died.
    deaths: usize,
    /// How many events the table had when each died, by what was committed.
    committed: Vec<i64>,
    /// Whether both tables are the same.
    same: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if let Some(Role::Projector(projector)) = options.projector {
        return projector.run(&options.database_url.context("a projector needs a --database-url")?).await;
    }
    let url = database_url(options.database_url).await?;
    let name = name_of_this_run("event_projection");
    let queue = PgQueue::connect(&url).await?;
    queue.migrate().await?;
    queue.create_topic(Topic::new(&name).with_retention(Retention::everything())).await?;
    let pool = table::connect(&url, &name).await?;
    table::create(&pool, &name).await?;

    let done = run(&url, &name, &queue, &pool).await;
    let cleaned = clean_up(&queue, &pool, &name).await;
    println!("{}", serde_json::to_string(&done?)?);
    cleaned
}

async fn run(url: &str, name: &str, queue: &PgQueue, pool: &PgPool) -> anyhow::Result<Summary> {
    let messages: Vec<_> = read_messages(BUNDLED).try_collect::<Vec<_>>().await?.into_iter().flatten().collect();
    let events = i64::try_from(messages.len())?;
    queue.publish(name, messages).await?;

    let killed = Projector::new(name, "killed", events);
    let mut committed = Vec::new();
    for (death, at) in [(Death::BeforeCommit, events / 3), (Death::AfterCommit, events * 2 / 3)] {
        let status = spawn(url, &killed.clone().that_dies(death, at)).await?;
        ensure!(!status.success(), "the projector should have died");
        committed.push(table::events(pool, &killed.name).await?);
        eprintln!(
            "a projector died {death} when it had seen {at} events; the table has {}",
            committed[committed.len() - 1]
        );
    }
    ensure!(spawn(url, &killed).await?.success(), "the last projector failed");

    let undisturbed = Projector::new(name, "undisturbed", events);
    ensure!(spawn(url, &undisturbed).await?.success(), "the undisturbed projector failed");

    let rows = table::rows(pool, &killed.name).await?;
    let same = rows == table::rows(pool, &undisturbed.name).await?;
    let events = table::events(pool, &killed.name).await?;
    Ok(Summary { events, networks: rows.len(), deaths: committed.len(), committed, same })
}

/// Runs a projector in a process of its own.
async fn spawn(url: &str, projector: &Projector) -> anyhow::Result<std::process::ExitStatus> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["--database-url", url]).args(projector.arguments()).kill_on_drop(true);
    Ok(command.status().await?)
}

async fn clean_up(queue: &PgQueue, pool: &PgPool, name: &str) -> anyhow::Result<()> {
    queue.delete_topic(name).await?;
    for checkpoint in queue.checkpoints().await? {
        if checkpoint.name.starts_with(name) {
            let forgotten = queue.reset_checkpoint(&checkpoint.name, &checkpoint.position, None).await;
            ensure!(!forgotten.is_err_and(|error| error.kind() != ErrorKind::NotFound), "a checkpoint moved");
        }
    }
    table::drop(pool, name).await
}
