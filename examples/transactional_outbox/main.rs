//! What is left of a row and its message, and of an effect and its OK, when my process dies between any two steps?
//!
//! A shop takes orders: the row of an order and its message are one transaction. A ledger books them: its entry and the OK
//! are one transaction. Both are processes of their own, which this program starts again and again, and each time they die
//! between another two steps. In the end each order has one entry, and the books balance:
//!
//! ```text
//! cargo run --release --example transactional_outbox
//! cargo run --release --example transactional_outbox -- --driver sqlx
//! DATABASE_URL='postgres://me@localhost/test?sslmode=disable' cargo run --release --example transactional_outbox
//! ```
//!
//! Without `DATABASE_URL` it starts a server of its own that goes with the program. What is in a database that it is given
//! stays as it is: topic, subscription and the schema of the tables have a new name in every run (`transactional_outbox_…`),
//! and are deleted at the end unless the program is interrupted. The schema `pgqueue` is made if it is missing, and stays.
//!
//! The last line on stdout is a summary as JSON. The exit code is 1 if the books do not balance.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

mod service;
mod through_sqlx;
mod through_tokio_postgres;

use std::{
    env,
    process::{self, ExitCode, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use pgqueue_core::{Ack, BoxError, Job, Subscription, Topic, Worker, subscribe};
use pgqueue_examples::{database_url, name_of_this_run};
use pgqueue_postgres::Client;
use pgqueue_tokio_postgres::PgQueue;
use serde::Serialize;
use tokio::{process::Command, time::sleep};
use tokio_postgres::NoTls;

use crate::{
    service::{Order, Service, Step},
    through_sqlx::ThroughSqlx,
    through_tokio_postgres::ThroughTokioPostgres,
};

/// The variable that names the database, also to the processes that are started.
const DATABASE_URL: &str = "DATABASE_URL";

/// How many orders a shop takes that lives.
const ORDERS: i64 = 20;

/// With which order or entry a process dies that has to.
const LAST: usize = 3;

/// For how long nobody else gets what a process had that died.
const LEASE: Duration = Duration::from_secs(1);

const TABLES: &str = "
    create table orders (number bigint generated always as identity primary key, amount bigint not null);
    create table entry (id bigint generated always as identity primary key, number bigint not null, amount bigint not null);
";

const AUDIT: &str = "
    select
      (select count(*) from orders) as orders,
      (select count(*) from entry) as entries,
      (select count(*) from orders where number not in (select number from entry)) as missing,
      (select count(*) - count(distinct number) from entry) as repeated,
      (select coalesce(sum(amount), 0)::bigint from orders) as ordered,
      (select coalesce(sum(amount), 0)::bigint from entry) as booked
";

/// Takes and books orders in processes that die between any two steps.
#[derive(Parser)]
struct Options {
    /// The client that both processes use
    #[arg(long, value_enum, default_value_t = Driver::TokioPostgres)]
    driver: Driver,

    /// What a process does that this program started
    #[arg(long, value_enum, hide = true, requires = "name")]
    role: Option<Role>,

    /// The names of this run
    #[arg(long, hide = true)]
    name: Option<String>,

    /// After which step the process dies
    #[arg(long, value_enum, hide = true)]
    dies_after: Option<Step>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Driver {
    /// tokio-postgres
    TokioPostgres,
    /// sqlx
    Sqlx,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Shop,
    Ledger,
}

#[derive(Serialize)]
struct Summary {
    orders: i64,
    entries: i64,
    /// Orders without an entry.
    missing: i64,
    /// Entries beyond the first of an order.
    repeated: i64,
    /// What was ordered, and what was booked, in all.
    ordered: i64,
    booked: i64,
    /// How many processes died.
    deaths: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    match (options.role, &options.name) {
        (Some(role), Some(name)) => {
            work(role, &options, name).await?;
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            let summary = oversee(options.driver).await?;
            println!("{}", serde_json::to_string(&summary)?);
            let is_balanced = summary.missing == 0 && summary.repeated == 0 && summary.ordered == summary.booked;
            Ok(if is_balanced { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// Starts the processes, one after the other, and looks at the books in the end.
async fn oversee(driver: Driver) -> anyhow::Result<Summary> {
    let url = database_url(env::var(DATABASE_URL).ok()).await?;
    let name = name_of_this_run("transactional_outbox");
    let queue = PgQueue::connect(&url).await?;
    queue.migrate().await?;
    queue.create_topic(Topic::new(&name)).await?;
    queue.insert_subscription(&subscription(&name)).await?;
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute(&format!("create schema {name}; set search_path = {name}; {TABLES}")).await?;

    let run = async {
        let mut deaths = 0;
        for role in [Role::Shop, Role::Ledger] {
            for step in role.steps() {
                start(driver, role, &url, &name, Some(*step)).await?;
                deaths += 1;
            }
            start(driver, role, &url, &name, None).await?;
        }
        let row = client.query_one(AUDIT, &[]).await?;
        anyhow::Ok(Summary {
            orders: row.try_get("orders")?,
            entries: row.try_get("entries")?,
            missing: row.try_get("missing")?,
            repeated: row.try_get("repeated")?,
            ordered: row.try_get("ordered")?,
            booked: row.try_get("booked")?,
            deaths,
        })
    };
    let summary = run.await;
    let deleted = queue.delete_topic(&name).await;
    let dropped = client.batch_execute(&format!("drop schema {name} cascade")).await;
    let summary = summary?;
    deleted?;
    dropped?;
    Ok(summary)
}

fn subscription(name: &str) -> Subscription {
    Subscription::new(name, name).with_lease(LEASE)
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Shop => "shop",
            Self::Ledger => "ledger",
        }
    }

    /// After which it dies.
    fn steps(self) -> &'static [Step] {
        match self {
            Self::Shop => &[Step::Begun, Step::Written, Step::Told, Step::Committed],
            Self::Ledger => &[Step::Received, Step::Begun, Step::Written, Step::Told, Step::Committed],
        }
    }
}

/// Starts a process and waits for its end, which has to be as it should.
async fn start(driver: Driver, role: Role, url: &str, name: &str, dies_after: Option<Step>) -> anyhow::Result<()> {
    let driver = if driver == Driver::Sqlx { "sqlx" } else { "tokio-postgres" };
    let mut child = Command::new(env::current_exe()?);
    child.args(["--driver", driver, "--role", role.name(), "--name", name]).env(DATABASE_URL, url);
    if let Some(step) = dies_after {
        child.args(["--dies-after", step.name()]);
    }
    let status = child.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).status().await?;
    match dies_after {
        Some(step) => {
            ensure!(status.code().is_none(), "the {} was to die after {}: {status}", role.name(), step.name());
        }
        None => ensure!(status.success(), "the {} was to live: {status}", role.name()),
    }
    Ok(())
}

/// What a process does that was started.
async fn work(role: Role, options: &Options, name: &str) -> anyhow::Result<()> {
    let url = env::var(DATABASE_URL).with_context(|| format!("{DATABASE_URL} is not set"))?;
    match options.driver {
        Driver::TokioPostgres => {
            work_through(role, options.dies_after, name, &ThroughTokioPostgres::open(&url, name).await?).await
        }
        Driver::Sqlx => work_through(role, options.dies_after, name, &ThroughSqlx::open(&url, name).await?).await,
    }
}

async fn work_through(role: Role, dies_after: Option<Step>, name: &str, service: &impl Service) -> anyhow::Result<()> {
    let done = AtomicUsize::new(0);
    let after = |step: Step| {
        if Some(step) == dies_after && done.load(Ordering::Relaxed) + 1 == LAST {
            eprintln!("the {} dies after step {}", role.name(), step.name());
            process::abort(); // as if somebody had pulled the plug: nothing is closed, and nothing is given back
        }
        if step == Step::Committed {
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    match role {
        Role::Shop => {
            for amount in 1..=ORDERS {
                service.place(amount, &after).await?;
            }
            Ok(())
        }
        Role::Ledger => {
            let queue = service.queue();
            let stream = subscribe(queue.subscription(subscription(name))).await?.until(until_idle(queue, name));
            let book = async |job: Job<Order>| -> Result<Ack, BoxError> {
                after(Step::Received);
                let (order, delivery) = job.take_delivery()?;
                service.book(order, delivery, &after).await?;
                Ok(Ack::Ok) // counts for nothing, since the delivery is answered
            };
            Ok(Worker::new(stream, book).with_concurrency(1).run().await?)
        }
    }
}

/// How often to look whether all is booked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Resolves when a subscription has nothing left to do.
async fn until_idle<C: Client>(queue: &pgqueue_postgres::PgQueue<C>, name: &str) {
    loop {
        match queue.stats(name).await {
            Ok(stats) if stats.waiting + stats.in_flight + stats.retrying == 0 => return,
            Ok(_) => sleep(LOOK_EVERY).await,
            Err(error) => eprintln!("how the subscription stands is not known: {error}"),
        }
    }
}
