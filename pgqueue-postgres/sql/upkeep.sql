-- Housekeeping: short calls under a try-lock, each a bounded batch. Any consumer makes them.

-- Copies messages that a lease has needed for a minute, so that the log need not wait for it. Returns how many leases.
create function pgqueue.keep_stuck() returns int
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  l pgqueue.lease;
  v_kept int := 0;
begin
  for l in
    select * from pgqueue.lease where not kept and claimed_at < clock_timestamp() - interval '1 minute'
    order by id limit 100
    for no key update skip locked
  loop
    perform pgqueue.keep(l.subscription, l.ids);
    update pgqueue.lease set kept = true where id = l.id;
    v_kept := v_kept + 1;
  end loop;
  return v_kept;
end
$$;

-- Deletes from the log what every subscription has passed. Returns how many messages.
create function pgqueue.trim(v_most int default 5000) returns int
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_topic bigint;
  v_bound bigint;
  v_seen pg_snapshot[];
  v_xmin xid8;
  v_deleted int;
  v_total int := 0;
begin
  -- Nobody creates a subscription meanwhile: its start might be deleted before it is seen here.
  if not pg_try_advisory_xact_lock(hashtextextended('pgqueue.trim ' || 'pgqueue.log'::regclass::oid, 0)) then
    return 0;
  end if;
  perform set_config('synchronous_commit', 'off', true);

  -- From one topic to the next as the log has them: also those that were deleted.
  v_topic := (select topic from pgqueue.log order by topic limit 1);
  while v_topic is not null and v_total < v_most loop
    -- One statement, one snapshot: what was handed out by then is in a lease by then, or done. Without subscriptions, all that
    -- is there has been passed.
    with newest as (
      select distinct on (c.subscription, c.lane) c.top, c.seen
      from pgqueue.cursor c join pgqueue.subscription s on s.id = c.subscription
      where s.topic = v_topic
      order by c.subscription, c.lane, c.n desc
    )
    select least(
             (select min(top) from newest),
             (
               select min(l.first) - 1
               from pgqueue.subscription s
               cross join lateral (
                 select ids[1] as first from pgqueue.lease where subscription = s.id and not kept
                 order by subscription, ids[1] limit 1
               ) l
               where s.topic = v_topic
             ),
             9223372036854775807
           ),
           coalesce((select array_agg(seen) from newest), '{}'),
           coalesce((select min(pg_snapshot_xmin(seen)) from newest), pg_snapshot_xmax(pg_current_snapshot()))
      into v_bound, v_seen, v_xmin;

    -- By their places, which hold: messages are never updated, and nobody else deletes them.
    delete from pgqueue.log where ctid = any (array(
      select ctid from pgqueue.log
      where topic = v_topic and id <= v_bound
        and (xact < v_xmin or not exists (select from unnest(v_seen) seen where not pg_visible_in_snapshot(xact, seen)))
      order by id limit v_most - v_total
    ));
    get diagnostics v_deleted = row_count;
    v_total := v_total + v_deleted;
    v_topic := (select topic from pgqueue.log where topic > v_topic order by topic limit 1);
  end loop;
  return v_total;
end
$$;

-- Forgets what time has made useless.
create function pgqueue.sweep() returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  l pgqueue.lease;
begin
  if not pg_try_advisory_xact_lock(hashtextextended('pgqueue.sweep ' || 'pgqueue.sleeper'::regclass::oid, 0)) then
    return;
  end if;
  perform set_config('synchronous_commit', 'off', true);
  delete from pgqueue.sleeper where id in (
    select id from pgqueue.sleeper where armed_until < clock_timestamp() - interval '10 seconds' order by id limit 5000
  );
  delete from pgqueue.dedup d using (
    select topic, dedup_id from pgqueue.dedup where expires_at < clock_timestamp() order by expires_at limit 5000
  ) e where d.topic = e.topic and d.dedup_id = e.dedup_id;
  -- A claim that began before its owner was buried and committed after.
  for l in
    select * from pgqueue.lease h
    where h.owner is not null and not exists (select from pgqueue.owner o where o.id = h.owner)
      and h.claimed_at < clock_timestamp() - interval '1 minute'
    limit 100
    for update skip locked
  loop
    perform pgqueue.give_back(l, true);
  end loop;
end
$$;
