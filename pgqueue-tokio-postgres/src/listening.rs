//! [`Listening`]: where notifications come from.

use std::fmt;

use async_trait::async_trait;
use pgqueue_postgres::{ClientError, ListenerConnection};
use tokio_postgres::Config;

use crate::listener::Listener;
use crate::{Tls, settings};

/// How a client whose pool is not its own hears of new messages.
pub struct Listening(Option<Box<dyn Open>>);

impl Listening {
    /// Opens a connection outside of the pool, which must lead to the server itself: notifications do not come through a
    /// pooler in transaction mode.
    ///
    /// `config` and `tls` are taken as [`TokioPostgres::with_tls`](crate::TokioPostgres::with_tls) takes them.
    #[must_use]
    pub fn with(config: Config, tls: impl Tls) -> Self {
        Self(Some(Box::new(Opener { config: settings::for_listener(config), tls })))
    }

    /// Opens no connection: consumers look for messages from time to time, which is later and costs more.
    #[must_use]
    pub fn poll_only() -> Self {
        Self(None)
    }

    pub(crate) async fn open(&self) -> Result<Option<Box<dyn ListenerConnection>>, ClientError> {
        let Some(opener) = &self.0 else { return Ok(None) };
        Ok(Some(Box::new(opener.open().await?)))
    }
}

impl fmt::Debug for Listening {
    /// Shows nothing of the configuration, which holds secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Listening::with(..)" } else { "Listening::poll_only()" })
    }
}

/// Forgets the type of the connector.
#[async_trait]
trait Open: Send + Sync {
    async fn open(&self) -> Result<Listener, ClientError>;
}

struct Opener<T> {
    config: Config,
    tls: T,
}

#[async_trait]
impl<T: Tls> Open for Opener<T> {
    async fn open(&self) -> Result<Listener, ClientError> {
        Listener::connect(&self.config, self.tls.clone()).await
    }
}
