//! The program `existing_jobs_table`: what became of every job.

mod program;

use std::process::Output;

use pgqueue_testserver::Database;
use serde_json::json;

use crate::program::{example, soon, summary};

async fn existing_jobs_table(args: &[&str]) -> Output {
    soon("it ends", example("existing_jobs_table", args).output()).await.unwrap()
}

/// Every job is over, the one that a worker died with at its second attempt.
fn assert_all_well(output: &Output) {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    assert_eq!(summary(&output.stdout), json!({ "succeeded": 6, "failed": 1, "timed_out": 1 }), "{stdout}{stderr}");
    let said = |recipient: &str| stdout.lines().find(|line| line.starts_with(recipient)).unwrap_or_default().to_owned();
    for (recipient, state, attempts, error) in [
        ("Ada", "succeeded", "2", ""),
        ("Barbara", "succeeded", "1", ""),
        ("Edsger", "succeeded", "3", ""),
        ("Mallory", "failed", "1", "no such mailbox"),
        ("Tony", "succeeded", "1", ""),
        ("Zeno", "timed_out", "3", "took more than 300ms"),
    ] {
        let line = said(recipient);
        let words: Vec<_> = line.split_whitespace().collect();
        assert!(
            words.starts_with(&[recipient, state, attempts]) && line.contains(error),
            "{line:?} in {stdout}{stderr}"
        );
    }
    assert!(stderr.contains("worker 1 dies with the mail to Ada in hand"), "{stderr}");
    assert!(stderr.contains("sends a mail to Ada, attempt 2"), "{stderr}");
}

#[tokio::test]
async fn every_job_has_its_state_though_a_worker_died() {
    for driver in ["tokio-postgres", "sqlx"] {
        assert_all_well(&existing_jobs_table(&["--driver", driver]).await);
    }
}

#[tokio::test]
async fn a_database_that_is_given_is_left_clean() {
    let database = Database::create().await.unwrap();
    for driver in ["tokio-postgres", "sqlx"] {
        assert_all_well(&existing_jobs_table(&["--driver", driver, "--database-url", &database.url()]).await);
        let left = database.sql("select nspname from pg_namespace where nspname like 'existing%'").await.unwrap();
        assert_eq!(left, "", "{driver}");
    }
}
