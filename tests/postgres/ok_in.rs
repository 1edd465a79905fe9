//! Answering inside of a caller's transaction: what the handler wrote and its OK are one.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, future::join_all};
use pgqueue_core::{Backoff, ErrorKind, NewMessage, Order, Publisher, Subscription, Topic, subscribe};
use pgqueue_memory::MemoryQueue;
use pgqueue_postgres::PgQueue;
use pgqueue_testserver::{Database, Proxy};
use tokio::{sync::Barrier, time::timeout};

use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    common::{
        SHORT_LEASE, assert_says, consume, invoices, next, number, patiently, publish_number, publish_numbers, queue,
        quiet, take, until_sql,
    },
};

/// Within how much time what was rolled back comes again.
const PROMPTLY: Duration = Duration::from_secs(5);

on_both_clients!(
    a_write_and_its_ok_commit_together,
    a_rollback_undoes_the_write_and_brings_the_message_again,
    a_rollback_to_a_savepoint_undoes_the_ok_alone,
    handlers_of_one_run_do_not_wait_for_each_other,
    a_rollback_does_not_wait_for_other_handlers_of_its_run,
    a_slow_connection_is_not_taken_for_a_rollback,
    an_expired_lease_is_lost,
    foreign_deliveries_are_invalid,
    a_dropped_answer_holds_if_the_transaction_commits,
    a_lane_goes_on_only_after_the_commit,
    what_was_committed_survives_the_death_of_its_consumer,
    nobody_else_gets_what_an_open_transaction_holds,
    a_batch_is_answered_as_one,
);

/// A table for what handlers write.
async fn with_ledger<C: Backend>() -> (Database, PgQueue<C>) {
    let (database, queue) = queue().await;
    database.sql("create table ledger (number bigint not null)").await.unwrap();
    (database, queue)
}

/// Waits until nothing of the subscriptions is left on the server.
async fn until_done(database: &Database) {
    until_sql(database, "select (select count(*) from pgqueue.lease) + (select count(*) from pgqueue.settled)", "0")
        .await;
}

async fn a_write_and_its_ok_commit_together<C: Backend>() {
    let (database, queue) = with_ledger::<C>().await;
    let mut stream = consume(&queue, invoices()).await;
    for n in 0..5 {
        publish_number(&queue, n).await;
        let delivery = next(&mut stream).await;
        let mut transaction = C::open(&database.url()).await;
        C::execute(&mut transaction, &format!("insert into ledger values ({n})")).await;
        queue.ok_in(delivery, &mut transaction).await.unwrap();
        C::commit(transaction).await;
    }
    until_done(&database).await;
    assert_eq!(
        database.sql("select string_agg(number::text, ' ' order by number) from ledger").await.unwrap(),
        "0 1 2 3 4"
    );
    quiet(&mut stream).await;
}

async fn a_rollback_undoes_the_write_and_brings_the_message_again<C: Backend>() {
    let (database, queue) = with_ledger::<C>().await;
    let mut stream = consume(&queue, invoices()).await;
    publish_number(&queue, 7).await;
    let delivery = next(&mut stream).await;
    let mut transaction = C::open(&database.url()).await;
    C::execute(&mut transaction, "insert into ledger values (7)").await;
    queue.ok_in(delivery, &mut transaction).await.unwrap();
    C::rollback(transaction).await;

    let again = next(&mut stream).await;
    assert_eq!((number(&again), again.message().attempt()), (7, 2));
    assert_eq!(database.sql("select count(*) from ledger").await.unwrap(), "0");
    again.ok().await.unwrap();
    until_done(&database).await;
}

