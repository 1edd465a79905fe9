//! How does a web service publish from its handlers, consume in the background, say how it is, and stop gracefully?
//!
//! `POST /orders` publishes an order, a worker in the same process handles it, and `GET /health` says how the queue stands:
//!
//! ```text
//! cargo run --release --example axum_service
//! curl --json '{"customer": "Ada", "amount": 5}' http://127.0.0.1:3000/orders
//! curl http://127.0.0.1:3000/health
//! ```
//!
//! SIGTERM and Ctrl-C stop it: no more requests are taken, nothing more is consumed, and what is being handled may finish, for as
//! long as `--deadline` allows; what does not finish waits for the next process. `--driver sqlx` uses the other client, and
//! `DATABASE_URL` names a database, in which the topic `orders`, its subscription `mailer` and the schema `pgqueue` are made if
//! they are missing, and stay. Without it a server of its own is started that goes with the program.
#![allow(clippy::print_stderr, reason = "a program talks to its user")]

mod mailer;
mod order;
mod web;

use std::{env, net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use pgqueue_core::{Subscription, Topic, subscribe};
use pgqueue_examples::{Signals, database_url};
use pgqueue_postgres::{Client, PgQueue};
use pgqueue_sqlx::Sqlx;
use pgqueue_tokio_postgres::TokioPostgres;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

/// Where orders are published, and who consumes them.
const TOPIC: &str = "orders";
const SUBSCRIPTION: &str = "mailer";

/// Takes orders over HTTP and handles them in the background.
#[derive(Parser)]
struct Options {
    /// The PostgreSQL client
    #[arg(long, value_enum, default_value_t = Driver::TokioPostgres)]
    driver: Driver,

    /// Where to listen; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,

    /// How long handling an order takes, in milliseconds
    #[arg(long, value_name = "M", default_value_t = 20)]
    handle_ms: u64,

    /// For how long what is being handled may go on after a signal, in seconds
    #[arg(long, value_name = "S", default_value_t = 10)]
    deadline: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Driver {
    /// tokio-postgres
    TokioPostgres,
    /// sqlx
    Sqlx,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    match options.driver {
        Driver::TokioPostgres => serve::<TokioPostgres>(options).await,
        Driver::Sqlx => serve::<Sqlx>(options).await,
    }
}

async fn serve<C: Client>(options: Options) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?; // from here on a signal no longer kills
    let queue = PgQueue::<C>::connect(&database_url(env::var("DATABASE_URL").ok()).await?).await?;
    queue.migrate().await?;
    queue.create_topic(Topic::new(TOPIC)).await?;
    let stream = subscribe(queue.subscription(Subscription::new(SUBSCRIPTION, TOPIC))).await?;
    let listener =
        TcpListener::bind(options.listen).await.with_context(|| format!("listening on {}", options.listen))?;
    eprintln!("listening on http://{}", listener.local_addr()?);

    let stop = CancellationToken::new();
    let web = axum::serve(listener, web::router(queue)).with_graceful_shutdown(stop.clone().cancelled_owned());
    let mailing = mailer::run(stream.until(stop.clone().cancelled_owned()), Duration::from_millis(options.handle_ms));
    let serving = async {
        let (served, mailed) = tokio::join!(
            async {
                let served = web.await;
                stop.cancel(); // one goes with the other
                served
            },
            async {
                let mailed = mailing.await;
                stop.cancel();
                mailed
            }
        );
        served?;
        anyhow::Ok(mailed?)
    };
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => {
            ended?; // nobody asked it to
            return Ok(ExitCode::SUCCESS);
        }
        () = signals.next() => eprintln!("stopping: what is being handled may finish"),
    }
    stop.cancel();
    match timeout(Duration::from_secs(options.deadline), serving).await {
        Ok(ended) => {
            ended?;
            eprintln!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        Err(_) => {
            eprintln!("the deadline is over: what is not finished waits for the next process");
            Ok(ExitCode::FAILURE)
        }
    }
}
