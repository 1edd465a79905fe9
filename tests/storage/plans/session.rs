//! [`Session`]: one connection, which hears the plans of what it runs.

use std::sync::{Arc, Mutex};

use futures::{StreamExt, stream};
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};

/// The statements live inside of functions, so `auto_explain` reports their plans to the session that runs them.
const HEAR: &str = "load 'auto_explain'; set auto_explain.log_nested_statements = on; set auto_explain.log_analyze = on; \
                    set auto_explain.log_timing = off; set synchronous_commit = off; set client_min_messages = log";

pub(crate) struct Session {
    client: Client,
    heard: Arc<Mutex<String>>,
}

impl Session {
    pub(crate) async fn open(url: &str) -> Self {
        let (client, mut connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        let heard = Arc::new(Mutex::new(String::new()));
        let hears = Arc::clone(&heard);
        tokio::spawn(async move {
            let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notice(notice) = message {
                    hears.lock().unwrap().push_str(notice.message());
                }
            }
        });
        let session = Self { client, heard };
        session.run(HEAR).await;
        session
    }

    pub(crate) async fn run(&self, sql: &str) -> Vec<Vec<String>> {
        let messages = self.client.simple_query(sql).await.unwrap_or_else(|error| panic!("{error:?}: {sql}"));
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|n| row.get(n).unwrap_or("").to_owned()).collect()),
            _ => None,
        });
        rows.collect()
    }

    /// The plans of all that a statement does. What it did is rolled back.
    pub(crate) async fn plans(&self, sql: &str) -> String {
        self.run("begin; set local auto_explain.log_min_duration = 0").await;
        self.heard.lock().unwrap().clear();
        self.run(sql).await;
        let plans = std::mem::take(&mut *self.heard.lock().unwrap());
        self.run("rollback").await;
        assert!(plans.contains("Query Text"), "no plan is heard of: {plans}");
        plans
    }

    /// How many buffers a statement touches. What it did is rolled back.
    pub(crate) async fn buffers(&self, sql: &str) -> i64 {
        self.run("begin").await;
        let plan = self.run(&format!("explain (analyze, buffers, timing off, costs off) {sql}")).await;
        self.run("rollback").await;
        let line = plan.iter().map(|row| row[0].trim()).find(|line| line.starts_with("Buffers: shared"));
        let numbers =
            line.unwrap_or("").split([' ', ',']).filter(|word| word.starts_with("hit=") || word.starts_with("read="));
        numbers.filter_map(|word| word.split('=').nth(1)?.parse::<i64>().ok()).sum()
    }
}
