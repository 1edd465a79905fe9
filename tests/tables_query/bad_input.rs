//! What cannot work is said when subscribing, by name.

use futures::StreamExt;
use pgqueue_core::{Backoff, Error, ErrorKind, Message, MessageId, NewMessage, Position, subscribe};
use pgqueue_postgres::{Client, Columns, Command, Locking, PendingQuery, PgTables, Row, Tracking};
use pgqueue_testserver::Database;

use crate::{
    both_clients::on_both_clients,
    common::{assert_says, end, next, patiently},
    table::{consume, database, insert, messages, payload, tables},
};

on_both_clients!(
    query_that_has_no_order_is_refused,
    query_that_cannot_be_locked_is_refused,
    mapping_that_misses_a_column_is_refused,
    statements_that_cannot_be_planned_are_refused,
    subscription_that_cannot_be_inserted_is_refused,
    names_are_no_way_to_inject,
    missing_privilege_is_named,
    table_that_was_dropped_and_made_again_goes_on,
    row_that_is_no_message_is_named,
    keys_may_be_of_many_types,
    rows_may_be_read_by_a_function,
);

async fn refusal<C: Client>(tables: &PgTables<C>, query: PendingQuery<C::Row>) -> Error {
    patiently("an answer", subscribe(tables.query(query))).await.unwrap_err()
}

fn query<C: Client>(base: &str) -> PendingQuery<C::Row> {
    PendingQuery::new("jobs", base).with_ok("delete from messages where id = any($1)")
}

async fn query_that_has_no_order_is_refused<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    let unordered = query::<C>("select id, payload from messages");
    let error = refusal(&tables, unordered.with_locking(Locking::Ordered)).await;
    assert_says(&error, ErrorKind::Invalid, &["\"jobs\"", "ORDER BY"]);
    for (base, clause) in [
        ("select id, payload from messages limit 1", "LIMIT"),
        ("select id, payload from messages for update", "FOR"),
        ("select id, payload from messages;", "semicolon"),
    ] {
        assert_says(&refusal(&tables, query::<C>(base)).await, ErrorKind::Invalid, &["\"jobs\"", clause]);
    }
}

async fn query_that_cannot_be_locked_is_refused<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    for (base, reason) in [
        ("select max(id) as id, 'x' as payload from messages", "aggregate"),
        ("select distinct id, payload from messages", "DISTINCT"),
        ("select m.id, m.payload from messages n left join messages m on m.id = n.id + 1", "outer join"),
        ("select id, payload from messages union all select id, payload from messages", "UNION"),
        ("select id, payload from", "syntax"),
        ("select id, payload from nowhere", "nowhere"),
    ] {
        assert_says(&refusal(&tables, query::<C>(base)).await, ErrorKind::Invalid, &["\"jobs\"", reason]);
    }
}

async fn mapping_that_misses_a_column_is_refused<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    let error = refusal(&tables, query::<C>("select id, payload as body from messages")).await;
    assert_says(&error, ErrorKind::Invalid, &["\"jobs\"", "\"payload\""]);
    let base = "select id, payload from messages";
    let error = refusal(&tables, query::<C>(base).with_key("serial")).await;
    assert_says(&error, ErrorKind::Invalid, &["\"jobs\"", "\"serial\""]);
    let columns = Columns::new().with_kind("kind");
    let error = refusal(&tables, query::<C>(base).with_columns(columns)).await;
    assert_says(&error, ErrorKind::Invalid, &["\"jobs\"", "\"kind\""]);
    let point = "select point(1, 2) as id, payload from messages";
    assert_says(&refusal(&tables, query::<C>(point)).await, ErrorKind::Invalid, &["\"jobs\"", "\"id\"", "key"]);
}

