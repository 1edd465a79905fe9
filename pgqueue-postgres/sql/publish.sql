-- Publishing: appends to the log, and rings if somebody sleeps.

-- What spreads keys over a topic's buckets: the first four bytes of the SHA-256 as a number.
create function pgqueue.key_hash(v_key text) returns bigint
language sql immutable parallel safe
return ('x' || encode(substr(sha256(convert_to(v_key, 'UTF8')), 1, 4), 'hex'))::bit(32)::bigint;

-- The bucket of a message.
create function pgqueue.bucket(v_key text, v_hash bigint, v_buckets int) returns int
language sql immutable parallel safe
return case when v_key is null then -1 else coalesce(v_hash, pgqueue.key_hash(v_key)) % v_buckets end;

-- The channel on which a topic's sleepers are woken. The table's number keeps schemas apart.
create function pgqueue.channel(v_topic bigint) returns text
language sql stable
set search_path = pg_catalog, pg_temp
return 'pgqueue_' || 'pgqueue.topic'::regclass::oid || '_' || v_topic;

-- Where the stretch ends that begins at the n-th message of those that one call publishes; null if none begins there.
create function pgqueue.stretch_end(v_ids bigint[], v_n bigint) returns bigint
language sql immutable parallel safe
return case when v_n % 128 = 1 then v_ids[least(v_n + 127, cardinality(v_ids))] end;

-- Wakes who sleeps on a topic. Call it after writing: who armed before this look is rung for, and who arms later sees the
-- writing, once committed. Of the transactions that notify, the server commits one at a time; so of those that do nothing else
-- and commit at once (`v_alone`), only one does, and who was woken by it looks again while the others are at work.
create function pgqueue.ring(v_topic bigint, v_alone boolean default false) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_now constant timestamptz := clock_timestamp();  -- in a variable, as an index is not searched for what may change meanwhile
begin
  if (
    -- A stricter transaction looks through an old snapshot.
    current_setting('transaction_isolation') <> 'read committed'
    or exists (select from pgqueue.sleeper where topic = v_topic and armed_until > v_now)
  )
  -- A queue that nobody drains fails the commits of all who notify.
  and pg_notification_queue_usage() < 0.5
  and (not v_alone or pg_try_advisory_xact_lock(hashtextextended('pgqueue.ring ' || 'pgqueue.topic'::regclass::oid, v_topic))) then
    perform pg_notify(pgqueue.channel(v_topic), '');
  end if;
end
$$;

-- Refuses what no consumer could read: this library writes none of it, other callers may.
create function pgqueue.ensure_readable(v_tags text[], v_headers text[]) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from unnest(v_tags) t cross join unnest(t::text[]) tag where tag is null) then
    raise exception 'a tag is null' using errcode = 'null_value_not_allowed';
  end if;
  if exists (
    select from unnest(v_headers) h
    where jsonb_typeof(h::jsonb) <> 'object' or jsonb_path_exists(h::jsonb, 'strict $.* ? (@.type() <> "string")')
  ) then
    raise exception 'headers are a JSON object whose values are texts' using errcode = 'invalid_parameter_value';
  end if;
end
$$;

