//! What the catalogs say about the schema, as text: two schemas are the same if these are.

use pgqueue_testserver::Database;

/// A line for each thing that belongs to the schema, by its name: who may do what with it, and all that defines it.
const SCHEMA: &str = "
    select string_agg(line, E'\\n' order by line collate \"C\") from (
      select concat_ws(' | ', 'schema', nspname, nspowner::regrole, nspacl) as line from pg_namespace where nspname = 'pgqueue'
      union all
      select concat_ws(' | ', 'relation', c.relname, c.relkind, c.relpersistence, c.relowner::regrole, coalesce(c.relacl, acldefault(case c.relkind when 'S' then 's'::\"char\" else 'r' end, c.relowner)), c.reloptions,
                       c.relrowsecurity, pg_get_viewdef(c.oid))
      from pg_class c where c.relnamespace = 'pgqueue'::regnamespace and c.relkind <> 'i'
      union all
      select concat_ws(' | ', 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
                       a.attgenerated, a.attstorage, a.attcollation::regcollation, pg_get_expr(d.adbin, d.adrelid), a.attacl)
      from pg_attribute a join pg_class c on c.oid = a.attrelid
      left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
      where c.relnamespace = 'pgqueue'::regnamespace and c.relkind <> 'i' and a.attnum > 0 and not a.attisdropped
      union all
      select concat_ws(' | ', 'index', indexdef) from pg_indexes where schemaname = 'pgqueue'
      union all
      select concat_ws(' | ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(oid), convalidated)
      from pg_constraint where connamespace = 'pgqueue'::regnamespace
      union all
      select concat_ws(' | ', 'sequence', s.sequencename, s.data_type, s.start_value, s.increment_by, s.max_value, s.cache_size, s.cycle)
      from pg_sequences s where schemaname = 'pgqueue'
      union all
      select concat_ws(' | ', 'function', p.oid::regprocedure, p.proowner::regrole, p.proacl, pg_get_functiondef(p.oid))
      from pg_proc p where p.pronamespace = 'pgqueue'::regnamespace
      union all
      select concat_ws(' | ', 'type', t.typname, t.typtype, t.typowner::regrole, t.typacl)
      from pg_type t where t.typnamespace = 'pgqueue'::regnamespace
      union all
      select concat_ws(' | ', 'trigger', tgrelid::regclass, pg_get_triggerdef(t.oid))
      from pg_trigger t join pg_class c on c.oid = t.tgrelid where c.relnamespace = 'pgqueue'::regnamespace and not tgisinternal
    ) lines";

/// All that is in the database and not the server's own, by name.
const EVERYTHING: &str = "
    select string_agg(line, E'\\n' order by line collate \"C\") from (
      select concat_ws(' ', 'schema', nspname, nspacl) as line from pg_namespace where nspname !~ '^pg_(temp|toast)'
      union all
      select concat_ws(' ', 'relation', relnamespace::regnamespace, relname, relkind, coalesce(relacl, acldefault(case relkind when 'S' then 's'::\"char\" else 'r' end, relowner)))
      from pg_class where relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
      union all
      select concat_ws(' ', 'function', p.oid::regprocedure, p.proacl, md5(p.prosrc), p.prosecdef)
      from pg_proc p where p.pronamespace::regnamespace::text !~ '^(pg_|information_schema)'
      union all
      select concat_ws(' ', 'trigger', tgrelid::regclass, tgname) from pg_trigger where not tgisinternal
      union all
      select concat_ws(' ', 'role', rolname, rolsuper, rolcreaterole, rolcreatedb, rolcanlogin) from pg_roles where rolname !~ '^test_'
    ) lines";

/// Lines about the schema.
pub(crate) async fn schema(database: &Database) -> Vec<String> {
    lines(database, SCHEMA).await
}

/// Lines about all that somebody made in the database.
pub(crate) async fn everything(database: &Database) -> Vec<String> {
    lines(database, EVERYTHING).await
}

async fn lines(database: &Database, query: &str) -> Vec<String> {
    database.sql(query).await.unwrap().lines().map(str::to_owned).collect()
}

/// Checks that two schemas are the same, and says only where they differ.
#[track_caller]
pub(crate) fn assert_same(what: &str, left: &[String], right: &[String]) {
    let missing = |all: &[String], from: &[String]| {
        all.iter().filter(|line| !from.contains(line)).take(5).cloned().collect::<Vec<_>>()
    };
    let (only_left, only_right) = (missing(left, right), missing(right, left));
    assert!(
        left == right,
        "{what}:\nonly before, or in the first:\n{only_left:#?}\nonly after, or in the second:\n{only_right:#?}"
    );
}
