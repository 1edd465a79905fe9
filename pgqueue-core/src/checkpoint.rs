//! [`Checkpoint`]: how far somebody has come in a topic, under a name.

use std::time::SystemTime;

use async_trait::async_trait;

use crate::{Error, ErrorKind, Position, Result, limits::check_name};

/// How far somebody has come: all up to this position is done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive] // so that fields can be added
pub struct Checkpoint {
    /// The checkpoint's name: 1 to 255 bytes, unique in the queue. By custom that of the subscription.
    pub name: String,
    /// The last message that is done, with all before it.
    pub position: Position,
    /// When it came there, by the store's clock.
    pub moved_at: SystemTime,
}

impl Checkpoint {
    /// Makes a checkpoint, as drivers do that read one.
    pub fn new(name: impl Into<String>, position: Position, moved_at: SystemTime) -> Self {
        Self { name: name.into(), position, moved_at }
    }

    /// Checks a checkpoint's name, as stores do before they move it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], naming what cannot be used.
    pub fn validate_name(name: &str) -> Result<()> {
        check_name("checkpoint", name)
    }

    /// Checks that a checkpoint which stands `at` some position, if it exists, may be reset by somebody who thinks that it stands
    /// at `from`; every store says so in the same words.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] or [`ErrorKind::Conflict`].
    pub fn ensure_reset(name: &str, from: &Position, at: Option<&Position>) -> Result<()> {
        match at {
            Some(at) if at == from => Ok(()),
            Some(at) => {
                let message =
                    format!("checkpoint {name:?} stands at {at}, not at {from}; look at it again before moving it");
                Err(Error::new(ErrorKind::Conflict, message))
            }
            None => Err(Error::new(ErrorKind::NotFound, format!("checkpoint {name:?} does not exist"))),
        }
    }
}

/// Keeps checkpoints.
///
/// A subscription remembers by itself what is done. A checkpoint is for state that was made from messages and is kept
/// elsewhere, such as a table that can be rebuilt: it says which messages are in it. Where a driver can move it inside of
/// the transaction that changes that state, each message takes effect exactly once, though it may be delivered again.
///
/// It is cumulative, so it needs [stable total order](crate::Order::StableTotal): in any other, a message may still come whose
/// position is lower. A dead letter is passed over for good: when it is redriven the checkpoint is beyond it. So let the
/// subscription try for ever (`Backoff::default().with_max_attempts(u32::MAX)`) and reject nothing, or rebuild after a redrive.
///
/// # Rebuilding
/// 1. See that the topic retains all that is needed: [`Start::Beginning`](crate::Start::Beginning) is the beginning of what there is.
/// 2. Stop the subscription's consumers everywhere, and move it to its new start with the queue's `seek`. Whatever dies from
///    here on, the checkpoint still says what is done.
/// 3. Empty the state and reset the checkpoint, in one transaction where the driver can.
/// 4. Start the consumers.
///
/// ```
/// use pgqueue_core::{CheckpointStore, Result, Start};
///
/// /// Where whoever keeps `totals` goes on after a restart.
/// async fn start(store: &dyn CheckpointStore) -> Result<Start> {
///     let checkpoint = store.checkpoint("totals").await?;
///     Ok(checkpoint.map_or(Start::Beginning, |checkpoint| Start::After(checkpoint.position)))
/// }
/// ```
#[async_trait]
pub trait CheckpointStore: Send + Sync {
    /// Returns a checkpoint, if there is one of this name.
    ///
    /// # Errors
    /// What the store says.
    ///
    /// # Cancel safety
    /// The future changes nothing.
    async fn checkpoint(&self, name: &str) -> Result<Option<Checkpoint>>;

    /// Returns all checkpoints, by name.
    ///
    /// # Errors
    /// What the store says.
    ///
    /// # Cancel safety
    /// The future changes nothing.
    async fn checkpoints(&self) -> Result<Vec<Checkpoint>>;

    /// Moves a checkpoint forward, or makes it. Returns whether it moved: `false` says that it stands there already, or behind,
    /// so that what is at `position` was done before.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a name that cannot be used, or a position that is none in stable total order
    /// where the store can tell.
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome.
    async fn advance_checkpoint(&self, name: &str, position: &Position) -> Result<bool>;

    /// Moves a checkpoint to any position, also back, or deletes it for `None`, if it still stands where the caller thinks: so
    /// that nobody does it by accident, or twice.
    ///
    /// The messages come again once the subscription has been moved as well; stop its consumers before, as the next message that
    /// one handles moves the checkpoint forward again.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is none of this name, [`Conflict`](crate::ErrorKind::Conflict) if it
    /// does not stand at `from`; it stays as it is. As [`advance_checkpoint`](Self::advance_checkpoint) for `to`.
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome.
    async fn reset_checkpoint(&self, name: &str, from: &Position, to: Option<&Position>) -> Result<()>;
}
