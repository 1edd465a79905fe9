//! What cannot work: each an error that says what is wrong and what to do, without losing anything and without a wait.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt, time::Duration};

use futures::{FutureExt, StreamExt, future::join_all};
use pgqueue_core::{
    ErrorKind, MAX_PAYLOAD_BYTES, NewMessage, Order, Publisher, PublisherExt, Subscription, SubscriptionDriver, Topic,
    subscribe,
};
use pgqueue_postgres::{Client, Options, PgQueue};
use pgqueue_sqlx::Sqlx;
use pgqueue_testserver::{Database, Proxy, Server};
use pgqueue_tokio_postgres::TokioPostgres;
use tokio::time::timeout;

use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    common::{
        assert_says, chain, consume, end, invoices, next, number, patiently, publish_number, publish_numbers, queue,
        queue_without_topic, quiet, try_consume, until_sql,
    },
};

/// Within how much time somebody is told that what they work on was deleted.
const PROMPTLY: Duration = Duration::from_secs(5);

on_both_clients!(
    without_a_schema_everything_says_to_migrate,
    a_schema_that_is_too_old_says_to_migrate,
    a_newer_schema_works_on,
    migrating_again_changes_nothing,
    publishers_without_more_privileges_can_only_publish,
    consumers_without_more_privileges_can_only_consume,
    roles_without_privileges_are_told_so,
    a_server_out_of_reach_is_a_connection_error,
    a_server_that_went_silent_is_given_up,
    a_database_that_does_not_exist_is_fatal,
    tls_that_the_server_refuses_is_fatal,
    a_pool_of_one_connection_suffices,
    a_pool_without_a_free_connection_says_so,
    a_stricter_isolation_level_publishes_and_does_not_consume,
    names_are_taken_literally,
    names_and_texts_with_nul_are_invalid,
    payloads_are_bytes,
    the_largest_payload_passes_and_a_larger_one_is_invalid,
    a_deleted_topic_ends_its_streams,
    a_deleted_subscription_ends_its_streams,
    a_stream_goes_on_with_a_successor_of_its_subscription,
    a_deleted_topic_cannot_be_published_to,
    a_repeated_dedup_id_is_published_once_in_its_window,
    a_read_only_database_says_so,
    a_standby_says_so,
    errors_tell_no_password,
);

async fn bare<C: Client>() -> (Database, PgQueue<C>) {
    let database = Database::create().await.unwrap();
    let queue = PgQueue::connect(&database.url()).await.unwrap();
    (database, queue)
}

/// A queue over the connections of another role, which this makes.
async fn as_role<C: Client>(database: &Database, role: &str, grant: &str) -> PgQueue<C> {
    let role = format!("{}_{role}", database.name());
    database.sql(&format!("create role {role} login; {}", grant.replace("ROLE", &role))).await.unwrap();
    PgQueue::connect(&database.url().replace("postgres@", &format!("{role}@"))).await.unwrap()
}

async fn without_a_schema_everything_says_to_migrate<C: Client>() {
    let (_database, queue) = bare::<C>().await;
    let errors = [
        queue.publish_json("orders", &1).await.unwrap_err(),
        try_consume(&queue, invoices()).await.unwrap_err(),
        queue.create_topic(Topic::new("orders")).await.unwrap_err(),
        queue.topics().await.unwrap_err(),
        queue.subscriptions().await.unwrap_err(),
        queue.stats("invoices").await.unwrap_err(),
        queue.dead_letters("invoices").await.unwrap_err(),
        queue.maintain().await.unwrap_err(),
    ];
    for error in &errors {
        assert_says(error, ErrorKind::Fatal, &["pgqueue", "missing or too old", "call `migrate`"]);
    }
    queue.migrate().await.unwrap();
    queue.create_topic(Topic::new("orders")).await.unwrap();
    publish_number(&queue, 1).await;
}

async fn a_schema_that_is_too_old_says_to_migrate<C: Client>() {
    let (database, queue) = queue::<C>().await;
    database.sql("drop function pgqueue.publish_batch cascade; drop function pgqueue.claim").await.unwrap();
    let refused = queue.publish_json("orders", &1).await.unwrap_err();
    assert_says(&refused, ErrorKind::Fatal, &["pgqueue.publish_batch", "too old", "call `migrate`"]);
    let mut stream = consume(&queue, invoices()).await;
    assert_says(&end(&mut stream).await, ErrorKind::Fatal, &["pgqueue.claim", "too old", "call `migrate`"]);
}

