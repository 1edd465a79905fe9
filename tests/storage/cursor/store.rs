//! [`Store`]: a migrated database whose functions have gates.

use pgqueue_testserver::Database;
use pgqueue_tokio_postgres::PgQueue;

use crate::{
    gate::{GATE, GATED, with_gates},
    sabotage::Sabotage,
    session::Session,
};

pub(crate) struct Store {
    pub(crate) url: String,
}

impl Store {
    pub(crate) async fn make(database: &Database, sabotage: Option<Sabotage>) -> Self {
        let url = database.url();
        PgQueue::connect(&url).await.unwrap().migrate().await.unwrap();
        let session = Session::open(&url).await;
        session.ask(GATE).await.unwrap();
        edit(&session, "a look ends soon", "look_end", &[("1999", "19")]).await;
        if let Some(Sabotage { name, function, edits }) = sabotage {
            edit(&session, name, function, edits).await;
        }
        for function in GATED {
            session.ask(&with_gates(function, &definition(&session, function).await)).await.unwrap();
        }
        Self { url }
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
