-- Housekeeping: short calls under a try-lock, each a bounded batch. Any consumer makes them.

-- The first message that is left of a topic's log, whatever came late; null if there is none. No lease that needs the log has an
-- earlier one, so that whoever looks for leases from here on need not pass those that are gone, which stay in their index while
-- somebody holds vacuum's horizon. Stable: through the snapshot of the statement that calls it, of which alone this is true.
create function pgqueue.first_left(v_topic bigint) returns bigint
language plpgsql stable
as $$
declare
  s pgqueue.subscription;                          -- one that gets all
  c pgqueue.cursor;
begin
  s.topic := v_topic;
  select coalesce(e.gone_top, 0), coalesce(e.gone_seen, '1:1:'), coalesce(e.gone_upto, '0') into c.top, c.seen, c.upto
  from (select) one left join pgqueue.extent e on e.topic = v_topic;
  return least((pgqueue.late_ids(s, null, c, 0))[1], (select id from pgqueue.log where topic = v_topic and id > c.top order by id limit 1));
end
$$;

-- Copies messages that a lease has needed for a minute, so that the log need not wait for it. Returns how many leases.
create function pgqueue.keep_stuck() returns int
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  s pgqueue.subscription;
  l pgqueue.lease;
  v_kept int := 0;
begin
  for s in select * from pgqueue.subscription order by id loop
    for l in
      -- By what is not kept yet: what is may be much.
      select * from pgqueue.lease
      where subscription = s.id and not kept and ids[1] >= pgqueue.first_left(s.topic) and claimed_at < clock_timestamp() - interval '1 minute'
      order by subscription, ids[1] limit 100 - v_kept
      for no key update skip locked
    loop
      perform pgqueue.keep(l.subscription, pgqueue.unpacked(l.ids));
      update pgqueue.lease set kept = true where id = l.id;
      v_kept := v_kept + 1;
    end loop;
  end loop;
  return v_kept;
end
$$;

-- Counts what is new in a topic's log, for a retention that asks for it.
create function pgqueue.count_log(t pgqueue.topic, v_most int) returns void
language plpgsql
as $$
declare
  s pgqueue.subscription;                          -- one that gets all
  c pgqueue.cursor;
  e pgqueue.extent;
  v_new record;
  v_upto constant xid8 := pgqueue.upto_if_drawn();
begin
  s.topic := t.id;
  select * into e from pgqueue.extent where topic = t.id;
  c.top := coalesce(e.top, 0);
  c.seen := coalesce(e.seen, '1:1:');
  c.upto := coalesce(e.upto, '0');
  select count(*) as messages, sum(length(m.payload)) as bytes, max(m.id) as last, pg_current_snapshot() as seen into v_new
  from (
    select l.id, l.payload from unnest(pgqueue.late_ids(s, null, c, 2147483646)) u (id)
    cross join lateral (select id, payload from pgqueue.log where topic = t.id and id = u.id offset 0) l
    union all
    (select id, payload from pgqueue.log where topic = t.id and id > c.top order by id limit 4 * v_most)
  ) m;
  if v_new.messages > 0 then
    insert into pgqueue.extent as x (topic, top, seen, upto, messages, bytes)
    values (t.id, greatest(c.top, v_new.last), v_new.seen, coalesce(v_upto, pg_current_xact_id()), v_new.messages, v_new.bytes)
    on conflict (topic) do update
    set top = excluded.top, seen = excluded.seen, upto = excluded.upto, messages = x.messages + v_new.messages,
        bytes = x.bytes + v_new.bytes;
  end if;
end
$$;

-- The last of a topic's first messages that are too many by its retention, of those that were counted.
create function pgqueue.excess(t pgqueue.topic, v_most int) returns bigint
language plpgsql stable
as $$
declare
  e pgqueue.extent;
  v_last bigint;
begin
  select * into e from pgqueue.extent where topic = t.id;
  if not coalesce(e.messages > t.retain_messages, false) and not coalesce(e.bytes > t.retain_bytes, false) then
    return 0;
  end if;
  select max(m.id) into v_last
  from (
    select f.id, row_number() over w as number, sum(f.size) over w - f.size as before
    from (select id, length(payload) as size from pgqueue.log where topic = t.id and id <= e.top order by id limit v_most) f
    window w as (order by f.id)
  ) m
  where m.number <= e.messages - t.retain_messages or m.before < e.bytes - t.retain_bytes;
  return coalesce(v_last, 0);
end
$$;

-- What was published by then is too old for a topic's retention.
create function pgqueue.too_old(t pgqueue.topic) returns timestamptz
language sql
return clock_timestamp() - least(t.retain_ms, 3e12) * interval '1 millisecond';

