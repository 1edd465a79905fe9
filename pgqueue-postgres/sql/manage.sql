-- Managing: topics, subscriptions, dead letters.

create function pgqueue.create_topic(
  v_name text, v_buckets int, v_dedup_window_ms bigint, v_retain_ms bigint default 0, v_retain_messages bigint default null,
  v_retain_bytes bigint default null, v_cuts boolean default false
)
returns table (buckets int)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pgqueue.topic as t (name, buckets, dedup_window_ms, retain_ms, retain_messages, retain_bytes, cuts)
  values (v_name, v_buckets, v_dedup_window_ms, v_retain_ms, v_retain_messages, v_retain_bytes, v_cuts)
  on conflict do nothing;
  update pgqueue.topic t
  set dedup_window_ms = v_dedup_window_ms, retain_ms = v_retain_ms, retain_messages = v_retain_messages, retain_bytes = v_retain_bytes,
      cuts = v_cuts
  where t.name = v_name and t.buckets = v_buckets
    and (t.dedup_window_ms, t.retain_ms, t.retain_messages, t.retain_bytes, t.cuts)
        is distinct from (v_dedup_window_ms, v_retain_ms, v_retain_messages, v_retain_bytes, v_cuts);
  return query select t.buckets from pgqueue.topic t where t.name = v_name;
end
$$;

-- Deletes a topic with all that belongs to it. Its messages are deleted in batches, by and by.
create function pgqueue.delete_topic(v_name text) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_topic bigint;
  v_subscription text;
begin
  select id into v_topic from pgqueue.topic where name = v_name for update;
  if not found then
    return false;
  end if;
  for v_subscription in select name from pgqueue.subscription where topic = v_topic order by id loop
    perform pgqueue.delete_subscription(v_subscription);
  end loop;
  delete from pgqueue.scheduled where topic = v_topic;
  delete from pgqueue.dedup where topic = v_topic;
  delete from pgqueue.extent where topic = v_topic;
  delete from pgqueue.topic where id = v_topic;
  return true;
end
$$;

-- Where a subscription of a topic begins, as its cursors: from now on, from the beginning of what is retained (''), or after a
-- position: the id of a message, and where it was handed out, how the log stood then:
-- `id-upto-seen`, and of a latecomer `id-late_upto-late_seen-top-upto-seen`; then the era, of others than the first, as `@era`.
-- Before the caller draws its transaction id: nobody who draws one later has an id up to `top`.
create function pgqueue.start(t pgqueue.topic, v_start text, v_ordering text, out c pgqueue.cursor)
language plpgsql
as $$
declare
  v_era constant int := pgqueue.ensure_era();
  v_parts constant text[] := string_to_array(split_part(v_start, '@', 1), '-');
  v_is_foreign boolean;                            -- of another era
  v_is_beyond boolean;
  v_is_trimmed boolean;
  e pgqueue.extent;
  v_given_up record;                               -- what the topic would cut at once
