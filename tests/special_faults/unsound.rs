//! What would lose messages without a sign is refused before it does.

use pgqueue_core::{ErrorKind, PublisherExt, Topic};
use pgqueue_postgres::{Client, PgQueue};
use pgqueue_testserver::Server;

use crate::{
    both_clients::on_both_clients,
    common::{assert_says, consume, end, invoices, next, number, publish_number, queue},
};

on_both_clients!(ids_drawn_in_advance_are_refused, tables_that_logical_replication_writes_are_refused);

async fn ids_drawn_in_advance_are_refused<C: Client>() {
    let (database, queue) = queue::<C>().await;
    queue.insert_subscription(&invoices()).await.unwrap();
    database.sql("alter sequence pgqueue.log_id cache 10").await.unwrap();
    let opened = PgQueue::<C>::connect(&database.url()).await.unwrap();
    let refused = opened.publish_json("orders", &1).await.unwrap_err();
    assert_says(&refused, ErrorKind::Fatal, &["pgqueue.log_id", "several numbers at a time"]);
    assert_says(&opened.migrate().await.unwrap_err(), ErrorKind::Fatal, &["pgqueue.log_id"]);
    let mut stream = consume(&opened, invoices()).await;
    assert_says(&end(&mut stream).await, ErrorKind::Fatal, &["pgqueue.log_id"]);

    database.sql("alter sequence pgqueue.log_id cache 1").await.unwrap();
    publish_number(&opened, 2).await;
    assert_eq!(number(&next(&mut consume(&opened, invoices()).await).await), 2);
}

async fn tables_that_logical_replication_writes_are_refused<C: Client>() {
    let server = Server::builder().with_setting("wal_level", "logical").start().await.unwrap();
    for database in ["first", "second"] {
        server.create_database(database).await.unwrap();
        let queue = PgQueue::<C>::connect(&server.url(database)).await.unwrap();
        queue.migrate().await.unwrap();
        queue.create_topic(Topic::new("orders")).await.unwrap();
    }
    server.sql("first", "create publication queue for table pgqueue.log").await.unwrap();
    // In one cluster, a subscription that makes its slot waits for itself.
    server.sql("first", "select pg_create_logical_replication_slot('queue', 'pgoutput')").await.unwrap();
    let url = server.url("first");
    let subscription = format!(
        "create subscription queue connection '{url}' publication queue with (create_slot = false, copy_data = false)"
    );
    server.sql("second", &subscription).await.unwrap();

    let queue = PgQueue::<C>::connect(&server.url("second")).await.unwrap();
    let refused = queue.publish_json("orders", &1).await.unwrap_err();
    assert_says(&refused, ErrorKind::Fatal, &["logical replication"]);
    assert_says(&queue.migrate().await.unwrap_err(), ErrorKind::Fatal, &["logical replication"]);
    server.sql("second", "drop subscription queue").await.unwrap();
    publish_number(&queue, 2).await;
    // Who is read from loses nothing.
    publish_number(&PgQueue::<C>::connect(&server.url("first")).await.unwrap(), 3).await;
}
