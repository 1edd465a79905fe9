//! Base queries of all sorts: what can be locked is, and what cannot is refused.

use std::time::{Duration, SystemTime};

use futures::StreamExt;
use pgqueue_core::{Error, ErrorKind, subscribe};
use pgqueue_postgres::{Client, Columns, Locking, PendingQuery, PgTables};

use crate::{
    both_clients::on_both_clients,
    common::{assert_says, end, next, patiently, quiet},
    table::{consume, database, free, insert, left, messages, payload, tables},
};

on_both_clients!(
    queries_that_are_written_alike_may_have_arguments_of_other_types,
    query_whose_rows_are_not_locked_is_refused,
    query_that_leaves_its_parentheses_is_refused,
    query_that_can_be_locked_no_more_ends_the_stream,
    key_that_cannot_be_written_is_refused,
    payload_that_is_neither_text_nor_bytes_is_refused,
    all_sorts_of_queries_lock_what_they_hand_out,
    table_without_partitions_yet_is_accepted,
    arguments_of_all_types_are_bound,
    attempts_beyond_32_bits_are_many,
    long_rows_are_handed_out_whole,
);

fn query<C: Client>(base: &str) -> PendingQuery<C::Row> {
    PendingQuery::new("jobs", base).with_ok("delete from messages where id = any($1)")
}

async fn refusal<C: Client>(tables: &PgTables<C>, query: PendingQuery<C::Row>) -> Error {
    patiently("an answer", subscribe(tables.query(query))).await.unwrap_err()
}

async fn query_whose_rows_are_not_locked_is_refused<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    database
        .sql("create function pending() returns setof messages language sql as 'select * from messages'")
        .await
        .unwrap();
    for base in [
        "with pending as (select * from messages) select id, payload from pending order by id",
        "select id, payload from pending() order by id",
    ] {
        assert_says(&refusal(&tables, query::<C>(base)).await, ErrorKind::Invalid, &["\"jobs\"", "no row"]);
    }
}

async fn query_that_leaves_its_parentheses_is_refused<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    for base in [
        "select id, payload from messages) other cross join (select 1 as id, 'x' as payload",
        "select id, payload from messages -- all\r) other cross join (select 1 as id, 'x' as payload from messages",
        "select id, payload from messages where payload <> E'a'\n'\\' ' ) other cross join (select 1 as id, 'x' as payload from messages where '' <> '",
        "select id, payload from messages where payload <> $☃$ ' $☃$) other cross join (select 1 as id, 'x' as payload from messages where '' <> $☃$ ' $☃$",
    ] {
        assert_says(&refusal(&tables, query::<C>(base)).await, ErrorKind::Invalid, &["\"jobs\"", "parenthes"]);
    }
}

/// What the server refuses as if a statement had been prepared for other columns is not tried for ever.
async fn query_that_can_be_locked_no_more_ends_the_stream<C: Client>() {
    for is_counted in [false, true] {
        let database = database().await;
        let tables = tables::<C>(&database).await;
        database.sql("create view pending as select id, payload from messages").await.unwrap();
        let pending = query::<C>("select id, payload from pending").with_poll_interval(Duration::from_millis(100));
        let tracking = pgqueue_postgres::Tracking::new("messages");
        let pending = if is_counted { pending.with_tracking(tracking) } else { pending };
        let mut stream = consume(tables.query(pending)).await;
        quiet(&mut stream).await;
        database.sql("create or replace view pending as select distinct id, payload from messages").await.unwrap();
        let error = end(&mut stream).await;
        assert!(error.to_string().contains("DISTINCT"), "{error}");
    }
}

async fn key_that_cannot_be_written_is_refused<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    for key in ["1::numeric", "'a'::bytea", "now()", "'2000-01-01'::date", "1::oid", "true"] {
        let base = format!("select {key} as id, payload from messages");
        let error = refusal(&tables, query::<C>(&base)).await;
        assert_says(&error, ErrorKind::Invalid, &["\"jobs\"", "\"id\"", "cast it to text"]);
    }
}

async fn payload_that_is_neither_text_nor_bytes_is_refused<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    for payload in ["1", "now()", "array['a']", "true"] {
        let base = format!("select id, {payload} as payload from messages");
        let error = refusal(&tables, query::<C>(&base)).await;
        assert_says(&error, ErrorKind::Invalid, &["\"jobs\"", "\"payload\"", "cast it"]);
    }
    let base = "select id, payload, 1.5 as kind from messages";
    let error = refusal(&tables, query::<C>(base).with_columns(Columns::new().with_kind("kind"))).await;
    assert_says(&error, ErrorKind::Invalid, &["\"jobs\"", "\"kind\"", "cast it"]);
}

