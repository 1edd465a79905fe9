//! Transactions that publish: open for long, prepared, rolled back in part, and far larger than a claim.

use std::collections::HashSet;

use futures::{StreamExt, stream::FuturesUnordered};
use pgqueue_core::{NewMessage, Order, Publisher, PublisherExt, Subscription};
use pgqueue_postgres::{Client, Options, PgQueue};
use pgqueue_testserver::{Database, Error as ServerError};
use pgqueue_tokio_postgres::TokioPostgres;
use tokio::time::Instant;

use crate::{
    audit::{Audit, own_server, patient, work},
    backend::Backend,
    both_clients::on_both_clients,
    common::{PATIENCE, consume, invoices, next, number, patiently, publish_number, publish_numbers, quiet},
};

on_both_clients!(
    long_transaction_keeps_nobody_waiting_and_loses_nothing,
    prepared_transaction_survives_the_server,
    what_rang_cannot_be_prepared_and_is_as_if_never_published,
    savepoints_publish_what_they_release,
);

fn of_key(numbers: std::ops::Range<u64>, key: &str) -> Vec<NewMessage> {
    numbers.map(|number| NewMessage::json(&number).unwrap().with_key(key)).collect()
}

async fn long_transaction_keeps_nobody_waiting_and_loses_nothing<C: Backend>() {
    // Every transaction of a server counts for stable total order, so it is one of its own.
    let (server, queue) = own_server::<C>(&[]).await;
    let mut audits = Vec::new();
    for order in [Order::Unordered, Order::ByKey, Order::Total, Order::StableTotal] {
        let audit = Audit::new();
        work(patient(&queue, Subscription::new(order.to_string(), "orders").with_order(order)).await, &audit);
        audits.push((order, audit));
    }
    let mut long = C::open(&server.url("queue")).await;
    queue.publish_in(&mut long, "orders", of_key(0..20, "long")).await.unwrap();
    for first in (100..200).step_by(10) {
        queue.publish("orders", of_key(first..first + 10, "short")).await.unwrap();
        if first == 150 {
            queue.publish_in(&mut long, "orders", of_key(20..40, "long")).await.unwrap();
        }
    }
    for (order, audit) in &audits {
        // Only stable total order waits for whoever is at work.
        if *order != Order::StableTotal {
            audit.until_handled(100..200).await;
        }
    }
    C::commit(long).await;
    publish_numbers(&queue, 40..100).await;
    for (order, audit) in &audits {
        audit.until_handled(0..200).await;
        audit.check(0..200, 1);
        if *order != Order::Unordered {
            for key in [0..40, 100..200] {
                let of_key: Vec<_> = audit.order().into_iter().filter(|number| key.contains(number)).collect();
                assert!(of_key.is_sorted(), "{order}: {of_key:?}");
            }
        }
    }
}

async fn prepared_transaction_survives_the_server<C: Backend>() {
    let (server, queue) = own_server::<C>(&[("max_prepared_transactions", "4")]).await;
    let silent = queue.clone().with_options(Options::new().with_ringing(false)).unwrap();
    let audit = Audit::new();
    let worker = work(patient(&queue, invoices()).await, &audit);
    for (name, numbers) in [("kept", 0..10), ("given up", 1000..1010)] {
        let mut transaction = C::open(&server.url("queue")).await;
        silent.publish_in(&mut transaction, "orders", of_key(numbers, name)).await.unwrap();
        C::execute(&mut transaction, &format!("prepare transaction '{name}'")).await;
        C::rollback(transaction).await; // there is none any more
    }
    publish_numbers(&queue, 10..20).await;
    audit.until_handled(10..20).await;
    server.restart().await.unwrap();
    publish_again(&queue, 20..30).await;
    audit.until_handled(20..30).await;
    assert_eq!(audit.count(), 20, "what is prepared is not published");
    server.sql("queue", "commit prepared 'kept'").await.unwrap();
    server.sql("queue", "rollback prepared 'given up'").await.unwrap();
    audit.until_handled(0..10).await;
    publish_again(&queue, 30..31).await;
    audit.until_handled(0..31).await;
    audit.check(0..31, 2);
    assert!(!worker.is_finished());
}

/// Publishes over connections of which some died with the server.
async fn publish_again<C: Client>(queue: &PgQueue<C>, numbers: std::ops::Range<u64>) {
    let since = Instant::now();
    for number in numbers {
        // The dedup id allows for the repetition.
        let message = NewMessage::json(&number).unwrap().with_dedup_id(number.to_string());
        while let Err(error) = queue.publish_one("orders", message.clone()).await {
            assert!(since.elapsed() < PATIENCE, "{error}");
        }
    }
}

async fn what_rang_cannot_be_prepared_and_is_as_if_never_published<C: Backend>() {
    let (server, queue) = own_server::<C>(&[("max_prepared_transactions", "4")]).await;
    let mut stream = consume(&queue, invoices()).await;
    quiet(&mut stream).await; // it sleeps
    let prepare = |payload: u32, ring: bool| {
        format!(
            "begin; select pgqueue.publish('orders', '{payload}', v_ring => {ring}); prepare transaction 'p{payload}'"
        )
    };
    let refused = server.sql("queue", &prepare(1, true)).await.unwrap_err();
    assert!(matches!(&refused, ServerError::Sql { code, .. } if code == "0A000"), "{refused}");
    server.sql("queue", &prepare(2, false)).await.unwrap();
    quiet(&mut stream).await;
    server.sql("queue", "commit prepared 'p2'").await.unwrap();
    let delivery = next(&mut stream).await;
    assert_eq!(number(&delivery), 2, "and 1 was never published");
    delivery.ok().await.unwrap();
    quiet(&mut stream).await;
}