begin
  -- A stricter transaction would look through a snapshot of before the lock that keeps what it is going to get.
  if v_start is not null and current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'a start in the past needs the isolation level READ COMMITTED, not %', upper(current_setting('transaction_isolation'))
      using errcode = 'PQ004';
  end if;
  select * into e from pgqueue.extent where topic = t.id;
  select * into v_given_up from pgqueue.given_up(t, 1000000) where t.cuts and v_start is not null;
  c.floor := 0;
  if v_ordering = 'stable total' then
    -- After `xact.id`; what is visible already is before now.
    if v_start is null then
      c.late_seen := pg_current_snapshot();
      c.upto := pg_snapshot_xmin(c.late_seen);
      c.top := 0;
    elsif v_start = '' or v_start ~ '^[0-9]{20}[.][0-9]{19}$' then
      v_is_foreign := nullif(left(v_start, 5), '')::int <> v_era;
      c.upto := coalesce(nullif(ltrim(substr(split_part(v_start, '.', 1), 6), '0'), ''), '0'); -- zeros at the front would mean octal
      c.top := coalesce(nullif(split_part(v_start, '.', 2), ''), '0');
    else
      raise exception 'the position % is not one in stable total order', quote_literal(v_start) using errcode = 'PQ006';
    end if;
    if v_start = '' and v_given_up.v_id is not null then
      c.upto := v_given_up.v_xact;
      c.top := v_given_up.v_id;
    end if;
    c.seen := format('%1$s:%1$s:', greatest(c.upto, '3'));
    v_is_beyond := c.upto > pg_snapshot_xmax(pg_current_snapshot());
    v_is_trimmed := v_start <> '' and (e.trimmed[1] > c.upto or (e.trimmed[1] = c.upto and e.trimmed_id > c.top)
                                       or coalesce((v_given_up.v_xact, v_given_up.v_id) > (c.upto, c.top), false));
  elsif v_start is null or v_start = '' then
    select case when v_start is null then pgqueue.last_id(t.id, 0) else coalesce(v_given_up.v_id, 0) end, pg_current_snapshot()
      into c.top, c.seen;
  elsif v_start !~ '^[0-9]{1,19}(-[0-9]{1,20}-[0-9]+:[0-9]+:[0-9,]*(-[0-9]{1,19}-[0-9]{1,20}-[0-9]+:[0-9]+:[0-9,]*)?(@[0-9]{1,5})?)?$' then
    raise exception 'the position % is not one of this queue in such an order', quote_literal(v_start)
      using errcode = 'PQ006', hint = 'Positions in stable total order are for that order alone.';
  else
    v_is_foreign := cardinality(v_parts) > 1 and coalesce(nullif(split_part(v_start, '@', 2), ''), '0')::int <> v_era;
    if cardinality(v_parts) = 6 then
      c.late_after := v_parts[1];
      c.late_upto := v_parts[2];
      c.late_seen := v_parts[3];
      c.top := v_parts[4];
      c.upto := v_parts[5];
      c.seen := v_parts[6];
    else
      c.top := v_parts[1];
      c.upto := v_parts[2];
      c.seen := coalesce(v_parts[3]::pg_snapshot, pg_current_snapshot());
    end if;
    v_is_beyond := c.top > (select last_value from pgqueue.log_id)
      or greatest(pg_snapshot_xmax(c.late_seen), pg_snapshot_xmax(c.seen)) > pg_snapshot_xmax(pg_current_snapshot());
    -- Before the last of the latest transactions there may have been others, of those that were in progress and have committed.
    v_is_trimmed := e.trimmed_id > c.top or coalesce(v_given_up.v_id > c.top, false) or exists (
      select from unnest(e.trimmed) with ordinality x (xact, n)
      where v_parts[3] is not null
        and (not pg_visible_in_snapshot(x.xact, c.seen) or (
          x.n > 100 and exists (
            select from pg_snapshot_xip(c.seen) p (xact) where p.xact <= x.xact and coalesce(pg_xact_status(p.xact), 'committed') = 'committed'
          )
        ))
    );
  end if;

  if v_is_beyond or v_is_foreign then
    raise exception 'the position % lies beyond the end of the log, or before a restore from another server', quote_literal(v_start)
      using errcode = 'PQ006', hint = 'It comes from another database, or from one that was restored since.';
  elsif v_is_trimmed then
    raise exception 'the log of topic % does not have all any more that came after the position %', quote_literal(t.name), quote_literal(v_start)
      using errcode = 'PQ005', hint = 'Start from the beginning of what is retained, or retain more.';
  end if;
exception when data_exception then
  raise exception 'the position % is not one of this queue', quote_literal(v_start) using errcode = 'PQ006';
end
$$;

-- Inserts a subscription that gets what commits from now on, or what else `v_start` says, or takes the new options of one that has
-- the same identity. Returns it as it stands.
create function pgqueue.insert_subscription(
  v_name text, v_topic text, v_ordering text, v_batch int, v_prefetch int, v_lease_ms bigint, v_max_attempts bigint, v_base_ms float8,
  v_multiplier float8, v_cap_ms float8, v_jitter float8, v_start text default null,
  -- A selector as JSON, and what the log is asked for, as `pgqueue.selects` understands it.
  v_selector text default null, v_key text default null, v_kinds text[] default null, v_tags_any text[] default null,
  v_tags_all text[] default null, v_rest text default null, v_consumers text default 'competing', v_workers int default 1
)
returns table (id bigint, topic text, ordering text, selector text)
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
#variable_conflict use_column
declare
  t pgqueue.topic;
  s pgqueue.subscription;
  c pgqueue.cursor;
  v_upto xid8;