async fn a_rollback_to_a_savepoint_undoes_the_ok_alone<C: Backend>() {
    let (database, queue) = with_ledger::<C>().await;
    let mut stream = consume(&queue, invoices()).await;
    publish_number(&queue, 7).await;
    let delivery = next(&mut stream).await;
    let mut transaction = C::open(&database.url()).await;
    C::execute(&mut transaction, "insert into ledger values (7); savepoint before").await;
    queue.ok_in(delivery, &mut transaction).await.unwrap();
    C::execute(&mut transaction, "rollback to savepoint before").await;
    C::commit(transaction).await;

    let again = next(&mut stream).await;
    assert_eq!((number(&again), again.message().attempt()), (7, 2));
    assert_eq!(database.sql("select count(*) from ledger").await.unwrap(), "1");
    again.ok().await.unwrap();
    until_done(&database).await;
}

async fn handlers_of_one_run_do_not_wait_for_each_other<C: Backend>() {
    const HANDLERS: usize = 16;
    let (database, queue) = with_ledger::<C>().await;
    let mut stream = consume(&queue, invoices().with_lease(SHORT_LEASE)).await;
    publish_numbers(&queue, 0..HANDLERS as u64).await;
    let deliveries = take(&mut stream, HANDLERS).await;

    // All transactions are open at the same time, and for longer than the lease: the consumer beats meanwhile.
    let all_answered = Barrier::new(HANDLERS);
    let handlers = deliveries.into_iter().map(|delivery| {
        let (queue, database, all_answered) = (&queue, &database, &all_answered);
        async move {
            let n = number(&delivery);
            let mut transaction = C::open(&database.url()).await;
            C::execute(&mut transaction, &format!("insert into ledger values ({n})")).await;
            queue.ok_in(delivery, &mut transaction).await.unwrap();
            if all_answered.wait().await.is_leader() {
                let answered_at = database.sql("select clock_timestamp()").await.unwrap();
                let beats_on =
                    format!("select beat_at > timestamptz '{answered_at}' + interval '2 seconds' from pgqueue.owner");
                until_sql(database, &beats_on, "t").await;
            }
            all_answered.wait().await;
            C::commit(transaction).await;
        }
    });
    patiently("all handlers", join_all(handlers)).await;

    until_done(&database).await;
    assert_eq!(database.sql("select count(*), count(distinct number) from ledger").await.unwrap(), "16\t16");
    quiet(&mut stream).await;
}

async fn a_rollback_does_not_wait_for_other_handlers_of_its_run<C: Backend>() {
    let (database, queue) = with_ledger::<C>().await;
    let mut stream = consume(&queue, invoices()).await;
    publish_numbers(&queue, [1, 2]).await;
    let [first, second] = <[_; 2]>::try_from(take(&mut stream, 2).await).unwrap();
    let mut stays_open = C::open(&database.url()).await;
    queue.ok_in(second, &mut stays_open).await.unwrap();
    let mut transaction = C::open(&database.url()).await;
    queue.ok_in(first, &mut transaction).await.unwrap();
    C::rollback(transaction).await;

    let again = timeout(PROMPTLY, next(&mut stream)).await.expect("the message though another transaction is open");
    assert_eq!((number(&again), again.message().attempt()), (1, 2));
    again.ok().await.unwrap();
    C::commit(stays_open).await;
    until_done(&database).await;
}

async fn a_slow_connection_is_not_taken_for_a_rollback<C: Backend>() {
    let (database, queue) = with_ledger::<C>().await;
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    let mut stream = consume(&queue, invoices()).await;
    let mut transaction = C::open(&database.url_at(proxy.port())).await;
    proxy.set_delay(Duration::from_millis(200));
    publish_number(&queue, 7).await;
    let delivery = next(&mut stream).await;
    queue.ok_in(delivery, &mut transaction).await.unwrap();
    C::commit(transaction).await;
    until_done(&database).await;
    quiet(&mut stream).await;
}

