-- What there is of a watch, a row for each of its two triggers, the one after INSERT first; no row if there is no such table.
-- Reads the catalogue only, so it waits for nobody.
--
-- $1 table, as SQL; $2 function; $3 its body; $4 channel; $5 mark of the condition, null without one;
-- $6 trigger after INSERT; $7 trigger after UPDATE.
with recursive watched as (
  select c.oid, c.relname, c.relkind, c.relnamespace, n.nspname
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where c.oid = pg_catalog.to_regclass($1)
), notifying as (
  -- Whatever its name promises, only its body tells what it does.
  select p.oid, p.pronamespace, p.prosrc = $3 and l.lanname = 'plpgsql' as is_ours
  from pg_catalog.pg_proc p join pg_catalog.pg_language l on l.oid = p.prolang
  where p.proname = $2 and p.pronargs = 0
), arguments as (
  -- pg_trigger keeps arguments as bytes, in the database's encoding, a NUL after each.
  select pg_catalog.string_agg(
    pg_catalog.convert_to(a.argument, pg_catalog.getdatabaseencoding()) || pg_catalog.decode('00', 'hex'), '' order by a.place
  ) as bytes
  from (values (1, $4), (2, $5)) as a (place, argument)
), wanted (name, type) as (
  -- pg_trigger.tgtype: 1 for each row, 4 INSERT, 16 UPDATE; neither before nor instead of it.
  values ($6, 5), ($7, 17)
), tree (root, oid, enabled) as (
  -- A trigger of a partitioned table has a copy in each partition, which can be disabled on its own.
  select t.oid, t.oid, t.tgenabled in ('O', 'A')
  from pg_catalog.pg_trigger t join watched on t.tgrelid = watched.oid join wanted on t.tgname = wanted.name
  union all
  select tree.root, t.oid, t.tgenabled in ('O', 'A')
  from pg_catalog.pg_trigger t join tree on t.tgparentid = tree.oid
)
select
  watched.oid::bigint,
  watched.nspname::text,
  watched.relname::text,
  watched.relkind in ('r', 'p'),
  case
    when here.oid is null then 'missing'
    when here.is_ours then 'healthy'
    else 'foreign'
  end,
  case
    when t.oid is null then 'missing'
    when called.is_ours is not true
      or t.tgtype <> wanted.type
      or t.tgargs <> arguments.bytes
      or (t.tgqual is null) <> ($5 is null)
      or t.tgattr::text <> ''
      or t.tgconstraint <> 0 then 'foreign'
    when not (select pg_catalog.bool_and(tree.enabled) from tree where tree.root = t.oid) then 'disabled'
    else 'healthy'
  end
from watched
cross join wanted
cross join arguments
left join notifying here on here.pronamespace = watched.relnamespace
left join pg_catalog.pg_trigger t on t.tgrelid = watched.oid and t.tgname = wanted.name
left join notifying called on called.oid = t.tgfoid
order by wanted.type
