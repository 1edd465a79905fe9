//! Messages come and go for a while, with retries, dead letters and repeated ones, and what they leave behind does not add up: each index
//! stays as large as what passes between two vacuums makes it.
//!
//! `PGQUEUE_SOAK_MESSAGES` says how many messages there are: with 1000000 it takes many minutes.

use std::{collections::BTreeMap, env, time::Duration};

use pgqueue_testserver::Server;
use pgqueue_tokio_postgres::PgQueue;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// How many messages there are if nobody says otherwise, and how many pass between two vacuums.
const MESSAGES: u32 = 20_000;
const ROUND: u32 = 2_000;

/// How long it may take on a slow machine, and how much longer for each thousand messages.
const PATIENCE: Duration = Duration::from_secs(300);
const PATIENCE_A_THOUSAND: Duration = Duration::from_secs(10);

/// How many bytes an index may have for each message that passes between two vacuums, and besides. An entry has some 40, a page that was
/// split is half empty, and one that was emptied serves again after the vacuum after the next.
const BYTES_A_MESSAGE: i64 = 300;
const BYTES: i64 = 6 * PAGE;
const PAGE: i64 = 8192;

/// By how much the second half may make an index larger: nothing but where its pages happen to split does.
const MORE: i64 = 2 * PAGE;

/// A round: publishes, half of it once for an id, and consumes through all subscriptions as consumers do, which requeue some and reject
/// others; then keeps house. The ids are the same in each run, so that their index splits its pages alike.
const WORK: &str = "
    do $$
    declare
      v_owner constant uuid := '00000000-0000-0000-0000-000000000001';
      v_token uuid;
      v_armed bigint;
      v_n int := 0;
      r record;
    begin
      for v_batch in 1 .. ROUND / 100 loop
        perform pgqueue.publish_batch(
          't', array_fill('x'::bytea, array[100]), array(select case when key % 20 > 0 then 'key ' || key end from generate_series(1, 100) key),
          v_dedup_ids => case when v_batch % 2 = 0 then array(select md5('NUMBER ' || v_batch || ' ' || n) from generate_series(1, 100) n) end);
        commit;
        for v_subscription in 1..3 loop
          v_armed := pgqueue.arm(1, 1000);
          commit;
          loop
            v_n := v_n + 1;
            v_token := gen_random_uuid();
            select array_agg(lease order by id) as leases, array_agg(distinct lease) as done, array_agg(id order by id) as ids into r
            from pgqueue.claim(v_subscription, v_owner, v_token, 25, v_n % 4 = 0, true, v_n, false, v_armed) where lease is not null;
            commit;
            exit when r.ids is null;
            if v_n % 5 > 0 then
              perform pgqueue.settle(
                v_subscription, r.done, array_fill(v_token, array[cardinality(r.done)]), '{}', '{}', '{}', '{}', '{}', '{}', '{}');
            else
              perform pgqueue.settle(
                v_subscription, '{}', '{}', r.leases, array_fill(v_token, array[cardinality(r.ids)]), r.ids,
                array[case when v_n % 25 = 0 then 2 else 1 end] || array_fill(0, array[cardinality(r.ids) - 1]),
                array(select generate_series(1, cardinality(r.ids))), array_fill(0::bigint, array[cardinality(r.ids)]),
                array_fill(null::text, array[cardinality(r.ids)]));
            end if;
            commit;
          end loop;
          perform pgqueue.purge(v_subscription);
        end loop;
      end loop;
      perform pgqueue.keep_stuck();
      perform pgqueue.trim();
      perform pgqueue.sweep();
    end
    $$";

async fn run(client: &Client, sql: &str) -> Vec<(String, i64)> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{error:?}: {sql}"));
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) if row.len() == 2 => Some((row.get(0)?.to_owned(), row.get(1)?.parse().ok()?)),
        _ => None,
    });
    rows.collect()
}

/// How many bytes each index of the queue has.
async fn sizes(client: &Client) -> BTreeMap<String, i64> {
    let sizes = "select c.relname, pg_relation_size(c.oid) from pg_class c where c.relnamespace = 'pgqueue'::regnamespace and c.relkind = 'i'";
    run(client, sizes).await.into_iter().collect()
}

/// Vacuums each table of the queue.
async fn vacuum(client: &Client) {
    let tables =
        "select c.relname, 0 from pg_class c where c.relnamespace = 'pgqueue'::regnamespace and c.relkind = 'r'";
    for (table, _) in run(client, tables).await {
        client.batch_execute(&format!("vacuum pgqueue.{table}")).await.unwrap();
    }
}

fn messages() -> u32 {
    let Ok(value) = env::var("PGQUEUE_SOAK_MESSAGES") else { return MESSAGES };
    value.parse().unwrap_or_else(|_| panic!("PGQUEUE_SOAK_MESSAGES is {value:?}; it must be a number"))
}

#[expect(clippy::print_stdout, reason = "whoever runs it for long wants to see the figures")]
async fn soak() {
    // Vacuum comes when the test says so, and the figures are the same on any machine.
    let server = Server::builder().with_setting("autovacuum", "off").start().await.unwrap();
    server.create_database("soaked").await.unwrap();
    let url = server.url("soaked");
    PgQueue::connect(&url).await.unwrap().migrate().await.unwrap();
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    run(&client, "set synchronous_commit = off; select pgqueue.create_topic('t', 4, 1)").await;
    for (name, order) in [("first", "unordered"), ("second", "by key"), ("third", "total")] {
        let insert = format!(
            "select id from pgqueue.insert_subscription('{name}', 't', '{order}', 100, 100, 60000, 20, 1000, 2, 60000, 0)"
        );
        run(&client, &insert).await;
    }

    let work = WORK.replace("ROUND", &ROUND.to_string());
    let rounds = messages() / ROUND / 2;
    let mut halves = Vec::new();
    for half in 0..2 {
        for number in 0..rounds {
            run(&client, &work.replace("NUMBER", &(half * rounds + number).to_string())).await;
            vacuum(&client).await;
        }
        halves.push(sizes(&client).await);
    }
    let left =
        run(&client, "select 'log', count(*) from pgqueue.log union all select 'lease', count(*) from pgqueue.lease")
            .await;
    // Of the last ones, some may not have been passed by a lane that looked before.
    assert!(left[0].1 < i64::from(ROUND) && left[1].1 == 0, "what came is consumed, and deleted: {left:?}");
    let [first, second] = &halves[..] else { unreachable!("two halves") };
    println!("left of {} messages: {left:?}; bytes: {second:?}", messages());
    assert!(second.len() > 15, "{second:?}");
    for (index, size) in second {
        assert!(*size <= first[index] + MORE, "{index} had {} bytes, and after as much again {size}", first[index]);
        let most = i64::from(ROUND) * BYTES_A_MESSAGE + BYTES;
        assert!(*size <= most, "{index} has {size} bytes");
    }
}

#[tokio::test]
async fn indexes_stay_as_large_as_what_passes() {
    let patience = PATIENCE + PATIENCE_A_THOUSAND * (messages() / 1_000);
    tokio::time::timeout(patience, soak()).await.unwrap();
}
