//! The shop and the ledger through tokio-postgres.

use pgqueue_core::{Delivery, NewMessage};
use pgqueue_tokio_postgres::{PgQueue, TokioPostgres};
use tokio::sync::Mutex;
use tokio_postgres::{Client, Config, NoTls};

use crate::service::{After, Order, Service, Step};

pub(crate) struct ThroughTokioPostgres {
    name: String,
    /// The service's own connection; a transaction has it to itself.
    client: Mutex<Client>,
    queue: PgQueue,
}

impl ThroughTokioPostgres {
    pub(crate) async fn open(url: &str, name: &str) -> anyhow::Result<Self> {
        let config = url.parse::<Config>()?.options(format!("-c search_path={name}")).to_owned();
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(Self { name: name.to_owned(), client: Mutex::new(client), queue: PgQueue::connect(url).await? })
    }
}

impl Service for ThroughTokioPostgres {
    type Client = TokioPostgres;

    async fn place(&self, amount: i64, after: After<'_>) -> anyhow::Result<()> {
        let mut client = self.client.lock().await;
        let mut transaction = client.transaction().await?;
        after(Step::Begun);
        let row = transaction.query_one("insert into orders (amount) values ($1) returning number", &[&amount]).await?;
        after(Step::Written);
        let message = NewMessage::json(&Order { number: row.try_get(0)?, amount })?;
        self.queue.publish_in(&mut transaction, &self.name, vec![message]).await?;
        after(Step::Told);
        transaction.commit().await?;
        after(Step::Committed);
        Ok(())
    }

    async fn book(&self, order: Order, delivery: Delivery, after: After<'_>) -> anyhow::Result<()> {
        let mut client = self.client.lock().await;
        let mut transaction = client.transaction().await?;
        after(Step::Begun);
        let entry = "insert into entry (number, amount) values ($1, $2)";
        transaction.execute(entry, &[&order.number, &order.amount]).await?;
        after(Step::Written);
        self.queue.ok_in(delivery, &mut transaction).await?;
        after(Step::Told);
        transaction.commit().await?;
        after(Step::Committed);
        Ok(())
    }

    fn queue(&self) -> &PgQueue {
        &self.queue
    }
}
