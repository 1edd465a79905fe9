//! What the catalogs say about functions: whose rights they have, whose names they mean, and who may call them.

use pgqueue_postgres::{Client, Role};
use pgqueue_testserver::Database;

use super::make_role;
use crate::{both_clients::on_both_clients, common::queue};

on_both_clients!(
    nothing_is_for_everybody,
    what_roles_call_has_the_owners_rights_and_pinned_names,
    what_lacks_pinned_names_is_called_by_what_has_them,
    what_is_one_expression_costs_no_call,
);

/// What roles may call without the owner's rights, and why.
const CALLERS_RIGHTS: [(&str, &str); 2] = [
    ("publish", "calls publish_batch and touches nothing else; its names were bound when it was made"),
    ("key_hash", "computes; its names were bound when it was made"),
];

/// What has no names of its own pinned: the settings of whoever calls it hold, which spares each call a change of settings. None of
/// it may be called by a role, but what is listed above.
const CALLERS_NAMES: [&str; 55] = [
    "activate",
    "beginnings",
    "bucket",
    "conditions",
    "count_ids",
    "count_log",
    "cut",
    "ensure_at_rest",
    "ensure_era",
    "ensure_stable",
    "era",
    "era_mark",
    "excess",
    "first_id",
    "first_left",
    "forget_owner",
    "fresh_ids",
    "given_up",
    "glob",
    "has_latecomers",
    "has_moved",
    "has_news",
    "hold_ready",
    "holds",
    "is_beyond",
    "is_silent",
    "json_number",
    "key_hash",
    "lane_has_news",
    "lane_key",
    "lanes",
    "last_id",
    "late_ids",
    "lease_again",
    "look",
    "look_end",
    "look_stable",
    "member",
    "outcomes",
    "packed",
    "parsed",
    "payload_json",
    "promising_lanes",
    "selects",
    "set_out",
    "shorten",
    "split",
    "stable_ids",
    "stable_log",
    "stable_place",
    "start",
    "stretch_end",
    "stretch_start",
    "too_old",
    "unpacked",
];

/// Likewise, in one expression whose names were bound when it was made.
const ONE_MORE: &str = "upto_if_drawn";

/// What is called nevertheless: `convert_to` does not promise what an index needs of a key's hash, which drivers compute themselves.
const CALLED: [&str; 1] = ["key_hash"];

async fn nothing_is_for_everybody<C: Client>() {
    let (database, _queue) = queue::<C>().await;
    let public = "
        select (select string_agg(p.proname, ' ') from pg_proc p cross join aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                where p.pronamespace = 'pgqueue'::regnamespace and a.grantee = 0),
               (select string_agg(c.relname, ' ') from pg_class c cross join aclexplode(c.relacl) a
                where c.relnamespace = 'pgqueue'::regnamespace and a.grantee = 0),
               (select count(*) from pg_namespace n cross join aclexplode(n.nspacl) a where n.nspname = 'pgqueue' and a.grantee = 0)";
    assert_eq!(database.sql(public).await.unwrap(), "\t\t0");
    let others = "
        select count(*) from pg_class c cross join aclexplode(c.relacl) a
        where c.relnamespace = 'pgqueue'::regnamespace and a.grantee <> c.relowner";
    assert_eq!(database.sql(others).await.unwrap(), "0", "tables are the owner's alone");
}

async fn what_roles_call_has_the_owners_rights_and_pinned_names<C: Client>() {
    let (database, owner) = queue::<C>().await;
    let mut called = Vec::new();
    for may in [Role::Publisher, Role::Consumer, Role::Admin] {
        let role = make_role(&database, &format!("{may:?}").to_lowercase()).await;
        owner.grant_to(&role, may).await.unwrap();
        let callable =
            format!("p.pronamespace = 'pgqueue'::regnamespace and has_function_privilege('{role}', p.oid, 'execute')");
        called.extend(names(&database, &callable).await);
        let unsafe_ones = names(&database, &format!("{callable} and not (p.prosecdef and {PINNED})")).await;
        for name in unsafe_ones {
            assert!(CALLERS_RIGHTS.iter().any(|(known, _)| *known == name), "{may:?} may call {name}");
        }
    }
    // And whatever has the owner's rights is there to be called.
    let entries = names(&database, "p.pronamespace = 'pgqueue'::regnamespace and p.prosecdef").await;
    for name in &entries {
        assert!(called.contains(name), "{name} has the owner's rights and is granted to nobody");
    }
    assert!(entries.len() > 25, "{entries:?}");
    let unpinned = format!("p.pronamespace = 'pgqueue'::regnamespace and p.prosecdef and not {PINNED}");
    assert_eq!(names(&database, &unpinned).await, [""; 0]);
}

async fn what_lacks_pinned_names_is_called_by_what_has_them<C: Client>() {
    let (database, _queue) = queue::<C>().await;
    let unpinned = names(&database, &format!("p.pronamespace = 'pgqueue'::regnamespace and not {PINNED}")).await;
    let mut known: Vec<_> = CALLERS_NAMES.into_iter().chain([ONE_MORE]).collect();
    known.sort_unstable();
    assert_eq!(unpinned, known, "pin the names of new functions: set search_path = pg_catalog, pg_temp");
}

/// An expression is put in the place of its call, unless it promises to be more constant than what it calls: then each call costs
/// more than most statements.
async fn what_is_one_expression_costs_no_call<C: Client>() {
    let (database, _queue) = queue::<C>().await;
    let expressions = "
        select p.proname, format(
          'explain (verbose, costs off) select pgqueue.%I(%s) from (values (%s) offset 0) v (%s)', p.proname,
          string_agg(a.name, ', ' order by a.n), string_agg('null::' || a.type::regtype, ', ' order by a.n), string_agg(a.name, ', ' order by a.n)
        )
        from pg_proc p
        join pg_language l on l.oid = p.prolang and l.lanname = 'sql'
        cross join lateral (select n, 'a' || n as name, type from unnest(p.proargtypes::oid[]) with ordinality t (type, n)) a
        where p.pronamespace = 'pgqueue'::regnamespace and p.proconfig is null and not p.prosecdef and not p.proretset
        group by p.oid, p.proname";
    let expressions = database.sql(expressions).await.unwrap();
    let mut calls = Vec::new();
    for (name, explain) in expressions.lines().filter_map(|line| line.split_once('\t')) {
        let plan = database.sql(explain).await.unwrap();
        if plan.contains(&format!("pgqueue.{name}(")) {
            calls.push(name);
        }
    }
    assert_eq!(calls, CALLED);
}

/// Whether exactly these schemas are searched.
const PINNED: &str = "coalesce('search_path=pg_catalog, pg_temp' = any (p.proconfig), false)";

async fn names(database: &Database, condition: &str) -> Vec<String> {
    let query = format!("select distinct p.proname::text collate \"C\" from pg_proc p where {condition} order by 1");
    database.sql(&query).await.unwrap().lines().map(str::to_owned).collect()
}
