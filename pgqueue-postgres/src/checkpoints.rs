//! Checkpoints, also moved inside of the caller's transaction.

use async_trait::async_trait;
use pgqueue_core::{Checkpoint, CheckpointStore, Position, Result};

use crate::{
    Client, Parameter, PgQueue, Row, Transaction,
    error::{About, unrepeatable},
    queue::{managing, noted},
    statement,
    value::RowExt,
};

impl<C: Client> PgQueue<C> {
    /// Moves a checkpoint forward inside of the caller's transaction: what the handler wrote and how far it has come commit
    /// together. Returns whether it moved; if not, the message was done before: leave it out.
    ///
    /// Whoever else moves the same checkpoint waits until the transaction has ended. Of a batch, call it for each message, and
    /// apply those for which it is true; `examples/event_projection` is a whole program. Answer the delivery with OK after the
    /// commit, or with [`ok_in`](Self::ok_in) in the same transaction.
    ///
    /// ```no_run
    /// # use pgqueue_core::{BoxError, Delivery};
    /// # use pgqueue_postgres::{Client, PgQueue, Transaction};
    /// # async fn apply<C: Client>(_: &mut impl Transaction<C>, _: &pgqueue_core::Message) -> Result<(), BoxError> { Ok(()) }
    /// // `transaction` is one of your client's; commit it afterwards, and answer the delivery with OK.
    /// async fn project<C: Client>(
    ///     queue: &PgQueue<C>,
    ///     transaction: &mut impl Transaction<C>,
    ///     delivery: &Delivery,
    /// ) -> Result<(), BoxError> {
    ///     for message in delivery.messages() {
    ///         if queue.advance_checkpoint_in(transaction, "totals", message.position()).await? {
    ///             apply(transaction, message).await?;
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`CheckpointStore::advance_checkpoint`].
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome, as far as the transaction commits.
    pub async fn advance_checkpoint_in(
        &self,
        transaction: &mut impl Transaction<C>,
        name: &str,
        position: &Position,
    ) -> Result<bool> {
        let advanced = async {
            let rows = transaction.query(statement::ADVANCE_CHECKPOINT, &advance(name, position)?).await;
            moved(&rows.map_err(|error| unrepeatable(error, About::Queue))?)
        };
        managing(advanced.await)
    }

    /// Moves a checkpoint to any position, also back, or deletes it for `None`, inside of the caller's transaction: so that what
    /// was made from the messages is emptied and made anew together with it.
    ///
    /// # Errors
    /// As [`CheckpointStore::reset_checkpoint`].
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome, as far as the transaction commits.
    pub async fn reset_checkpoint_in(
        &self,
        transaction: &mut impl Transaction<C>,
        name: &str,
        from: &Position,
        to: Option<&Position>,
    ) -> Result<()> {
        let reset = async {
            let rows = transaction.query(statement::RESET_CHECKPOINT, &reset(name, from, to)).await;
            was_reset(name, from, &rows.map_err(|error| unrepeatable(error, About::Queue))?)
        };
        managing(reset.await)
    }

    async fn find_checkpoints(&self, name: Option<&str>) -> Result<Vec<Checkpoint>> {
        let rows = self.shared().query(statement::CHECKPOINTS, &[Parameter::nullable(name)], About::Queue).await?;
        rows.iter()
            .map(|row| Ok(Checkpoint::new(row.get::<String>(0)?, Position::new(row.get::<String>(1)?), row.get(2)?)))
            .collect()
    }
}

/// The parameters of [`ADVANCE_CHECKPOINT`](statement::ADVANCE_CHECKPOINT), and what it answers.
fn advance(name: &str, position: &Position) -> Result<[Parameter; 2]> {
    Checkpoint::validate_name(name)?;
    Ok([Parameter::new(name), Parameter::new(position.as_str())])
}

fn moved<R: Row>(rows: &[R]) -> Result<bool> {
    rows.first().map_or(Ok(false), |row| row.get(0))
}

/// The parameters of [`RESET_CHECKPOINT`](statement::RESET_CHECKPOINT), and what it answers.
fn reset(name: &str, from: &Position, to: Option<&Position>) -> [Parameter; 3] {
    [Parameter::new(name), Parameter::new(from.as_str()), Parameter::nullable(to.map(Position::as_str))]
}

fn was_reset<R: Row>(name: &str, from: &Position, rows: &[R]) -> Result<()> {
    let at: Option<String> = rows.first().map_or(Ok(None), |row| row.read(0))?;
    Checkpoint::ensure_reset(name, from, at.map(Position::new).as_ref())
}

#[async_trait]
impl<C: Client> CheckpointStore for PgQueue<C> {
    async fn checkpoint(&self, name: &str) -> Result<Option<Checkpoint>> {
        Ok(managing(self.find_checkpoints(Some(name)).await)?.pop())
    }

    async fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        managing(self.find_checkpoints(None).await)
    }

    async fn advance_checkpoint(&self, name: &str, position: &Position) -> Result<bool> {
        let advanced = async {
            let parameters = advance(name, position)?;
            moved(&self.shared().query(statement::ADVANCE_CHECKPOINT, &parameters, About::Queue).await?)
        };
        let advanced = managing(advanced.await)?;
        if advanced {
            tracing::trace!(messaging.system = "pgqueue", name, "a checkpoint was advanced");
        }
        Ok(advanced)
    }

    async fn reset_checkpoint(&self, name: &str, from: &Position, to: Option<&Position>) -> Result<()> {
        let reset = async {
            let rows = self.shared().query(statement::RESET_CHECKPOINT, &reset(name, from, to), About::Queue).await?;
            was_reset(name, from, &rows)
        };
        noted(reset.await, "a checkpoint was reset", name)
    }
}
