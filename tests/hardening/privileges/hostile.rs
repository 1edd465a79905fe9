//! Sessions that mean other things by the same names: what others made comes first in their `search_path`, and their settings are odd.

use std::time::Duration;

use pgqueue_core::{Ack, Comparison, NewMessage, Order, Publisher, PublisherExt, Selector, Start, Subscription, Topic};
use pgqueue_postgres::{Client, Role};
use pgqueue_testserver::Database;
use serde_json::json;

use super::{make_role, queue_of, url_of};
use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    catalog,
    common::{consume, next, number, publish_number, queue},
};

on_both_clients!(
    doubles_change_nothing,
    doubles_are_not_built_into_the_schema,
    temporary_doubles_change_nothing,
    odd_settings_change_nothing,
);

/// Doubles of what the queue uses of the server's and of its own. Whoever means one of these says so and fails.
const DOUBLES: &str = "
    create schema evil;
    create function evil.meant(what text) returns void language plpgsql as
      $$ begin raise exception 'the double of % was meant', what; end $$;
    do $$
    declare f text; t text;
    begin
      foreach f in array array[
        'now() returns timestamptz', 'clock_timestamp() returns timestamptz', 'pg_notify(text, text) returns void',
        'nextval(regclass) returns bigint', 'hashtextextended(text, bigint) returns bigint', 'pg_current_xact_id() returns xid8',
        'pg_current_snapshot() returns pg_snapshot', 'pg_try_advisory_xact_lock(bigint) returns boolean',
        'pg_advisory_xact_lock(bigint) returns void', 'current_setting(text) returns text', 'to_regclass(text) returns regclass',
        'to_regnamespace(text) returns regnamespace', 'set_config(text, text, boolean) returns text', 'sha256(bytea) returns bytea',
        'convert_to(text, name) returns bytea', 'convert_from(bytea, name) returns text', 'lower(text) returns text',
        'max(int) returns int', 'max(bigint) returns bigint', 'cardinality(bigint[]) returns int', 'quote_literal(text) returns text',
        'replace(text, text, text) returns text', 'unnest(bigint[]) returns setof bigint', 'length(bytea) returns int',
        'encode(bytea, text) returns text', 'substr(bytea, int, int) returns bytea', 'jsonb_typeof(jsonb) returns text',
        'pg_visible_in_snapshot(xid8, pg_snapshot) returns boolean', 'gen_random_uuid() returns uuid', 'pg_notification_queue_usage() returns float8'
      ] loop
        execute format('create function evil.%s language plpgsql as $body$ begin perform evil.meant(%L); end $body$', f, f);
      end loop;
      foreach t in array array['topic', 'log', 'subscription', 'cursor', 'lease', 'owner', 'sleeper', 'dedup', 'scheduled', 'kept', 'settled',
                               'dead_letter', 'checkpoint', 'extent', 'migration', 'message', 'pg_class', 'pg_locks', 'pg_database'] loop
        execute format('create table evil.%I (id bigint, name text, version int)', t);
      end loop;
      foreach t in array array['bigint', 'text', 'int', 'uuid', 'timestamptz', 'xid8', 'boolean', 'jsonb'] loop
        execute format('create function evil.%I(%2$s, %2$s) returns boolean language plpgsql as
                        $body$ begin perform evil.meant(''an operator of '' || %2$L); end $body$', 'compare_' || t, t);
        foreach f in array array['=', '<>', '<', '>', '<=', '>='] loop
          execute format('create operator evil.%s (leftarg = %2$s, rightarg = %2$s, function = evil.%3$I)', f, t, 'compare_' || t);
        end loop;
      end loop;
    end $$;
    create function evil.joined(text, text) returns text language plpgsql as $$ begin perform evil.meant('||'); end $$;
    create operator evil.|| (leftarg = text, rightarg = text, function = evil.joined);
    create function evil.joined(text, bigint) returns text language plpgsql as $$ begin perform evil.meant('||'); end $$;
    create operator evil.|| (leftarg = text, rightarg = bigint, function = evil.joined);
    create function evil.joined(text, oid) returns text language plpgsql as $$ begin perform evil.meant('||'); end $$;
    create operator evil.|| (leftarg = text, rightarg = oid, function = evil.joined);
    create function evil.modulo(bigint, int) returns int language plpgsql as $$ begin perform evil.meant('%'); end $$;
    create operator evil.% (leftarg = bigint, rightarg = int, function = evil.modulo);
    create function evil.times(bigint, interval) returns interval language plpgsql as $$ begin perform evil.meant('*'); end $$;
    create operator evil.* (leftarg = bigint, rightarg = interval, function = evil.times);
    grant usage on schema evil to public;
    grant all on all tables in schema evil to public;
";

/// Does what a queue can do, as roles whose sessions have these settings.
async fn everything_works<C: Backend>(settings: &[(&str, &str)], before: Option<&str>) {
    let (database, owner) = queue::<C>().await;
    if let Some(before) = before {
        database.sql(before).await.unwrap();
    }
    let mut roles = Vec::new();
    for may in [Role::Publisher, Role::Consumer, Role::Admin] {
        let role = make_role(&database, &format!("{may:?}").to_lowercase()).await;
        owner.grant_to(&role, may).await.unwrap();
        set(&database, &role, settings).await;
        roles.push(role);
    }
    let publisher = queue_of::<C>(&database, &roles[0]).await;
    let consumer = queue_of::<C>(&database, &roles[1]).await;
    let admin = queue_of::<C>(&database, &roles[2]).await;

    // What is asked for in each of the ways in which a log is asked.
    admin.create_topic(Topic::new("orders").with_dedup_window(Duration::from_secs(60))).await.unwrap();
    let selector = Selector::key_like("k*")
        .and(Selector::number(["n"], Comparison::GreaterOrEqual, 0.0).or(Selector::payload(json!({"a": 1}))));
    let orders = [Order::Unordered, Order::ByKey, Order::Total, Order::StableTotal];
    let mut streams = Vec::new();
    for order in orders {
        let subscription = Subscription::new(format!("{order:?}"), "orders").with_order(order);
        streams.push(consume(&consumer, subscription).await);
    }
    let selecting = Subscription::new("selecting", "orders").with_selector(selector);
    let mut selecting = consume(&consumer, selecting).await;

    let message =
        |n: u64| NewMessage::json(&json!({"n": n})).unwrap().with_key("k\\1").with_tag("t").with_header("h", "v");
    publisher
        .publish("orders", vec![message(1), message(2).with_dedup_id("2"), message(2).with_dedup_id("2")])
        .await
        .unwrap();
    let mut transaction = C::open(&url_of(&database, &roles[0])).await;
    publisher.publish_in(&mut transaction, "orders", vec![message(3)]).await.unwrap();
    C::commit(transaction).await;
    publisher.publish_one("orders", message(4).with_delay(Duration::from_millis(1))).await.unwrap();

    for (stream, order) in streams.iter_mut().zip(orders) {
        let mut positions = Vec::new();
        for n in 1..=4 {
            let mut delivery = next(stream).await;
            if n == 2 {
                delivery.requeue().await.unwrap();
                delivery = next(stream).await;
            }
            let found: serde_json::Value = delivery.message().json().unwrap();
            assert!(order == Order::Unordered || found["n"] == n, "{order:?}: {found}");
            positions.push(delivery.message().position().clone());
            if n == 3 {
                let mut transaction = C::open(&url_of(&database, &roles[1])).await;
                consumer.ok_in(delivery, &mut transaction).await.unwrap();
                C::commit(transaction).await;
            } else if n == 4 {
                delivery.settle(Ack::reject("four")).await.unwrap();
            } else {
                delivery.ok().await.unwrap();
            }
        }
        let from = Subscription::new(format!("{order:?} again"), "orders")
            .with_order(order)
            .with_start(Start::After(positions[0].clone()));
        consumer.insert_subscription(&from).await.unwrap();
    }
    for _ in 0..4 {
        next(&mut selecting).await.ok().await.unwrap();
    }
    admin.maintain().await.unwrap();
    for order in orders {
        let name = format!("{order:?}");
        let stats = admin.stats(&name).await.unwrap();
        assert_eq!((stats.waiting, stats.dead), (0, 1), "{name}");
        assert_eq!(admin.dead_letters(&name).await.unwrap()[0].reason, "four");
        assert_eq!(admin.redrive(&name).await.unwrap(), 1);
    }
}

async fn set(database: &Database, role: &str, settings: &[(&str, &str)]) {
    for (name, value) in settings {
        database.sql(&format!("alter role {role} set {name} = {value}")).await.unwrap();
    }
}

async fn doubles_change_nothing<C: Backend>() {
    everything_works::<C>(&[("search_path", "evil, pg_catalog, public")], Some(DOUBLES)).await;
}

async fn doubles_are_not_built_into_the_schema<C: Client>() {
    let mut schemas = Vec::new();
    let owner = make_role(&Database::create().await.unwrap(), "owner").await;
    for hostile in [false, true] {
        let database = Database::create().await.unwrap();
        database.sql(&format!("grant create on database {} to {owner}; {DOUBLES}", database.name())).await.unwrap();
        if hostile {
            let settings = [("search_path", "evil, pg_catalog, public"), ("standard_conforming_strings", "off")];
            set(&database, &owner, &settings).await;
        }
        queue_of::<C>(&database, &owner).await.migrate().await.unwrap();
        let built_in = "
            select count(*) from pg_depend d
            where d.refobjid in (select oid from pg_proc where pronamespace = 'evil'::regnamespace
                                 union all select oid from pg_operator where oprnamespace = 'evil'::regnamespace
                                 union all select oid from pg_type where typnamespace = 'evil'::regnamespace)
              and d.objid in (select oid from pg_proc where pronamespace = 'pgqueue'::regnamespace
                              union all select oid from pg_class where relnamespace = 'pgqueue'::regnamespace
                              union all select oid from pg_constraint where connamespace = 'pgqueue'::regnamespace)";
        assert_eq!(database.sql(built_in).await.unwrap(), "0");
        schemas.push(catalog::schema(&database).await);
    }
    catalog::assert_same("the schema is the same, whatever its owner's session is set to", &schemas[0], &schemas[1]);
}

async fn temporary_doubles_change_nothing<C: Backend>() {
    let (database, owner) = queue::<C>().await;
    let role = make_role(&database, "publisher").await;
    owner.grant_to(&role, Role::Publisher).await.unwrap();
    owner.grant_to(&role, Role::Consumer).await.unwrap();
    let queue = queue_of::<C>(&database, &role).await;
    let mut stream = consume(&queue, Subscription::new("invoices", "orders")).await;

    let mut transaction = C::open(&url_of(&database, &role)).await;
    let tables = ["topic", "log", "subscription", "sleeper", "lease", "settled", "dedup", "pg_class", "pg_locks"];
    for table in tables {
        let make =
            format!("create temp table {table} (like pg_catalog.pg_class); create temp table \"pgqueue.{table}\" ()");
        C::execute(&mut transaction, &make).await;
    }
    C::execute(&mut transaction, "create type pg_temp.text as enum ('evil'); create domain pg_temp.int8 as text").await;
    C::execute(&mut transaction, "set local search_path = pg_temp, pg_catalog").await;
    let once = |n: u64| vec![NewMessage::json(&n).unwrap().with_key("k").with_tag("t").with_dedup_id("once")];
    let first = queue.publish_in(&mut transaction, "orders", once(1)).await.unwrap();
    assert_eq!(queue.publish_in(&mut transaction, "orders", once(2)).await.unwrap(), first);
    publish_number(&queue, 3).await;
    let delivery = next(&mut stream).await;
    assert_eq!(number(&delivery), 3);
    queue.ok_in(delivery, &mut transaction).await.unwrap();
    C::commit(transaction).await;
    assert_eq!(number(&next(&mut stream).await), 1);
    queue.publish_json("orders", &4).await.unwrap();
    let kept = "select count(*) from pgqueue.dedup";
    assert_eq!(database.sql(kept).await.unwrap(), "1");
}

async fn odd_settings_change_nothing<C: Backend>() {
    let settings = [
        ("standard_conforming_strings", "off"),
        ("escape_string_warning", "off"),
        ("transform_null_equals", "on"),
        ("array_nulls", "off"),
        ("bytea_output", "escape"),
        ("datestyle", "'sql, dmy'"),
        ("intervalstyle", "iso_8601"),
        ("timezone", "'Pacific/Chatham'"),
        ("extra_float_digits", "-15"),
        ("quote_all_identifiers", "on"),
        ("search_path", "''"),
        ("enable_indexscan", "off"),
        ("plan_cache_mode", "force_custom_plan"),
        ("work_mem", "'64kB'"),
        ("check_function_bodies", "off"),
    ];
    everything_works::<C>(&settings, None).await;
}
