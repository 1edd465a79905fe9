//! How messages lie on disk, for those who publish, consume and bury them.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use pgqueue_core::{Error, ErrorKind, Message, MessageId, NewMessage, Position, Result};

/// The directory of one subscription. Each message in it is a file that holds the payload; its name says the rest.
#[derive(Clone)]
pub(crate) struct Mailbox {
    pub(crate) dir: PathBuf,
    pub(crate) subscription: String,
}

/// What a message's file is called, before the extension that is its [`State`]. Times are in microseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    /// When it may be handed out. The first field, so that names sort by it.
    pub(crate) due: u64,
    /// When it was published, and no other message.
    pub(crate) id: u64,
    /// How many attempts were made of which none succeeded.
    pub(crate) failed: u32,
    /// When it was handed out for the last of these.
    pub(crate) delivered: u64,
    /// When it came back from the last of these.
    pub(crate) requeued: u64,
}

#[derive(Clone, Copy)]
pub(crate) enum State {
    /// Waiting to be due and claimed.
    Ready,
    /// In somebody's hands.
    Claimed,
    /// Given up.
    Dead,
    /// Not the message, but why it is dead.
    Reason,
}

impl Mailbox {
    pub(crate) fn path(&self, name: Name, state: State) -> PathBuf {
        let Name { due, id, failed, delivered, requeued } = name;
        self.dir.join(format!("{due}-{id}-{failed}-{delivered}-{requeued}")).with_extension(state.extension())
    }

    /// The messages in a state, those first that are due first.
    pub(crate) fn list(&self, state: State) -> Result<Vec<Name>> {
        let files = fs::read_dir(&self.dir).map_err(|error| self.failed(error))?;
        let mut names: Vec<_> = files.filter_map(|file| Name::parse(&file.ok()?.path(), state)).collect();
        names.sort();
        Ok(names)
    }

    /// Reads a message, as it is on its next attempt.
    pub(crate) fn read(&self, name: Name, state: State, topic: &str) -> Result<Message> {
        let payload = fs::read(self.path(name, state)).map_err(|error| self.failed(error))?;
        let time = |micros| UNIX_EPOCH + Duration::from_micros(micros);
        let last = |micros| (name.failed > 0).then(|| time(micros));
        // Twenty digits, so that positions compare as texts.
        let (id, position) = (MessageId::new(name.id.to_string()), Position::new(format!("{:020}", name.id)));
        Ok(Message::new(id, position, topic, NewMessage::new(payload), time(name.id))
            .with_attempt(name.failed + 1)
            .with_last_delivered_at(last(name.delivered))
            .with_last_requeued_at(last(name.requeued)))
    }

    /// What it means that something failed: if a message is gone, somebody else has it.
    pub(crate) fn failed(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::NotFound if self.dir.exists() => Error::lease_lost(&self.subscription),
            io::ErrorKind::NotFound => Error::subscription_not_found(&self.subscription),
            _ => failed(error),
        }
    }
}

impl Name {
    /// A message that is due and was never handed out.
    pub(crate) fn new(id: u64) -> Self {
        Self { due: now(), id, failed: 0, delivered: 0, requeued: 0 }
    }

    fn parse(file: &Path, state: State) -> Option<Self> {
        if file.extension()? != state.extension() {
            return None;
        }
        let mut numbers = file.file_stem()?.to_str()?.split('-').map(|number| number.parse::<u64>().ok());
        let mut next = || numbers.next()?;
        let (due, id, failed) = (next()?, next()?, next()?.try_into().ok()?);
        Some(Self { due, id, failed, delivered: next()?, requeued: next()? })
    }
}

impl State {
    fn extension(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Claimed => "claimed",
            Self::Dead => "dead",
            Self::Reason => "reason",
        }
    }
}

/// Makes durable which files a directory has.
pub(crate) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// The time, in microseconds since 1970.
pub(crate) fn now() -> u64 {
    micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// When so much time has passed, in microseconds since 1970.
pub(crate) fn after(delay: Duration) -> u64 {
    now().saturating_add(micros(delay))
}

fn micros(time: Duration) -> u64 {
    time.as_micros().try_into().unwrap_or(u64::MAX)
}

pub(crate) fn failed(error: io::Error) -> Error {
    Error::new(ErrorKind::Query, "the file system refused").with_source(error)
}
