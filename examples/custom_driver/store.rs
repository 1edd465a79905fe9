//! The spool itself: topics, subscriptions, publishing, and what was given up.
//!
//! ```text
//! new/                             what is being written or removed
//! last_id                          locked by whoever publishes, subscribes or unsubscribes
//! topics/<topic>                   the topic's name
//! subscriptions/<subscription>/    one message a file, and `identity`: its name and its topic's
//! ```
//! Names of topics and subscriptions may hold anything; their files are called by the names' SHA-256.

use std::{
    fs::{self, File},
    io::{
        self,
        ErrorKind::{AlreadyExists, NotADirectory, NotFound},
        Read, Seek, Write,
    },
    ops::Range,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use async_trait::async_trait;
use pgqueue_core::{
    DeadLetter, Error, ErrorKind, MessageId, NewMessage, Order, Publisher, Result, Subscription, Topic,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::{sync::watch, task::spawn_blocking};

use crate::{
    files::{Mailbox, Name, State, failed, now, sync},
    spool::SpoolSubscription,
};

/// A queue in a directory.
#[derive(Clone)]
pub(crate) struct Spool {
    root: PathBuf,
    /// Rings when something may have become ready. Other processes have bells of their own.
    pub(crate) bell: watch::Sender<()>,
}

/// What a subscription is for as long as it exists.
#[derive(Serialize, Deserialize)]
struct Identity {
    name: String,
    topic: String,
}

impl Spool {
    /// Opens the spool in this directory, or makes one.
    pub(crate) fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        for directory in ["new", "topics", "subscriptions"] {
            fs::create_dir_all(root.join(directory)).map_err(failed)?;
        }
        Ok(Self { root, bell: watch::Sender::default() })
    }

    pub(crate) fn create_topic(&self, topic: &Topic) -> Result<()> {
        topic.validate()?;
        self.put(topic.name().as_bytes(), &self.topic(topic.name())).map_err(failed)
    }

    /// Makes a consumer of a subscription.
    pub(crate) fn subscription(&self, options: Subscription) -> SpoolSubscription {
        let mailbox = self.mailbox(options.name());
        SpoolSubscription { spool: self.clone(), options, mailbox }
    }

    pub(crate) async fn insert(&self, wanted: &Subscription) -> Result<()> {
        let (spool, wanted) = (self.clone(), wanted.clone());
        let inserted = spawn_blocking(move || spool.insert_now(&wanted)).await; // whoever has the lock may take its time
        inserted.map_err(|error| failed(io::Error::other(error))).flatten()
    }

    fn insert_now(&self, wanted: &Subscription) -> Result<()> {
        wanted.validate()?;
        if wanted.order() != Order::Unordered || wanted.batch() != 1 {
            return Err(Error::new(ErrorKind::Invalid, "a spool knows neither order nor batches"));
        }
        self.check_topic(wanted.topic())?;
        let identity = Identity { name: wanted.name().to_owned(), topic: wanted.topic().to_owned() };
        let insert = || {
            let _locked = self.lock()?;
            let dir = self.mailbox(wanted.name()).dir;
            fs::create_dir_all(&dir)?;
            sync(&self.root.join("subscriptions"))?;
            self.put(&serde_json::to_vec(&identity)?, &dir.join("identity"))?;
            Identity::read(&dir)
        };
        let existing: Identity = insert().map_err(failed)?;
        Subscription::new(existing.name, existing.topic).ensure_same_identity(wanted)
    }

    pub(crate) fn unsubscribe(&self, subscription: &str) -> Result<()> {
        let mailbox = self.mailbox(subscription);
        let unsubscribe = || {
            let _locked = self.lock()?;
            let trash = tempfile::tempdir_in(self.root.join("new"))?;
            fs::rename(&mailbox.dir, trash.path().join("subscription"))?; // gone at once, removed at leisure
            sync(&self.root.join("subscriptions"))
        };
        unsubscribe().map_err(|error| mailbox.failed(error))
    }

    pub(crate) fn dead_letters(&self, subscription: &str) -> Result<Vec<DeadLetter>> {
        let mailbox = self.mailbox(subscription);
        let topic = Identity::read(&mailbox.dir).map_err(|error| mailbox.failed(error))?.topic;
        let letter = |name| {
            let reason = mailbox.path(name, State::Reason);
            let died_at = fs::metadata(&reason).and_then(|file| file.modified()).unwrap_or(UNIX_EPOCH);
            let reason = fs::read_to_string(reason).unwrap_or_default(); // whoever buried it died as well
            Ok(DeadLetter::new(mailbox.read(name, State::Dead, &topic)?, reason, died_at))
        };
        mailbox.list(State::Dead)?.into_iter().map(letter).collect()
    }

    /// Hands all dead letters of a subscription out again and returns how many there were.
    pub(crate) fn redrive(&self, subscription: &str) -> Result<usize> {
        let mailbox = self.mailbox(subscription);
        let dead = mailbox.list(State::Dead)?;
        for name in &dead {
            let again = mailbox.path(Name::new(name.id), State::Ready);
            fs::rename(mailbox.path(*name, State::Dead), again).map_err(|error| mailbox.failed(error))?;
            fs::remove_file(mailbox.path(*name, State::Reason)).ok();
        }
        self.bell.send_replace(());
        Ok(dead.len())
    }

    fn topic(&self, name: &str) -> PathBuf {
        self.root.join("topics").join(file_name(name))
    }

    fn check_topic(&self, name: &str) -> Result<()> {
        if self.topic(name).exists() { Ok(()) } else { Err(Error::topic_not_found(name)) }
    }

    fn mailbox(&self, subscription: &str) -> Mailbox {
        let dir = self.root.join("subscriptions").join(file_name(subscription));
        Mailbox { dir, subscription: subscription.to_owned() }
    }

    /// Locks out everybody else who publishes, subscribes or unsubscribes, until the file is dropped.
    fn lock(&self) -> io::Result<File> {
        let path = self.root.join("last_id");
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        file.lock()?;
        Ok(file)
    }
}

#[async_trait]
impl Publisher for Spool {
    async fn publish(&self, topic: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>> {
        messages.iter().try_for_each(check)?;
        self.check_topic(topic)?;
        let (spool, topic) = (self.clone(), topic.to_owned());
        let published = spawn_blocking(move || spool.write(&topic, &messages)).await;
        let ids = published.map_err(io::Error::other).flatten().map_err(failed)?;
        self.bell.send_replace(());
        Ok(ids)
    }
}

impl Spool {
    /// Writes each message once for each subscription: a lock on one's file must not be a lock on the other's.
    ///
    /// All is on disk before any of it can be seen. A crash between two renames, though, or a disk too full even for names,
    /// publishes only the first messages.
    fn write(&self, topic: &str, messages: &[NewMessage]) -> io::Result<Vec<MessageId>> {
        let mut locked = self.lock()?;
        let ids = next_ids(&mut locked, messages.len() as u64)?;
        let mailboxes = self.mailboxes_of(topic)?;
        let mut files = Vec::new();
        for mailbox in &mailboxes {
            for (id, message) in ids.clone().zip(messages) {
                files.push((self.new_file(message.payload())?, mailbox.path(Name::new(id), State::Ready)));
            }
        }
        for (file, path) in files {
            file.persist(path)?;
        }
        mailboxes.iter().try_for_each(|mailbox| sync(&mailbox.dir))?;
        Ok(ids.map(|id| MessageId::new(id.to_string())).collect())
    }

    fn mailboxes_of(&self, topic: &str) -> io::Result<Vec<Mailbox>> {
        let mut mailboxes = Vec::new();
        for dir in fs::read_dir(self.root.join("subscriptions"))? {
            let dir = dir?.path();
            match Identity::read(&dir) {
                Ok(identity) if identity.topic == topic => mailboxes.push(Mailbox { dir, subscription: identity.name }),
                Err(error) if !matches!(error.kind(), NotFound | NotADirectory) => return Err(error),
                _ => {} // of another topic, of somebody who died half-way through inserting it, or none of ours
            }
        }
        Ok(mailboxes)
    }

    /// Writes a file under its name at once, unless there is one.
    fn put(&self, content: &[u8], path: &Path) -> io::Result<()> {
        match self.new_file(content)?.persist_noclobber(path) {
            Err(error) if error.error.kind() != AlreadyExists => Err(error.error),
            _ => path.parent().map_or(Ok(()), sync),
        }
    }

    /// Writes a file, durably, that has no name yet.
    fn new_file(&self, content: &[u8]) -> io::Result<NamedTempFile> {
        let mut file = NamedTempFile::new_in(self.root.join("new"))?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        Ok(file)
    }
}

impl Identity {
    fn read(dir: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(dir.join("identity"))?)?)
    }
}

/// Refuses what a spool cannot keep.
fn check(message: &NewMessage) -> Result<()> {
    message.validate()?;
    if *message != NewMessage::new(message.payload().clone()) {
        let problem = "a spool keeps payloads only: no key, kind, tags, headers, dedup id or delay";
        return Err(Error::new(ErrorKind::Invalid, problem));
    }
    Ok(())
}

/// The ids of so many new messages: the time, but each greater than any before.
fn next_ids(locked: &mut File, count: u64) -> io::Result<Range<u64>> {
    let mut last = String::new();
    locked.read_to_string(&mut last)?;
    let first = now().max(last.parse::<u64>().unwrap_or(0).saturating_add(1));
    let ids = first..first + count;
    locked.rewind()?;
    write!(locked, "{:020}", ids.end)?;
    locked.sync_data()?;
    Ok(ids)
}

fn file_name(name: &str) -> String {
    format!("{:x}", Sha256::digest(name))
}