-- The last of the first messages of a topic that are all beyond a limit of its retention, as far as they were counted.
create function pgqueue.given_up(t pgqueue.topic, v_most int, out v_id bigint, out v_xact xid8)
language plpgsql stable
as $$
declare
  v_excess constant bigint := pgqueue.excess(t, v_most);
  v_old constant timestamptz := pgqueue.too_old(t);
begin
  select id, xact into v_id, v_xact
  from (
    select id, xact, bool_and(coalesce(id <= v_excess or published_at <= v_old, false)) over (order by id) as is_given_up
    from (select id, xact, published_at from pgqueue.log where topic = t.id order by id limit v_most) first
  ) m
  where is_given_up
  order by id desc limit 1;
end
$$;

-- Moves subscriptions past what their topic's retention gives up, where topics cut laggards, and counts what they lose by it.
create function pgqueue.cut(v_most int) returns void
language plpgsql
as $$
declare
  t pgqueue.topic;
  s pgqueue.subscription;
  c pgqueue.cursor;
  v_limit bigint;
  v_limit_xact xid8;
  v_lanes record;
  v_looked pgqueue.looked;
  v_found pgqueue.looked[] := '{}';
  v_is_stable boolean;
  v_part int;
  v_upto xid8 := pgqueue.upto_if_drawn();
begin
  for t in select * from pgqueue.topic where cuts order by id loop
    select v_id, g.v_xact into v_limit, v_limit_xact from pgqueue.given_up(t, v_most) g;
    continue when v_limit is null;

    for s in select * from pgqueue.subscription where topic = t.id order by id loop
      v_is_stable := s.ordering = 'stable total';
      v_lanes := pgqueue.lanes(s, t);
      for v_lane in v_lanes.v_first .. v_lanes.v_last loop
        select * into c from pgqueue.cursor where subscription = s.id and lane = v_lane order by n desc limit 1;
        continue when not found or case
          when v_is_stable then (c.upto, c.top) >= (v_limit_xact, v_limit)
          -- Latecomers are for whoever moves it.
          else c.top >= v_limit and (pg_snapshot_xmin(c.seen) >= c.upto or c.late_after is null and c.moved_at > clock_timestamp() - interval '10 seconds') end;
        -- Nobody claims in it meanwhile; where somebody does, the next time will do.
        continue when not pg_try_advisory_xact_lock(pgqueue.lane_key(s.id, v_lane));
        select * into c from pgqueue.cursor where subscription = s.id and lane = v_lane order by n desc limit 1;
        v_part := v_most;
        loop
          v_looked := case when v_is_stable then pgqueue.look_stable(s, c, v_part) else pgqueue.look(s, c, v_limit, v_part) end;
          -- A run ascends. What ends it may not be given up yet; look again, for so many.
          v_part := (select count(*) from unnest((v_looked).ids) id where id <= v_limit);
          exit when v_part = cardinality((v_looked).ids) or (v_part = 0 and not v_is_stable);
        end loop;
        continue when v_part < cardinality((v_looked).ids);
        if (v_looked).ids <> '{}' or pgqueue.has_moved(c, (v_looked).moved) then
          v_found := v_found || v_looked;
        end if;
      end loop;
    end loop;
  end loop;

  if v_upto is null and cardinality(v_found) > 0 then
    v_upto := pg_current_xact_id();                -- after every look
  end if;
  foreach v_looked in array v_found loop
    c := (v_looked).moved;
    c.n := c.n + 1;
    c.cut := c.cut + cardinality((v_looked).ids);
    c.moved_at := clock_timestamp();
    c.upto := coalesce(c.upto, v_upto);
    if c.late_after is not null then
      c.late_upto := coalesce(c.late_upto, v_upto);
    end if;
    insert into pgqueue.cursor values (c.*);
    delete from pgqueue.cursor where subscription = c.subscription and lane = c.lane and n < c.n - 1;
  end loop;
end
$$;

-- Where the log of a topic begins: before the first message that is left, whatever came late.
create type pgqueue.beginning as (
  topic  bigint,
  before bigint,                                   -- no message is left up to this id
  gone   pgqueue.cursor                            -- how far the log is deleted; its `upto` is null if it is still to be drawn
);

-- Where the log of each topic begins. While somebody holds vacuum's horizon, what was deleted is still there, and reading all of
-- it each time would take longer and longer: so it is remembered how far everything is gone, as a cursor says it.
create function pgqueue.beginnings() returns pgqueue.beginning[]
language plpgsql
as $$
declare
  s pgqueue.subscription;                          -- one that gets all
  c pgqueue.cursor;
  v_late bigint[];
  v_first bigint;
  v_seen pg_snapshot;
  v_found pgqueue.beginning[] := '{}';