async fn a_newer_schema_works_on<C: Client>() {
    let (database, _) = queue::<C>().await;
    database.sql("insert into pgqueue.migration (version) values (99)").await.unwrap();
    let queue = PgQueue::<C>::connect(&database.url()).await.unwrap();
    queue.migrate().await.unwrap();
    let mut stream = consume(&queue, invoices()).await;
    publish_number(&queue, 7).await;
    next(&mut stream).await.ok().await.unwrap();
    assert_eq!(database.sql("select max(version) from pgqueue.migration").await.unwrap(), "99");
}

async fn migrating_again_changes_nothing<C: Client>() {
    let (database, queue) = queue::<C>().await;
    publish_number(&queue, 7).await;
    let versions = "select string_agg(version || ' ' || applied_at, ',' order by version) from pgqueue.migration";
    let before = database.sql(versions).await.unwrap();
    queue.migrate().await.unwrap();
    queue.migrate().await.unwrap();
    assert_eq!(database.sql(versions).await.unwrap(), before);
    assert_eq!(database.sql("select count(*) from pgqueue.log").await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_can_migrate_at_once_through_both_clients() {
    async fn migrate<C: Client>(url: String) {
        let queue = PgQueue::<C>::connect(&url).await.unwrap();
        queue.migrate().await.unwrap();
        queue.create_topic(Topic::new("orders")).await.unwrap();
        queue.publish_json("orders", &1).await.unwrap();
    }
    let database = Database::create().await.unwrap();
    let all = (0..8).map(|n| match n % 2 {
        0 => tokio::spawn(migrate::<TokioPostgres>(database.url())),
        _ => tokio::spawn(migrate::<Sqlx>(database.url())),
    });
    for migrated in patiently("all migrations", join_all(all)).await {
        migrated.unwrap();
    }
    let found = "select (select count(*) from pgqueue.migration), (select count(*) from pgqueue.log)";
    assert_eq!(database.sql(found).await.unwrap(), "1\t8");
}

async fn publishers_without_more_privileges_can_only_publish<C: Client>() {
    let (database, admin) = queue::<C>().await;
    admin.insert_subscription(&invoices()).await.unwrap();
    let queue = as_role::<C>(&database, "publisher", "select pgqueue.grant_publisher('ROLE')").await;
    queue.migrate().await.unwrap();
    publish_number(&queue, 7).await;
    let special = NewMessage::new("8").with_key("k").with_header("h", "v").with_tag("t").with_dedup_id("8");
    queue.publish("orders", vec![special, NewMessage::new("9").with_delay(Duration::from_millis(1))]).await.unwrap();
    assert_eq!(queue.topic("orders").await.unwrap().name(), "orders");

    let refused = try_consume(&queue, invoices()).await.unwrap_err();
    assert_says(&refused, ErrorKind::Fatal, &["privilege", "insert_subscription", "grant"]);
    let refused = queue.delete_topic("orders").await.unwrap_err();
    assert_says(&refused, ErrorKind::Fatal, &["privilege", "delete_topic", "grant"]);
    // As far as the claim.
    let role = format!("{}_publisher", database.name());
    let almost = format!("grant execute on function pgqueue.describe_subscription to {role}");
    database.sql(&almost).await.unwrap();
    let refused = patiently("a refusal", queue.subscription(invoices()).fetch_pending()).await.unwrap_err();
    assert_says(&refused, ErrorKind::Fatal, &["privilege", "claim", "grant"]);
    let stats = admin.stats("invoices").await.unwrap();
    assert_eq!(
        (stats.waiting, stats.in_flight),
        (2, 0),
        "nothing was lost, and one is not due before somebody keeps house"
    );
}

async fn consumers_without_more_privileges_can_only_consume<C: Client>() {
    let (database, admin) = queue::<C>().await;
    let queue = as_role::<C>(&database, "consumer", "select pgqueue.grant_consumer('ROLE')").await;
    let subscription = invoices().with_order(Order::ByKey);
    let mut stream = consume(&queue, subscription.clone()).await;
    publish_number(&admin, 7).await;
    next(&mut stream).await.requeue().await.unwrap();
    let again = next(&mut stream).await;
    assert_eq!(again.message().attempt(), 2);
    again.ok().await.unwrap();
    assert_eq!(queue.stats("invoices").await.unwrap().consumers, 1);
    queue.maintain().await.unwrap();
    let refused = queue.publish_json("orders", &8).await.unwrap_err();
    assert_says(&refused, ErrorKind::Fatal, &["privilege", "publish_batch", "grant"]);
    drop(stream);
    until_sql(&database, "select count(*) from pgqueue.owner", "0").await;
}

async fn roles_without_privileges_are_told_so<C: Client>() {
    let (database, _admin) = queue::<C>().await;
    let queue = as_role::<C>(&database, "nobody", "").await;
    for error in [
        queue.publish_json("orders", &1).await.unwrap_err(),
        try_consume(&queue, invoices()).await.unwrap_err(),
        queue.topics().await.unwrap_err(),
        queue.migrate().await.unwrap_err(),
    ] {
        assert_says(&error, ErrorKind::Fatal, &["privilege", "schema pgqueue", "grant"]);
    }
    // Nor may it make the schema where there is none.
    let empty = Database::create().await.unwrap();
    let queue = as_role::<C>(&empty, "nobody", "").await;
    assert_says(&queue.migrate().await.unwrap_err(), ErrorKind::Fatal, &["privilege", empty.name(), "grant"]);
}

async fn a_server_out_of_reach_is_a_connection_error<C: Client>() {
    let database = Database::create().await.unwrap();
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    proxy.cut().await;
    let queue = PgQueue::<C>::connect(&database.url_at(proxy.port())).await.unwrap();
    let publishes = patiently("a refusal", queue.publish_json("orders", &1));
    let (publishes, consumes) = tokio::join!(publishes, try_consume(&queue, invoices()));
    for refused in [publishes.unwrap_err(), consumes.unwrap_err()] {
        assert_says(&refused, ErrorKind::Connection, &["cannot be reached"]);
        assert!(refused.is_transient());
    }
}

async fn a_server_that_went_silent_is_given_up<C: Client>() {
    let (database, admin) = queue::<C>().await;
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    let options = Options::new().with_time_limit(Duration::from_secs(1));
    let queue = PgQueue::<C>::connect(&database.url_at(proxy.port())).await.unwrap().with_options(options).unwrap();
    publish_number(&queue, 1).await;
    proxy.black_hole(true);
    let silent = patiently("an end", queue.publish_json("orders", &2)).await.unwrap_err();
    assert_says(&silent, ErrorKind::Unknown, &["within 1s"]);
    let silent = patiently("an end", queue.topics()).await.unwrap_err();
    assert_eq!(silent.kind(), ErrorKind::Timeout);
    proxy.black_hole(false);
    publish_number(&queue, 3).await;
    assert_eq!(admin.topics().await.unwrap().len(), 1);
}

async fn a_database_that_does_not_exist_is_fatal<C: Client>() {
    let database = Database::create().await.unwrap();
    let url = database.url().replace(database.name(), "nowhere");
    let queue = PgQueue::<C>::connect(&url).await.unwrap();
    let refused = patiently("a refusal", queue.publish_json("orders", &1)).await.unwrap_err();
    assert_says(&refused, ErrorKind::Fatal, &["\"nowhere\" does not exist"]);
    // Trying again cannot help, so this does not wait for better times.
    let listening = timeout(PROMPTLY, queue.listener().subscribe("channel")).await.expect("no endless wait");
    assert_says(&listening.unwrap_err(), ErrorKind::Fatal, &["\"nowhere\" does not exist"]);
}

async fn tls_that_the_server_refuses_is_fatal<C: Client>() {
    let database = Database::create().await.unwrap();
    let url = database.url().replace("sslmode=disable", "sslmode=require");
    // Without TLS in the build it cannot even be opened.
    let refused = match PgQueue::<C>::connect(&url).await {
        Ok(queue) => patiently("a refusal", queue.publish_json("orders", &1)).await.unwrap_err(),
        Err(refused) => refused,
    };
    assert_eq!(refused.kind(), ErrorKind::Fatal);
    assert!(chain(&refused).contains("TLS"), "{}", chain(&refused));
}

async fn a_pool_of_one_connection_suffices<C: Backend>() {
    let (database, _) = queue::<C>().await;
    let pool = C::pool(&database.url(), 1, "read committed");
    let queue = C::over(&pool);
    let mut stream = consume(&queue, invoices()).await;
    publish_numbers(&queue, 0..20).await;
    let mut attempts = [0; 20];
    for _ in 0..25 {
        let delivery = next(&mut stream).await;
        let number = number(&delivery);
        attempts[number as usize] += 1;
        if number.is_multiple_of(4) && delivery.message().attempt() == 1 {
            delivery.requeue().await.unwrap();
        } else if number.is_multiple_of(2) {
            delivery.ok().await.unwrap();
        } else {
            let answered = C::ok_in_of_pool(&pool, &queue, delivery);
            patiently("an answer in a transaction", answered).await.unwrap();
        }
        drop(queue.topics().now_or_never()); // dropped half-way: its connection is closed and makes room for another
    }
    assert_eq!(attempts.iter().sum::<i32>(), 25);
}

async fn a_pool_without_a_free_connection_says_so<C: Backend>() {
    let (database, _) = queue::<C>().await;
    let pool = C::pool(&database.url(), 1, "read committed");
    let queue = C::over(&pool);
    let mut stream = consume(&queue, invoices()).await;
    C::meanwhile(&pool, {
        let (queue, stream) = (&queue, &mut stream);
        async move {
            let refused = patiently("a refusal", queue.publish_json("orders", &1)).await.unwrap_err();
            assert_says(&refused, ErrorKind::Fatal, &["every connection of the pool is in use", "more connections"]);
            let refused = end(stream).await;
            assert_says(&refused, ErrorKind::Fatal, &["every connection of the pool is in use", "more connections"]);
        }
        .boxed()
    })
    .await;
    publish_number(&queue, 2).await;
}

async fn a_stricter_isolation_level_publishes_and_does_not_consume<C: Backend>() {
    for level in ["repeatable read", "serializable"] {
        let (database, admin) = queue::<C>().await;
        let mut stream = consume(&admin, invoices()).await;
        let pool = C::pool(&database.url(), 4, level);
        let queue = C::over(&pool);
        publish_number(&queue, 1).await;
        let mut transaction = C::open(&database.url()).await;
        C::execute(
            &mut transaction,
            &format!("set transaction isolation level {level}; select count(*) from pgqueue.topic"),
        )
        .await;
        queue.publish_in(&mut transaction, "orders", vec![NewMessage::json(&2).unwrap()]).await.unwrap();
        let repeated = NewMessage::json(&3).unwrap().with_dedup_id("3");
        queue.publish_in(&mut transaction, "orders", vec![repeated.clone(), repeated]).await.unwrap();
        C::commit(transaction).await;

        // What such a transaction published is delivered, by one that reads what is committed.
        for expected in [1, 2, 3] {
            let delivery = next(&mut stream).await;
            assert_eq!(number(&delivery), expected);
            delivery.ok().await.unwrap();
        }
        quiet(&mut stream).await;

        let mut strict = consume(&queue, invoices()).await;
        let refused = end(&mut strict).await;
        assert_says(
            &refused,
            ErrorKind::Fatal,
            &["READ COMMITTED", &level.to_uppercase(), "default_transaction_isolation"],
        );
    }
}

async fn names_are_taken_literally<C: Client>() {
    let (_database, queue) = queue_without_topic::<C>().await;
    let longest = "é".repeat(127) + "x";
    assert_eq!(longest.len(), 255);
    let names = [
        "it's \"quoted\"",
        "🦀 100 %s %1$s %%",
        "back\\slash \\x41 \\0",
        "{a,b}",
        "NULL",
        " ",
        "$1; --",
        longest.as_str(),
    ];
    let queue = &queue;
    join_all(names.map(|name| async move {
        queue.create_topic(Topic::new(name)).await.unwrap();
        let subscription = Subscription::new(name, name).with_order(Order::ByKey);
        let mut stream = consume(queue, subscription.clone()).await;
        let message = NewMessage::new(name.to_owned())
            .with_key(name)
            .with_kind(name)
            .with_tag(name)
            .with_tag(name)
            .with_header(name, name)
            .with_dedup_id(name);
        let ids = queue.publish(name, vec![message.clone(), message]).await.unwrap();
        assert_eq!(ids[0], ids[1]);

        let delivery = next(&mut stream).await;
        let message = delivery.message();
        assert_eq!((message.topic(), message.key(), message.kind()), (name, Some(name), Some(name)));
        assert_eq!(message.tags(), [name, name]);
        assert_eq!(
            message.headers().iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>(),
            [(name, name)]
        );
        assert_eq!(message.payload(), name);
        delivery.settle(pgqueue_core::Ack::reject(name)).await.unwrap();

        let letters = queue.dead_letters(name).await.unwrap();
        assert_eq!((letters.len(), &*letters[0].reason, letters[0].message.key()), (1, name, Some(name)));
        assert_eq!(queue.topic(name).await.unwrap().name(), name);
        assert_eq!(queue.stats(name).await.unwrap().dead, 1);
        drop(stream);
        queue.delete_topic(name).await.unwrap();
        let gone = queue.topic(name).await.unwrap_err();
        assert_says(&gone, ErrorKind::NotFound, &[&format!("{name:?}"), "create it first"]);
    }))
    .await;
    assert_eq!(queue.subscriptions().await.unwrap(), []);
}

async fn names_and_texts_with_nul_are_invalid<C: Client>() {
    const NUL: &str = "a\0b";
    let (_database, queue) = queue::<C>().await;
    let topic = queue.create_topic(Topic::new(NUL)).await.unwrap_err();
    assert_says(&topic, ErrorKind::Invalid, &["topic", "NUL"]);
    for subscription in [Subscription::new(NUL, "orders"), Subscription::new("invoices", NUL)] {
        let refused = try_consume(&queue, subscription).await.unwrap_err();
        assert_says(&refused, ErrorKind::Invalid, &["NUL"]);
    }
    let message = || NewMessage::new("fine");
    for (message, what) in [
        (message().with_key(NUL), "key"),
        (message().with_kind(NUL), "kind"),
        (message().with_tag(NUL), "tag"),
        (message().with_header(NUL, ""), "header name"),
        (message().with_header("name", NUL), "header \"name\""),
        (message().with_dedup_id(NUL), "dedup id"),
    ] {
        let refused = queue.publish("orders", vec![NewMessage::new("first"), message]).await.unwrap_err();
        assert_says(&refused, ErrorKind::Invalid, &[what, "NUL"]);
    }
    queue.insert_subscription(&invoices()).await.unwrap();
    assert_eq!(queue.stats("invoices").await.unwrap().waiting, 0, "all or none");

    // What names something that cannot be there.
    let errors = [
        queue.publish_json(NUL, &1).await.unwrap_err(),
        queue.topic(NUL).await.unwrap_err(),
        queue.delete_topic(NUL).await.unwrap_err(),
        queue.delete_subscription(NUL).await.unwrap_err(),
        queue.stats(NUL).await.unwrap_err(),
        queue.dead_letters(NUL).await.unwrap_err(),
    ];
    for error in &errors {
        assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::NotFound), "{}", chain(error));
    }
    publish_number(&queue, 7).await;
}

