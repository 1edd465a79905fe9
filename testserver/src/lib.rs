//! A private PostgreSQL server for a test process.
//!
//! ```no_run
//! # async fn example() -> Result<(), pgqueue_testserver::Error> {
//! use pgqueue_testserver::{Database, PgBouncer, Proxy, Server};
//!
//! // A database of its own in the server that the whole test process shares:
//! let database = Database::create().await?;
//! database.sql("CREATE TABLE coffee (name text)").await?;
//! println!("connect to {}", database.url());
//!
//! // A server of its own, for a test that kills it:
//! let server = Server::builder().with_setting("wal_writer_delay", "10s").start().await?;
//! server.kill().await?;
//! server.restart().await?;
//!
//! // A network of its own, for a test that cuts it:
//! let proxy = Proxy::start(server.port()).await?;
//! proxy.cut().await;
//!
//! // A pooler in transaction mode:
//! let pooler = PgBouncer::start(server.port()).await?;
//! println!("connect to {}", pooler.url("postgres"));
//! # Ok(()) }
//! ```
//!
//! - **Private**: a fresh cluster on a free port of 127.0.0.1, which trusts whoever connects there. Durability is as
//!   PostgreSQL ships it: what is committed survives [`Server::kill`].
//! - **Gone afterwards**: a watchdog beside the server ends it and removes its folder when the [`Server`] is dropped and
//!   when the test process ends, however it ends.
//! - **Never skipped**: without PostgreSQL, [`Server::start`] is an [`Error::NoPostgres`] which says how to get one, and so is
//!   [`PgBouncer::start`] an [`Error::NoPgBouncer`].
//! - **Any runtime**: nothing here belongs to the runtime that created it, but a [`Proxy`]; and time is the system's, so
//!   a paused clock does not hurry a server.
//! - **Root too**: PostgreSQL refuses to run as root, so root runs it as `postgres` or, without such a user, `nobody`.
//!
//! # Which PostgreSQL
//!
//! The first of these that holds `postgres` and `initdb` of the wanted major version (by default any from 14), within a
//! place the newest first:
//!
//! 1. `PGQUEUE_POSTGRES_BIN`, a folder; when set, nothing else is tried;
//! 2. `target/postgres/*/bin` of this workspace, where `scripts/install-postgres` puts it;
//! 3. `/usr/lib/postgresql/*/bin`, `/usr/pgsql-*/bin`, `/opt/homebrew/opt/postgresql@*/bin`, `/usr/local/pgsql/bin`;
//! 4. `PATH`.
//!
//! A [`PgBouncer`] is what `PGQUEUE_PGBOUNCER` names, or else `pgbouncer` in `PATH`, `/usr/sbin`, `/usr/local/sbin` or
//! `/opt/homebrew/bin`; `scripts/install-pgbouncer` installs Debian's.
//!
//! `PGQUEUE_POSTGRES_VERSION` is the wanted major version of servers that are not built
//! [with one](ServerBuilder::with_version).
//!
//! # Where clusters are
//!
//! In the system's folder for temporary files, or in the folder that `PGQUEUE_POSTGRES_FOLDER` names. In one that is kept in
//! memory, tests do not wait for a disk, and what is committed survives [`Server::kill`] as well.

// Library code returns errors.
#![warn(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod account;
mod blocking;
mod builder;
mod database;
mod error;
mod installation;
mod pgbouncer;
mod port;
mod proxy;
mod server;
mod standby;
mod template;
mod watchdog;
mod wire;

pub use builder::ServerBuilder;
pub use database::{Database, test_server};
pub use error::{Error, Result};
pub use pgbouncer::PgBouncer;
pub use proxy::Proxy;
pub use server::Server;