begin
  if not exists (select from pgqueue.subscription s where s.name = v_name) then
    -- Until this commits, nothing is deleted from the log. Before the first look at it.
    perform pg_advisory_xact_lock_shared(hashtextextended('pgqueue.trim ' || 'pgqueue.log'::regclass::oid, 0));
    v_upto := pgqueue.upto_if_drawn();
    select * into t from pgqueue.topic where name = v_topic;
    if not found then
      raise exception 'topic % does not exist', quote_literal(v_topic) using errcode = 'PQ001', hint = 'Create it first.';
    end if;
    c := pgqueue.start(t, v_start, v_ordering);
    -- What cannot be evaluated fails here, and not each claim.
    perform pgqueue.holds(v_rest::jsonb, '', '', '{}', '{}') where v_rest is not null;
    perform from pgqueue.topic where id = t.id for key share;
    if not found then
      raise exception 'topic % does not exist', quote_literal(v_topic) using errcode = 'PQ001', hint = 'Create it first.';
    end if;
    insert into pgqueue.subscription
      (name, topic, ordering, batch, prefetch, lease_ms, max_attempts, base_ms, multiplier, cap_ms, jitter, consumers, workers,
       selector, bucket, key, kinds, tags_any, tags_all, rest)
    values
      (v_name, t.id, v_ordering, v_batch, v_prefetch, v_lease_ms, v_max_attempts, v_base_ms, v_multiplier, v_cap_ms, v_jitter,
       v_consumers, v_workers, v_selector::jsonb, case when v_key is not null then pgqueue.bucket(v_key, null, t.buckets) end, v_key, v_kinds,
       v_tags_any, v_tags_all, v_rest::jsonb)
    on conflict do nothing
    returning * into s;
    if found then
      perform pgqueue.set_out(s, t, c, v_upto);
    end if;
  end if;

  update pgqueue.subscription u
  set batch = v_batch, prefetch = v_prefetch, lease_ms = v_lease_ms, max_attempts = v_max_attempts, base_ms = v_base_ms,
      multiplier = v_multiplier, cap_ms = v_cap_ms, jitter = v_jitter, consumers = v_consumers, workers = v_workers
  from pgqueue.topic t
  where u.name = v_name and t.id = u.topic and t.name = v_topic and u.ordering = v_ordering
    and u.selector is not distinct from v_selector::jsonb and u.id is distinct from s.id;
  return query
    select u.id, t.name, u.ordering, u.selector::text from pgqueue.subscription u join pgqueue.topic t on t.id = u.topic where u.name = v_name;
end
$$;

-- The lanes of a subscription, first and last.
create function pgqueue.lanes(s pgqueue.subscription, t pgqueue.topic, out v_first int, out v_last int)
language plpgsql immutable
as $$
begin
  v_first := case when s.ordering in ('total', 'stable total') then 0 else -1 end;
  v_last := case s.ordering when 'unordered' then -1 when 'by key' then t.buckets - 1 else 0 end;
end
$$;

-- Places a subscription that has no cursors where `start` says.
create function pgqueue.set_out(s pgqueue.subscription, t pgqueue.topic, c pgqueue.cursor, v_upto xid8) returns void
language plpgsql
as $$
begin
  insert into pgqueue.cursor (subscription, lane, n, top, seen, upto, late_seen, late_upto, late_after, floor, moved_at)
  select s.id, lane, 1, c.top, c.seen, coalesce(c.upto, v_upto, pg_current_xact_id()), c.late_seen, c.late_upto, c.late_after, 0,
         clock_timestamp()
  from pgqueue.lanes(s, t) l cross join generate_series(l.v_first, l.v_last) lane;
end
$$;

-- Refuses to move a subscription that somebody consumes, or whose dead letters would be lost.
create function pgqueue.ensure_at_rest(s pgqueue.subscription) returns void
language plpgsql
as $$
begin
  if exists (select from pgqueue.owner where subscription = s.id and beat_at > clock_timestamp() - lease_ms * interval '1 millisecond') then
    raise exception 'subscription % has living consumers; stop them in all processes, and wait until they are gone', quote_literal(s.name)
      using errcode = 'PQ009';
  elsif exists (select from pgqueue.dead_letter where subscription = s.id) then
    raise exception 'subscription % has dead letters; redrive them and let them be handled, or purge them', quote_literal(s.name)
      using errcode = 'PQ009';
  end if;
end
$$;

