//! [`Network`]: a case's own database, and how its consumers reach it, so that they can be cut off.

use std::sync::{Arc, Mutex};

use pgqueue_core::{Error, ErrorKind, Result};
use pgqueue_testserver::{Database, Proxy};

/// The port that connections of a case lead to, of the server or of a pooler in front of it.
#[derive(Clone, Copy)]
pub(crate) enum Road {
    #[allow(dead_code, reason = "each test has one of the two")]
    Direct,
    #[allow(dead_code, reason = "each test has one of the two")]
    Pooler(u16),
}

pub(crate) struct Network {
    database: Database,
    /// Where all connections lead in the end, but those of the test itself.
    end: u16,
    proxies: Mutex<Proxies>,
}

struct Proxies {
    /// Through which consumers connect; the next through the last.
    open: Vec<Arc<Proxy>>,
    /// Those that were cut.
    cut: Vec<Arc<Proxy>>,
}

impl Network {
    pub(crate) async fn start(database: Database, road: Road) -> Result<Self> {
        let end = match road {
            Road::Direct => database.server().port(),
            Road::Pooler(port) => port,
        };
        let proxy = Arc::new(Proxy::start(end).await.map_err(broken)?);
        Ok(Self { database, end, proxies: Mutex::new(Proxies { open: vec![proxy], cut: Vec::new() }) })
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// The database as everybody but consumers reaches it.
    pub(crate) fn uncut_url(&self) -> String {
        self.database.url_at(self.end)
    }

    /// The database as the next consumer reaches it.
    pub(crate) fn url(&self) -> String {
        self.database.url_at(self.proxies.lock().unwrap().open.last().unwrap().port())
    }

    /// Cuts off all consumers that there are.
    pub(crate) async fn disconnect(&self) -> Result<()> {
        let fresh = Arc::new(Proxy::start(self.end).await.map_err(broken)?);
        let old = {
            let mut proxies = self.proxies.lock().unwrap();
            let old = std::mem::replace(&mut proxies.open, vec![fresh]);
            proxies.cut.extend_from_slice(&old);
            old
        };
        for proxy in old {
            proxy.cut().await;
        }
        Ok(())
    }

    pub(crate) async fn reconnect(&self) -> Result<()> {
        let cut = std::mem::take(&mut self.proxies.lock().unwrap().cut);
        for proxy in &cut {
            proxy.restore().await.map_err(broken)?;
        }
        self.proxies.lock().unwrap().open.splice(..0, cut);
        Ok(())
    }

    /// Ends every connection at the server's side; what a crash of the server itself does has tests of its own.
    pub(crate) async fn end_connections(&self) -> Result<()> {
        let name = self.database.name();
        // Waits for their end, so that no pooler hands one out that is about to go.
        let others = format!("select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = '{name}'");
        self.database.server().sql("postgres", &others).await.map_err(broken)?;
        Ok(())
    }
}

/// What the test's own server could not do.
pub(crate) fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Fatal, "the server under test").with_source(error)
}
