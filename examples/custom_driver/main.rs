//! How do I write a driver for a store of my own?
//!
//! The driver is in `spool.rs`, and its store, a directory, in `store.rs` and `files.rs`. This program shows it at work;
//! that it keeps every promise is shown by the conformance kit, in `tests/custom_driver.rs`:
//!
//! ```text
//! cargo run --release --example custom_driver
//! cargo test --test custom_driver
//! ```
#![allow(clippy::print_stdout, reason = "a program talks to its user")]

mod files;
mod spool;
mod store;

use std::time::Duration;

use futures::TryStreamExt;
use pgqueue_core::{Ack, Backoff, PublisherExt, Subscription, Topic, subscribe};

use crate::store::Spool;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let spool = Spool::open(directory.path())?;
    spool.create_topic(&Topic::new("guests"))?;
    let host = Subscription::new("host", "guests").with_backoff(Backoff::fixed(Duration::from_millis(100)));
    let mut stream = subscribe(spool.subscription(host.clone())).await?;

    for guest in ["Ada", "Edsger", "Mallory"] {
        spool.publish_json("guests", guest).await?;
    }
    if let Some(delivery) = stream.try_next().await? {
        println!("{}: dropped", delivery.decode::<String>()?);
    }
    drop(stream);

    println!("the spool is opened again, as by another process");
    let spool = Spool::open(directory.path())?;
    let mut stream = subscribe(spool.subscription(host)).await?;
    let mut expected = 3;
    while expected > 0 {
        let Some(delivery) = stream.try_next().await? else { break };
        let guest: String = delivery.decode()?;
        let attempt = delivery.message().attempt();
        let answer = match (&*guest, attempt) {
            ("Mallory", _) => Ack::reject("not invited"),
            ("Edsger", 1) => Ack::requeue(),
            _ => Ack::Ok,
        };
        println!("{guest}, attempt {attempt}: {answer:?}");
        expected -= i32::from(!matches!(answer, Ack::Requeue(_)));
        delivery.settle(answer).await?;
    }

    for letter in spool.dead_letters("host")? {
        println!("{} was given up: {}", letter.message.json::<String>()?, letter.reason);
    }
    println!("{} message is handed out again, but the subscription ends here", spool.redrive("host")?);
    spool.unsubscribe("host")?;
    Ok(())
}
