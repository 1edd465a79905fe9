//! Publishers, consumers and admins: each does its own work, and is told so where it tries another's.

use std::time::Duration;

use pgqueue_core::{
    Ack, CheckpointStore, Error, ErrorKind, NewMessage, Order, PublisherExt, Start, Subscription, Topic,
};
use pgqueue_postgres::{Client, PgQueue, Role};
use pgqueue_testserver::Database;

use super::{make_role, queue_of, url_of};
use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    common::{
        assert_says, consume, invoices, next, number, publish_number, publish_numbers, queue, try_consume, until_sql,
    },
};

on_both_clients!(
    a_publisher_publishes_and_does_nothing_else,
    a_consumer_consumes_and_does_nothing_else,
    an_admin_manages_and_does_nothing_else,
    roles_add_up_and_are_taken_back,
    only_the_owner_grants,
    roles_that_cannot_be_are_not_granted,
    nobody_touches_the_tables,
);

/// The queue as a new role sees it, whose name is returned.
async fn as_role<C: Client>(database: &Database, owner: &PgQueue<C>, may: Role) -> (String, PgQueue<C>) {
    let role = make_role(database, &format!("{may:?}").to_lowercase()).await;
    // Twice is once.
    owner.grant_to(&role, may).await.unwrap();
    owner.grant_to(&role, may).await.unwrap();
    let queue = queue_of(database, &role).await;
    queue.migrate().await.unwrap(); // which every process does when it starts: there is nothing to do
    (role, queue)
}

#[track_caller]
fn assert_refused<T>(result: Result<T, Error>, function: &str) {
    let Err(error) = result else { panic!("{function} was allowed") };
    assert_says(&error, ErrorKind::Fatal, &["privilege", function, "grant_to"]);
    assert!(!error.is_transient(), "trying again cannot help");
}

async fn refused_managing<C: Client>(queue: &PgQueue<C>) {
    assert_refused(queue.create_topic(Topic::new("returns")).await, "create_topic");
    assert_refused(queue.delete_topic("orders").await, "delete_topic");
    assert_refused(queue.delete_subscription("invoices").await, "delete_subscription");
    assert_refused(queue.seek("invoices", &Start::Beginning).await, "seek");
    assert_refused(queue.horizon_holder().await, "horizon_holder");
    assert_refused(queue.expire_leases("invoices").await, "expire_leases");
    assert_refused(queue.reset_checkpoint("totals", &nowhere(), None).await, "reset_checkpoint");
    assert_refused(queue.grant_to("postgres", Role::Admin).await, "grant_admin");
    assert_refused(queue.revoke_from("postgres").await, "revoke_all");
}

/// A position in stable total order, before all.
fn nowhere() -> pgqueue_core::Position {
    pgqueue_core::Position::new("00000000000000000001.0000000000000000001")
}

