//! The program `outbox_relay`: each row becomes one message, in order, though a relay dies.

mod program;

use pgqueue_testserver::Database;
use serde_json::{Value, json};

use crate::program::{example, soon, summary};

async fn outbox_relay(args: &[&str]) -> Value {
    let output = soon("it ends", example("outbox_relay", args).output()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    summary(&output.stdout)
}

fn assert_all_well(summary: &Value) {
    let undone = summary["undone"].clone();
    let expected = json!({ "rows": 1707, "messages": 1707, "in_order": true, "undone": undone, "left": 0 });
    assert_eq!(summary, &expected);
    assert!((1..=50).contains(&undone.as_u64().unwrap()), "{summary}");
}

#[tokio::test]
async fn rows_become_messages_in_order_and_once() {
    assert_all_well(&outbox_relay(&[]).await);
}

#[tokio::test]
async fn a_database_that_is_given_is_left_clean() {
    const LOOK: &str = "select nspname from pg_namespace where nspname like 'outbox%'; select name from pgqueue.topic; \
                        select name from pgqueue.subscription";
    let database = Database::create().await.unwrap();
    assert_all_well(&outbox_relay(&["--database-url", &database.url()]).await);
    assert_eq!(database.sql(LOOK).await.unwrap(), "");
}
