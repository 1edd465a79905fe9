//! The driver of the example `custom_driver`, as the conformance kit sees it.

#[path = "../custom_driver/files.rs"]
mod files;
#[path = "../custom_driver/spool.rs"]
mod spool;
#[path = "../custom_driver/store.rs"]
mod store;

use std::{
    fs, io,
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use pgqueue_conformance::{Capabilities, Harness};
use pgqueue_core::{
    DeadLetter, Error, ErrorKind, MessageId, NewMessage, Publisher, Result, Subscription, SubscriptionDriver, Topic,
};
use tempfile::TempDir;

use crate::store::Spool;

const CAPABILITIES: Capabilities = Capabilities::new()
    .with_explicit_topics()
    .with_concurrent()
    .with_durable()
    .with_attempts()
    .with_dead_letters()
    .with_unsubscribe()
    .with_readable_store();

fn main() -> ExitCode {
    pgqueue_conformance::main("spool", CAPABILITIES, async || {
        let harness: Box<dyn Harness> = Box::new(Directory::new().map_err(files::failed)?);
        Ok(harness)
    })
}

/// A spool in a directory of its own, opened anew for each who works with it, as by another process.
struct Directory(Mutex<TempDir>);

impl Directory {
    fn new() -> io::Result<Self> {
        Ok(Self(Mutex::new(tempfile::tempdir()?)))
    }

    fn spool(&self) -> Result<Spool> {
        Spool::open(self.0.lock().unwrap_or_else(PoisonError::into_inner).path())
    }
}

#[async_trait]
impl Harness for Directory {
    async fn create_topic(&self, topic: Topic) -> Result<()> {
        self.spool()?.create_topic(&topic)
    }

    async fn driver(&self, subscription: Subscription) -> Result<Arc<dyn SubscriptionDriver>> {
        Ok(Arc::new(self.spool()?.subscription(subscription)))
    }

    async fn publish(&self, topic: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>> {
        self.spool()?.publish(topic, messages).await
    }

    /// What is on disk goes elsewhere, so that whoever holds a lock on it holds none there.
    async fn reopen(&self) -> Result<()> {
        let elsewhere = tempfile::tempdir().map_err(files::failed)?;
        let mut directory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        copy(directory.path(), elsewhere.path()).map_err(files::failed)?;
        *directory = elsewhere;
        Ok(())
    }

    async fn unsubscribe(&self, subscription: &str) -> Result<()> {
        self.spool()?.unsubscribe(subscription)
    }

    async fn dead_letters(&self, subscription: &str) -> Result<Vec<DeadLetter>> {
        self.spool()?.dead_letters(subscription)
    }

    async fn redrive(&self, subscription: &str) -> Result<usize> {
        self.spool()?.redrive(subscription)
    }

    async fn stored_payload(&self, id: &MessageId) -> Result<String> {
        let directory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = find(&directory.path().join("subscriptions"), id.as_str()).map_err(files::failed)?;
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("message {id} is in no file")))
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for file in fs::read_dir(from)? {
        let file = file?;
        let to = to.join(file.file_name());
        if file.file_type()?.is_dir() {
            fs::create_dir(&to)?;
            copy(&file.path(), &to)?;
        } else {
            fs::copy(file.path(), to)?;
        }
    }
    Ok(())
}

/// The content of a file whose name has this in it.
fn find(directory: &Path, name: &str) -> io::Result<Option<String>> {
    for file in fs::read_dir(directory)? {
        let file = file?;
        if file.file_type()?.is_dir() {
            if let Some(found) = find(&file.path(), name)? {
                return Ok(Some(found));
            }
        } else if file.file_name().to_string_lossy().contains(name) {
            return fs::read_to_string(file.path()).map(Some);
        }
    }
    Ok(None)
}
