//! What pgqueue's PostgreSQL drivers share: the schema, the SQL and the engine, over a small port to a client.
//!
//! To use the queue, take the driver crate of the client that you have: `pgqueue-tokio-postgres` or `pgqueue-sqlx`. Both offer
//! the [`PgQueue`] of this crate. To use it over another client, implement [`Client`].

// Library code returns errors.
#![warn(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod checkpoints;
mod client;
mod coalescing;
mod consumer;
mod error;
mod ident;
mod listener;
mod message;
mod migrate;
mod options;
mod parameter;
mod presence;
mod privileges;
mod publishing;
mod queue;
mod selecting;
mod statement;
mod stats;
mod subscription;
mod subscription_store;
mod subscriptions;
mod tables;
mod value;

pub use client::{
    Client, ClientError, LISTENING, ListenerConnection, Notification, OwnedTransaction, Row, Transaction,
};
pub use ident::TableName;
pub use listener::{Listener, Notice, Notices};
pub use options::Options;
pub use parameter::Parameter;
pub use privileges::Role;
pub use queue::PgQueue;
pub use subscription::PgSubscription;
pub use tables::{
    Columns, Command, HeldDelivery, JobDriver, JobTable, Locking, PendingQuery, PgTables, QueryDriver, TableWatch,
    Tracking, TriggerHealth, TriggerState, Watched, WhyPolling,
};
