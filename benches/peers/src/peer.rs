//! [`Peer`]: a queue that a user could pick instead.

use std::sync::Arc;

use anyhow::Result;
use pgqueue_bench::{Measurement, Sink, Tally};

/// How a peer is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// As it comes.
    Default,
    /// As it comes, in the way that works off what is there and ends, if it has one.
    Once,
    /// As its documentation says it is fastest.
    Best,
    /// The same where messages have keys and come in their order.
    ByKey,
}

/// A queue in a database of its own.
pub(crate) trait Peer: Sized + Send + Sync + 'static {
    type Sink: Sink;
    /// Consumers that are ready to begin.
    type Ready: Send;
    /// Consumers at work.
    type Working: Send;

    /// SQL that counts the messages without a durable answer.
    const LEFT: &'static str;

    /// Creates what it needs in the database.
    fn set_up(m: &Measurement) -> impl Future<Output = Result<Self>> + Send;

    /// Makes a publisher.
    fn sink(&self) -> impl Future<Output = Result<Self::Sink>> + Send;

    /// Prepares so many consumers, which note in the tally what arrives and what they have answered.
    fn consumers(
        &self,
        count: usize,
        style: Style,
        tally: Arc<Tally>,
    ) -> impl Future<Output = Result<Self::Ready>> + Send;

    fn start(ready: Self::Ready) -> impl Future<Output = Result<Self::Working>> + Send;

    fn stop(working: Self::Working) -> impl Future<Output = Result<()>> + Send;
}

/// A queue that hands out the messages of a key one after the other.
pub(crate) trait ByKey: Peer {
    /// Publishes messages, each with its key.
    fn put_keyed(&self, messages: Vec<(&str, Vec<u8>)>) -> impl Future<Output = Result<()>> + Send;
}
