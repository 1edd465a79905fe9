//! The program `event_projection`: each event counts once, whatever dies.

mod program;

use pgqueue_testserver::Database;
use serde_json::{Value, json};

use crate::program::{example, soon, summary};

async fn event_projection(args: &[&str]) -> Value {
    let output = soon("it ends", example("event_projection", args).output()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    summary(&output.stdout)
}

/// Deaths at a third and at two thirds: the first loses the batch at hand, of 50 at most, and the second loses nothing.
fn assert_all_well(summary: &Value) {
    let committed = summary["committed"].as_array().unwrap();
    let committed: Vec<_> = committed.iter().map(|events| events.as_i64().unwrap()).collect();
    assert!((519..569).contains(&committed[0]) && (1138..1188).contains(&committed[1]), "{summary}");
    let expected = json!({ "events": 1707, "networks": 12, "deaths": 2, "committed": committed, "same": true });
    assert_eq!(summary, &expected);
}

#[tokio::test]
async fn table_is_that_of_an_undisturbed_projector() {
    assert_all_well(&event_projection(&[]).await);
}

#[tokio::test]
async fn a_database_that_is_given_is_left_clean() {
    const LOOK: &str = "select nspname from pg_namespace where nspname like 'event%'; select name from pgqueue.topic; \
                        select name from pgqueue.subscription; select name from pgqueue.checkpoint";
    let database = Database::create().await.unwrap();
    assert_all_well(&event_projection(&["--database-url", &database.url()]).await);
    assert_eq!(database.sql(LOOK).await.unwrap(), "");
}