-- Moves a subscription to another start, with nothing in hand: to what comes after, once more if it had that. Not while one of its
-- consumers lives, and not while it has dead letters, which would come twice. False if there is none of this name.
create function pgqueue.seek(v_name text, v_start text) returns boolean
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
  s pgqueue.subscription;
  t pgqueue.topic;
  c pgqueue.cursor;
  v_upto xid8;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'moving a subscription needs the isolation level READ COMMITTED, not %', upper(current_setting('transaction_isolation'))
      using errcode = 'PQ004';
  end if;
  -- Until this commits, nothing is deleted from the log.
  perform pg_advisory_xact_lock_shared(hashtextextended('pgqueue.trim ' || 'pgqueue.log'::regclass::oid, 0));
  select * into s from pgqueue.subscription where name = v_name;
  if not found then
    return false;
  end if;
  select * into t from pgqueue.topic where id = s.topic;
  -- Nobody claims meanwhile, or becomes the active consumer.
  perform pg_advisory_xact_lock(pgqueue.lane_key(s.id, lane))
  from pgqueue.lanes(s, t) l cross join generate_series(-2, l.v_last) lane;
  v_upto := pgqueue.upto_if_drawn();
  c := pgqueue.start(t, v_start, s.ordering);
  perform from pgqueue.subscription where id = s.id for key share;
  if not found then
    return false;
  end if;
  perform from pgqueue.owner where subscription = s.id order by id for update;
  perform pgqueue.ensure_at_rest(s);
  -- Whoever is at a lease just now may leave others behind.
  loop
    perform from pgqueue.lease where subscription = s.id order by id for update;
    delete from pgqueue.settled using pgqueue.lease l where lease = l.id and l.subscription = s.id;
    delete from pgqueue.lease where subscription = s.id;
    exit when not exists (select from pgqueue.lease where subscription = s.id);
  end loop;
  perform pgqueue.ensure_at_rest(s);               -- or dead letters
  delete from pgqueue.owner where subscription = s.id;
  delete from pgqueue.kept where subscription = s.id;
  delete from pgqueue.cursor where subscription = s.id;
  perform pgqueue.set_out(s, t, c, v_upto);
  perform pgqueue.ring(s.topic);
  return true;
end
$$;

-- Deletes a subscription with all it holds, and wakes its consumers to tell them.
create function pgqueue.delete_subscription(v_name text) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  s pgqueue.subscription;
begin
  delete from pgqueue.subscription where name = v_name returning * into s;
  if not found then
    return false;
  end if;
  -- In the order in which consumers lock them.
  perform from pgqueue.owner where subscription = s.id order by id for update;
  perform from pgqueue.lease where subscription = s.id order by id for update;
  delete from pgqueue.settled using pgqueue.lease l where lease = l.id and l.subscription = s.id;
  delete from pgqueue.lease where subscription = s.id;
  delete from pgqueue.cursor where subscription = s.id;
  delete from pgqueue.owner where subscription = s.id;
  delete from pgqueue.dead_letter where subscription = s.id;
  delete from pgqueue.kept where subscription = s.id;
  perform pgqueue.ring(s.topic);
  return true;
end
$$;

-- Hands dead letters out again from their first attempt, behind what waits: all, or one. Returns how many.
create function pgqueue.redrive(v_subscription bigint, v_id bigint default null) returns bigint
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
  s pgqueue.subscription;
  v_first constant bigint := coalesce(v_id, 0);
  v_last constant bigint := coalesce(v_id, 9223372036854775807);
  v_count bigint;
begin
  select * into s from pgqueue.subscription where id = v_subscription;
  -- Nobody claims in these lanes meanwhile, who would overlook a lease that is numbered already and not committed yet.
  perform pg_advisory_xact_lock(pgqueue.lane_key(s.id, d.lane))
  from (
    select distinct lane from pgqueue.dead_letter where subscription = s.id and id between v_first and v_last order by lane
  ) d;
  with redriven as (
    delete from pgqueue.dead_letter where subscription = v_subscription and id between v_first and v_last returning *
  )
  insert into pgqueue.lease (subscription, lane, rank, claimed_at, ready_at, kept, ids, place)
  select r.subscription, r.lane, greatest(r.id, pgqueue.last_id(s.topic, 0)), clock_timestamp(), clock_timestamp(), true, array[r.id], r.place
  from redriven r
  order by r.died_at, r.id;
  get diagnostics v_count = row_count;
  if v_count > 0 then
    perform pgqueue.ring(s.topic);
  end if;
  return v_count;
end
$$;

-- Forgets dead letters. Returns how many.
create function pgqueue.purge(v_subscription bigint) returns bigint
language sql security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with purged as (
    delete from pgqueue.dead_letter where subscription = v_subscription returning id
  ), forgotten as (
    delete from pgqueue.kept where subscription = v_subscription and id in (select id from purged)
  )
  select count(*) from purged;
end;

-- Hands out at once what is in the hand of living consumers: for tests of what happens then.
create function pgqueue.expire_leases(v_subscription text) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  o uuid;
  v_count bigint := 0;
begin
  for o in
    select distinct l.owner from pgqueue.lease l join pgqueue.subscription s on s.id = l.subscription
    where s.name = v_subscription and l.owner is not null
  loop
    perform pgqueue.give_back_all(o, true);
    v_count := v_count + 1;
  end loop;
  return v_count;
end
$$;