async fn payloads_are_bytes<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let mut stream = consume(&queue, invoices()).await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let payloads = [&br#"{"text": "\u0000"}"#[..], b"\0", b"", &every_byte, b"\\x00", b"\xff\xfe"];
    queue.publish("orders", payloads.iter().map(|payload| NewMessage::new(payload.to_vec())).collect()).await.unwrap();
    for payload in payloads {
        let delivery = next(&mut stream).await;
        assert_eq!(&delivery.message().payload()[..], payload);
        delivery.ok().await.unwrap();
    }
}

async fn the_largest_payload_passes_and_a_larger_one_is_invalid<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let mut stream = consume(&queue, invoices()).await;
    let refused = queue.publish_one("orders", NewMessage::new(vec![b'x'; 20 << 20])).await.unwrap_err();
    assert_says(&refused, ErrorKind::Invalid, &["20971520 bytes", "16777216"]);
    let largest: Vec<u8> = (0..MAX_PAYLOAD_BYTES).map(|n| (n % 251) as u8).collect();
    patiently("publishing", queue.publish_one("orders", NewMessage::new(largest.clone()))).await.unwrap();
    let delivery = next(&mut stream).await;
    assert!(delivery.message().payload() == &largest, "the payload is as it was");
    delivery.ok().await.unwrap();
    quiet(&mut stream).await;
}