async fn a_publisher_publishes_and_does_nothing_else<C: Backend>() {
    let (database, owner) = queue::<C>().await;
    let mut stream = consume(&owner, invoices().with_order(Order::Total)).await;
    let (role, queue) = as_role(&database, &owner, Role::Publisher).await;

    publish_number(&queue, 1).await;
    let labelled = NewMessage::json(&2).unwrap().with_key("k").with_kind("paid").with_tag("t").with_header("h", "v");
    queue.publish_one("orders", labelled).await.unwrap();
    let once = || NewMessage::json(&3).unwrap().with_dedup_id("3");
    let first = queue.publish_one("orders", once()).await.unwrap();
    assert_eq!(queue.publish_one("orders", once()).await.unwrap(), first);
    let mut transaction = C::open(&url_of(&database, &role)).await;
    queue.publish_in(&mut transaction, "orders", vec![NewMessage::json(&4).unwrap()]).await.unwrap();
    C::commit(transaction).await;
    let later = NewMessage::json(&5).unwrap().with_delay(Duration::from_millis(1));
    queue.publish_one("orders", later).await.unwrap();
    for expected in 1..=5 {
        let delivery = next(&mut stream).await;
        assert_eq!(number(&delivery), expected);
        delivery.ok().await.unwrap();
    }
    assert_eq!(queue.topic("orders").await.unwrap().name(), "orders");

    refused_managing(&queue).await;
    assert_refused(try_consume(&queue, invoices()).await, "insert_subscription");
    assert_refused(queue.subscriptions().await, "describe_subscription");
    assert_refused(queue.stats("invoices").await, "describe_subscription");
    assert_refused(queue.dead_letters("invoices").await, "describe_subscription");
    assert_refused(queue.maintain().await, "bury_owners");
    assert_refused(queue.checkpoints().await, "checkpoints");
    assert_refused(queue.advance_checkpoint("totals", &nowhere()).await, "advance_checkpoint");
    // Nor by the functions themselves, with what it could know.
    for call in [
        "pgqueue.claim(1, gen_random_uuid(), gen_random_uuid(), 100, true, true, 0, false)",
        "pgqueue.settle(1, '{1}', '{00000000-0000-0000-0000-000000000000}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')",
        "pgqueue.publish_scheduled()",
        "pgqueue.trim()",
        "pgqueue.dead_letters(1)",
        "pgqueue.ring(1)",
        "pgqueue.publish_specially(null, '1', now(), '{}', null, null, null, null, null, null, null)",
    ] {
        assert_denied(&database, &role, &format!("select {call}")).await;
    }
    // The same connections work on, and nothing was lost.
    publish_number(&queue, 6).await;
    next(&mut stream).await.ok().await.unwrap();
    assert_eq!(owner.stats("invoices").await.unwrap().waiting, 0);
}

async fn a_consumer_consumes_and_does_nothing_else<C: Backend>() {
    let (database, owner) = queue::<C>().await;
    let (role, queue) = as_role(&database, &owner, Role::Consumer).await;
    let subscription = invoices().with_order(Order::StableTotal).with_lease(Duration::from_secs(30));
    let mut stream = consume(&queue, subscription).await;
    publish_numbers(&owner, 1..=4).await;

    next(&mut stream).await.requeue().await.unwrap();
    let again = next(&mut stream).await;
    assert_eq!((number(&again), again.message().attempt()), (1, 2));
    assert!(queue.advance_checkpoint("totals", again.message().position()).await.unwrap());
    assert!(!queue.advance_checkpoint("totals", again.message().position()).await.unwrap());
    again.ok().await.unwrap();
    let mut transaction = C::open(&url_of(&database, &role)).await;
    let delivery = next(&mut stream).await;
    assert!(queue.advance_checkpoint_in(&mut transaction, "totals", delivery.message().position()).await.unwrap());
    queue.ok_in(delivery, &mut transaction).await.unwrap();
    C::commit(transaction).await;
    next(&mut stream).await.settle(Ack::reject("no")).await.unwrap();
    assert_eq!(queue.checkpoints().await.unwrap().len(), 1);
    assert_eq!(queue.stats("invoices").await.unwrap().dead, 1);
    assert_eq!(queue.subscriptions().await.unwrap().len(), 1);
    queue.maintain().await.unwrap();

    refused_managing(&queue).await;
    assert_refused(queue.publish_json("orders", &8).await, "publish_batch");
    assert_refused(queue.dead_letters("invoices").await, "dead_letters");
    assert_refused(queue.redrive("invoices").await, "redrive");
    assert_refused(queue.purge_dead_letters("invoices").await, "purge");
    assert_refused(queue.topics().await, "describe_topic");
    let mut transaction = C::open(&url_of(&database, &role)).await;
    let published = queue.publish_in(&mut transaction, "orders", vec![NewMessage::json(&9).unwrap()]).await;
    assert_refused(published, "publish_batch");
    C::rollback(transaction).await;
    for call in ["pgqueue.publish('orders', '1')", "pgqueue.keep(1, '{1}')", "pgqueue.give_back_all(null, true)"] {
        assert_denied(&database, &role, &format!("select {call}")).await;
    }
    // The stream works on, and nothing was lost.
    let delivery = next(&mut stream).await;
    assert_eq!(number(&delivery), 4);
    delivery.ok().await.unwrap();
    drop(stream);
    until_sql(&database, "select count(*) from pgqueue.owner", "0").await;
    assert_eq!(owner.dead_letters("invoices").await.unwrap().len(), 1);
}

