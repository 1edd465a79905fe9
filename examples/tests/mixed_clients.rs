//! The program `mixed_clients`: what commits together stays together.

mod program;

use pgqueue_testserver::Database;
use serde_json::{Value, json};

use crate::program::{example, soon, summary};

async fn mixed_clients(args: &[&str]) -> Value {
    let output = soon("it ends", example("mixed_clients", args).output()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    summary(&output.stdout)
}

/// Every order has one parcel, and 90 of the 270 that were not withdrawn took a second attempt.
fn all_well() -> Value {
    json!({
        "orders": 270, "parcels": 270, "retried": 90, "missing": 0, "repeated": 0, "withdrawn": 0, "order_breaks": 0
    })
}

#[tokio::test]
async fn every_order_has_one_parcel() {
    assert_eq!(mixed_clients(&[]).await, all_well());
}

#[tokio::test]
async fn a_database_that_is_given_is_left_clean() {
    const LOOK: &str = "select nspname from pg_namespace where nspname like 'mixed%'; \
                        select name from pgqueue.topic; select name from pgqueue.subscription";
    let database = Database::create().await.unwrap();
    assert_eq!(mixed_clients(&["--database-url", &database.url()]).await, all_well());
    assert_eq!(database.sql(LOOK).await.unwrap(), "");
}
