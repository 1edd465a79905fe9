//! The program `transactional_outbox`: the books balance, whenever its processes die.

mod program;

use pgqueue_testserver::Database;
use serde_json::{Value, json};

use crate::program::{example, soon, summary};

/// Runs it in the database at `url`, or in its own, and returns its summary and what it said.
async fn transactional_outbox(driver: &str, url: Option<&str>) -> (Value, String) {
    let mut program = example("transactional_outbox", ["--driver", driver]);
    match url {
        Some(url) => program.env("DATABASE_URL", url),
        None => program.env_remove("DATABASE_URL"),
    };
    let output = soon("it ends", program.output()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    (summary(&output.stdout), said)
}

/// Of each shop that died the orders before its last were taken, and of one the last as well; and 20 of the one that lived.
fn all_well() -> Value {
    let ordered = 4 * (1 + 2) + 3 + (1..=20).sum::<i64>();
    json!({
        "orders": 29, "entries": 29, "missing": 0, "repeated": 0, "ordered": ordered, "booked": ordered, "deaths": 9
    })
}

async fn books_balance(driver: &str) {
    let (summary, said) = transactional_outbox(driver, None).await;
    assert_eq!(summary, all_well(), "{said}");
    for step in ["begun", "written", "told", "committed"] {
        for who in ["shop", "ledger"] {
            assert!(said.contains(&format!("the {who} dies after step {step}")), "{said}");
        }
    }
    assert!(said.contains("the ledger dies after step received"), "{said}");
}

#[tokio::test]
async fn books_balance_though_processes_on_tokio_postgres_die_between_any_two_steps() {
    books_balance("tokio-postgres").await;
}

#[tokio::test]
async fn books_balance_though_processes_on_sqlx_die_between_any_two_steps() {
    books_balance("sqlx").await;
}

#[tokio::test]
async fn a_database_that_is_given_is_left_clean() {
    const LOOK: &str = "select nspname from pg_namespace where nspname like 'transactional%'; \
                        select name from pgqueue.topic; select name from pgqueue.subscription";
    let database = Database::create().await.unwrap();
    assert_eq!(transactional_outbox("sqlx", Some(&database.url())).await.0, all_well());
    assert_eq!(database.sql(LOOK).await.unwrap(), "");
}