async fn an_expired_lease_is_lost<C: Backend>() {
    let (database, queue) = with_ledger::<C>().await;
    let mut stream = consume(&queue, invoices()).await;
    publish_number(&queue, 7).await;
    let delivery = next(&mut stream).await;
    queue.expire_leases("invoices").await.unwrap();

    let mut transaction = C::open(&database.url()).await;
    let lost = queue.ok_in(delivery, &mut transaction).await.unwrap_err();
    assert_says(&lost, ErrorKind::LeaseLost, &["\"invoices\""]);
    C::rollback(transaction).await;
    let again = next(&mut stream).await;
    assert_eq!((number(&again), again.message().attempt()), (7, 2));
    again.ok().await.unwrap();
    until_done(&database).await;
}

async fn foreign_deliveries_are_invalid<C: Backend>() {
    let (database, queue) = with_ledger::<C>().await;
    let mut transaction = C::open(&database.url()).await;

    let other = PgQueue::<C>::connect(&database.url()).await.unwrap();
    let mut stream = consume(&other, invoices()).await;
    publish_number(&queue, 7).await;
    let delivery = next(&mut stream).await;
    let refused = queue.ok_in(delivery, &mut transaction).await.unwrap_err();
    assert_says(&refused, ErrorKind::Invalid, &["not one of this queue"]);
    let again = next(&mut stream).await;
    assert_eq!((number(&again), again.message().attempt()), (7, 2), "it is requeued");

    let memory = MemoryQueue::new();
    memory.create_topic(Topic::new("orders")).await.unwrap();
    let mut stream = subscribe(memory.subscription(Subscription::new("invoices", "orders"))).await.unwrap();
    memory.publish("orders", vec![NewMessage::new("7")]).await.unwrap();
    let refused = queue.ok_in(next(&mut stream).await, &mut transaction).await.unwrap_err();
    assert_says(&refused, ErrorKind::Invalid, &["not one of this queue"]);
    assert_eq!(next(&mut stream).await.message().attempt(), 2, "it is requeued");
}

async fn a_dropped_answer_holds_if_the_transaction_commits<C: Backend>() {
    /// Whether the answer is written in a transaction that waits for its caller.
    const ANSWERED: &str = "select count(*) > 0 from pg_locks l join pg_stat_activity a using (pid) \
        where a.datname = current_database() and a.state = 'idle in transaction' and a.query like '%settle_in%' \
          and l.relation = 'pgqueue.settled'::regclass and l.mode = 'RowExclusiveLock'";
    let (database, queue) = with_ledger::<C>().await;
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    let mut stream = consume(&queue, invoices()).await;
    publish_number(&queue, 7).await;
    let delivery = next(&mut stream).await;
    let mut transaction = C::open(&database.url_at(proxy.port())).await;
    proxy.set_delay(Duration::from_millis(300));
    tokio::select! {
        biased;
        () = until_sql(&database, ANSWERED, "t") => {}
        answer = queue.ok_in(delivery, &mut transaction) => panic!("the answer was to be dropped, but it is {answer:?}"),
    }
    proxy.set_delay(Duration::ZERO);
    C::commit(transaction).await;
    until_done(&database).await;
    quiet(&mut stream).await;
}

async fn a_lane_goes_on_only_after_the_commit<C: Backend>() {
    for (name, order) in [("by total", Order::Total), ("by key", Order::ByKey)] {
        let (database, queue) = with_ledger::<C>().await;
        let mut stream = consume(
            &queue,
            Subscription::new(name, "orders").with_backoff(Backoff::fixed(Duration::ZERO)).with_order(order),
        )
        .await;
        let message = |n: u64| NewMessage::json(&n).unwrap().with_key("customer");
        queue.publish("orders", vec![message(1), message(2)]).await.unwrap();
        let first = next(&mut stream).await;
        assert_eq!(number(&first), 1);
        let mut transaction = C::open(&database.url()).await;
        queue.ok_in(first, &mut transaction).await.unwrap();
        quiet(&mut stream).await;
        C::commit(transaction).await;
        let second = next(&mut stream).await;
        assert_eq!((number(&second), second.message().attempt()), (2, 1));

        // And after a rollback the first comes first.
        let mut transaction = C::open(&database.url()).await;
        queue.publish("orders", vec![message(3)]).await.unwrap();
        queue.ok_in(second, &mut transaction).await.unwrap();
        C::rollback(transaction).await;
        for (expected, attempt) in [(2, 2), (3, 1)] {
            let delivery = next(&mut stream).await;
            assert_eq!((number(&delivery), delivery.message().attempt()), (expected, attempt));
            delivery.ok().await.unwrap();
        }
        until_done(&database).await;
    }
}