async fn statements_that_cannot_be_planned_are_refused<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    let wanted = || messages::<C>("a", Locking::Unordered);
    for (query, what) in [
        (wanted().with_ok(""), "with_ok"),
        (wanted().with_ok("delete from messages where serial = any($1)"), "OK"),
        (wanted().with_requeue("update messages set due = now()"), "Requeue"),
        (wanted().with_reject("delete from messages where $9"), "Reject"),
        (wanted().with_next_due("select min(due) from messages"), "due"),
        (wanted().with_exists("select exists(select from nowhere)"), "exists"),
        (wanted().with_exists("select $1"), "exists"),
        (wanted().with_tracking(Tracking::new("messages").with_deliveries("count")), "tracking"),
        (wanted().with_tracking(Tracking::new("")), "table"),
        (wanted().with_batch(0), "batch"),
        (query::<C>("select id, payload from messages").with_backoff(Backoff::default()), "with_requeue"),
        (wanted().with_max_attempts(0), "attempts"),
    ] {
        assert_says(&refusal(&tables, query).await, ErrorKind::Invalid, &[what]);
    }
}

async fn subscription_that_cannot_be_inserted_is_refused<C: Client>() {
    let database = database().await;
    let schema = "create table topics (name text primary key); insert into topics values ('orders'), ('bills'); \
                  create table subscriptions (name text primary key check (name <> ''), \
                  topic text references topics, tries int default 1)";
    database.sql(schema).await.unwrap();
    let tables = tables::<C>(&database).await;
    let wanted = |name: &str, topic: &str| {
        let insert = "insert into subscriptions values ($1, $2) \
                      on conflict (name) do update set tries = subscriptions.tries + 1 returning topic = $2";
        let insert = Command::new(insert).with_argument(name).with_argument(topic);
        messages::<C>("a", Locking::Unordered).with_insert(insert)
    };
    for _ in 0..2 {
        drop(consume(tables.query(wanted("a", "orders"))).await);
    }
    for (name, topic, kind) in
        [("a", "bills", ErrorKind::Conflict), ("b", "letters", ErrorKind::NotFound), ("", "orders", ErrorKind::Invalid)]
    {
        assert_says(&refusal(&tables, wanted(name, topic)).await, kind, &["\"messages\""]);
    }
    // What was refused changed nothing.
    assert_eq!(
        database.sql("select concat_ws(' ', name, topic, tries) from subscriptions").await.unwrap(),
        "a orders 2"
    );
    let hopeless = wanted("a", "orders").with_backoff(Backoff::default().with_max_attempts(0));
    assert_says(&refusal(&tables, hopeless).await, ErrorKind::Invalid, &["\"messages\"", "0 attempts"]);
}

async fn names_are_no_way_to_inject<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    let evil = "x\"; drop table messages; --";
    let wanted = || messages::<C>("a", Locking::Unordered);
    refusal(&tables, wanted().with_key(evil)).await;
    refusal(&tables, wanted().with_tracking(Tracking::new(evil))).await;
    refusal(&tables, wanted().with_tracking(Tracking::new("messages").with_deliveries(evil))).await;
    let base = "select id, payload from messages where subscription = $1";
    let query = PendingQuery::new("jobs", base).with_argument("'; drop table messages; --");
    let stream = subscribe(tables.query(query.with_ok("delete from messages where id = any($1)"))).await.unwrap();
    drop(stream);
    assert_eq!(database.sql("select count(*) from messages").await.unwrap(), "0");
}

async fn missing_privilege_is_named<C: Client>() {
    let database = database().await;
    let role = format!("reader_{}", database.name());
    database.sql(&format!("create role {role} login; grant select on messages to {role}")).await.unwrap();
    let url = database.url().replace("postgres@", &format!("{role}@"));
    assert_ne!(url, database.url());
    let tables = PgTables::<C>::connect(&url).await.unwrap();
    let error = refusal(&tables, query::<C>("select id, payload from messages")).await;
    assert_says(
        &error,
        ErrorKind::Fatal,
        &["\"jobs\"", "privilege", "messages"].map(|word| if word == "\"jobs\"" { "jobs" } else { word }),
    );
    database.sql(&format!("drop owned by {role}; drop role {role}")).await.unwrap();
}

async fn table_that_was_dropped_and_made_again_goes_on<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let driver = std::sync::Arc::new(tables.query(messages::<C>("a", Locking::Unordered)));
    let mut stream = patiently("a stream", subscribe(std::sync::Arc::clone(&driver))).await.unwrap();
    next(&mut stream).await.ok().await.unwrap();
    drop(stream);
    remake(&database).await;
    // Over the same connections, which have prepared their statements for the table that was.
    for _ in 0..2 {
        insert(&database, "a", 1..2).await;
        let mut stream = patiently("a stream", subscribe(std::sync::Arc::clone(&driver))).await.unwrap();
        let delivery = next(&mut stream).await;
        assert_eq!(payload(&delivery), "1");
        delivery.ok().await.unwrap();
    }

    let mut stream = patiently("a stream", subscribe(driver)).await.unwrap();
    database.sql("drop table messages").await.unwrap();
    assert_says(&end(&mut stream).await, ErrorKind::Fatal, &["messages"]);
}