async fn a_deleted_topic_ends_its_streams<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let mut waiting = consume(&queue, Subscription::new("waits", "orders")).await;
    let mut busy = consume(&queue, invoices()).await;
    publish_numbers(&queue, [1, 2]).await;
    next(&mut waiting).await.ok().await.unwrap();
    next(&mut waiting).await.ok().await.unwrap();
    let held = next(&mut busy).await;

    let ends = timeout(PROMPTLY, async {
        let end = waiting.next();
        queue.delete_topic("orders").await.unwrap();
        end.await
    });
    let ended = ends.await.expect("a prompt end").unwrap().unwrap_err();
    assert_says(&ended, ErrorKind::NotFound, &["\"waits\" does not exist"]);
    let settled = patiently("an answer", held.ok()).await.unwrap_err();
    assert!(matches!(settled.kind(), ErrorKind::NotFound | ErrorKind::LeaseLost), "{}", chain(&settled));
    let ended = timeout(PROMPTLY, async {
        // What was taken in advance may come first; it cannot be settled.
        loop {
            match busy.next().await.unwrap() {
                Ok(delivery) => drop(delivery.ok().await),
                Err(ended) => return ended,
            }
        }
    });
    assert_says(&ended.await.expect("a prompt end"), ErrorKind::NotFound, &["\"invoices\" does not exist"]);
    drop((waiting, busy));
    let left = "select (select count(*) from pgqueue.lease) + (select count(*) from pgqueue.cursor) + (select count(*) from pgqueue.owner)";
    until_sql(&database, left, "0").await;
}

