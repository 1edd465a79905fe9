use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{Result, ServerBuilder, blocking::blocking, watchdog::Watchdog, wire};

/// A private PostgreSQL server.
///
/// Dropping it ends the server at once and removes its folder; that happens beside this process, so the drop does not
/// wait for it. When the process ends without dropping it, the same happens.
///
/// Dropping the future of a method does not interrupt what it does to the server.
#[derive(Debug)]
pub struct Server {
    port: u16,
    major_version: u16,
    folder: PathBuf,
    /// The postmaster, while it runs, and who runs it. Locked where blocking is allowed only.
    running: Arc<Mutex<Running>>,
}

#[derive(Debug)]
struct Running {
    watchdog: Watchdog,
    pid: Option<u32>,
}

impl Server {
    /// Starts a server as it comes.
    ///
    /// # Errors
    ///
    /// As [`ServerBuilder::start`].
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Starts a server with settings.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    pub(crate) fn new(port: u16, major_version: u16, folder: PathBuf, pid: u32, watchdog: Watchdog) -> Self {
        let running = Arc::new(Mutex::new(Running { watchdog, pid: Some(pid) }));
        Self { port, major_version, folder, running }
    }

    /// The port of 127.0.0.1 that it listens on, for as long as it lives.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The major version, such as 17.
    #[must_use]
    pub fn major_version(&self) -> u16 {
        self.major_version
    }

    /// The folder of the cluster (`data`), the log (`log`) and the unix socket.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The address of a database, for the superuser `postgres`, who needs no password.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        url(self.port, database)
    }

    /// The postmaster's process id, unless it was killed or stopped.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`](crate::Error::Interrupted) when the runtime shuts down.
    pub async fn pid(&self) -> Result<Option<u32>> {
        self.with(|running| Ok(running.pid)).await
    }

    /// Kills all processes of the server, as a crash does: the next start recovers from the log. Waits for their end.
    /// Killing a server that does not run does nothing.
    ///
    /// # Errors
    ///
    /// When the processes do not end.
    pub async fn kill(&self) -> Result<()> {
        self.with(Running::kill).await
    }

    /// Shuts the server down without waiting for its clients ("fast"). Waits for its end; one that takes a minute is
    /// killed. Stopping a server that does not run does nothing.
    ///
    /// # Errors
    ///
    /// When the processes do not end.
    pub async fn stop(&self) -> Result<()> {
        self.with(Running::stop).await
    }

    /// Starts the server again on the same data and port, after a [stop](Self::stop) if it runs. Waits until it accepts
    /// connections.
    ///
    /// # Errors
    ///
    /// With the end of the server's log if it does not start within a minute.
    pub async fn restart(&self) -> Result<()> {
        let port = self.port;
        self.with(move |running| {
            running.stop()?;
            running.pid = Some(running.watchdog.start_server(port)?);
            Ok(())
        })
        .await
    }

    /// Starts a standby that streams from this server, which is stopped and started again for it. The standby is a server like
    /// any other, and read-only until somebody calls `pg_promote()` in it.
    ///
    /// It replicates asynchronously; a commit here waits for it from when `synchronous_standby_names` says so.
    ///
    /// # Errors
    ///
    /// As [`restart`](Self::restart) and [`ServerBuilder::start`](crate::ServerBuilder::start).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave this server stopped; [`restart`](Self::restart) starts it.
    pub async fn start_standby(&self) -> Result<Self> {
        self.stop().await?;
        let standby = Self::builder().with_version(Some(self.major_version));
        let standby = standby.standby_of(self.port, self.folder.join("data")).start().await?;
        self.restart().await?;
        Ok(standby)
    }

    /// Creates a database.
    ///
    /// # Errors
    ///
    /// As [`sql`](Self::sql).
    pub async fn create_database(&self, name: &str) -> Result<()> {
        self.copy_database("template1", name).await
    }

    /// Creates a database like another.
    pub(crate) async fn copy_database(&self, template: &str, name: &str) -> Result<()> {
        // Newer servers would write each page to the WAL instead, which takes twice as long.
        let strategy = if self.major_version >= 15 { " STRATEGY file_copy" } else { "" };
        let create = format!("CREATE DATABASE {} TEMPLATE {}{strategy}", quoted(name), quoted(template));
        self.sql("postgres", &create).await.map(drop)
    }

    /// Drops a database, if it exists, and the connections to it.
    ///
    /// # Errors
    ///
    /// As [`sql`](Self::sql).
    pub async fn drop_database(&self, name: &str) -> Result<()> {
        self.sql("postgres", &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(name))).await.map(drop)
    }

    /// Runs statements in a database, on a connection of its own, and returns their rows: columns separated by tabs, rows
    /// by newlines, NULL as nothing. No client is needed.
    ///
    /// # Errors
    ///
    /// [`Error::Sql`](crate::Error::Sql) when the server refuses; [`Error::Io`](crate::Error::Io) when it does not answer
    /// for a minute.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not interrupt the statements.
    pub async fn sql(&self, database: &str, text: &str) -> Result<String> {
        let (port, database, text) = (self.port, database.to_owned(), text.to_owned());
        blocking(move || wire::query(port, &database, &text)).await
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Running) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let running = Arc::clone(&self.running);
        // An order that panicked half-way shows in the watchdog's next answer.
        blocking(move || work(&mut running.lock().unwrap_or_else(PoisonError::into_inner))).await
    }
}

impl Running {
    fn kill(&mut self) -> Result<()> {
        self.pid = None;
        self.watchdog.kill_server()
    }

    fn stop(&mut self) -> Result<()> {
        self.pid = None;
        self.watchdog.stop_server()
    }
}

/// The address of `database` at `port`. Names need no escaping as long as they are plain.
pub(crate) fn url(port: u16, database: &str) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/{database}?sslmode=disable")
}

/// An identifier for SQL.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
