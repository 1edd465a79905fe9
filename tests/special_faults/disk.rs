//! A server that has no room, or writes nothing: typed errors, transient where it passes, and nothing is lost.

use pgqueue_core::{ErrorKind, PublisherExt, Subscription};
use pgqueue_postgres::Client;
use pgqueue_testserver::Database;

use crate::{
    audit::{Audit, patient, queue_in, work},
    both_clients::on_both_clients,
    common::{
        QUIET, SHORT_LEASE, assert_says, consume, end, invoices, next, patiently, publish_number, publish_numbers,
        queue,
    },
    shim::Shim,
};

on_both_clients!(
    full_disk_refuses_publishers_and_takes_them_again,
    full_disk_delays_claims_and_answers,
    consumers_of_a_database_that_became_read_only_are_told,
    server_that_runs_out_of_room_loses_nothing,
);

/// Makes the server refuse a write as it does without room (SQLSTATE 53100).
async fn fill(database: &Database, what: &str, table: &str) {
    let script = format!(
        "create or replace function public.no_room() returns trigger language plpgsql as
           $$ begin raise exception 'could not extend file: No space left on device' using errcode = '53100'; end $$;
         create trigger no_room before {what} on {table} for each row execute function public.no_room()"
    );
    database.sql(&script).await.unwrap();
}

async fn free(database: &Database, table: &str) {
    database.sql(&format!("drop trigger no_room on {table}")).await.unwrap();
}

async fn full_disk_refuses_publishers_and_takes_them_again<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let audit = Audit::new();
    let worker = work(patient(&queue, invoices()).await, &audit);
    publish_numbers(&queue, 0..10).await;
    for table in ["pgqueue.log", "pgqueue.scheduled", "pgqueue.dedup"] {
        fill(&database, "insert", table).await;
        let message = pgqueue_core::NewMessage::json(&99).unwrap();
        let message = match table {
            "pgqueue.scheduled" => message.with_delay(QUIET),
            "pgqueue.dedup" => message.with_dedup_id("99"),
            _ => message,
        };
        let refused = queue.publish_one("orders", message).await.unwrap_err();
        assert_says(&refused, ErrorKind::Query, &["No space left on device"]);
        assert!(refused.is_transient());
        free(&database, table).await;
    }
    publish_numbers(&queue, 10..20).await;
    audit.until_handled(0..20).await;
    tokio::time::sleep(2 * QUIET).await; // what was refused has no effect later either
    audit.check(0..20, 1);
    assert!(!worker.is_finished());
}

async fn full_disk_delays_claims_and_answers<C: Client>() {
    for (what, table) in [
        ("insert", "pgqueue.lease"),
        ("insert", "pgqueue.cursor"),
        ("delete or update", "pgqueue.lease"),
        ("insert or update", "pgqueue.owner"),
        ("insert", "pgqueue.sleeper"),
    ] {
        let (database, queue) = queue::<C>().await;
        let audit = Audit::new();
        let subscription = invoices().with_lease(3 * SHORT_LEASE);
        let worker = work(patient(&queue, subscription.clone()).await, &audit);
        publish_numbers(&queue, 0..10).await;
        audit.until_handled(0..10).await;
        fill(&database, what, table).await;
        publish_numbers(&queue, 10..20).await;
        // Who repeats nothing is told what it is.
        if what == "insert" && table != "pgqueue.sleeper" {
            let mut impatient = consume(&queue, subscription).await;
            publish_number(&queue, 20).await;
            let refused = end(&mut impatient).await;
            assert_says(&refused, ErrorKind::Query, &["No space left on device"]);
            assert!(refused.is_transient());
        } else {
            publish_number(&queue, 20).await;
        }
        tokio::time::sleep(QUIET).await; // it goes on failing for a while
        free(&database, table).await;
        audit.until_handled(0..21).await;
        audit.check(0..21, 2);
        assert!(!worker.is_finished(), "{what} {table}");
        worker.abort();
    }
}

async fn consumers_of_a_database_that_became_read_only_are_told<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let subscription = Subscription::new("invoices", "orders").with_lease(SHORT_LEASE);
    let mut stream = patient(&queue, subscription.clone()).await;
    publish_numbers(&queue, 0..10).await;
    let held = next(&mut stream).await;
    let set = |what: &str| {
        format!(
            "alter database {} {what};
             select count(pg_terminate_backend(pid)) from pg_stat_activity
             where datname = current_database() and pid <> pg_backend_pid()",
            database.name()
        )
    };
    database.sql(&set("set default_transaction_read_only = on")).await.unwrap();
    let audit = Audit::new();
    let refused = patiently("an answer", held.ok()).await.unwrap_err();
    assert!([ErrorKind::Fatal, ErrorKind::Unknown].contains(&refused.kind()), "{refused}");
    let ended = patiently("an end", work(stream, &audit)).await.unwrap().expect("an error");
    assert_says(&ended, ErrorKind::Fatal, &["read-only", "connect to the primary"]);
    let refused = loop {
        let refused = queue.publish_json("orders", &99).await.unwrap_err();
        // Of the pool's connections, some had not noticed that they were ended.
        if refused.kind() == ErrorKind::Fatal {
            break refused;
        }
    };
    assert_says(&refused, ErrorKind::Fatal, &["read-only", "connect to the primary"]);

    let again = "begin read write; ";
    database.sql(&(again.to_owned() + &set("reset default_transaction_read_only") + "; commit")).await.unwrap();
    work(patient(&queue, subscription).await, &audit);
    audit.until_handled(0..10).await;
    audit.check(0..10, 3);
}

/// As the operating system says it: files of the database cannot grow.
async fn server_that_runs_out_of_room_loses_nothing<C: Client>() {
    let shim = Shim::new();
    let server = shim.server().await;
    let queue = queue_in::<C>(&server).await;
    let audit = Audit::new();
    let worker = work(patient(&queue, invoices()).await, &audit);
    publish_numbers(&queue, 0..10).await;
    shim.fill_disk(true);
    // Until pages that have room still are used up.
    let mut published = 10;
    let refused = loop {
        let padded = pgqueue_core::NewMessage::json(&published).unwrap().with_header("padding", "x".repeat(2000));
        match patiently("publishing", queue.publish_one("orders", padded)).await {
            Ok(_) => published += 1,
            Err(refused) => break refused,
        }
        assert!(published < 100_000, "its disk is not full");
    };
    assert_says(&refused, ErrorKind::Query, &["No space left on device"]);
    assert!(refused.is_transient());
    tokio::time::sleep(QUIET).await;
    shim.fill_disk(false);
    publish_numbers(&queue, published..published + 10).await;
    audit.until_handled(0..published + 10).await;
    audit.check(0..published + 10, 2);
    assert!(!worker.is_finished());
}