async fn an_admin_manages_and_does_nothing_else<C: Client>() {
    let (database, owner) = queue::<C>().await;
    let mut stream = consume(&owner, invoices().with_order(Order::StableTotal)).await;
    publish_numbers(&owner, 1..=2).await;
    let first = next(&mut stream).await;
    let position = first.message().position().clone();
    owner.advance_checkpoint("totals", &position).await.unwrap();
    first.settle(Ack::reject("no")).await.unwrap();

    let (_, queue) = as_role(&database, &owner, Role::Admin).await;
    queue.create_topic(Topic::new("returns")).await.unwrap();
    queue.insert_subscription(&Subscription::new("refunds", "returns")).await.unwrap();
    queue.alter_subscription(&Subscription::new("refunds", "returns").with_batch(7)).await.unwrap();
    queue.seek("refunds", &Start::Beginning).await.unwrap();
    queue.expire_leases("refunds").await.unwrap();
    queue.delete_subscription("refunds").await.unwrap();
    queue.delete_topic("returns").await.unwrap();
    assert_eq!((queue.topics().await.unwrap().len(), queue.subscriptions().await.unwrap().len()), (1, 1));
    assert_eq!(queue.stats("invoices").await.unwrap().dead, 1);
    assert_eq!(queue.dead_letters("invoices").await.unwrap().len(), 1);
    queue.horizon_holder().await.unwrap();
    queue.maintain().await.unwrap();
    queue.reset_checkpoint("totals", &position, None).await.unwrap();
    assert_eq!(queue.checkpoints().await.unwrap().len(), 0);
    assert_eq!(queue.redrive("invoices").await.unwrap(), 1);
    assert_eq!(queue.purge_dead_letters("invoices").await.unwrap(), 0);

    assert_refused(queue.publish_json("orders", &8).await, "publish_batch");
    let mut consuming = consume(&queue, invoices().with_order(Order::StableTotal)).await;
    assert_refused(futures::StreamExt::next(&mut consuming).await.unwrap(), "claim");
    assert_refused(queue.grant_to("postgres", Role::Admin).await, "grant_admin");
    let mut left = [number(&next(&mut stream).await), 0];
    left[1] = number(&next(&mut stream).await);
    left.sort_unstable();
    assert_eq!(left, [1, 2], "nothing was lost");
}

async fn roles_add_up_and_are_taken_back<C: Client>() {
    let (database, owner) = queue::<C>().await;
    let before = crate::catalog::schema(&database).await;
    let (role, queue) = as_role(&database, &owner, Role::Publisher).await;
    assert_refused(try_consume(&queue, invoices()).await, "insert_subscription");
    owner.grant_to(&role, Role::Consumer).await.unwrap();
    let mut stream = consume(&queue, invoices()).await;
    publish_number(&queue, 1).await;
    next(&mut stream).await.ok().await.unwrap();
    drop(stream);
    queue.consumers_gone().await;

    owner.revoke_from(&role).await.unwrap();
    owner.revoke_from(&role).await.unwrap();
    assert_refused(queue.publish_json("orders", &2).await, "schema pgqueue");
    assert_refused(try_consume(&queue, invoices()).await, "schema pgqueue");
    crate::catalog::assert_same("nothing is left of the grants", &before, &crate::catalog::schema(&database).await);
    database.sql(&format!("drop role {role}")).await.unwrap();
}

