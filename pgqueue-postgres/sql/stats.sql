-- Looking at the queue.

create function pgqueue.describe_topic(v_name text)
returns table (name text, buckets int, dedup_window_ms bigint, retain_ms bigint, retain_messages bigint, retain_bytes bigint, cuts boolean)
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select t.name, t.buckets, t.dedup_window_ms, t.retain_ms, t.retain_messages, t.retain_bytes, t.cuts
  from pgqueue.topic t
  where v_name is null or t.name = v_name
  order by t.name;
end;

create function pgqueue.describe_subscription(v_name text)
returns table (
  id bigint, name text, topic text, ordering text, batch int, prefetch int, lease_ms bigint, max_attempts bigint, base_ms float8,
  multiplier float8, cap_ms float8, jitter float8, topic_id bigint, channel text, selector text, consumers text,
  workers int
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select s.id, s.name, t.name, s.ordering, s.batch, s.prefetch, s.lease_ms, s.max_attempts, s.base_ms, s.multiplier, s.cap_ms,
         s.jitter, t.id, pgqueue.channel(t.id), s.selector::text, s.consumers, s.workers
  from pgqueue.subscription s
  join pgqueue.topic t on t.id = s.topic
  where v_name is null or s.name = v_name
  order by s.name;
end;

create function pgqueue.dead_letters(v_subscription bigint)
returns table (
  id bigint, scheduled bigint, attempts int, reason text, delivered_at timestamptz, requeued_at timestamptz, died_at timestamptz,
  published_at timestamptz, key text, kind text, tags text[], headers text, payload bytea, place text
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select d.id, m.scheduled, d.attempts, d.reason, d.delivered_at, d.requeued_at, d.died_at, m.published_at, m.key, m.kind, m.tags,
         m.headers::text, m.payload,
         case when s.ordering = 'stable total' then pgqueue.stable_place(pgqueue.era(), m.xact) else d.place end
  from pgqueue.dead_letter d
  join pgqueue.subscription s on s.id = d.subscription
  join pgqueue.kept m on m.subscription = d.subscription and m.id = d.id
  where d.subscription = v_subscription
  order by d.died_at, d.id;
end;

-- What waits in stable total order, in no particular order, whether it may go yet or not.
create function pgqueue.stable_ids(s pgqueue.subscription, c pgqueue.cursor, v_most int) returns bigint[]
language plpgsql stable
as $$
declare
  v_conditions constant pgqueue.conditions := pgqueue.conditions(s.rest, true);
begin
  return array(
    select l.id from (
      select * from pgqueue.stable_log(s.topic, c.upto, c.top, '18446744073709551615')
      limit case when s.selector is null then v_most else 10000 end
    ) l
    where (c.late_seen is null or not pg_visible_in_snapshot(l.xact, c.late_seen))
      and pgqueue.selects(s.key, s.kinds, s.tags_any, s.tags_all, v_conditions, l.key, l.kind, l.tags, l.payload)
    limit v_most
  );
end
$$;

-- How a subscription stands. Waiting messages are counted up to `v_most`, so that a look costs the same whatever the backlog.
create function pgqueue.stats(v_subscription bigint, v_most int default 10000)
returns table (
  waiting bigint, waiting_is_exact boolean, oldest_ms bigint, in_flight bigint, retrying bigint, dead bigint, consumers bigint,
  held_back bigint, cut bigint
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  s pgqueue.subscription;
begin
  select * into s from pgqueue.subscription where id = v_subscription;
  return query
    with newest as (
      select n.*, pgqueue.look_end(s, n.bucket, (n.c).top) as look_end
      from (
        select distinct on (c.lane) c, case when s.ordering = 'by key' then c.lane else s.bucket end as bucket
        from pgqueue.cursor c where c.subscription = s.id order by c.lane, c.n desc
      ) n
    ), fresh as (
      select f.id from newest
      cross join lateral unnest(
        case when s.ordering = 'stable total' then pgqueue.stable_ids(s, c, v_most + 1)
             else pgqueue.late_ids(s, bucket, c, v_most) || pgqueue.fresh_ids(s, bucket, (c).top, look_end, v_most + 1) end
      ) f (id)
      order by f.id limit v_most + 1
    ), held as (
      select sum(pgqueue.count_ids(ids)) filter (where ready_at is null) as in_flight,
             sum(pgqueue.count_ids(ids)) filter (where ready_at is not null) as retrying,
             min(ids[1]) as first
      from pgqueue.lease where subscription = s.id
    )
    select least(count(f.id), v_most),
           count(f.id) <= v_most and not exists (select from newest where pgqueue.last_id(s.topic, look_end) > look_end),
           (
             select ceil(extract(epoch from clock_timestamp() - min(m.published_at)) * 1000)::bigint
             from (
               select published_at from pgqueue.log where topic = s.topic and id = least(min(f.id), (select first from held))
               union all
               select published_at from pgqueue.kept where subscription = s.id and id = least(min(f.id), (select first from held))
             ) m
           ),
           coalesce((select held.in_flight from held), 0)::bigint, coalesce((select held.retrying from held), 0)::bigint,
           (select count(*) from pgqueue.dead_letter d where d.subscription = s.id),
           (
             select count(*) from pgqueue.owner o
             where o.subscription = s.id and o.beat_at > clock_timestamp() - o.lease_ms * interval '1 millisecond'
           ),
           (
             select count(*) from fresh w
             join pgqueue.log l on l.topic = s.topic and l.id = w.id
             where s.ordering = 'stable total' and l.xact >= pg_snapshot_xmin(pg_current_snapshot())
           ),
           coalesce((select sum((c).cut) from newest), 0)::bigint
    from fresh f;
end
$$;

-- Who keeps vacuum from removing what the queue has deleted: the oldest transaction, snapshot or slot of the cluster, of those
-- that this role may see. A slot's catalog_xmin holds only the rows of catalogs.
create function pgqueue.horizon_holder() returns table (what text, who text, age_xids bigint, since timestamptz)
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select h.what, h.who, h.age_xids, h.since
  from (
    select 'session', coalesce(nullif(application_name, ''), usename::text, 'unknown') || ' (pid ' || pid || ', ' || coalesce(state, backend_type, 'unknown') || ')',
           greatest(age(backend_xmin), age(backend_xid))::bigint, xact_start
    from pg_stat_activity
    where pid <> pg_backend_pid() and (backend_xmin is not null or backend_xid is not null)
    union all
    select 'prepared transaction', gid, age(transaction)::bigint, prepared from pg_prepared_xacts
    union all
    select 'replication slot', slot_name::text, age(xmin)::bigint, null from pg_replication_slots where xmin is not null
  ) h (what, who, age_xids, since)
  order by h.age_xids desc nulls last
  limit 1;
end;
