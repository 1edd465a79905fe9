//! A handler's writes and its answer are one transaction.

use std::time::Duration;

use futures::FutureExt;
use pgqueue_core::{Ack, Backoff, BoxError, ErrorKind, Job, Topic, Worker, subscribe};
use pgqueue_postgres::{Client, Command, HeldDelivery, Locking, OwnedTransaction, PgQueue, PgTables, Transaction};
use pgqueue_testserver::Database;

use crate::{
    both_clients::on_both_clients,
    common::{assert_says, chain, next, patiently, quiet, take, until_sql},
    table::{consume, database, driver, insert, left, messages, payload, tables},
};

on_both_clients!(
    what_the_handler_writes_commits_with_its_ok,
    what_the_handler_writes_is_rolled_back_when_it_drops,
    workers_handlers_can_write_too,
    rows_are_relayed_into_the_queue_in_one_transaction,
    failed_statement_of_the_handler_is_no_ok,
    handler_that_ends_the_transaction_is_found_out,
    savepoints_of_the_handler_are_its_own,
    answer_that_touches_more_than_was_delivered_is_rolled_back,
    requeue_with_a_delay_needs_a_statement,
    ok_that_touches_no_row_is_refused,
    rejected_rows_are_for_a_statement_of_the_user,
    reject_without_a_statement_is_refused,
    last_attempt_is_rejected,
    requeue_says_when_and_why,
    delivery_of_another_driver_is_refused_and_requeued,
    connections_come_back_clean,
    lost_connection_is_an_error_of_the_answer,
);

async fn work(database: &Database) {
    database.sql("create table work (done text not null)").await.unwrap();
}

async fn done(database: &Database) -> String {
    database.sql("select coalesce(string_agg(done, ',' order by done), '') from work").await.unwrap()
}

async fn write<C: Client>(held: &mut HeldDelivery<C>) {
    let wrote = held.transaction().await.unwrap().execute("insert into work values ('x')", &[]).await.unwrap();
    assert_eq!(wrote, 1);
}

async fn what_the_handler_writes_commits_with_its_ok<C: Client>() {
    let database = database().await;
    work(&database).await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let mut stream = consume(driver(&tables, "a", Locking::Ordered)).await;
    let mut held = HeldDelivery::<C>::from_delivery(next(&mut stream).await).unwrap();
    assert_eq!(&held.message().payload()[..], b"0");
    write(&mut held).await;
    assert_eq!((done(&database).await, left(&database).await), (String::new(), "1".to_owned()));
    held.ok().await.unwrap();
    assert_eq!((done(&database).await, left(&database).await), ("x".to_owned(), "0".to_owned()));
}

async fn what_the_handler_writes_is_rolled_back_when_it_drops<C: Client>() {
    let database = database().await;
    work(&database).await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let mut stream = consume(driver(&tables, "a", Locking::Unordered)).await;
    let mut held = HeldDelivery::<C>::from_delivery(next(&mut stream).await).unwrap();
    write(&mut held).await;
    drop(held);
    let mut held = HeldDelivery::<C>::from_delivery(next(&mut stream).await).unwrap();
    write(&mut held).await;
    // A requeue commits what was written.
    held.requeue().await.unwrap();
    assert_eq!((done(&database).await, left(&database).await), ("x".to_owned(), "1".to_owned()));
}

async fn workers_handlers_can_write_too<C: Client>() {
    let database = database().await;
    work(&database).await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..5).await;
    let stream = consume(driver(&tables, "a", Locking::Unordered)).await;
    let handler = async |job: Job<u64>| {
        let (number, delivery) = job.take_delivery()?;
        let mut held = HeldDelivery::<C>::from_delivery(delivery)?;
        write(&mut held).await;
        match number {
            4 => drop(held), // a handler that gives up, behind all others
            _ => held.ok().await?,
        }
        Ok::<_, BoxError>(Ack::Ok)
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let worker = tokio::spawn(Worker::new(stream.until(stopped.map(drop)), handler).with_concurrency(3).run());
    until_sql(&database, "select count(*) from messages", "1").await;
    stop.send(()).unwrap();
    patiently("the worker", worker).await.unwrap().unwrap();
    assert_eq!(done(&database).await, "x,x,x,x");
}