async fn what_was_committed_survives_the_death_of_its_consumer<C: Backend>() {
    let (database, queue) = with_ledger::<C>().await;
    let subscription = invoices().with_lease(SHORT_LEASE);
    let driver = Arc::new(queue.subscription(subscription.clone()));
    let mut stream = subscribe(Arc::clone(&driver)).await.unwrap();
    publish_numbers(&queue, [1, 2, 3]).await;
    let [first, second, third] = <[_; 3]>::try_from(take(&mut stream, 3).await).unwrap();
    // Two are answered, one of them when nobody can see any more what became of it.
    let mut transaction = C::open(&database.url()).await;
    queue.ok_in(first, &mut transaction).await.unwrap();
    C::commit(transaction).await;
    let mut transaction = C::open(&database.url()).await;
    queue.ok_in(second, &mut transaction).await.unwrap();
    driver.crash();
    C::commit(transaction).await;

    let mut successor = consume(&queue, subscription).await;
    let again = next(&mut successor).await;
    assert_eq!(number(&again), 3);
    again.ok().await.unwrap();
    drop(third);
    until_done(&database).await;
    quiet(&mut successor).await;
}

async fn nobody_else_gets_what_an_open_transaction_holds<C: Backend>() {
    const SEVERAL_LEASES: &str =
        "select clock_timestamp() - published_at > interval '3 seconds' from pgqueue.log where id = 1";
    let (database, queue) = with_ledger::<C>().await;
    let subscription = invoices().with_lease(SHORT_LEASE);
    let mut stream = consume(&queue, subscription.clone()).await;
    publish_number(&queue, 1).await;
    let delivery = next(&mut stream).await;
    let mut transaction = C::open(&database.url()).await;
    queue.ok_in(delivery, &mut transaction).await.unwrap();

    let other = PgQueue::<C>::connect(&database.url()).await.unwrap();
    let mut others = consume(&other, subscription).await;
    let open_for_long = until_sql(&database, SEVERAL_LEASES, "t");
    tokio::select! {
        () = open_for_long => {}
        item = others.next() => panic!("it is in other hands, but there is {item:?}"),
        item = stream.next() => panic!("it is in hand, but there is {item:?}"),
    }
    C::commit(transaction).await;
    until_done(&database).await;
    quiet(&mut others).await;
}

async fn a_batch_is_answered_as_one<C: Backend>() {
    let (database, queue) = with_ledger::<C>().await;
    queue.insert_subscription(&invoices().with_batch(5)).await.unwrap();
    publish_numbers(&queue, 0..5).await;
    let mut stream = consume(&queue, invoices().with_batch(5)).await;
    let batch = next(&mut stream).await;
    assert_eq!(batch.decode::<Vec<u64>>().unwrap(), [0, 1, 2, 3, 4]);
    let mut transaction = C::open(&database.url()).await;
    queue.ok_in(batch, &mut transaction).await.unwrap();
    C::rollback(transaction).await;

    let again = next(&mut stream).await;
    assert_eq!(again.decode::<Vec<u64>>().unwrap(), [0, 1, 2, 3, 4]);
    assert!(again.messages().iter().all(|message| message.attempt() == 2));
    let mut transaction = C::open(&database.url()).await;
    queue.ok_in(again, &mut transaction).await.unwrap();
    C::commit(transaction).await;
    until_done(&database).await;
    quiet(&mut stream).await;
}
