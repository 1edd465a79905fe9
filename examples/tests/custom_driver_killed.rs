//! The driver of the example `custom_driver` when its process is killed, which the conformance kit cannot do.
#![allow(dead_code, reason = "the driver is all there, and this test needs only part of it")]

#[path = "../custom_driver/files.rs"]
mod files;
mod program;
#[path = "../custom_driver/spool.rs"]
mod spool;
#[path = "../custom_driver/store.rs"]
mod store;

use std::{env, future::pending, path::Path, process::Stdio};

use futures::StreamExt;
use pgqueue_core::{Delivery, PublisherExt, Subscription, Topic, subscribe};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::{program::soon, store::Spool};

/// Tells the child where the spool is.
const SPOOL: &str = "PGQUEUE_TEST_SPOOL";
const HOLDING: &str = "holding a delivery";

async fn next(directory: &Path) -> Delivery {
    let spool = Spool::open(directory).unwrap();
    let mut stream = subscribe(spool.subscription(Subscription::new("host", "guests"))).await.unwrap();
    soon("a delivery comes", stream.next()).await.unwrap().unwrap()
}

#[tokio::test]
async fn message_of_a_killed_process_comes_again() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path()).unwrap();
    spool.create_topic(&Topic::new("guests")).unwrap();
    spool.insert(&Subscription::new("host", "guests")).await.unwrap();
    spool.publish_json("guests", "Ada").await.unwrap();

    for _ in 0..2 {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "hold_a_delivery", "--ignored", "--nocapture"]).env(SPOOL, directory.path());
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        soon(HOLDING, async { while !lines.next_line().await.unwrap().unwrap().ends_with(HOLDING) {} }).await;
        child.kill().await.unwrap();
    }
    let delivery = next(directory.path()).await;
    assert_eq!(delivery.message().attempt(), 3, "both deliveries that were killed count");
    delivery.ok().await.unwrap();
}

/// What the killed process does.
#[tokio::test]
#[ignore = "no test, but a part of another"]
#[allow(clippy::print_stdout, reason = "its parent waits for it")]
async fn hold_a_delivery() {
    let Some(directory) = env::var_os(SPOOL) else { return };
    let _delivery = next(directory.as_ref()).await;
    println!("{HOLDING}");
    pending::<()>().await;
}
