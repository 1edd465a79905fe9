use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::OnceCell;

use crate::{Result, Server};

/// The server that the tests of this process share. The first call starts it.
///
/// Tests that kill, stop or configure a server should have [their own](Server::start).
///
/// # Errors
///
/// As [`ServerBuilder::start`](crate::ServerBuilder::start). The next call tries again.
pub async fn test_server() -> Result<&'static Server> {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER.get_or_try_init(Server::start).await
}

/// A fresh, empty database in the [shared server](test_server). It goes when the server goes, at the end of the process.
#[derive(Debug)]
pub struct Database {
    server: &'static Server,
    name: String,
}

impl Database {
    /// Creates a database with a name of its own.
    ///
    /// # Errors
    ///
    /// As [`test_server`] and [`Server::create_database`].
    pub async fn create() -> Result<Self> {
        Self::copy_of("template1").await
    }

    /// Creates a copy of another database of the shared server, to which nobody may be connected.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub async fn copy_of(template: &str) -> Result<Self> {
        static CREATED: AtomicU64 = AtomicU64::new(0);
        let server = test_server().await?;
        let name = format!("test_{}", CREATED.fetch_add(1, Ordering::Relaxed));
        server.copy_database(template, &name).await?;
        Ok(Self { server, name })
    }

    /// The server it is in.
    #[must_use]
    pub fn server(&self) -> &'static Server {
        self.server
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address, for the superuser.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// Its address through what stands before the server at a port of this machine, such as a [`Proxy`](crate::Proxy).
    #[must_use]
    pub fn url_at(&self, port: u16) -> String {
        crate::server::url(port, &self.name)
    }

    /// Runs statements in it; see [`Server::sql`].
    ///
    /// # Errors
    ///
    /// As [`Server::sql`].
    pub async fn sql(&self, text: &str) -> Result<String> {
        self.server.sql(&self.name, text).await
    }
}
