//! Answers that cannot be given, or only in part.

use std::time::Duration;

use pgqueue_core::{Ack, Backoff, ErrorKind, Requeue, subscribe};
use pgqueue_postgres::{Client, Command, HeldDelivery, Locking, OwnedTransaction, PendingQuery, Tracking};
use pgqueue_testserver::Proxy;

use crate::{
    both_clients::on_both_clients,
    common::{assert_says, chain, next, patiently, until_sql},
    table::{Small, consume, database, driver, insert, left, messages, payload, payloads, tables},
};

on_both_clients!(
    requeue_of_a_transaction_that_failed_is_an_error,
    procedure_is_refused,
    statements_with_too_few_or_too_many_parameters_are_refused,
    statement_may_end_in_a_comment,
    reason_may_hold_anything,
    last_attempt_of_a_batch_is_that_of_its_row,
    commit_that_is_refused_is_no_ok,
    answer_that_never_comes_is_unknown,
    transaction_that_the_server_ended_is_an_error_and_comes_again,
    delivery_may_be_dropped_outside_of_a_runtime,
);

/// How many sessions commit just now.
const COMMITTING: &str = "select count(*) from pg_stat_activity where datname = current_database() and query = 'COMMIT' and state = 'active'";

/// The handler forgot that a statement of its failed; what it wrote is not committed.
async fn requeue_of_a_transaction_that_failed_is_an_error<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let query = PendingQuery::new("messages", "select id, payload from messages")
        .with_ok("delete from messages where id = any($1)");
    let mut stream = consume(tables.query(query)).await;
    let mut held = HeldDelivery::<C>::from_delivery(next(&mut stream).await).unwrap();
    held.transaction().await.unwrap().execute("insert into nothing values (1)", &[]).await.unwrap_err();
    held.requeue().await.unwrap_err();
    next(&mut stream).await.ok().await.unwrap();
}

async fn procedure_is_refused<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    let procedure = "create procedure done(ids bigint[]) language sql as 'delete from messages where id = any(ids)';
        create function finish(ids bigint[]) returns void language sql as 'delete from messages where id = any(ids)'";
    database.sql(procedure).await.unwrap();
    let called = messages::<C>("a", Locking::Ordered).with_ok("call done($1)");
    let error = patiently("an answer", subscribe(tables.query(called))).await.unwrap_err();
    assert_says(&error, ErrorKind::Invalid, &["\"messages\"", "OK", "function"]);

    insert(&database, "a", 0..1).await;
    let mut stream = consume(tables.query(messages::<C>("a", Locking::Ordered).with_ok("select finish($1)"))).await;
    next(&mut stream).await.ok().await.unwrap();
    assert_eq!(left(&database).await, "0");
}

async fn statements_with_too_few_or_too_many_parameters_are_refused<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    for ok in [
        "delete from messages where id = any($1) and $2 = 'a'",
        "delete from messages where id = any($1); commit",
        "delete from messages where id = any($1) /* and",
    ] {
        let query = messages::<C>("a", Locking::Ordered).with_ok(ok);
        let error = patiently("an answer", subscribe(tables.query(query))).await.unwrap_err();
        assert_says(&error, ErrorKind::Invalid, &["\"messages\"", "OK"]);
    }
}

async fn statement_may_end_in_a_comment<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    for ok in ["delete from messages where id = any($1) -- done", "/* done */ delete from messages where id = any($1);"]
    {
        insert(&database, "a", 0..1).await;
        let mut stream = consume(tables.query(messages::<C>("a", Locking::Ordered).with_ok(ok))).await;
        next(&mut stream).await.ok().await.unwrap();
        assert_eq!(left(&database).await, "0");
    }
}

async fn reason_may_hold_anything<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    database.sql("create table reasons (reason text)").await.unwrap();
    insert(&database, "a", 0..1).await;
    let query = messages::<C>("a", Locking::Ordered)
        .with_requeue("insert into reasons select $3 from messages where id = any($1)")
        .with_reject("insert into reasons select $2 from messages where id = any($1)");
    let mut stream = consume(tables.query(query)).await;
    let requeue = Requeue::default().with_reason("a\0b");
    next(&mut stream).await.settle(Ack::Requeue(requeue)).await.unwrap();
    next(&mut stream).await.settle(Ack::reject("c\0d")).await.unwrap();
    let reasons = database.sql("select string_agg(reason, ',') from reasons").await.unwrap();
    assert_eq!(reasons, "a\u{fffd}b,c\u{fffd}d");
}