-- Tells all processes of messages that are due before their next pulse.
create function pgqueue.ring_for_scheduled(v_due_at timestamptz[], v_delays_ms bigint[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if (
    exists (select from unnest(v_due_at) due_at where due_at < clock_timestamp() + interval '3 seconds')
    or exists (select from unnest(v_delays_ms) delay_ms where delay_ms < 3000)
  )
  and pg_notification_queue_usage() < 0.5 then
    perform pg_notify('pgqueue_scheduled', '');
  end if;
end
$$;

-- Returns the ids; of what is scheduled the negative of its number there, -17 for `s17`.
create function pgqueue.publish_batch(
  v_topic     text,
  v_payloads  bytea[],
  v_keys      text[] default null,
  v_kinds     text[] default null,
  v_tags      text[] default null,                 -- each an array as text
  v_headers   text[] default null,                 -- each an object as JSON
  v_dedup_ids text[] default null,
  v_due_at    timestamptz[] default null,
  v_delays_ms bigint[] default null,
  v_hashes    bigint[] default null,               -- of the keys, to save computing them here
  v_ring      boolean default true,                -- false: for transactions to be prepared, which may not notify
  v_alone     boolean default false                -- nothing else is in this transaction
)
returns bigint[]
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  v_xact constant xid8 not null := pg_current_xact_id();  -- before any id is drawn: `cursor.upto` rests on it
  v_now constant timestamptz not null := clock_timestamp();
  t pgqueue.topic;
  v_ids bigint[];
begin
  perform pgqueue.ensure_era();
  select * into t from pgqueue.topic where name = v_topic;
  if not found then
    raise exception 'topic % does not exist', quote_literal(v_topic)
      using errcode = 'PQ001', hint = 'Create it first.';
  end if;

  if v_tags is not null or v_headers is not null then
    perform pgqueue.ensure_readable(v_tags, v_headers);
  end if;

  if v_dedup_ids is null and v_due_at is null and v_delays_ms is null then
    v_ids := array(select nextval('pgqueue.log_id') from generate_subscripts(v_payloads, 1));
    if v_keys is null and v_kinds is null and v_tags is null and v_headers is null then
      insert into pgqueue.log (topic, id, xact, published_at, stretch_end, bucket, payload)
      select t.id, m.id, v_xact, v_now, pgqueue.stretch_end(v_ids, m.n), -1, m.payload
      from unnest(v_ids, v_payloads) with ordinality m (id, payload, n);
    else
      insert into pgqueue.log (topic, id, xact, published_at, stretch_end, bucket, key, kind, tags, headers, payload)
      select t.id, m.id, v_xact, v_now, pgqueue.stretch_end(v_ids, m.n), pgqueue.bucket(m.key, m.hash, t.buckets),
             m.key, m.kind, m.tags::text[], m.headers::jsonb, m.payload
      from unnest(v_ids, v_payloads, v_keys, v_hashes, v_kinds, v_tags, v_headers) with ordinality
           m (id, payload, key, hash, kind, tags, headers, n);
    end if;
  else
    v_ids := pgqueue.publish_specially(t, v_xact, v_now, v_payloads, v_keys, v_kinds, v_tags, v_headers, v_dedup_ids, v_due_at, v_delays_ms);
  end if;

  if v_ring then
    perform pgqueue.ring(t.id, v_alone);
    if v_due_at is not null or v_delays_ms is not null then
      perform pgqueue.ring_for_scheduled(v_due_at, v_delays_ms);
    end if;
  end if;
  return coalesce(v_ids, '{}');
end
$$;

-- Publishes messages of which some are scheduled or published once.
create function pgqueue.publish_specially(
  t pgqueue.topic, v_xact xid8, v_now timestamptz, v_payloads bytea[], v_keys text[], v_kinds text[], v_tags text[],
  v_headers text[], v_dedup_ids text[], v_due_at timestamptz[], v_delays_ms bigint[]
)
returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_due timestamptz[];
  v_ids bigint[];
  v_new boolean[];
begin
  -- Each message draws its id, which a repetition wastes. A scheduled one gets another when it enters the log.
  select array_agg(case when u.due_at is null then nextval('pgqueue.log_id')
                        else -nextval(pg_get_serial_sequence('pgqueue.scheduled', 'id')) end order by u.n),
         array_agg(u.due_at order by u.n),
         array_agg(true)
    into v_ids, v_due, v_new
    from (
      select m.n, coalesce(m.due_at, v_now + m.delay_ms * interval '1 millisecond') as due_at
      from unnest(v_payloads, v_due_at, v_delays_ms) with ordinality m (payload, due_at, delay_ms, n)
      order by m.n
    ) u;

  if v_dedup_ids is not null then
    -- In sorted order, so that two publishers never wait for each other in a circle. One by one: of a table that it takes to be small,
    -- the planner would rather read all.
    with expired as (
      select d.place
      from (select distinct dedup_id from unnest(v_dedup_ids) dedup_id order by dedup_id) u
      cross join lateral (
        select ctid as place from pgqueue.dedup
        where topic = t.id and dedup_id = u.dedup_id and expires_at <= v_now
        for update
      ) d
    )
    delete from pgqueue.dedup where ctid = any (array(select place from expired));

    insert into pgqueue.dedup (topic, dedup_id, message, expires_at)
    select t.id, u.dedup_id, u.id, v_now + t.dedup_window_ms * interval '1 millisecond'
    from unnest(v_dedup_ids, v_ids) with ordinality u (dedup_id, id, n)
    where u.dedup_id is not null
    order by u.dedup_id, u.n
    on conflict do nothing;

    -- A new statement: it sees what a publisher that was first has committed meanwhile.
    select array_agg(d.message is null or d.message = u.id order by u.n), array_agg(coalesce(d.message, u.id) order by u.n)
      into v_new, v_ids
      from unnest(v_dedup_ids, v_ids) with ordinality u (dedup_id, id, n)
      left join lateral (select * from pgqueue.dedup where topic = t.id and dedup_id = u.dedup_id offset 0) d on true;
  end if;

  insert into pgqueue.log (topic, id, xact, published_at, stretch_end, bucket, key, kind, tags, headers, payload)
  select t.id, u.id, v_xact, v_now, pgqueue.stretch_end(array_agg(u.id) over w, row_number() over w),
         pgqueue.bucket(u.key, null, t.buckets), u.key, u.kind, u.tags::text[], u.headers::jsonb, u.payload
  from unnest(v_ids, v_new, v_due, v_payloads, v_keys, v_kinds, v_tags, v_headers)
       u (id, new, due_at, payload, key, kind, tags, headers)
  where u.new and u.due_at is null
  window w as (order by u.id rows between unbounded preceding and unbounded following);

  insert into pgqueue.scheduled (id, topic, due_at, key, kind, tags, headers, payload)
  overriding system value
  select -u.id, t.id, u.due_at, u.key, u.kind, u.tags::text[], u.headers::jsonb, u.payload
  from unnest(v_ids, v_new, v_due, v_payloads, v_keys, v_kinds, v_tags, v_headers)
       u (id, new, due_at, payload, key, kind, tags, headers)
  where u.new and u.due_at is not null;

  return v_ids;
end
$$;

-- For people and other languages: select pgqueue.publish('orders', '{"id": 1}');
create function pgqueue.publish(
  v_topic text, v_payload text, v_key text default null, v_kind text default null, v_tags text[] default null,
  v_headers jsonb default null, v_dedup_id text default null, v_due_at timestamptz default null, v_ring boolean default true
)
returns text
language sql
set search_path = pg_catalog, pg_temp
begin atomic
  select case when id < 0 then 's' || -id else id::text end
  from unnest(pgqueue.publish_batch(
    v_topic, array[convert_to(v_payload, 'UTF8')], array[v_key], array[v_kind], array[v_tags::text], array[v_headers::text],
    case when v_dedup_id is not null then array[v_dedup_id] end, case when v_due_at is not null then array[v_due_at] end, null, null, v_ring
  )) id;
end;

-- What a person reads of a payload: its text, or its bytes escaped if it is none.
create function pgqueue.payload_text(v_payload bytea) returns text
language plpgsql immutable strict
set search_path = pg_catalog, pg_temp
as $$
begin
  return convert_from(v_payload, 'UTF8');
exception when character_not_in_repertoire or untranslatable_character then
  return encode(v_payload, 'escape');
end
$$;

create view pgqueue.message as
select l.id, coalesce('s' || l.scheduled, l.id::text) as message_id, t.name as topic, l.published_at, l.key, l.kind, l.tags, l.headers,
       pgqueue.payload_text(l.payload) as payload
from pgqueue.log l
join pgqueue.topic t on t.id = l.topic;

-- Lets scheduled messages that are due enter the log, in bounded batches.
create function pgqueue.publish_scheduled() returns int
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_now constant timestamptz := clock_timestamp();  -- in a variable, so that the index is searched for it
  v_due pgqueue.scheduled[];
  v_topic bigint;
begin
  if not pg_try_advisory_xact_lock(hashtextextended('pgqueue.publish_scheduled', 0)) then
    return 0;
  end if;
  if not exists (select from pgqueue.scheduled where due_at <= v_now) then
    return 0;
  end if;
  perform pgqueue.ensure_era();

  perform pg_current_xact_id();
  with due as (
    delete from pgqueue.scheduled where ctid = any (array(
      select ctid from pgqueue.scheduled where due_at <= v_now order by due_at, id limit 500
    ))
    returning *
  )
  select array_agg(due order by due_at, id) into v_due from due;

  insert into pgqueue.log (topic, id, xact, published_at, scheduled, stretch_end, bucket, key, kind, tags, headers, payload)
  select m.topic, m.log_id, pg_current_xact_id(), v_now, m.id, pgqueue.stretch_end(array_agg(m.log_id) over w, row_number() over w),
         pgqueue.bucket(m.key, null, t.buckets), m.key, m.kind, m.tags, m.headers, m.payload
  from (select nextval('pgqueue.log_id') as log_id, u.* from unnest(v_due) u) m
  join pgqueue.topic t on t.id = m.topic
  window w as (partition by m.topic order by m.log_id rows between unbounded preceding and unbounded following);

  for v_topic in select distinct topic from unnest(v_due) loop
    perform pgqueue.ring(v_topic);
  end loop;
  return cardinality(v_due);
end
$$;