begin
  for s.topic, c.top, c.seen, c.upto in
    select t.id, coalesce(e.gone_top, 0), coalesce(e.gone_seen, '1:1:'), coalesce(e.gone_upto, '0')
    from pgqueue.topic t left join pgqueue.extent e on e.topic = t.id
    order by t.id
  loop
    -- One statement, one snapshot.
    select pgqueue.late_ids(s, null, c, 0), f.id, pg_current_snapshot()
      into v_late, v_first, v_seen
      from (select (select id from pgqueue.log where topic = s.topic and id > c.top order by id limit 1) as id offset 0) f;
    if v_late <> '{}' then
      v_found := v_found || (s.topic, v_late[1] - 1, c)::pgqueue.beginning;
    elsif v_first is not null then
      c.top := v_first - 1;
      c.seen := v_seen;
      c.upto := null;
      v_found := v_found || (s.topic, c.top, c)::pgqueue.beginning;
    end if;
  end loop;
  return v_found;
end
$$;

-- A stretch whose first messages were deleted.
create type pgqueue.rest_of_stretch as (
  xact        xid8,
  last        bigint,                              -- of those that were deleted
  stretch_end bigint
);

-- Deletes from the log what every subscription has passed and its retention does not keep. Returns how many messages.
create function pgqueue.trim(v_most int default 5000) returns int
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  t pgqueue.topic;
  v_topic bigint;
  v_bound bigint;
  v_cursors pgqueue.cursor[];
  v_xmin xid8;
  v_excess bigint;
  v_old timestamptz;
  v_gone record;
  v_rest record;
  v_total int := 0;
  v_upto constant xid8 := pgqueue.upto_if_drawn();
  v_beginnings pgqueue.beginning[];
  b pgqueue.beginning;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'trimming needs the isolation level READ COMMITTED, not %', upper(current_setting('transaction_isolation'))
      using errcode = 'PQ004';
  end if;
  -- Nobody creates a subscription meanwhile: its start might be deleted before it is seen here.
  if not pg_try_advisory_xact_lock(hashtextextended('pgqueue.trim ' || 'pgqueue.log'::regclass::oid, 0)) then
    return 0;
  end if;
  perform pgqueue.ensure_era();
  perform set_config('synchronous_commit', 'off', true);

  v_beginnings := pgqueue.beginnings();            -- before anything draws our transaction id
  perform pgqueue.cut(v_most);
  -- What is left of topics that were deleted lies between those that are there.
  v_beginnings := v_beginnings || array(
    select (o.topic, 0, null)::pgqueue.beginning
    from (
      select id as after, lead(id, 1, 9223372036854775807) over (order by id) as before
      from (select 0 as id union all select id from pgqueue.topic) t
    ) k
    cross join lateral (
      select topic from pgqueue.log where topic > k.after and topic < k.before order by topic limit 1
    ) o
  );
  foreach b in array v_beginnings loop
    exit when v_total >= v_most;
    v_topic := b.topic;
    -- One statement, one snapshot: what was handed out by then is in a lease by then, or done. Without subscriptions, all that
    -- is there has been passed.
    with newest as (
      -- In stable total order, `seen` alone says what was passed.
      select n.place, case when s.ordering <> 'stable total' then (n.place).top end as top, (n.place).seen
      from pgqueue.topic k
      join pgqueue.subscription s on s.topic = k.id
      cross join lateral pgqueue.lanes(s, k) e
      cross join lateral generate_series(e.v_first, e.v_last) u (lane)
      -- One by one: of those that are gone there may be many.
      cross join lateral (select c as place from pgqueue.cursor c where c.subscription = s.id and c.lane = u.lane order by c.n desc limit 1) n
      where k.id = v_topic
    )
    select least(
             (select min(top) from newest),
             (
               select min(l.first) - 1
               from pgqueue.subscription s
               cross join lateral (
                 select ids[1] as first from pgqueue.lease
                 where subscription = s.id and not kept and ids[1] >= (select pgqueue.first_left(v_topic))
                 order by subscription, ids[1] limit 1
               ) l
               where s.topic = v_topic
             ),
             9223372036854775807
           ),
           coalesce((select array_agg(place) from newest), '{}'),
           coalesce(
             (select pg_snapshot_xmin(seen) from newest order by pg_snapshot_xmin(seen) limit 1),
             pg_snapshot_xmax(pg_current_snapshot())
           )
      into v_bound, v_cursors, v_xmin;
    -- Of a topic that was deleted, nothing is kept.
    select * into t from pgqueue.topic where id = v_topic;
    v_excess := 0;
    if t.retain_messages is not null or t.retain_bytes is not null then
      perform pgqueue.count_log(t, v_most);
      v_excess := pgqueue.excess(t, v_most);
    end if;
    v_old := pgqueue.too_old(t);

    -- By their places, which hold: nobody else deletes or updates messages.
    with gone as (
      delete from pgqueue.log where ctid = any (array(
        select m.ctid
        from (
          select ctid, id, published_at from pgqueue.log
          where topic = v_topic and id > b.before and id <= v_bound
            and (xact < v_xmin or not exists (
              select from unnest(v_cursors) c
              where not pg_visible_in_snapshot(xact, c.seen)
                -- Of more latecomers than fit, the first are out.
                and not coalesce(id <= c.late_after and pg_visible_in_snapshot(xact, c.late_seen), false)
            ))
            -- Where the first is young and not too many, so are the others.
            and (
              t.id is null or v_excess > 0
              or (select published_at from pgqueue.log where topic = v_topic and id > b.before order by id limit 1) <= v_old
            )
          order by id limit v_most - v_total
        ) m
        where t.id is null or m.id <= v_excess or m.published_at <= v_old
      ))
      returning id, xact, stretch_end, length(payload) as size
    ), known as (
      select gone.*, id <= e.top and pg_visible_in_snapshot(xact, e.seen) as is_counted
      from gone left join pgqueue.extent e on e.topic = v_topic
    )
    select count(*) as messages, max(id) as last, array(select distinct xact from gone order by xact desc limit 101) as xacts,
           count(*) filter (where is_counted) as counted, sum(size) filter (where is_counted) as bytes,
           (
             -- Those of a stretch have one age, and so the first of them go first.
             select array_agg((xact, last, stretch_end)::pgqueue.rest_of_stretch)
             from (
               select xact, max(id) as last, stretch_end
               from (select id, xact, max(stretch_end) over (partition by xact order by id) as stretch_end from gone) g
               group by xact, stretch_end
             ) r
             where last < stretch_end
           ) as rests
      into v_gone
      from known;
    -- What is left of a stretch begins with its first.
    for v_rest in select * from unnest(v_gone.rests) loop
      update pgqueue.log set stretch_end = v_rest.stretch_end
      where topic = v_topic and id = (
        select id from pgqueue.log
        where topic = v_topic and id > v_rest.last and id <= v_rest.stretch_end and xact = v_rest.xact
        order by id limit 1
      );
    end loop;
    if v_gone.messages > 0 and t.id is not null then
      insert into pgqueue.extent as e (topic, gone_top, gone_seen, gone_upto, trimmed_id, trimmed)
      values (v_topic, (b.gone).top, (b.gone).seen, coalesce((b.gone).upto, v_upto, pg_current_xact_id()), v_gone.last, v_gone.xacts)
      on conflict (topic) do update
      set gone_top = excluded.gone_top, gone_seen = excluded.gone_seen, gone_upto = excluded.gone_upto,
          trimmed_id = greatest(e.trimmed_id, v_gone.last),
          trimmed = array(select distinct xact from unnest(e.trimmed || v_gone.xacts) xact order by xact desc limit 101),
          messages = e.messages - v_gone.counted, bytes = e.bytes - coalesce(v_gone.bytes, 0);
    end if;
    v_total := v_total + v_gone.messages;
  end loop;
  return v_total;
