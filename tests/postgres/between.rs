//! [`Between`]: a client that does as another does, but for what a test does in between.

use async_trait::async_trait;
use pgqueue_postgres::{Client, ClientError, ListenerConnection, Parameter, PgQueue};

/// What happens between a consumer and its client.
#[async_trait]
pub(crate) trait Meddle: Default + Send + Sync + 'static {
    /// Whether the client listens, asked whenever it is to.
    fn listens(&self) -> bool {
        true
    }

    /// Happens before a statement is sent, which it may refuse.
    async fn before<C: Client>(&self, _client: &C, _statement: &str) -> Result<(), ClientError> {
        Ok(())
    }

    /// Happens before the answer is passed on.
    async fn after(&self, _statement: &str) {}
}

pub(crate) struct Between<C, M> {
    client: C,
    meddler: M,
}

/// A queue on a client of its own that is meddled with.
pub(crate) async fn meddled<C: Client, M: Meddle>(url: &str, meddler: M) -> PgQueue<Between<C, M>> {
    PgQueue::new(Between { client: C::connect(url).await.unwrap(), meddler })
}

#[async_trait]
impl<C: Client, M: Meddle> Client for Between<C, M> {
    type Row = C::Row;
    type Transaction = C::Transaction;

    async fn connect(url: &str) -> Result<Self, ClientError> {
        Ok(Self { client: C::connect(url).await?, meddler: M::default() })
    }

    async fn query(&self, statement: &str, parameters: &[Parameter]) -> Result<Vec<C::Row>, ClientError> {
        self.meddler.before(&self.client, statement).await?;
        let answer = self.client.query(statement, parameters).await;
        self.meddler.after(statement).await;
        answer
    }

    async fn run_script(&self, script: &str) -> Result<(), ClientError> {
        self.client.run_script(script).await
    }

    async fn begin(&self) -> Result<C::Transaction, ClientError> {
        self.client.begin().await
    }

    fn max_connections(&self) -> usize {
        self.client.max_connections()
    }

    async fn open_listener(&self) -> Result<Option<Box<dyn ListenerConnection>>, ClientError> {
        if self.meddler.listens() { self.client.open_listener().await } else { Ok(None) }
    }
}

/// Makes a client one that cannot listen.
#[derive(Default)]
pub(crate) struct Deaf;

#[async_trait]
impl Meddle for Deaf {
    fn listens(&self) -> bool {
        false
    }
}
