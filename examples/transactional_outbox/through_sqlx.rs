//! The shop and the ledger through sqlx.

use pgqueue_core::{Delivery, NewMessage};
use pgqueue_sqlx::{PgQueue, Sqlx};
use sqlx::{PgPool, postgres::PgConnectOptions};

use crate::service::{After, Order, Service, Step};

pub(crate) struct ThroughSqlx {
    name: String,
    pool: PgPool,
    /// Over the pool that the service has anyway.
    queue: PgQueue,
}

impl ThroughSqlx {
    pub(crate) async fn open(url: &str, name: &str) -> anyhow::Result<Self> {
        let options = url.parse::<PgConnectOptions>()?.options([("search_path", name)]);
        let pool = PgPool::connect_with(options).await?;
        Ok(Self { name: name.to_owned(), queue: PgQueue::new(pool.clone()), pool })
    }
}

impl Service for ThroughSqlx {
    type Client = Sqlx;

    async fn place(&self, amount: i64, after: After<'_>) -> anyhow::Result<()> {
        let mut transaction = self.pool.begin().await?;
        after(Step::Begun);
        let number: i64 = sqlx::query_scalar("insert into orders (amount) values ($1) returning number")
            .bind(amount)
            .fetch_one(&mut *transaction)
            .await?;
        after(Step::Written);
        let message = NewMessage::json(&Order { number, amount })?;
        self.queue.publish_in(&mut transaction, &self.name, vec![message]).await?;
        after(Step::Told);
        transaction.commit().await?;
        after(Step::Committed);
        Ok(())
    }

    async fn book(&self, order: Order, delivery: Delivery, after: After<'_>) -> anyhow::Result<()> {
        let mut transaction = self.pool.begin().await?;
        after(Step::Begun);
        sqlx::query("insert into entry (number, amount) values ($1, $2)")
            .bind(order.number)
            .bind(order.amount)
            .execute(&mut *transaction)
            .await?;
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