async fn a_deleted_subscription_ends_its_streams<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let mut stream = consume(&queue, invoices()).await;
    let mut other = consume(&queue, Subscription::new("other", "orders")).await;
    publish_number(&queue, 1).await;
    let held = next(&mut stream).await;
    queue.delete_subscription("invoices").await.unwrap();
    let ended = timeout(PROMPTLY, stream.next()).await.expect("a prompt end").unwrap().unwrap_err();
    assert_says(&ended, ErrorKind::NotFound, &["\"invoices\" does not exist", "insert it first"]);
    let settled = patiently("an answer", held.ok()).await.unwrap_err();
    assert!(matches!(settled.kind(), ErrorKind::NotFound | ErrorKind::LeaseLost), "{}", chain(&settled));
    next(&mut other).await.ok().await.unwrap();
}

async fn a_stream_goes_on_with_a_successor_of_its_subscription<C: Client>() {
    for (order, ordering) in [(Order::Unordered, "unordered"), (Order::ByKey, "by key")] {
        let (database, queue) = queue::<C>().await;
        let mut stream = consume(&queue, invoices().with_order(order)).await;
        publish_numbers(&queue, [1, 2]).await;
        let held = next(&mut stream).await;
        // One transaction, so that nobody sees it missing.
        let replace = format!(
            "select pgqueue.delete_subscription('invoices');
             select pgqueue.insert_subscription('invoices', 'orders', '{ordering}', 1, 100, 6000, 10, 0, 1, 0, 0)"
        );
        database.sql(&replace).await.unwrap();
        publish_numbers(&queue, [3, 4]).await;
        let settled = patiently("an answer", held.ok()).await.unwrap_err();
        assert!(matches!(settled.kind(), ErrorKind::NotFound | ErrorKind::LeaseLost), "{}", chain(&settled));
        // What was taken in advance may come before it is known to be gone, and cannot be settled.
        let mut handled = Vec::new();
        while handled.len() < 2 {
            let delivery = next(&mut stream).await;
            let number = number(&delivery);
            match patiently("an answer", delivery.ok()).await {
                Ok(()) => handled.push(number),
                Err(_) => assert!(number < 3, "{number} is the successor's"),
            }
        }
        handled.sort_unstable();
        assert_eq!(handled, [3, 4]);
        quiet(&mut stream).await;
    }
}

