-- The pulse: what a process asks for all its consumers in one round trip, again and again.

-- The functions that follow run under the settings of `pulse`.

-- True if a claim would hand out something of a lane, or move its cursor. It is asked without a lock: a claim finds out.
create function pgqueue.lane_has_news(s pgqueue.subscription, v_lane int) returns boolean
language plpgsql stable
as $$
declare
  c pgqueue.cursor;
  l pgqueue.lease;
  v_is_stable constant boolean := s.ordering = 'stable total';
begin
  select * into c from pgqueue.cursor where subscription = s.id and lane = v_lane order by n desc limit 1;
  if not found then
    return false;
  elsif c.cut > 0 or pgqueue.is_beyond(c.seen) or (c.late_seen is not null and not v_is_stable) then
    return true;
  end if;

  if v_lane >= 0 then
    select * into l from pgqueue.lease
    where subscription = s.id and lane = v_lane and lane >= 0 and id >= c.floor
    order by ready_at is not null, rank, ids[1] limit 1;
    if l.ready_at <= clock_timestamp() then
      return true;
    elsif l.rank <= c.top or (l.id is not null and v_is_stable) then
      return false;                                -- all else waits for it
    end if;
  end if;

  -- Not by `exists`, which forgets the order that leads to the index.
  if v_is_stable then
    return (select true from pgqueue.stable_log(s.topic, c.upto, c.top, pg_snapshot_xmin(pg_current_snapshot())) limit 1);
  end if;
  -- Also what is for others: until this lane has passed it, it is kept.
  return (select true from pgqueue.log where topic = s.topic and id > c.top order by id limit 1) or pgqueue.has_latecomers(s, c);
end
$$;

-- True if a claim of a consumer that sleeps would find something, or be refused.
create function pgqueue.has_news(v_subscription bigint, v_owner uuid) returns boolean
language plpgsql stable
as $$
declare
  s pgqueue.subscription;
  v_lanes record;
  v_now constant timestamptz := clock_timestamp();  -- in a variable, so that the index is searched for it
begin
  select * into s from pgqueue.subscription where id = v_subscription;
  if not found then
    return true;                                   -- it was deleted
  end if;
  if s.consumers <> 'competing' then
    if not exists (select from pgqueue.owner where id = s.active) or (s.consumers = 'exclusive' and s.active <> v_owner) then
      return true;
    elsif s.active <> v_owner then
      return false;
    end if;
  end if;
  if (
    select true from pgqueue.lease
    where subscription = s.id and lane < 0 and ready_at is not null and ready_at <= v_now
    order by subscription, ready_at limit 1
  ) then
    return true;
  end if;
  select l.* into v_lanes from pgqueue.topic t cross join pgqueue.lanes(s, t) l where t.id = s.topic;
  for v_lane in v_lanes.v_first .. v_lanes.v_last loop
    if pgqueue.lane_has_news(s, v_lane) then
      return true;
    end if;
  end loop;
  return false;
end
$$;

-- Beats for consumers that know of no lease, lets those sleep on that sleep, and says what is to be done: by a consumer ('look'; 'arm'
-- anew; 'beat' by itself, as it has leases), or by anybody ('bury', 'publish', or 'wait' for the next message that is scheduled).
create function pgqueue.pulse(
  v_owners        uuid[],
  v_subscriptions bigint[],
  v_leases_ms     bigint[],
  v_beats         boolean[],                       -- whether to beat for it
  v_looks         boolean[],                       -- whether to see if it should look
  v_sleepers      bigint[],                        -- what it armed and is to last on, or null
  v_armed_ms      bigint                           -- for how long from now on
)
returns table (who uuid, what text, wait_ms bigint)
language plpgsql security definer
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
  v_now constant timestamptz := clock_timestamp();
  v_due timestamptz;
begin
  perform set_config('synchronous_commit', 'off', true);
  return query
    select u.id, 'beat', null::bigint from unnest(v_owners, v_beats) u (id, is_to_beat)
    where u.is_to_beat and (select true from pgqueue.lease where owner = u.id order by owner, id limit 1);
  -- Once for all that compete for the messages of a subscription.
  return query
    select unnest(g.owners), 'look', null::bigint
    from (
      select u.subscription, case when s.consumers <> 'competing' then u.id end as owner, array_agg(u.id) as owners
      from unnest(v_owners, v_subscriptions, v_looks) u (id, subscription, is_to_look)
      left join pgqueue.subscription s on s.id = u.subscription
      where u.is_to_look
      group by 1, 2
    ) g
    where pgqueue.has_news(g.subscription, g.owner);

  if exists (select from pgqueue.owner o where pgqueue.is_silent(o, v_now)) then
    return query select null::uuid, 'bury', null::bigint;
  end if;
  select due_at into v_due from pgqueue.scheduled order by due_at, id limit 1;
  if v_due <= v_now then
    return query select null::uuid, 'publish', null::bigint;
  elsif v_due is not null then
    return query select null::uuid, 'wait', ceil(extract(epoch from v_due - v_now) * 1000)::bigint;
  end if;

  -- Last, as all that is locked is until the end.
  insert into pgqueue.owner as o (id, subscription, lease_ms, beat_at)
  select distinct on (u.id) u.id, u.subscription, u.lease_ms, clock_timestamp()
  from unnest(v_owners, v_subscriptions, v_leases_ms, v_beats) u (id, subscription, lease_ms, is_to_beat)
  where u.is_to_beat
  order by u.id                                    -- as all do who lock several
  on conflict (id) do update set lease_ms = excluded.lease_ms, beat_at = excluded.beat_at, suspected_at = null;

  return query
    with armed as (
      update pgqueue.sleeper set armed_until = v_now + v_armed_ms * interval '1 millisecond'
      where id = any (v_sleepers)
      returning id
    )
    select u.id, 'arm', null::bigint from unnest(v_owners, v_sleepers) u (id, sleeper)
    where u.sleeper is not null and not exists (select from armed where id = u.sleeper);
end
$$;
