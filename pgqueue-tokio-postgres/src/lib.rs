//! pgqueue on PostgreSQL through [tokio-postgres](tokio_postgres), with a [deadpool](deadpool_postgres) of connections.
//!
//! ```no_run
//! # async fn example() -> pgqueue_core::Result<()> {
//! use pgqueue_core::{Ack, BoxError, Job, PublisherExt, Subscription, Topic, Worker, subscribe};
//! use pgqueue_tokio_postgres::PgQueue;
//!
//! let queue = PgQueue::connect("postgres://app@localhost/shop?sslmode=disable").await?;
//! queue.migrate().await?;
//! queue.create_topic(Topic::new("orders")).await?;
//! let deliveries = subscribe(queue.subscription(Subscription::new("invoices", "orders"))).await?;
//!
//! queue.publish_json("orders", "one espresso").await?;
//! Worker::new(deliveries, async |job: Job<String>| {
//!     println!("invoice for {}", job.value);
//!     Ok::<_, BoxError>(Ack::Ok)
//! })
//! .run()
//! .await
//! # }
//! ```
//!
//! Over the pool that the service has already it is `PgQueue::new(TokioPostgres::from_pool(pool, listening))`, where
//! [`Listening`] says how to open the one connection that listens. A transaction of the caller, for
//! [`publish_in`](pgqueue_postgres::PgQueue::publish_in), [`ok_in`](pgqueue_postgres::PgQueue::ok_in) and
//! [`advance_checkpoint_in`](pgqueue_postgres::PgQueue::advance_checkpoint_in), is a
//! [`tokio_postgres::Transaction`] or a [`deadpool_postgres::Transaction`]. [`TokioPostgres`] is the client below all this.
//!
//! # TLS
//! A connection is encrypted, or it is plain because someone said so: with `sslmode=disable`, or with a path to a Unix
//! socket for a host. `sslmode=prefer`, which tokio-postgres takes for the default, means `require` here: where a server
//! offers no TLS, that is an error and not a plain connection. `require` checks the server as strictly as the connector
//! does; that of the feature `rustls` checks both the certificate and the host name.
//!
//! # Connections
//! The client opens up to [16](TokioPostgres::with_pool_size) connections as calls need them, and one more for
//! notifications. All of these are in READ COMMITTED unless a transaction says otherwise, are called "pgqueue" unless the
//! configuration has an `application_name`, and get 5 seconds per address to connect unless it has a `connect_timeout`.
//! The one for notifications notices within about 10 seconds that its server is gone: TCP looks after 5 idle seconds and
//! every 2 seconds from then on, unless the configuration says something else.
//!
//! The isolation level travels in the startup parameter `options`. PgBouncer refuses that one until
//! `ignore_startup_parameters` lists it, and must then get the level from the server's own defaults.
//!
//! # Poolers
//! A statement is prepared once for each connection and takes one round trip from then on. For a pooler in transaction mode
//! that knows no prepared statements, see [`with_unnamed_statements`](TokioPostgres::with_unnamed_statements). Notifications
//! come through none: give [`from_pool`](TokioPostgres::from_pool) a pool that leads through the pooler, and a [`Listening`]
//! that goes past it. A [`Listening`] that leads through the pooler is [found out](Listener#poolers), and then it is as if it
//! were not there.
//!
//! # Features
//! - `rustls` (off by default): [`connect`](pgqueue_postgres::Client::connect) brings TLS of its own, by rustls with ring.
//!   It trusts the certificates that the machine trusts; the environment variable `SSL_CERT_FILE` names others.

// Library code returns errors.
#![warn(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod client;
mod error;
mod listener;
mod listening;
mod loan;
mod owned_transaction;
mod row;
mod settings;
mod statement;
mod tls;
mod transaction;

pub use client::TokioPostgres;
pub use listening::Listening;
pub use owned_transaction::TokioPostgresTransaction;
pub use row::TokioPostgresRow;
pub use tls::Tls;

#[doc(inline)]
pub use pgqueue_postgres::{
    Client, ClientError, Columns, Command, JobTable, Listener, Locking, Notice, Notices, Options, OwnedTransaction,
    Role, TableName, TableWatch, Tracking, Transaction, TriggerHealth, TriggerState, Watched, WhyPolling,
};

/// The queue through tokio-postgres.
pub type PgQueue = pgqueue_postgres::PgQueue<TokioPostgres>;

/// One consumer of a subscription of a [`PgQueue`].
pub type PgSubscription = pgqueue_postgres::PgSubscription<TokioPostgres>;

/// Consumers over tables of your own.
pub type PgTables = pgqueue_postgres::PgTables<TokioPostgres>;

/// What selects pending rows of a table of yours, for a [`PgTables`].
pub type PendingQuery = pgqueue_postgres::PendingQuery<TokioPostgresRow>;

/// One consumer of the rows that a [`PendingQuery`] selects.
pub type QueryDriver = pgqueue_postgres::QueryDriver<TokioPostgres>;

/// A delivery of such rows that is a transaction.
///
/// ```no_run
/// # async fn example(job: pgqueue_core::Job<i64>) -> Result<(), pgqueue_core::BoxError> {
/// let (id, delivery) = job.take_delivery()?;
/// let mut row = pgqueue_tokio_postgres::HeldDelivery::from_delivery(delivery)?;
/// row.transaction().await?.client()?.execute("insert into done (id) values ($1)", &[&id]).await?;
/// row.ok().await?; // commits both, or neither
/// # Ok(())
/// # }
/// ```
pub type HeldDelivery = pgqueue_postgres::HeldDelivery<TokioPostgres>;

/// One consumer of a [`JobTable`], through tokio-postgres.
pub type JobDriver = pgqueue_postgres::JobDriver<TokioPostgres>;
