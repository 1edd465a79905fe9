//! [`Service`]: what the shop and the ledger do, step by step, whichever client they have.

use clap::ValueEnum;
use pgqueue_core::Delivery;
use pgqueue_postgres::{Client, PgQueue};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) number: i64,
    pub(crate) amount: i64,
}

/// What happens one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// The ledger has the message.
    Received,
    /// The transaction is open.
    Begun,
    /// The row is in it.
    Written,
    /// The message, or the OK, is in it.
    Told,
    Committed,
}

impl Step {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Begun => "begun",
            Self::Written => "written",
            Self::Told => "told",
            Self::Committed => "committed",
        }
    }
}

/// Is called after each step.
pub(crate) type After<'a> = &'a (dyn Fn(Step) + Sync);

pub(crate) trait Service: Sync {
    type Client: Client;

    /// Takes an order: its row and its message are there together, or neither.
    fn place(&self, amount: i64, after: After<'_>) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Books an order: the entry and the OK are there together, or neither, and then the message comes again.
    fn book(
        &self,
        order: Order,
        delivery: Delivery,
        after: After<'_>,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;

    fn queue(&self) -> &PgQueue<Self::Client>;
}