async fn a_deleted_topic_cannot_be_published_to<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    publish_number(&queue, 1).await;
    let mut transaction = C::open(&database.url()).await;
    queue.delete_topic("orders").await.unwrap();
    let refused = queue.publish_json("orders", &2).await.unwrap_err();
    assert_says(&refused, ErrorKind::NotFound, &["\"orders\" does not exist", "create it first"]);
    let coalescing = queue.clone().with_options(Options::new().with_coalescing(true)).unwrap();
    let refused = coalescing.publish_json("orders", &2).await.unwrap_err();
    assert_says(&refused, ErrorKind::NotFound, &["\"orders\" does not exist", "create it first"]);

    // The caller's transaction goes on from its savepoint.
    queue.create_topic(Topic::new("returns")).await.unwrap();
    let message = || vec![NewMessage::json(&3).unwrap()];
    C::execute(&mut transaction, "savepoint before").await;
    let refused = queue.publish_in(&mut transaction, "orders", message()).await.unwrap_err();
    assert_says(&refused, ErrorKind::NotFound, &["\"orders\" does not exist", "create it first"]);
    C::execute(&mut transaction, "rollback to savepoint before").await;
    queue.publish_in(&mut transaction, "returns", message()).await.unwrap();
    C::commit(transaction).await;
    assert_eq!(database.sql("select count(*) from pgqueue.message where topic = 'returns'").await.unwrap(), "1");
    // Of another topic of that name, nothing is left of the first.
    queue.create_topic(Topic::new("orders").with_buckets(3)).await.unwrap();
    assert_eq!(queue.topic("orders").await.unwrap().buckets(), 3);
}

