//! The functions called with anything that their types allow: nulls, empty and uneven arrays, arrays of several dimensions, and numbers at the
//! ends of what there is. Roles call them without this library, too.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use pgqueue_core::NewMessage;
use pgqueue_postgres::{Client, Parameter, PgQueue, Row};
use pgqueue_testserver::Database;

use super::{chance, inputs, json, text};
use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    common::{publish_number, queue_without_topic},
    upgrades::fixtures::fill,
};

on_both_clients!(
    functions_refuse_what_they_cannot_use,
    what_sql_can_publish_is_consumed_or_refused,
    headers_that_no_consumer_can_read_are_refused,
);

const BATCH: usize = 100;

/// Tries a statement and takes it back; returns SQLSTATE.
const ATTEMPT: &str = "
    create or replace function public.attempt(statement text) returns text language plpgsql as $$
    begin
      execute statement;
      raise exception using errcode = 'OK000';
    exception when others then
      return sqlstate;
    end $$";

/// Tries statements, all in one: what one leaves behind the next would meet.
pub(crate) async fn attempt_all<C: Client>(queue: &PgQueue<C>, statements: &[String]) -> Vec<String> {
    queue.client().run_script(ATTEMPT).await.unwrap();
    let asked = serde_json::to_string(statements).unwrap();
    let attempt = "select string_agg(public.attempt(s), ' ' order by n) from jsonb_array_elements_text($1::jsonb) with ordinality x (s, n)";
    let rows = queue.client().query(attempt, &[Parameter::from(asked)]).await.unwrap();
    let states = String::from_utf8(rows[0].column(0).unwrap().to_vec()).unwrap();
    let states: Vec<_> = states.split(' ').map(str::to_owned).collect();
    assert_eq!(states.len(), statements.len());
    states
}

/// A literal of a type, of any kind.
fn literal(rng: &mut Rng, r#type: &str) -> String {
    if rng.u8(..8) == 0 {
        return format!("null::{type}");
    }
    if let Some(element) = r#type.strip_suffix("[]") {
        let elements = |rng: &mut Rng, count| (0..count).map(|_| literal(rng, element)).collect::<Vec<_>>().join(", ");
        return match rng.u8(..8) {
            0 => format!("'{{}}'::{type}"),
            1 => format!("array[array[{}], array[{}]]::{type}", elements(rng, 2), elements(rng, 2)),
            2 => format!("array_fill({}, array[2], array[5])", literal(rng, element)),
            3 => format!("array_fill({}, array[{}])", literal(rng, element), rng.usize(..200)),
            _ => {
                let count = rng.usize(1..4);
                format!("array[{}]::{type}", elements(rng, count))
            }
        };
    }
    let one_of = |rng: &mut Rng, all: &[&str]| all[rng.usize(..all.len())].to_owned();
    let value = match r#type {
        "bigint" => one_of(
            rng,
            &["0", "1", "2", "3", "5", "-1", "1000", "9223372036854775807", "-9223372036854775808", "3155760000000"],
        ),
        "integer" => one_of(rng, &["0", "1", "2", "5", "-1", "100", "2147483647", "-2147483648"]),
        "double precision" => one_of(rng, &["0", "1", "-1", "NaN", "Infinity", "-Infinity", "1e308", "5e-324"]),
        "boolean" => one_of(rng, &["true", "false"]),
        "uuid" => one_of(
            rng,
            &[
                "00000000-0000-0000-0000-000000000001",
                "00000000-0000-0000-0000-00000000000a",
                "ffffffff-ffff-ffff-ffff-ffffffffffff",
            ],
        ),
        "timestamp with time zone" => {
            one_of(rng, &["infinity", "-infinity", "4714-11-24 BC", "294276-12-31", "now", "2000-01-01"])
        }
        "bytea" => one_of(rng, &["", "\\x00", "\\xff", "{\"a\": 1}", "1"]),
        "jsonb" => json::value(rng, 3).to_string().replace("\\u0000", ""),
        "name" => one_of(rng, &["postgres", "public", "nobody", "\"", ""]),
        _ => match rng.u8(..4) {
            0 => one_of(
                rng,
                &[
                    "orders",
                    "empty",
                    "unordered",
                    "by key",
                    "total",
                    "stable total",
                    "competing",
                    "exclusive",
                    "single active",
                    "totals",
                ],
            ),
            1 => one_of(
                rng,
                &[
                    "{}",
                    "{a,NULL}",
                    "{{a},{b}}",
                    "{",
                    "{\"a\": \"b\"}",
                    "[1]",
                    "{\"a\": 1}",
                    "{\"and\": [{\"key\": \"k\"}]}",
                    "{\"number\": {}}",
                ],
            ),
            2 => json::value(rng, 3).to_string().replace('\0', ""),
            _ => text(rng).replace('\0', ""),
        },
    };
    format!("'{}'::{type}", value.replace('\'', "''"))
}

