//! [`PgTables`]: consumers over tables of the user's own, without a schema of the queue's.

mod jobs;
mod query;
mod type_oid;
mod waking;
mod watch;

use std::{fmt, sync::Arc, time::Duration};

use pgqueue_core::{Operation, Result};

pub use self::{
    jobs::{JobDriver, JobTable},
    query::{Columns, Command, HeldDelivery, Locking, PendingQuery, QueryDriver, Tracking},
    watch::{TableWatch, TriggerHealth, TriggerState, Watched, WhyPolling},
};
use crate::{
    Client, Listener,
    error::{About, repeatable},
};

/// How long the server may take to answer one statement.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Consumers over tables that you have already, as they are: nothing is copied, and nothing is installed but what you ask for.
///
/// Cloning makes another handle to the same connections.
pub struct PgTables<C: Client> {
    shared: Arc<Shared<C>>,
}

/// What all handles share.
pub(crate) struct Shared<C: Client> {
    pub(crate) client: Arc<C>,
    pub(crate) listener: Listener,
    /// How many consumers have a task that may have something to give back.
    pub(crate) consumers: Arc<tokio::sync::watch::Sender<usize>>,
}

impl<C: Client> PgTables<C> {
    /// Opens the database at `url`, over connections of its own.
    ///
    /// # Errors
    /// [`Fatal`](pgqueue_core::ErrorKind::Fatal) for a URL or a TLS mode that cannot be used,
    /// [`Connection`](pgqueue_core::ErrorKind::Connection) if the client tries to connect at once and cannot.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn connect(url: &str) -> Result<Self> {
        let client =
            C::connect(url).await.map_err(|error| repeatable(error, About::Queue).during(Operation::Manage))?;
        Ok(Self::new(client))
    }

    /// Works over what the service has already: a client, or what becomes one.
    pub fn new(client: impl Into<C>) -> Self {
        let client = Arc::new(client.into());
        let listener = Listener::new(Arc::clone(&client));
        Self::over(client, listener)
    }

    pub(crate) fn over(client: Arc<C>, listener: Listener) -> Self {
        Self::from_shared(Arc::new(Shared { client, listener, consumers: Arc::default() }))
    }

    pub(crate) fn from_shared(shared: Arc<Shared<C>>) -> Self {
        Self { shared }
    }

    /// Makes a consumer of the rows that a query selects: the driver for [`subscribe`](pgqueue_core::subscribe), which checks it.
    pub fn query(&self, query: PendingQuery<C::Row>) -> QueryDriver<C> {
        QueryDriver::new(Arc::clone(&self.shared), query)
    }

    /// Waits until every [`JobDriver`] of this handle and its clones has left: until what its deliveries were answered is durable, and
    /// what was dropped is given back.
    ///
    /// Call it before the process ends, once the streams have ended or were dropped; otherwise others get what these had in hand
    /// only when the lease ends. While a consumer is at work, it waits.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn consumers_gone(&self) {
        self.shared.consumers.subscribe().wait_for(|consumers| *consumers == 0).await.ok();
    }

    /// Returns who listens for all consumers of this handle, over one connection.
    #[must_use]
    pub fn listener(&self) -> &Listener {
        &self.shared.listener
    }

    /// Returns the client.
    #[must_use]
    pub fn client(&self) -> &C {
        &self.shared.client
    }
}

impl<C: Client> Clone for PgTables<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<C: Client> fmt::Debug for PgTables<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgTables").field("listener", &self.shared.listener).finish_non_exhaustive()
    }
}