async fn a_repeated_dedup_id_is_published_once_in_its_window<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let mut stream = consume(&queue, invoices()).await;
    let once = |n: u32| NewMessage::json(&n).unwrap().with_dedup_id("order 7");
    let first = queue.publish_one("orders", once(0)).await.unwrap();
    let repeated = join_all((1..=16).map(|n| queue.publish_one("orders", once(n)))).await;
    assert!(repeated.into_iter().all(|id| id.unwrap() == first));
    let mixed = queue.publish("orders", vec![NewMessage::new("17"), once(18), NewMessage::new("19")]).await.unwrap();
    assert_eq!(mixed[1], first);
    let scheduled = once(20).with_delay(Duration::from_secs(3600));
    assert_eq!(queue.publish_one("orders", scheduled).await.unwrap(), first);
    for expected in [0, 17, 19] {
        let delivery = next(&mut stream).await;
        assert_eq!(number(&delivery), expected);
        delivery.ok().await.unwrap();
    }
    quiet(&mut stream).await;
    assert_eq!(database.sql("select count(*) from pgqueue.scheduled").await.unwrap(), "0");

    // When the window has passed, it is new; the window that holds is the one at the first.
    database.sql("update pgqueue.dedup set expires_at = clock_timestamp()").await.unwrap();
    let again = join_all((21..=36).map(|n| queue.publish_one("orders", once(n)))).await;
    let again: Vec<_> = again.into_iter().map(Result::unwrap).collect();
    assert!(again.iter().all(|id| *id == again[0] && *id != first), "{first} {again:?}");
    next(&mut stream).await.ok().await.unwrap();
    quiet(&mut stream).await;

    queue.create_topic(Topic::new("orders").with_dedup_window(Duration::from_millis(1))).await.unwrap();
    let short = NewMessage::new("x").with_dedup_id("short");
    let first = queue.publish_one("orders", short.clone()).await.unwrap();
    until_sql(&database, "select bool_or(expires_at < clock_timestamp()) from pgqueue.dedup", "t").await;
    assert_ne!(queue.publish_one("orders", short).await.unwrap(), first);
}

async fn a_read_only_database_says_so<C: Client>() {
    let (database, admin) = queue::<C>().await;
    admin.insert_subscription(&invoices()).await.unwrap();
    publish_number(&admin, 7).await;
    let read_only = format!("alter database {} set default_transaction_read_only = on", database.name());
    database.sql(&read_only).await.unwrap();
    let queue = PgQueue::<C>::connect(&database.url()).await.unwrap();
    says_read_only(&queue).await;
    assert_eq!(admin.stats("invoices").await.unwrap().waiting, 1, "nothing was lost");
}