async fn only_the_owner_grants<C: Client>() {
    let (database, owner) = queue::<C>().await;
    let (admin, queue) = as_role(&database, &owner, Role::Admin).await;
    // Even if it may call the function: a role cannot give what it has not to give.
    database.sql(&format!("grant execute on all functions in schema pgqueue to {admin}")).await.unwrap();
    let friend = make_role(&database, "friend").await;
    let granted = queue.grant_to(&friend, Role::Publisher).await;
    let friend = queue_of::<C>(&database, &friend).await;
    assert!(friend.publish_json("orders", &1).await.is_err(), "{granted:?}");
}

async fn roles_that_cannot_be_are_not_granted<C: Client>() {
    let (database, owner) = queue::<C>().await;
    let before = crate::catalog::schema(&database).await;
    for name in ["", "a\0b", &"x".repeat(64), &"é".repeat(32)] {
        let refused = owner.grant_to(name, Role::Publisher).await.unwrap_err();
        assert_says(&refused, ErrorKind::Invalid, &["role", "63 bytes"]);
        assert_eq!(owner.revoke_from(name).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    let nobody = &format!("{}\"; alter role postgres nologin; --", database.name());
    for name in ["public", "Postgres", "postgres ", nobody, "current_user", &"x".repeat(63)] {
        let refused = owner.grant_to(name, Role::Admin).await.unwrap_err();
        assert_says(&refused, ErrorKind::NotFound, &["does not exist"]);
    }
    crate::catalog::assert_same("nothing was granted", &before, &crate::catalog::schema(&database).await);

    // Such a name may be somebody's: then it is meant.
    database.sql(&format!("create role \"{}\"", nobody.replace('"', "\"\""))).await.unwrap();
    owner.grant_to(nobody, Role::Admin).await.unwrap();
    owner.revoke_from(nobody).await.unwrap();
    crate::catalog::assert_same("all was taken back", &before, &crate::catalog::schema(&database).await);
    database.sql(&format!("drop role \"{}\"", nobody.replace('"', "\"\""))).await.unwrap();
}

async fn nobody_touches_the_tables<C: Client>() {
    let (database, owner) = queue::<C>().await;
    let tables = "select string_agg(oid::regclass::text, ' ' order by relname) from pg_class
                  where relnamespace = 'pgqueue'::regnamespace and relkind in ('r', 'v', 'S')";
    let tables = database.sql(tables).await.unwrap();
    assert!(tables.contains("pgqueue.log ") && tables.contains("pgqueue.message"), "{tables}");
    for may in [Role::Publisher, Role::Consumer, Role::Admin] {
        let (role, _) = as_role(&database, &owner, may).await;
        for table in tables.split(' ') {
            // Which version the schema has, everybody may know who is to ask for it.
            if table != "pgqueue.migration" {
                assert_denied(&database, &role, &format!("select * from {table}")).await;
            }
            for change in
                ["insert into TABLE default values", "delete from TABLE", "truncate TABLE", "drop table TABLE"]
            {
                assert_denied(&database, &role, &change.replace("TABLE", table)).await;
            }
        }
        for statement in [
            "create table pgqueue.mine ()",
            "create function pgqueue.mine() returns int return 1",
            "alter schema pgqueue rename to mine",
            "select nextval('pgqueue.log_id')",
            "select setval('pgqueue.log_id', 1)",
            "insert into pgqueue.migration (version) values (99)",
        ] {
            assert_denied(&database, &role, statement).await;
        }
    }
}

/// Checks that a role may not do something.
async fn assert_denied(database: &Database, role: &str, statement: &str) {
    let attempt = format!(
        "set role {role};
         do $attempt$ begin execute $statement${statement}$statement$; raise exception 'it was allowed';
         exception when insufficient_privilege or wrong_object_type or feature_not_supported or object_not_in_prerequisite_state
                or generated_always then null; end $attempt$;
         reset role"
    );
    database.sql(&attempt).await.unwrap_or_else(|error| panic!("{role}: {statement}: {error}"));
}
