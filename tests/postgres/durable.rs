//! What is durable when a call returns, what need not be, and what is refused because it would be less than it says.

use pgqueue_core::{PublisherExt, Topic};
use pgqueue_postgres::{Client, Options, PgQueue};
use pgqueue_tests::until_sql_on;
use pgqueue_testserver::{Error as ServerError, Server};

use crate::{
    both_clients::on_both_clients,
    common::{PATIENCE, claim_of, consume, invoices, next, patiently, publish_number, publish_numbers, queue, take},
};

on_both_clients!(
    claims_need_not_be_durable_and_answers_and_messages_are,
    a_claim_refuses_a_transaction_that_did_something,
    nobody_is_dead_whose_server_was_not_up_for_its_lease,
);

/// Commits that wait to be durable.
const WAITING: &str = "
    select coalesce(string_agg(substring(query from 'pgqueue\\.(\\w+)'), ' ' order by query), '')
    from pg_stat_activity where wait_event = 'SyncRep'";

async fn claims_need_not_be_durable_and_answers_and_messages_are<C: Client>() {
    // Whoever asks to be durable waits for a standby that there is not; at first nobody does.
    let builder = Server::builder().with_setting("synchronous_standby_names", "nobody");
    let server = builder.with_setting("synchronous_commit", "local").start().await.unwrap();
    server.create_database("queue").await.unwrap();
    let patient = Options::new().with_time_limit(2 * PATIENCE);
    let queue = PgQueue::<C>::connect(&server.url("queue")).await.unwrap().with_options(patient).unwrap();
    queue.migrate().await.unwrap();
    queue.create_topic(Topic::new("orders")).await.unwrap();
    let mut stream = consume(&queue, invoices().with_lease(4 * PATIENCE).with_prefetch(1)).await;
    publish_numbers(&queue, 0..5).await;
    let first = next(&mut stream).await;

    server.sql("postgres", "alter system set synchronous_commit = on").await.unwrap();
    server.sql("postgres", "select pg_reload_conf()").await.unwrap();
    until_sql_on(&server, "postgres", "show synchronous_commit", "on").await;
    let answered = tokio::spawn(first.ok());
    let _others = take(&mut stream, 4).await;
    let published = tokio::spawn({
        let queue = queue.clone();
        async move { queue.publish_json("orders", &5).await }
    });
    until_sql_on(&server, "postgres", WAITING, "publish_batch settle").await;
    assert!(!answered.is_finished() && !published.is_finished());
    server.sql("postgres", "alter system set synchronous_standby_names = ''").await.unwrap();
    server.sql("postgres", "select pg_reload_conf()").await.unwrap();
    patiently("an answer", answered).await.unwrap().unwrap();
    patiently("a message", published).await.unwrap().unwrap();
}

async fn a_claim_refuses_a_transaction_that_did_something<C: Client>() {
    let (database, queue) = queue::<C>().await;
    queue.insert_subscription(&invoices()).await.unwrap();
    publish_number(&queue, 1).await;
    let claim = claim_of("00000000-0000-0000-0000-000000000001", 1);
    // What else it did would be as little durable as the claim.
    let shared = format!("begin; select pg_current_xact_id(); {claim}; commit");
    let refused = database.sql(&shared).await.unwrap_err();
    assert!(matches!(&refused, ServerError::Sql { code, .. } if code == "PQ004"), "{refused}");
    assert_eq!(database.sql(&claim).await.unwrap(), "1");
}

/// Two that were silent for hours, as somebody saw: of the one with the long lease, the server was down for a part of that, for all it
/// knows.
const SILENT: &str = "
    insert into pgqueue.owner (id, subscription, lease_ms, beat_at, suspected_at)
    select gen_random_uuid(), 1, lease, now() - interval '3 days', now() - interval '2 days' from unnest(array[1, 86400000]) lease";

async fn nobody_is_dead_whose_server_was_not_up_for_its_lease<C: Client>() {
    let (database, queue) = queue::<C>().await;
    queue.insert_subscription(&invoices()).await.unwrap();
    database.sql(SILENT).await.unwrap();
    queue.maintain().await.unwrap();
    assert_eq!(database.sql("select lease_ms from pgqueue.owner").await.unwrap(), "86400000");
}