async fn all_sorts_of_queries_lock_what_they_hand_out<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    let schema = "create view pending as select id, payload from messages where due_at <= now();
        create domain serial_number as bigint;
        create type colour as enum ('red');
        alter table messages enable row level security;
        create policy all_of_it on messages using (true);
        create table lines (id bigint, line text);
        insert into lines select 1, '1' from generate_series(1, 2)";
    database.sql(schema).await.unwrap();
    for base in [
        "select * from pending",
        "select * from messages",
        "select id::serial_number as id, payload from messages",
        "select id, payload from messages where $1 is not null and $1 = 'a' or payload = $1",
        "select id, payload from messages where subscription = 'ä☃' or $$)'$$ <> '' -- and so on",
        "select id, payload from messages where subscription <> E'\\')' /* a /* b */ ( */",
        "select messages.*, messages.id as id from messages",
        "select m.*, l.* from messages m join lines l on l.line = m.payload",
        "with nothing as (select 1) select id, payload from messages",
        "select id, payload from (select * from messages) m where random() < 2",
        "select id::text as id, 'red'::colour as colour, payload from messages",
    ] {
        database.sql("truncate messages restart identity").await.unwrap();
        insert(&database, "a", 1..2).await;
        let query = query::<C>(base)
            .with_argument("a")
            .with_batch(3)
            .with_ok("delete from messages where id::text = any($1::text[])");
        let mut stream = consume(tables.query(query)).await;
        let delivery = next(&mut stream).await;
        assert_eq!((payload(&delivery), free(&database).await), ("1".to_owned(), "0".to_owned()), "{base}");
        assert_eq!(delivery.message().id().to_string(), "1");
        delivery.ok().await.unwrap();
        assert_eq!(left(&database).await, "0", "{base}");
    }
}

async fn table_without_partitions_yet_is_accepted<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    let parted = "create table parted (id bigint, payload text) partition by range (id)";
    database.sql(parted).await.unwrap();
    let query = PendingQuery::new("parted", "select id, payload from parted order by id")
        .with_ok("delete from parted where id = any($1)")
        .with_locking(Locking::Ordered)
        .with_poll_interval(Duration::from_millis(50));
    let mut stream = consume(tables.query(query)).await;
    quiet(&mut stream).await;
    // A look that nobody polls would keep the table from being altered.
    let part = "create table part partition of parted for values from (0) to (9); insert into parted values (3, 'p')";
    let (made, delivery) = tokio::join!(database.sql(part), next(&mut stream));
    made.unwrap();
    delivery.ok().await.unwrap();
    assert_eq!(database.sql("select count(*) from parted").await.unwrap(), "0");
}

async fn arguments_of_all_types_are_bound<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let base = "select id, payload from messages where $1 and $2 = -2 and $3 = 3 and $4 = 4 and $5 = 0.5 and $6 = 'ü'
        and $7 = 'text' and $8 = '\\x00ff'::bytea and $9 <= now() and $10 is null and $10 is null";
    let query = query::<C>(base)
        .with_argument(true)
        .with_argument(-2_i16)
        .with_argument(3_i32)
        .with_argument(4_i64)
        .with_argument(0.5)
        .with_argument("ü")
        .with_argument(String::from("text"))
        .with_argument(&b"\x00\xff"[..])
        .with_argument(SystemTime::now() - Duration::from_secs(60))
        .with_argument(None::<&str>)
        .with_next_due("select now() where $1 and $10 is not null");
    let mut stream = consume(tables.query(query)).await;
    next(&mut stream).await.ok().await.unwrap();
    assert_eq!(left(&database).await, "0");
}

async fn attempts_beyond_32_bits_are_many<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    for (attempt, wanted) in [("5000000000", u32::MAX), ("-1", 1), ("null::bigint", 1)] {
        let base = format!("select id, payload, {attempt} as attempt from messages");
        let query = query::<C>(&base).with_columns(Columns::new().with_attempt("attempt"));
        let mut stream = consume(tables.query(query)).await;
        assert_eq!(next(&mut stream).await.message().attempt(), wanted);
    }
    // Counts are found though the base query gives the key another type than the table.
    let query = query::<C>("select id::int as id, payload from messages")
        .with_tracking(pgqueue_postgres::Tracking::new("messages"));
    let mut stream = consume(tables.query(query)).await;
    for attempt in 1..=2 {
        let delivery = next(&mut stream).await;
        assert_eq!(delivery.message().attempt(), attempt);
        delivery.requeue().await.unwrap();
    }
}

async fn long_rows_are_handed_out_whole<C: Client>() {
    const BYTES: usize = 32 << 20;
    let database = database().await;
    let tables = tables::<C>(&database).await;
    database.sql(&format!("insert into messages (payload) select repeat('x', {BYTES})")).await.unwrap();
    let mut stream = consume(tables.query(messages::<C>("a", Locking::Ordered))).await;
    let delivery = patiently("a long row", stream.next()).await.unwrap().unwrap();
    assert_eq!(delivery.message().payload().len(), BYTES);
    delivery.ok().await.unwrap();
}

async fn queries_that_are_written_alike_may_have_arguments_of_other_types<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let query = || {
        let base = "select id, payload from messages where id > $1";
        PendingQuery::new("messages", base).with_ok("delete from messages where id = any($1)")
    };
    for query in [query().with_argument(0_i64), query().with_argument(0_i32), query().with_argument(0_i16)] {
        let mut stream = consume(tables.query(query)).await;
        drop(next(&mut stream).await);
    }
}