/// A batch is requeued as one, but only the rows whose last attempt it was are rejected.
async fn last_attempt_of_a_batch_is_that_of_its_row<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..3).await;
    database.sql("update messages set deliveries = 4 where payload = '1'").await.unwrap();
    let query = messages::<C>("a", Locking::Ordered)
        .with_batch(3)
        .with_tracking(Tracking::new("messages"))
        .with_backoff(Backoff::fixed(Duration::ZERO).with_max_attempts(5))
        .with_reject(Command::new("update messages set subscription = 'rejected' where id = any($1)"));
    let mut stream = consume(tables.query(query)).await;
    let delivery = next(&mut stream).await;
    assert_eq!(payloads(&delivery), [0, 1, 2]);
    delivery.requeue().await.unwrap();
    assert_eq!(payloads(&next(&mut stream).await), [0, 2]);
    let rejected = database.sql("select string_agg(payload, ',') from messages where subscription = 'rejected'").await;
    assert_eq!(rejected.unwrap(), "1");
}

async fn commit_that_is_refused_is_no_ok<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    let parent = "create table parent (id int primary key);
        create table child (id int references parent deferrable initially deferred)";
    database.sql(parent).await.unwrap();
    insert(&database, "a", 0..1).await;
    let mut stream = consume(driver(&tables, "a", Locking::Ordered)).await;
    let mut held = HeldDelivery::<C>::from_delivery(next(&mut stream).await).unwrap();
    held.transaction().await.unwrap().execute("insert into child values (1)", &[]).await.unwrap();
    let error = held.ok().await.unwrap_err();
    assert_says(&error, ErrorKind::Query, &["23503"]);
    next(&mut stream).await.ok().await.unwrap();
    assert_eq!(left(&database).await, "0");
}

async fn answer_that_never_comes_is_unknown<C: Small>() {
    let database = database().await;
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    let tables = pgqueue_postgres::PgTables::<C>::new(C::of(&database.url_at(proxy.port()), 4));
    insert(&database, "a", 0..1).await;
    // The OK's own statement is answered at once; the commit takes two seconds.
    let slow = "create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(2); return null; end $$;
        create constraint trigger slow after delete on messages deferrable initially deferred for each row execute function slow()";
    database.sql(slow).await.unwrap();
    let mut stream = consume(driver(&tables, "a", Locking::Ordered)).await;
    let answer = tokio::spawn(next(&mut stream).await.ok());
    until_sql(&database, COMMITTING, "1").await;
    proxy.cut().await;
    let error = patiently("an answer", answer).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{}", chain(&error));
    until_sql(&database, "select count(*) from messages", "0").await;
    proxy.restore().await.unwrap();
    insert(&database, "a", 1..2).await;
    assert_eq!(payload(&next(&mut stream).await), "1");
}

async fn transaction_that_the_server_ended_is_an_error_and_comes_again<C: Client>() {
    let database = database().await;
    let limit = "set idle_in_transaction_session_timeout = '300ms'";
    database.sql(&format!("alter database {} {limit}", database.name())).await.unwrap();
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let mut stream = consume(driver(&tables, "a", Locking::Ordered)).await;
    let held = next(&mut stream).await;
    let open = "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in%'";
    until_sql(&database, open, "0").await;
    let error = held.ok().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection, "{}", chain(&error));
    next(&mut stream).await.ok().await.unwrap();
}

async fn delivery_may_be_dropped_outside_of_a_runtime<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let mut stream = consume(driver(&tables, "a", Locking::Ordered)).await;
    let held = next(&mut stream).await;
    std::thread::spawn(move || drop(held)).join().unwrap();
    let held = next(&mut stream).await;
    drop(stream);
    drop(tables);
    std::thread::spawn(move || drop(held)).join().unwrap();
    let open = "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in%'";
    until_sql(&database, open, "0").await;
    assert_eq!(left(&database).await, "1");
}