/// With another type of a column.
async fn remake(database: &Database) {
    let table = "drop table messages; create table messages (
        id integer generated always as identity primary key, extra text, subscription text, payload text, due_at timestamptz default now())";
    database.sql(table).await.unwrap();
}

async fn row_that_is_no_message_is_named<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let refuse = |_: &C::Row| Err("secret".into());
    let mut stream = consume(tables.query(messages::<C>("a", Locking::Unordered).with_rows(refuse))).await;
    assert_says(&end(&mut stream).await, ErrorKind::Decode, &["row 1", "\"messages\""]);
    assert_eq!(database.sql("select count(*) from messages").await.unwrap(), "1");

    database
        .sql(
            "alter table messages alter id drop identity; alter table messages drop constraint messages_pkey; \
                  alter table messages alter id drop not null; update messages set id = null",
        )
        .await
        .unwrap();
    let mut stream = consume(tables.query(messages::<C>("a", Locking::Unordered))).await;
    assert_says(&end(&mut stream).await, ErrorKind::Decode, &["\"id\"", "\"messages\""]);
}

async fn keys_may_be_of_many_types<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    for (number, (type_name, value)) in [
        ("smallint", "7"),
        ("integer", "-7"),
        ("bigint", "7000000000"),
        ("text", "a'b\"c"),
        ("varchar(9)", "ü"),
        ("uuid", "5f2b6a0e-8f34-4f0e-9d6a-0d1f0f9f9f9f"),
        ("bytea", "\\xff00"),
        ("numeric", "1.50"),
        ("timestamptz", "2024-02-29 12:00:00+00"),
    ]
    .into_iter()
    .enumerate()
    {
        let table = format!("typed_{number}");
        let make = format!("create table {table} (id {type_name} primary key, payload jsonb, kind text)");
        database.sql(&make).await.unwrap();
        let value = value.replace('\'', "''");
        database.sql(&format!("insert into {table} values ('{value}', '{{\"a\": 1}}', 'k')")).await.unwrap();
        let query = PendingQuery::new("typed", format!("select * from {table}"))
            .with_columns(Columns::new().with_kind("kind"))
            .with_ok(format!("delete from {table} where id = any($1)"));
        let is_text = !["bytea", "numeric", "timestamptz"].contains(&type_name);
        if !is_text {
            // They identify, but cannot be written as a message's id.
            assert_says(&refusal(&tables, query).await, ErrorKind::Invalid, &["\"id\"", "cast it to text"]);
        } else {
            let mut stream = consume(tables.query(query)).await;
            let delivery = next(&mut stream).await;
            assert_eq!(delivery.message().kind(), Some("k"));
            assert_eq!(&delivery.message().payload()[..], b"{\"a\": 1}");
            delivery.ok().await.unwrap();
            assert_eq!(database.sql(&format!("select count(*) from {table}")).await.unwrap(), "0");
        }
    }
}

async fn rows_may_be_read_by_a_function<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let read = |row: &C::Row| {
        let bytes = row.find("payload").and_then(|column| row.column(column)).unwrap_or_default();
        let content = NewMessage::new(bytes.to_vec()).with_key("k");
        let now = std::time::SystemTime::now();
        Ok(Message::new(MessageId::new("17"), Position::new("3"), "elsewhere", content, now))
    };
    let mut stream = consume(tables.query(messages::<C>("a", Locking::Unordered).with_rows(read))).await;
    let delivery = patiently("a delivery", stream.next()).await.unwrap().unwrap();
    let message = delivery.message();
    assert_eq!((message.id().to_string(), message.topic(), message.key()), ("17".to_owned(), "elsewhere", Some("k")));
    delivery.ok().await.unwrap();
    assert_eq!(database.sql("select count(*) from messages").await.unwrap(), "0");
}