async fn a_standby_says_so<C: Client>() {
    let server = Server::start().await.unwrap();
    server.create_database("queue").await.unwrap();
    let queue = PgQueue::<C>::connect(&server.url("queue")).await.unwrap();
    queue.migrate().await.unwrap();
    queue.create_topic(Topic::new("orders")).await.unwrap();
    queue.insert_subscription(&invoices()).await.unwrap();
    publish_number(&queue, 7).await;
    server.stop().await.unwrap();
    let signal = server.folder().join("data/standby.signal");
    drop(OpenOptions::new().write(true).create_new(true).mode(0o666).open(signal).unwrap());
    server.restart().await.unwrap();
    assert_eq!(server.sql("queue", "select pg_is_in_recovery()").await.unwrap(), "t");

    let queue = PgQueue::<C>::connect(&server.url("queue")).await.unwrap();
    says_read_only(&queue).await;
    // A standby delivers no notifications either, and never will.
    let listening = timeout(PROMPTLY, queue.listener().subscribe("channel")).await.expect("no endless wait");
    assert_says(&listening.unwrap_err(), ErrorKind::Fatal, &["standby"]);
}

async fn says_read_only<C: Client>(queue: &PgQueue<C>) {
    let claim = queue.subscription(invoices());
    let errors = [
        patiently("a refusal", queue.publish_json("orders", &1)).await.unwrap_err(),
        try_consume(queue, invoices()).await.unwrap_err(),
        patiently("a refusal", claim.fetch_pending()).await.unwrap_err(),
        queue.create_topic(Topic::new("returns")).await.unwrap_err(),
    ];
    for error in &errors {
        assert_says(error, ErrorKind::Fatal, &["read-only", "standby", "connect to the primary"]);
    }
    assert_eq!(queue.topics().await.unwrap().len(), 1, "who only looks may look");
}

async fn errors_tell_no_password<C: Client>() {
    const SECRET: &str = "hunter2";
    let database = Database::create().await.unwrap();
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    proxy.cut().await;
    let with_secret = |url: String| url.replace("postgres@", &format!("postgres:{SECRET}@"));
    let nowhere = with_secret(database.url()).replace(database.name(), "nowhere");
    let mut told = Vec::new();
    for url in [
        with_secret(database.url_at(proxy.port())),
        nowhere.clone(),
        nowhere.replace("sslmode=disable", "sslmode=require"),
        nowhere.replace("sslmode=disable", "sslmode=maybe"),
        nowhere.replace("postgres://", "postgres:/"),
        nowhere.replace("127.0.0.1:", &format!("127.0.0.1:{SECRET}")),
        format!("postgres://postgres@host/db?password={SECRET}&surprise={SECRET}&sslmode=disable"),
        format!("host=127.0.0.1 password={SECRET} {SECRET}=1"),
    ] {
        let queue = match PgQueue::<C>::connect(&url).await {
            Ok(queue) => queue,
            Err(error) => {
                told.push(chain(&error));
                continue;
            }
        };
        told.push(format!("{queue:?} {:?} {:?}", queue.listener(), queue.subscription(invoices())));
        let (published, migrated, consumed) = tokio::join!(
            patiently("a refusal", queue.publish_json("orders", &1)),
            patiently("a refusal", queue.migrate()),
            patiently("a refusal", subscribe(queue.subscription(invoices()))),
        );
        told.extend(
            [published.unwrap_err(), migrated.unwrap_err(), consumed.unwrap_err()].iter().map(|error| chain(error)),
        );
    }
    // And nothing of what is published.
    let queue = PgQueue::<C>::connect(&database.url()).await.unwrap();
    queue.migrate().await.unwrap();
    queue.create_topic(Topic::new("orders")).await.unwrap();
    let message = NewMessage::new(SECRET).with_header("password", format!("{SECRET}\0"));
    told.push(chain(&queue.publish_one("orders", message).await.unwrap_err()));
    for told in told {
        assert!(!told.contains(SECRET), "{told}");
    }
}
