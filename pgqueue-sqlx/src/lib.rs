//! pgqueue on PostgreSQL through [sqlx].
//!
//! ```no_run
//! # async fn example() -> pgqueue_core::Result<()> {
//! use pgqueue_core::{Ack, BoxError, Job, PublisherExt, Subscription, Topic, Worker, subscribe};
//! use pgqueue_sqlx::PgQueue;
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
//! Over the pool that the service has already it is `PgQueue::new(pool)`. A transaction of the caller, for
//! [`publish_in`](pgqueue_postgres::PgQueue::publish_in), [`ok_in`](pgqueue_postgres::PgQueue::ok_in) and
//! [`advance_checkpoint_in`](pgqueue_postgres::PgQueue::advance_checkpoint_in), is a
//! [`sqlx::Transaction`], or a [`sqlx::PgConnection`] on which they began one themselves. [`Sqlx`] is the client below all this.
//!
//! # Behaviour
//!
//! - **One round trip** for a statement, from the second time that a connection runs it. Behind an old pooler in
//!   transaction mode see [`Sqlx::with_unnamed_statements`], and [`Sqlx::with_listening`] for notifications.
//! - **A dropped call closes its connection.** Its answer is outstanding, and would otherwise keep the next caller
//!   waiting. Dropping spawns nothing, and needs no runtime.
//! - **No downgrade.** Without TLS, [`Client::connect`] wants to read
//!   `sslmode=disable`. A pool of the caller's is used as it is.
//! - **Nothing hidden.** A lost connection is an error, and is never quietly replaced below a listener.
//! - **No secrets** in errors and debug output.
//!
//! # Runtime
//!
//! sqlx needs Tokio, and so does this.
//!
//! # Features
//!
//! | feature | default | what for |
//! |---|---|---|
//! | `rustls` | no | TLS for connections that are opened by URL |

// Library code returns errors.
#![warn(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod client;
mod connect;
mod ended;
mod error;
mod listener;
mod owned_transaction;
mod pool;
mod row;
mod statement;
mod transaction;

pub use client::Sqlx;
pub use owned_transaction::SqlxTransaction;
pub use row::SqlxRow;

#[doc(inline)]
pub use pgqueue_postgres::{
    Client, ClientError, Columns, Command, JobTable, Listener, Locking, Notice, Notices, Options, OwnedTransaction,
    Role, TableName, TableWatch, Tracking, Transaction, TriggerHealth, TriggerState, Watched, WhyPolling,
};

/// The queue through sqlx.
pub type PgQueue = pgqueue_postgres::PgQueue<Sqlx>;

/// One consumer of a subscription of a [`PgQueue`].
pub type PgSubscription = pgqueue_postgres::PgSubscription<Sqlx>;

/// Consumers over tables of your own.
pub type PgTables = pgqueue_postgres::PgTables<Sqlx>;

/// What selects pending rows of a table of yours, for a [`PgTables`].
pub type PendingQuery = pgqueue_postgres::PendingQuery<SqlxRow>;

/// One consumer of the rows that a [`PendingQuery`] selects.
pub type QueryDriver = pgqueue_postgres::QueryDriver<Sqlx>;

/// A delivery of such rows that is a transaction.
///
/// ```no_run
/// # async fn example(job: pgqueue_core::Job<i64>) -> Result<(), pgqueue_core::BoxError> {
/// let (id, delivery) = job.take_delivery()?;
/// let mut row = pgqueue_sqlx::HeldDelivery::from_delivery(delivery)?;
/// let connection = row.transaction().await?.connection()?;
/// sqlx::query("insert into done (id) values ($1)").bind(id).execute(connection).await?;
/// row.ok().await?; // commits both, or neither
/// # Ok(())
/// # }
/// ```
pub type HeldDelivery = pgqueue_postgres::HeldDelivery<Sqlx>;

/// One consumer of a [`JobTable`], through sqlx.
pub type JobDriver = pgqueue_postgres::JobDriver<Sqlx>;