async fn rows_are_relayed_into_the_queue_in_one_transaction<C: Client>()
where
    C::Transaction: Transaction<C>,
{
    let database = database().await;
    let queue = PgQueue::<C>::connect(&database.url()).await.unwrap();
    queue.migrate().await.unwrap();
    queue.create_topic(Topic::new("orders")).await.unwrap();
    let mut invoices = crate::common::consume(&queue, crate::common::invoices()).await;
    let tables: PgTables<C> = queue.tables();
    insert(&database, "a", 0..3).await;
    let mut stream = consume(driver(&tables, "a", Locking::Ordered)).await;
    for _ in 0..3 {
        let mut held = HeldDelivery::<C>::from_delivery(next(&mut stream).await).unwrap();
        let message = pgqueue_core::NewMessage::new(held.message().payload().clone());
        queue.publish_in(held.transaction().await.unwrap(), "orders", vec![message]).await.unwrap();
        held.ok().await.unwrap();
    }
    for (delivery, expected) in take(&mut invoices, 3).await.into_iter().zip(0..) {
        assert_eq!(crate::common::number(&delivery), expected);
        delivery.ok().await.unwrap();
    }
    assert_eq!(left(&database).await, "0");
}

async fn failed_statement_of_the_handler_is_no_ok<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let mut stream = consume(driver(&tables, "a", Locking::Ordered)).await;
    let mut held = HeldDelivery::<C>::from_delivery(next(&mut stream).await).unwrap();
    held.transaction().await.unwrap().execute("insert into nothing values (1)", &[]).await.unwrap_err();
    held.ok().await.unwrap_err();
    assert_eq!(payload(&next(&mut stream).await), "0");
}

async fn handler_that_ends_the_transaction_is_found_out<C: Client>() {
    let database = database().await;
    work(&database).await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let mut stream = consume(driver(&tables, "a", Locking::Ordered)).await;
    for ends in [&["commit"][..], &["rollback"], &["rollback", "begin"]] {
        let mut held = HeldDelivery::<C>::from_delivery(next(&mut stream).await).unwrap();
        write(&mut held).await;
        for end in ends {
            held.transaction().await.unwrap().execute(end, &[]).await.unwrap();
        }
        assert_says(&held.ok().await.unwrap_err(), ErrorKind::Invalid, &["ended the delivery's transaction"]);
        assert_eq!(left(&database).await, "1", "{ends:?}");
    }
    next(&mut stream).await.ok().await.unwrap();
}

async fn savepoints_of_the_handler_are_its_own<C: Client>() {
    let database = database().await;
    work(&database).await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let mut stream = consume(driver(&tables, "a", Locking::Ordered)).await;
    let mut held = HeldDelivery::<C>::from_delivery(next(&mut stream).await).unwrap();
    write(&mut held).await;
    let transaction = held.transaction().await.unwrap();
    transaction.execute("savepoint mine", &[]).await.unwrap();
    transaction.execute("insert into nothing values (1)", &[]).await.unwrap_err();
    transaction.execute("rollback to savepoint mine", &[]).await.unwrap();
    held.ok().await.unwrap();
    assert_eq!((done(&database).await, left(&database).await), ("x".to_owned(), "0".to_owned()));
}

async fn answer_that_touches_more_than_was_delivered_is_rolled_back<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..3).await;
    let greedy = messages::<C>("a", Locking::Ordered).with_ok("delete from messages where $1::bigint[] is not null");
    let mut stream = consume(tables.query(greedy)).await;
    let error = next(&mut stream).await.ok().await.unwrap_err();
    assert_says(&error, ErrorKind::Invalid, &["3 rows of \"messages\"", "1 were delivered"]);
    assert_eq!(left(&database).await, "3");
}

async fn requeue_with_a_delay_needs_a_statement<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let base = "select id, payload from messages order by id";
    let query =
        pgqueue_postgres::PendingQuery::new("messages", base).with_ok("delete from messages where id = any($1)");
    let mut stream = consume(tables.query(query)).await;
    let error = next(&mut stream).await.settle(Ack::requeue_after(Duration::from_secs(1))).await.unwrap_err();
    assert_says(&error, ErrorKind::Invalid, &["\"messages\"", "with_requeue"]);
    next(&mut stream).await.requeue().await.unwrap();
    next(&mut stream).await.ok().await.unwrap();
}

async fn ok_that_touches_no_row_is_refused<C: Client>() {
    let database = database().await;
    work(&database).await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let elsewhere =
        messages::<C>("a", Locking::Ordered).with_ok("delete from messages where id = any($1) and payload = 'b'");
    let mut stream = consume(tables.query(elsewhere)).await;
    let mut held = HeldDelivery::<C>::from_delivery(next(&mut stream).await).unwrap();
    write(&mut held).await;
    assert_says(&held.ok().await.unwrap_err(), ErrorKind::LeaseLost, &["\"messages\"", "somebody else"]);
    assert_eq!((done(&database).await, left(&database).await), (String::new(), "1".to_owned()));
}