async fn savepoints_publish_what_they_release<C: Backend>() {
    let (server, queue) = own_server::<C>(&[]).await;
    for order in [Order::Unordered, Order::ByKey, Order::Total, Order::StableTotal] {
        let subscription = Subscription::new(order.to_string(), "orders").with_order(order);
        queue.insert_subscription(&subscription).await.unwrap();
    }
    let mut transaction = C::open(&server.url("queue")).await;
    let mut published = Vec::new();
    for round in 0..20 {
        C::execute(&mut transaction, "savepoint outer_one").await;
        queue.publish_in(&mut transaction, "orders", of_key(10 * round..10 * round + 2, "k")).await.unwrap();
        C::execute(&mut transaction, "savepoint inner_one").await;
        queue.publish_in(&mut transaction, "orders", of_key(10 * round + 2..10 * round + 4, "k")).await.unwrap();
        match round % 4 {
            0 => C::execute(&mut transaction, "release inner_one; release outer_one").await,
            1 => C::execute(&mut transaction, "rollback to inner_one; release outer_one").await,
            2 => C::execute(&mut transaction, "release inner_one; rollback to outer_one").await,
            _ => C::execute(&mut transaction, "rollback to outer_one; release outer_one").await,
        }
        published.extend(10 * round..10 * round + [4, 2, 0, 0][(round % 4) as usize]);
        publish_number(&queue, 1000 + round).await; // and others beside it
    }
    C::commit(transaction).await;
    for order in [Order::Unordered, Order::ByKey, Order::Total, Order::StableTotal] {
        let mut stream = consume(&queue, Subscription::new(order.to_string(), "orders").with_order(order)).await;
        let mut came = Vec::new();
        for _ in 0..published.len() + 20 {
            let delivery = next(&mut stream).await;
            came.push(number(&delivery));
            delivery.ok().await.unwrap();
        }
        quiet(&mut stream).await;
        let mut keyed: Vec<_> = came.into_iter().filter(|number| *number < 1000).collect();
        if order == Order::Unordered {
            keyed.sort_unstable();
        }
        assert_eq!(keyed, published, "{order}");
    }
}

/// How many messages one transaction publishes, and how many a claim may take.
const GIANT: u64 = 400_000;
const LIMIT: usize = 2000;

/// Through one client, as it takes seconds: what is tested is the server's.
#[tokio::test(flavor = "multi_thread")]
async fn giant_transaction_is_handed_out_claim_by_claim() {
    let database = Database::create().await.unwrap();
    let queue = PgQueue::<TokioPostgres>::connect(&database.url()).await.unwrap();
    queue.migrate().await.unwrap();
    queue.create_topic(pgqueue_core::Topic::new("orders")).await.unwrap();
    let mut stream = consume(&queue, invoices().with_prefetch(LIMIT)).await;
    let mut giant = TokioPostgres::open(&database.url()).await;
    let publish = format!(
        "select count(pgqueue.publish_batch('orders', array(select convert_to(n::text, 'UTF8') from generate_series(0, {}) n)))",
        GIANT - 1
    );
    TokioPostgres::execute(&mut giant, &publish).await;
    // The cursor passes all of them before they are there, so that they come late.
    publish_number(&queue, GIANT).await;
    let delivery = next(&mut stream).await;
    assert_eq!(number(&delivery), GIANT);
    delivery.ok().await.unwrap();
    TokioPostgres::commit(giant).await;

    let mut seen = HashSet::new();
    let mut answers = FuturesUnordered::new();
    while seen.len() < THROUGH_THE_CLIENT {
        let delivery = next(&mut stream).await;
        assert!(seen.insert(number(&delivery)), "a message came twice");
        answers.push(delivery.ok());
        if answers.len() >= 500 {
            answers.next().await.unwrap().unwrap();
        }
    }
    let held = next(&mut stream).await; // so that there is a lease
    assert!(seen.insert(number(&held)), "a message came twice");
    while let Some(answer) = answers.next().await {
        answer.unwrap();
    }
    let largest =
        "select max(pgqueue.count_ids(ids)) <= 2000 and sum(pgqueue.count_ids(ids)) <= 6000 from pgqueue.lease";
    assert_eq!(database.sql(largest).await.unwrap(), "t");
    held.ok().await.unwrap();
    drop(stream);
    patiently("a consumer that leaves", queue.consumers_gone()).await;

    // The rest goes to somebody on the server, who is as strict and far faster.
    database.sql("create table public.seen (id bigint)").await.unwrap();
    database.sql(CLAIM_ALL).await.unwrap();
    let rest = GIANT as usize - seen.len();
    let found = database.sql("select count(*), count(distinct id) from public.seen").await.unwrap();
    assert_eq!(found, format!("{rest}\t{rest}"));
}

/// How many of them are handled by a client.
const THROUGH_THE_CLIENT: usize = 20_000;

/// Claims until nothing is left, and refuses a claim that hands out more than it may.
const CLAIM_ALL: &str = "do $$ declare v_count int; v_empty int := 0; begin
  while v_empty < 5 loop
    insert into public.seen
    select id from pgqueue.claim(1, gen_random_uuid(), gen_random_uuid(), 2000, false, true, 0, false) where id is not null;
    get diagnostics v_count = row_count;
    commit;
    v_empty := case v_count when 0 then v_empty + 1 else 0 end;
    if v_count > 2000 then raise exception 'a claim handed out %', v_count; end if;
  end loop;
end $$";