end
$$;

-- Forgets what time has made useless. Returns what was given up, as `bury_owners` does.
create function pgqueue.sweep() returns table (dead_owner uuid, subscription text, topic text, dead_ids text[])
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_now constant timestamptz := clock_timestamp();  -- in a variable, so that the index is searched for it
  l pgqueue.lease;
  v_dead text;
begin
  if not pg_try_advisory_xact_lock(hashtextextended('pgqueue.sweep ' || 'pgqueue.sleeper'::regclass::oid, 0)) then
    return;
  end if;
  perform set_config('synchronous_commit', 'off', true);
  -- By their places: one that was let last on meanwhile is somewhere else, and is looked at again.
  delete from pgqueue.sleeper
  where ctid = any (array(
    select ctid from pgqueue.sleeper where armed_until < v_now - interval '10 seconds' order by id limit 5000
  )) and armed_until < v_now - interval '10 seconds';
  -- By their places, which hold: these rows are never updated.
  delete from pgqueue.dedup where ctid = any (array(
    select ctid from pgqueue.dedup where expires_at < v_now order by expires_at limit 5000
  ));
  -- A claim that began before its owner was buried and committed after.
  for l in
    select * from pgqueue.lease h
    where h.owner is not null and not exists (select from pgqueue.owner o where o.id = h.owner)
      and h.claimed_at < v_now - interval '1 minute'
    limit 100
    for update skip locked
  loop
    v_dead := pgqueue.give_back(l, true);
    if v_dead is not null then
      return query
        select null::uuid, s.name, t.name, array[v_dead] from pgqueue.subscription s join pgqueue.topic t on t.id = s.topic
        where s.id = l.subscription;
    end if;
  end loop;
end
$$;