async fn rejected_rows_are_for_a_statement_of_the_user<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    database.sql("create table rejected (id bigint, subscription text, reason text)").await.unwrap();
    insert(&database, "a", 0..1).await;
    let reject = Command::new(
        "with gone as (delete from messages where id = any($1) returning id) \
         insert into rejected select id, $3, $2 from gone",
    );
    let query = messages::<C>("a", Locking::Ordered).with_reject(reject.with_argument("a"));
    let mut stream = consume(tables.query(query)).await;
    next(&mut stream).await.settle(Ack::reject("no beans")).await.unwrap();
    quiet(&mut stream).await;
    assert_eq!(database.sql("select subscription || ': ' || reason from rejected").await.unwrap(), "a: no beans");
}

async fn reject_without_a_statement_is_refused<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let mut stream = consume(driver(&tables, "a", Locking::Ordered)).await;
    let error = next(&mut stream).await.settle(Ack::reject("no beans")).await.unwrap_err();
    assert_says(&error, ErrorKind::Invalid, &["\"messages\"", "with_reject"]);
    assert!(!chain(&error).contains("beans"));
    assert_eq!(payload(&next(&mut stream).await), "0");
}

async fn last_attempt_is_rejected<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let query = messages::<C>("a", Locking::Ordered)
        .with_tracking(pgqueue_postgres::Tracking::new("messages"))
        .with_backoff(Backoff::fixed(Duration::ZERO).with_max_attempts(3))
        .with_reject("delete from messages where id = any($1)");
    let mut stream = consume(tables.query(query)).await;
    for attempt in 1..=3 {
        let delivery = next(&mut stream).await;
        assert_eq!(delivery.message().attempt(), attempt);
        delivery.requeue().await.unwrap();
    }
    assert_eq!(left(&database).await, "0");
}

async fn requeue_says_when_and_why<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    database.sql("create table requeued (delay bigint, reason text)").await.unwrap();
    insert(&database, "a", 0..1).await;
    let query = messages::<C>("a", Locking::Ordered)
        .with_requeue("insert into requeued select $2, $3 from messages where id = any($1)")
        .with_backoff(Backoff::fixed(Duration::from_millis(7)));
    let mut stream = consume(tables.query(query)).await;
    next(&mut stream).await.requeue().await.unwrap();
    let why = pgqueue_core::Requeue::default().with_delay(Duration::from_secs(2)).with_reason("no milk");
    next(&mut stream).await.settle(Ack::Requeue(why)).await.unwrap();
    let said = "select string_agg(concat_ws(' ', delay, reason), ', ' order by delay) from requeued";
    assert_eq!(database.sql(said).await.unwrap(), "7, 2000 no milk");
}

async fn delivery_of_another_driver_is_refused_and_requeued<C: Client>() {
    let queue = pgqueue_memory::MemoryQueue::new();
    queue.create_topic(Topic::new("orders")).await.unwrap();
    let driver = queue.subscription(pgqueue_core::Subscription::new("invoices", "orders"));
    let mut stream = patiently("a stream", subscribe(driver)).await.unwrap();
    pgqueue_core::PublisherExt::publish_json(&queue, "orders", &1).await.unwrap();
    let error = HeldDelivery::<C>::from_delivery(next(&mut stream).await).unwrap_err();
    assert_says(&error, ErrorKind::Invalid, &["query's driver"]);
    next(&mut stream).await.ok().await.unwrap();
}

async fn connections_come_back_clean<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..40).await;
    let mut stream = consume(driver(&tables, "a", Locking::Unordered)).await;
    for number in 0..20 {
        let delivery = next(&mut stream).await;
        match number % 4 {
            0 => drop(delivery),
            1 => delivery.requeue().await.unwrap(),
            2 => drop(delivery.settle(Ack::reject("no")).await),
            _ => delivery.ok().await.unwrap(),
        }
        // Outside of any delivery, everything commits by itself.
        tables.client().query("insert into messages (subscription, payload) values ('b', '1')", &[]).await.unwrap();
    }
    drop(stream);
    until_sql(&database, "select count(*) from messages where subscription = 'b'", "20").await;
    let open = "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in%'";
    until_sql(&database, open, "0").await;
}

async fn lost_connection_is_an_error_of_the_answer<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let mut stream = consume(driver(&tables, "a", Locking::Unordered)).await;
    let held = next(&mut stream).await;
    let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                where datname = current_database() and state = 'idle in transaction'";
    assert_eq!(database.sql(kill).await.unwrap(), "1");
    let error = held.ok().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection, "{}", chain(&error));
    next(&mut stream).await.ok().await.unwrap();
}
