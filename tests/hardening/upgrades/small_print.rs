//! What bit others: numbers that run out, enumerations, schemas by nearly the same name, and names that are cut.

use pgqueue_core::{Order, Topic};
use pgqueue_postgres::{Client, PgQueue, TableName, TableWatch};
use pgqueue_testserver::Database;

use crate::{
    both_clients::on_both_clients,
    common::{consume, invoices, next, publish_number, publish_numbers, queue},
};

on_both_clients!(
    numbers_do_not_run_out,
    ids_beyond_four_bytes_work,
    schemas_by_nearly_the_same_name_are_left_alone,
    channels_are_never_cut,
);

/// What has four bytes: counts with small limits, and no numbers of things.
const SMALL: &str = "cursor.lane dead_letter.attempts dead_letter.lane era.number lease.lane lease.prior lease.suspect log.bucket migration.version \
                     subscription.batch subscription.bucket subscription.prefetch subscription.workers topic.buckets";

async fn numbers_do_not_run_out<C: Client>() {
    let (database, _queue) = queue::<C>().await;
    let small = "
        select string_agg(table_name || '.' || column_name, ' ' order by table_name, column_name) from information_schema.columns
        where table_schema = 'pgqueue' and udt_name in ('int2', 'int4', '_int2', '_int4', 'oid', 'xid')";
    assert_eq!(database.sql(small).await.unwrap(), SMALL, "what counts for ever takes eight bytes");
    let ids = "
        select count(*), bool_and(udt_name in ('int8', '_int8', 'uuid', 'text')) from information_schema.columns
        where table_schema = 'pgqueue' and (column_name ~ '(^|_)ids?$' or column_name in ('topic', 'subscription', 'lease', 'message', 'token'))
          and table_name <> 'message'";
    let ids = database.sql(ids).await.unwrap();
    assert!(ids.ends_with("\tt") && ids.split('\t').next().unwrap().parse::<u32>().unwrap() > 15, "{ids}");
    let sequences = "select bool_and(data_type = 'bigint'::regtype and max_value = 9223372036854775807 and not cycle) from pg_sequences
                     where schemaname = 'pgqueue'";
    assert_eq!(database.sql(sequences).await.unwrap(), "t");
    let enums = "select count(*) from pg_type where typnamespace = 'pgqueue'::regnamespace and typtype in ('e', 'd')";
    assert_eq!(database.sql(enums).await.unwrap(), "0", "types that migrations cannot change in use");
}

async fn ids_beyond_four_bytes_work<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let sequences =
        "select format('select setval(%L, 9000000000000000000)', schemaname || '.' || sequencename) from pg_sequences
                     where schemaname = 'pgqueue'";
    for advance in database.sql(sequences).await.unwrap().lines() {
        database.sql(advance).await.unwrap();
    }
    queue.create_topic(Topic::new("returns")).await.unwrap();
    let mut stream = consume(&queue, invoices().with_order(Order::ByKey)).await;
    let ids = publish_numbers(&queue, 1..=3).await;
    assert_eq!(ids[0].as_str(), "9000000000000000001");
    next(&mut stream).await.requeue().await.unwrap();
    for _ in 0..3 {
        next(&mut stream).await.ok().await.unwrap();
    }
    let mut refunds = consume(&queue, pgqueue_core::Subscription::new("refunds", "returns")).await;
    pgqueue_core::PublisherExt::publish_json(&queue, "returns", &1).await.unwrap();
    next(&mut refunds).await.ok().await.unwrap();
}

async fn schemas_by_nearly_the_same_name_are_left_alone<C: Client>() {
    let database = Database::create().await.unwrap();
    let make = "create schema \"PgQueue\"; create table \"PgQueue\".migration (version int); insert into \"PgQueue\".migration values (99);
                create schema \"pgqueue \"; create schema \"PGQUEUE\"";
    database.sql(make).await.unwrap();
    let queue = PgQueue::<C>::connect(&database.url()).await.unwrap();
    queue.migrate().await.unwrap();
    queue.create_topic(Topic::new("orders")).await.unwrap();
    publish_number(&queue, 1).await;
    let found = "select (select count(*) from pgqueue.log), (select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace
                 where lower(trim(nspname)) = 'pgqueue' and nspname <> 'pgqueue')";
    assert_eq!(database.sql(found).await.unwrap(), "1\t1");
    // Names of topics are not folded either.
    for name in ["Orders", "ORDERS", "orders "] {
        queue.create_topic(Topic::new(name)).await.unwrap();
    }
    assert_eq!(queue.topics().await.unwrap().len(), 4);
}

async fn channels_are_never_cut<C: Client>() {
    let (database, _queue) = queue::<C>().await;
    // The longest there can be, as the number of a table has ten digits at most.
    let longest =
        "select length(pgqueue.channel(9223372036854775807)) + 10 - length('pgqueue.topic'::regclass::oid::text)";
    assert!(database.sql(longest).await.unwrap().parse::<usize>().unwrap() <= 63);
    let long = |end: &str| TableName::new("t".repeat(60) + end).in_schema("s".repeat(63));
    let (one, other) = (TableWatch::new(long("one")), TableWatch::new(long("two")));
    for watch in [&one, &other] {
        assert!(watch.channel().len() <= 63, "{}", watch.channel());
        assert!(watch.trigger_names().iter().all(|name| name.len() <= 63), "{:?}", watch.trigger_names());
    }
    assert_ne!(one.channel(), other.channel());
    assert_ne!(one.trigger_names(), other.trigger_names());
}
