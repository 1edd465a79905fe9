//! [`Client`]: the seam between the queue and a PostgreSQL client.

use std::fmt;

use async_trait::async_trait;
use pgqueue_core::BoxError;

use crate::Parameter;

/// A PostgreSQL client: what you implement to run the queue over one that has no driver crate yet.
///
/// The queue hands it SQL with parameters and takes rows back; it never asks for a queue operation. Values travel in
/// PostgreSQL's binary format, which the queue writes and reads itself, so that an implementation only moves bytes.
///
/// # Contract
/// - A statement is one round trip where the client can do it, and leaves nothing in its session but prepared statements;
///   behind a pooler in transaction mode, not even those.
/// - Connections that the client opens itself run in READ COMMITTED, whatever the database's default.
/// - No connection whose answer is still outstanding goes back to a pool: a dropped call closes its connection.
#[async_trait]
pub trait Client: Send + Sync + 'static {
    /// A row as the client gives it.
    type Row: Row;

    /// A transaction that has its connection to itself.
    type Transaction: OwnedTransaction<Row = Self::Row>;

    /// Connects to `url`, as the client's own documentation says.
    ///
    /// # Errors
    /// [`ClientError::Unusable`] for a URL or a TLS mode that cannot be used. Whether the server is reached at once is up
    /// to the client.
    async fn connect(url: &str) -> Result<Self, ClientError>
    where
        Self: Sized;

    /// Runs one statement in a transaction of its own and returns its rows.
    async fn query(&self, statement: &str, parameters: &[Parameter]) -> Result<Vec<Self::Row>, ClientError>;

    /// Runs a script of several statements by the simple protocol, in one transaction of its own.
    async fn run_script(&self, script: &str) -> Result<(), ClientError>;

    /// Begins a transaction at READ COMMITTED, on a connection that is its own until it ends.
    async fn begin(&self) -> Result<Self::Transaction, ClientError>;

    /// Returns how many connections there may be at a time, besides those that listen.
    fn max_connections(&self) -> usize;

    /// Opens a connection of its own for notifications, outside of any pool; `None` if this client only polls.
    async fn open_listener(&self) -> Result<Option<Box<dyn ListenerConnection>>, ClientError>;
}

/// A transaction of the caller, in which the queue's work becomes part of theirs.
///
/// Driver crates implement it for their client's own transaction types.
#[async_trait]
pub trait Transaction<C: Client>: Send {
    /// Runs one statement in the transaction and returns its rows.
    async fn query(&mut self, statement: &str, parameters: &[Parameter]) -> Result<Vec<C::Row>, ClientError>;
}

/// A transaction that has its connection to itself, such as one that lasts as long as a delivery.
///
/// # Contract
/// - Dropping it rolls back and spawns nothing. Its connection is closed, not given back to a pool.
/// - A dropped call leaves it unusable for anything but being dropped.
#[async_trait]
pub trait OwnedTransaction: Send + Sync + Sized + 'static {
    /// A row as the client gives it.
    type Row: Row;

    /// Runs one statement in the transaction and returns its rows.
    async fn query(&mut self, statement: &str, parameters: &[Parameter]) -> Result<Vec<Self::Row>, ClientError>;

    /// Runs one statement in the transaction and returns how many rows it affected.
    async fn execute(&mut self, statement: &str, parameters: &[Parameter]) -> Result<u64, ClientError>;

    /// Commits, and gives the connection back.
    async fn commit(self) -> Result<(), ClientError>;

    /// Rolls back, and gives the connection back.
    async fn rollback(self) -> Result<(), ClientError>;
}

/// A row of a result: columns in PostgreSQL's binary format.
pub trait Row: Send + Sync + 'static {
    /// Returns the bytes of a column, counted from 0; `None` for NULL and for a column that is not there.
    fn column(&self, index: usize) -> Option<&[u8]>;

    /// Returns the index of the first column of this name, if there is one.
    fn find(&self, name: &str) -> Option<usize>;

    /// Returns the OID of a column's type, of a domain that of the type below it; `None` for a column that is not there.
    fn type_oid(&self, index: usize) -> Option<u32>;
}

/// A connection that listens.
#[async_trait]
pub trait ListenerConnection: Send {
    /// Listens on a channel, whose name is taken literally; in force once this returns.
    async fn listen(&mut self, channel: &str) -> Result<(), ClientError>;

    /// Ends listening on a channel.
    async fn unlisten(&mut self, channel: &str) -> Result<(), ClientError>;

    /// Goes to the server and back, to see whether the connection lives. Returns on how many channels its session listens, for
    /// which [`LISTENING`] asks: fewer than it was told to, if something between reset it.
    async fn ping(&mut self) -> Result<i64, ClientError>;

    /// Waits for the next notification. Notifications that arrive during another call are kept.
    ///
    /// # Cancel safety
    /// Dropping the future loses no notification.
    async fn next(&mut self) -> Result<Notification, ClientError>;
}

/// Asks how many channels a session listens on; for [`ListenerConnection::ping`].
pub const LISTENING: &str = "select count(*) from pg_listening_channels()";

/// What a `NOTIFY` sent.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive] // so that fields can be added
pub struct Notification {
    /// The channel.
    pub channel: String,
    /// What was sent along; often empty.
    pub payload: String,
}

impl Notification {
    /// Makes a notification. For authors of clients.
    pub fn new(channel: impl Into<String>, payload: impl Into<String>) -> Self {
        Self { channel: channel.into(), payload: payload.into() }
    }
}

impl fmt::Debug for Notification {
    /// Shows everything but the payload, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channel, payload } = self;
        f.debug_struct("Notification").field("channel", channel).field("payload_bytes", &payload.len()).finish()
    }
}

/// Why a client could not do what it was asked for, by what the queue can do about it. Each keeps the client's own error.
#[derive(Debug)]
pub enum ClientError {
    /// No connection could be had: nothing was sent.
    Unreachable(BoxError),
    /// Every connection of the pool was in use for as long as the pool waits: nothing was sent.
    PoolExhausted(BoxError),
    /// The connection was lost after something was sent: it may or may not have taken effect.
    Lost(BoxError),
    /// The server refused.
    Refused {
        /// The five characters of SQLSTATE.
        code: String,
        /// The server's primary message, without what may quote data.
        message: String,
        /// The client's own error.
        source: BoxError,
    },
    /// The client cannot be used so: a bad URL, TLS that is missing, an answer that cannot be read.
    Unusable(BoxError),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(_) => f.write_str("the PostgreSQL server cannot be reached"),
            Self::PoolExhausted(_) => {
                f.write_str("every connection of the pool is in use, for as long as the pool waits")
            }
            Self::Lost(_) => f.write_str("the connection to the PostgreSQL server was lost"),
            Self::Refused { code, message, .. } => write!(f, "the PostgreSQL server refused with {code}: {message}"),
            Self::Unusable(source) => write!(f, "the PostgreSQL client cannot be used like this: {source}"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let (Self::Unreachable(source)
        | Self::PoolExhausted(source)
        | Self::Lost(source)
        | Self::Unusable(source)
        | Self::Refused { source, .. }) = self;
        Some(&**source)
    }
}