/// The functions that roles may call, with the types of what they take.
async fn functions(database: &Database) -> Vec<(String, Vec<String>)> {
    let query = "
        select p.proname, (select string_agg(format_type(t, null), ';' order by n) from unnest(p.proargtypes::oid[]) with ordinality x (t, n))
        from pg_proc p where p.pronamespace = 'pgqueue'::regnamespace and (p.prosecdef or p.proname ~ '^(publish|key_hash|grant_(publisher|consumer|admin)|revoke_all)$')
        order by 1";
    let found = database.sql(query).await.unwrap();
    let read = |line: &str| {
        let (name, types) = line.split_once('\t').unwrap();
        (name.to_owned(), types.split(';').filter(|r#type| !r#type.is_empty()).map(str::to_owned).collect())
    };
    found.lines().map(read).collect()
}

async fn functions_refuse_what_they_cannot_use<C: Backend>() {
    let (database, queue) = queue_without_topic::<C>().await;
    fill(&database, 1).await;
    let functions = functions(&database).await;
    assert!(functions.len() > 30, "{functions:?}");
    // One connection, so that a refusal that left it unusable would show.
    let pool = C::pool(&database.url(), 1, "read committed");
    let queue = {
        drop(queue);
        C::over(&pool)
    };
    let mut rng = chance();
    let (count, mut done) = (inputs(3), 0);
    let (mut states, mut called) = (BTreeMap::<String, usize>::new(), BTreeSet::new());
    while done < count {
        let calls: Vec<_> = (0..BATCH.min(count - done))
            .map(|n| {
                let (name, types) = &functions[(done + n) % functions.len()];
                let arguments: Vec<_> = types.iter().map(|r#type| literal(&mut rng, r#type)).collect();
                (name, format!("select pgqueue.{name}({})", arguments.join(", ")))
            })
            .collect();
        done += calls.len();
        let statements: Vec<_> = calls.iter().map(|(_, call)| call.clone()).collect();
        for ((name, call), state) in calls.iter().zip(attempt_all(&queue, &statements).await) {
            assert_usable(&state, call);
            if state == "OK000" {
                called.insert(name.as_str());
            }
            *states.entry(state).or_default() += 1;
        }
        // Claims need a transaction of their own, and stay.
        for (_, call) in calls.iter().filter(|(name, _)| *name == "claim").take(3) {
            if let Err(pgqueue_postgres::ClientError::Refused { code, .. }) = queue.client().query(call, &[]).await {
                assert_usable(&code, call);
            }
        }
        publish_number(&queue, 1).await;
    }
    println!("{count} inputs, {states:?}; these were of use to {called:?}");
    assert!(called.len() > functions.len() / 3, "most refuse all: {called:?} {states:?}");
}

/// Refused for what it was given, and not because something is wrong inside.
#[track_caller]
fn assert_usable(state: &str, call: &str) {
    let classes = ["OK", "PQ", "22", "23", "42", "0A", "54", "55", "P0"];
    assert!(classes.contains(&&state[..2]), "{state} for {call}");
    // Of class 42, what names something that is not there, and no mistake of ours.
    assert!(!state.starts_with("42") || matches!(state, "42704" | "42501" | "0LP01" | "42846"), "{state} for {call}");
}

/// What SQL could publish, every consumer can read: else one message would end all streams.
async fn what_sql_can_publish_is_consumed_or_refused<C: Client>() {
    let (database, queue) = crate::common::queue::<C>().await;
    let subscription = pgqueue_core::Subscription::new("all", "orders").with_batch(100).with_prefetch(100);
    let mut stream = crate::common::consume(&queue, subscription).await;
    let mut rng = chance();
    let (count, mut published) = (inputs(1), 0);
    for _ in 0..count {
        let tags = literal(&mut rng, "text[]");
        let headers = if rng.bool() { literal(&mut rng, "jsonb") } else { "'{\"a\": \"b\"}'".to_owned() };
        let key = literal(&mut rng, "text");
        let publish = format!("select pgqueue.publish('orders', '1', {key}, {key}, {tags}, {headers})");
        published += usize::from(database.sql(&publish).await.is_ok());
    }
    pgqueue_core::Publisher::publish(&queue, "orders", vec![NewMessage::new("the last")]).await.unwrap();
    let mut found = 0;
    while found <= published {
        let delivery = crate::common::next(&mut stream).await;
        found += delivery.messages().len();
        delivery.ok().await.unwrap();
    }
    assert!((1..count).contains(&published), "{published} of {count}");
    println!("{count} inputs, of which {published} were published");
}

/// What a search of long duration found, among others: a path that looks into lists took lists of texts for texts.
async fn headers_that_no_consumer_can_read_are_refused<C: Client>() {
    let (database, _queue) = crate::common::queue::<C>().await;
    let publish = |headers: &str| format!("select pgqueue.publish('orders', '1', v_headers => '{headers}')");
    for headers in [
        r#"{"a": ["b"]}"#,
        r#"{"a": []}"#,
        r#"{"a": {"b": "c"}}"#,
        r#"{"a": null}"#,
        r#"{"a": 1}"#,
        r#"["a"]"#,
        r#""a""#,
        "[]",
    ] {
        let refusal = database.sql(&publish(headers)).await.expect_err(headers).to_string();
        assert!(refusal.contains("headers are a JSON object"), "{headers}: {refusal}");
    }
    for headers in ["{}", r#"{"a": "b", "c": ""}"#] {
        database.sql(&publish(headers)).await.expect(headers);
    }
}
