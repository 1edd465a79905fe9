//! [`Store`]: a migrated database whose functions have gates.

use std::sync::atomic::{AtomicU64, Ordering};

use pgqueue_testserver::Server;
use pgqueue_tokio_postgres::PgQueue;
use tokio::sync::OnceCell;

use crate::{
    gate::{GATE, GATED, with_gates},
    sabotage::Sabotage,
    session::Session,
};

/// More than all seeds that run at the same time have prepared.
const PREPARED: &str = "200";

pub(crate) struct Store {
    pub(crate) url: String,
}

impl Store {
    /// Makes a database in the server that all of them share.
    pub(crate) async fn make(sabotage: Option<Sabotage>) -> Self {
        static SERVER: OnceCell<Server> = OnceCell::const_new();
        static MADE: AtomicU64 = AtomicU64::new(0);
        let start = || Server::builder().with_setting("max_prepared_transactions", PREPARED).start();
        let server = SERVER.get_or_try_init(start).await.unwrap();
        let name = format!("store_{}", MADE.fetch_add(1, Ordering::Relaxed));
        server.create_database(&name).await.unwrap();
        let url = server.url(&name);
        PgQueue::connect(&url).await.unwrap().migrate().await.unwrap();
        let session = Session::open(&url).await;
        session.ask(GATE).await.unwrap();
        edit(&session, "a look ends soon", "look_end", &[("1999", "19"), ("49999", "29"), ("9999", "9")]).await;
        edit(&session, "stretches are short", "stretch_end", &[("128", "3"), ("127", "2")]).await;
        if let Some(Sabotage { name, function, edits, .. }) = sabotage {
            edit(&session, name, function, edits).await;
        }
        for function in GATED {
            session.ask(&with_gates(function, &definition(&session, function).await)).await.unwrap();
        }
        Self { url }
    }

    /// Rolls back what a run that failed left prepared, which would be in progress for ever.
    pub(crate) async fn clean_up(&self) {
        let session = Session::open(&self.url).await;
        let left = "select quote_literal(gid) from pg_prepared_xacts where database = current_database()";
        for row in session.ask(left).await.unwrap() {
            let gid = row[0].as_deref().unwrap_or_default();
            session.ask(&format!("rollback prepared {gid}")).await.unwrap();
        }
    }
}

async fn edit(session: &Session, name: &str, function: &str, edits: &[(&str, &str)]) {
    let mut definition = definition(session, function).await;
    for (from, to) in edits {
        assert!(definition.contains(from), "{name}: {function} does not contain {from:?}");
        definition = definition.replacen(from, to, 1);
    }
    session.ask(&definition).await.unwrap();
}

async fn definition(session: &Session, function: &str) -> String {
    let rows = session.ask(&format!("select pg_get_functiondef('pgqueue.{function}'::regproc)")).await.unwrap();
    rows[0][0].clone().unwrap()
}
