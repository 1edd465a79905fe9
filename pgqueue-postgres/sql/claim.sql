-- Claiming: hands a run of messages to one consumer, in one round trip.

-- The advisory lock of a lane: whoever moves its cursor, or adds a lease from elsewhere, holds it to the end of the transaction.
create function pgqueue.lane_key(v_subscription bigint, v_lane int) returns bigint
language sql stable
return hashtextextended('pgqueue.lane ' || 'pgqueue.cursor'::regclass::oid || ' ' || v_subscription, v_lane);

-- The ids of a lease as they are kept: a tenth of what a claim and the answers to it write, where none is missing between.
create function pgqueue.packed(v_ids bigint[]) returns bigint[]
language sql immutable parallel safe
return case when cardinality(v_ids) > 1 and v_ids[cardinality(v_ids)] - v_ids[1] = cardinality(v_ids) - 1
            then array[v_ids[1], -v_ids[cardinality(v_ids)]] else v_ids end;

-- The ids of a lease one by one.
create function pgqueue.unpacked(v_ids bigint[]) returns bigint[]
language plpgsql immutable parallel safe
as $$
begin
  return case when v_ids[2] < 0 then array(select generate_series(v_ids[1], -v_ids[2])) else v_ids end;
end
$$;

-- How many ids a lease has.
create function pgqueue.count_ids(v_ids bigint[]) returns bigint
language sql immutable parallel safe
return case when v_ids[2] < 0 then 1 - v_ids[2] - v_ids[1] else cardinality(v_ids) end;

-- The functions that follow run under the settings of whoever calls them, which spares them their own: `search_path`, and what pins
-- the plans, which is the same in all that call them.

-- The `upto` of a cursor when a transaction looks that has its id already: that id does not say who began before the look, so all
-- may have. Null if the id is still to be drawn.
create function pgqueue.upto_if_drawn() returns xid8
language sql stable
return case when pg_current_xact_id_if_assigned() is not null then '18446744073709551615'::xid8 end;

-- The end of what one look examines above `v_after`, of a lane whose messages are no range of an index: as many ids as take some
-- 20 ms, of which most may be payloads that are parsed.
create function pgqueue.look_end(s pgqueue.subscription, v_bucket int, v_after bigint) returns bigint
language plpgsql stable
as $$
begin
  if s.selector is not null then
    return pgqueue.first_id(s.topic, v_after) + case when s.rest is null then 49999 else 9999 end;
  elsif v_bucket = -1 then
    return pgqueue.first_id(s.topic, v_after) + 1999;
  end if;
  return 9223372036854775807;
end
$$;

-- The first message of a topic above `v_after`, or `v_after`.
create function pgqueue.first_id(v_topic bigint, v_after bigint) returns bigint
language plpgsql stable
as $$
begin
  return coalesce((select id from pgqueue.log where topic = v_topic and id > v_after order by id limit 1), v_after);
end
$$;

-- The next messages of a lane above `v_after` and up to `v_end`, in order; `v_bucket` is null where a lane has all. Stable: looks
-- through the snapshot of the statement that calls it.
create function pgqueue.fresh_ids(s pgqueue.subscription, v_bucket int, v_after bigint, v_end bigint, v_most int) returns bigint[]
language plpgsql stable
as $$
declare
  v_conditions pgqueue.conditions := pgqueue.conditions(s.rest, false);
begin
  if s.selector is null and v_bucket is null then
    return array(select id from pgqueue.log where topic = s.topic and id > v_after order by id limit v_most);
  elsif s.selector is null and v_bucket >= 0 then
    return array(
      select id from pgqueue.log where topic = s.topic and bucket = v_bucket and bucket >= 0 and id > v_after order by bucket, id limit v_most
    );
  end if;
  loop
    begin
      if v_bucket >= 0 then
        return array(
          select id from pgqueue.log
          where topic = s.topic and bucket = v_bucket and bucket >= 0 and id > v_after and id <= v_end
            and pgqueue.selects(s.key, s.kinds, s.tags_any, s.tags_all, v_conditions, key, kind, tags, payload)
          order by bucket, id limit v_most
        );
      end if;
      return array(
        select id from pgqueue.log
        where topic = s.topic and id > v_after and id <= v_end and (v_bucket is null or bucket = v_bucket)
          and pgqueue.selects(s.key, s.kinds, s.tags_any, s.tags_all, v_conditions, key, kind, tags, payload)
        order by id limit v_most
      );
    -- What `pgqueue.payload_json` and `pgqueue.json_number` expect: catching it once a message takes longer than all else.
    exception when data_exception or program_limit_exceeded or feature_not_supported then
      if v_conditions.careful is not false then
        raise;
      end if;
      v_conditions.careful := true;
    end;
  end loop;
end
$$;

-- Where the last stretch begins of those that a transaction began up to `v_id`, some of which may be behind it; `v_id` if there is none.
create function pgqueue.stretch_start(v_topic bigint, v_xact xid8, v_id bigint) returns bigint
language plpgsql stable
as $$
begin
  return coalesce((
    select id from pgqueue.log
    where topic = v_topic and stretch_end is not null and xact = v_xact and id <= v_id
    order by topic desc, xact desc, id desc limit 1
  ), v_id);
end
$$;

-- What a topic has after `(v_upto, v_top)` in stable total order, of transactions before `v_before`.
create function pgqueue.stable_log(v_topic bigint, v_upto xid8, v_top bigint, v_before xid8) returns setof pgqueue.log
language sql stable
as $$
  select l.*
  from pgqueue.log h
  cross join lateral (
    select * from pgqueue.log
    where topic = v_topic and id between greatest(h.id, case when h.xact = v_upto then v_top + 1 end) and h.stretch_end and xact = h.xact
    offset 0
  ) l
  where h.topic = v_topic and h.stretch_end is not null and h.xact < v_before
    and (h.xact, h.id) >= (v_upto, pgqueue.stretch_start(v_topic, v_upto, v_top))
  order by h.xact, h.id, l.id
$$;

-- The messages of a lane at or below its top that its cursor could not see and this snapshot can, in order, at most one more
-- than `v_most`. They are found by their transactions: those in progress then, and those that began before `upto` was drawn.
create function pgqueue.late_ids(s pgqueue.subscription, v_bucket int, c pgqueue.cursor, v_most int) returns bigint[]
language plpgsql stable
as $$
declare
  v_conditions constant pgqueue.conditions := pgqueue.conditions(s.rest, true);
begin
  if pg_snapshot_xmin(c.seen) >= c.upto then
    return '{}';                                   -- nobody was at work
  elsif pgqueue.has_latecomers(s, c) is not true then
    return '{}';                                   -- cheaper than what follows, and most look in vain
  end if;
  return array(
    with recursive began (xact) as (
      -- From one transaction to the next, however many messages each has.
      (
        select xact from pgqueue.log
        where topic = s.topic and stretch_end is not null and xact >= pg_snapshot_xmax(c.seen) and xact < c.upto
        order by xact limit 1
      )
      union all
      select (
        select l.xact from pgqueue.log l
        where l.topic = s.topic and l.stretch_end is not null and l.xact > b.xact and l.xact < c.upto
        order by l.xact limit 1
      )
      from began b
      where b.xact is not null
    ), unseen (xact) as (
      select pg_snapshot_xip(c.seen)
      union all
      select xact from began where xact is not null
    )
    select late.id
    from unseen u
    cross join lateral (
      select l.id
      from pgqueue.log h
      -- One by one: of a log that it takes to be small, the planner would rather read all.
      cross join lateral (
        select * from pgqueue.log
        where topic = s.topic and id between greatest(h.id, c.late_after + 1) and least(h.stretch_end, c.top) and xact = u.xact
        offset 0
      ) l
      where h.topic = s.topic and h.stretch_end is not null and h.xact = u.xact and h.id <= c.top
        and h.id >= case when c.late_after is null then 0 else pgqueue.stretch_start(s.topic, u.xact, c.late_after) end
        and (v_bucket is null or l.bucket = v_bucket)
        and pgqueue.selects(s.key, s.kinds, s.tags_any, s.tags_all, v_conditions, l.key, l.kind, l.tags, l.payload)
      order by h.xact, h.id, l.id limit v_most::bigint + 1
    ) late
    -- Whoever is still at work is not looked for: the messages may be many.
    where pg_visible_in_snapshot(u.xact, coalesce(c.late_seen, pg_current_snapshot()))
    order by late.id limit v_most::bigint + 1
  );
end
$$;

-- The last message of a topic above `v_after` and up to `v_end`, or `v_after`.
create function pgqueue.last_id(v_topic bigint, v_after bigint, v_end bigint default 9223372036854775807) returns bigint
language plpgsql stable
as $$
begin
  return coalesce(
    (select id from pgqueue.log where topic = v_topic and id > v_after and id <= v_end order by topic desc, id desc limit 1), v_after
  );
end
$$;

-- What a look at a lane found: the run to hand out, and the cursor as it will be, whose `upto` (or `late_upto`) is null until it
-- is drawn, after every look of the claim.
create type pgqueue.looked as (
  ids bigint[],
  before text,                                     -- of latecomers, where the cursor stood: its top, `upto` and `seen`
  more boolean,                                    -- it ended before the log did
  moved pgqueue.cursor
);

-- Looks at a lane that the caller has locked, without writing. Above the top it goes no further than `v_barrier`, if given.
create function pgqueue.look(s pgqueue.subscription, c pgqueue.cursor, v_barrier bigint, v_most int) returns pgqueue.looked
language plpgsql
as $$
declare
  v_bucket constant int := case when s.ordering = 'by key' then c.lane else s.bucket end;
  v_end constant bigint := pgqueue.look_end(s, v_bucket, c.top);
  v_is_partial constant boolean := v_end < 9223372036854775807;
  v_late bigint[];
  v_fresh bigint[];
  v_last bigint;
  v_more boolean;
  v_before text;
  v_seen pg_snapshot;
begin
  loop
    -- One statement, one snapshot. A lane that is not full may have passed messages of others.
    select pgqueue.late_ids(s, v_bucket, c, v_most), f.ids,
           case when (v_bucket is not null or v_is_partial) and cardinality(f.ids) < v_most then pgqueue.last_id(s.topic, c.top, v_end)
                else greatest(c.top, f.ids[cardinality(f.ids)]) end,
           v_is_partial and coalesce(v_end < v_barrier, true) and pgqueue.last_id(s.topic, v_end) > v_end,
           pg_current_snapshot()
      into v_late, v_fresh, v_last, v_more, v_seen
      from (select pgqueue.fresh_ids(s, v_bucket, c.top, v_end, v_most) as ids offset 0) f;
    exit when v_late <> '{}' or c.late_seen is null;
    -- The latecomers of an earlier look are all out: what that look saw is what the cursor has seen. Look again.
    c.seen := c.late_seen;
    c.upto := c.late_upto;
    c.late_seen := null;
    c.late_upto := null;
    c.late_after := null;
  end loop;

  if v_late <> '{}' then
    v_before := concat_ws('-', c.top, c.upto, c.seen);
  end if;
  if cardinality(v_late) > v_most then
    -- More than the limit, from a giant transaction perhaps: page through them.
    v_late := v_late[1:v_most];
    if c.late_seen is null then
      c.late_seen := v_seen;
      c.late_upto := null;
    end if;
    c.late_after := v_late[v_most];
    return (v_late, v_before, true, c);
  elsif v_late <> '{}' then
    c.seen := coalesce(c.late_seen, v_seen);
    c.upto := c.late_upto;
    c.late_seen := null;
    c.late_upto := null;
    c.late_after := null;
    return (v_late, v_before, true, c);
  end if;

  if v_barrier is not null then
    v_fresh := array(select id from unnest(v_fresh) id where id <= v_barrier);
    v_last := least(v_last, v_barrier);
  end if;
  c.seen := v_seen;
  c.upto := null;
  c.top := case when cardinality(v_fresh) = v_most then v_fresh[v_most] else greatest(c.top, v_last) end;
  return (v_fresh, null::text, v_more, c);
end
$$;

-- As `look`, in stable total order: by transaction and id, of transactions before the oldest that is in progress anywhere, as none
-- of those can still come before what is handed out. A run ends where ids descend, as a lease has them ascending.
create function pgqueue.look_stable(s pgqueue.subscription, c pgqueue.cursor, v_most int) returns pgqueue.looked
language plpgsql
as $$
declare
  v_examines constant int := case when s.selector is null and c.late_seen is null then v_most else 10000 end;
  v_xmin constant xid8 := pg_snapshot_xmin(pg_current_snapshot());
  v_conditions constant pgqueue.conditions := pgqueue.conditions(s.rest, true);
  v_ids bigint[] := '{}';
  v_examined int := 0;
  v_is_end boolean := true;
  m record;
begin
  -- A later snapshot, which sees all that ended before.
  for m in
    select l.id, l.xact,
           (c.late_seen is null or not pg_visible_in_snapshot(l.xact, c.late_seen))
             and pgqueue.selects(s.key, s.kinds, s.tags_any, s.tags_all, v_conditions, l.key, l.kind, l.tags, l.payload) as is_selected
    from pgqueue.stable_log(s.topic, c.upto, c.top, v_xmin) l
    limit v_examines
  loop
    if m.is_selected and (cardinality(v_ids) = v_most or m.id < v_ids[cardinality(v_ids)]) then
      v_is_end := false;
      exit;
    end if;
    v_examined := v_examined + 1;
    c.upto := m.xact;
    c.top := m.id;
    if m.is_selected then
      v_ids := v_ids || m.id;
    end if;
  end loop;
  if v_is_end and v_examined < v_examines then
    c.upto := greatest(c.upto, v_xmin);            -- nothing else is before this
    c.top := 0;
  end if;
  c.seen := format('%1$s:%1$s:', greatest(c.upto, '3'));
  if pg_snapshot_xmax(c.late_seen) <= c.upto then
    c.late_seen := null;
  end if;
  return (v_ids, null::text, v_examined = v_examines, c);
end
$$;

-- Whether a look that found nothing moved a cursor nevertheless, so that the log need not keep as much for it.
create function pgqueue.has_moved(c pgqueue.cursor, moved pgqueue.cursor) returns boolean
language plpgsql immutable
as $$
begin
  return moved.top > c.top or moved.upto > c.upto
    -- A transaction ended that this lane waited to see: the log need not keep what it left elsewhere.
    or (pg_snapshot_xmin(c.seen) < c.upto and pg_snapshot_xmin(moved.seen) > pg_snapshot_xmin(c.seen));
end
$$;

-- Takes retries in hand that are due in the lane that has no order, and returns their leases: several, a few whose last holder
-- died, or one that has outlived two.
create function pgqueue.hold_ready(s pgqueue.subscription, v_owner uuid, v_token uuid, v_most int, v_suspects boolean)
returns bigint[]
language plpgsql
as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_suspect int;
  v_held bigint[];
  v_total bigint;
  v_first pgqueue.lease;
begin
  select suspect into v_suspect from pgqueue.lease
  where subscription = s.id and lane < 0 and ready_at is not null and ready_at <= v_now and (v_suspects or suspect = 0)
  order by subscription, ready_at, id limit 1;
  if not found then
    return '{}';
  end if;

  with ready as (
    select id, ready_at, pgqueue.count_ids(ids) as size from pgqueue.lease
    where subscription = s.id and lane < 0 and ready_at is not null and ready_at <= v_now and suspect = v_suspect
    order by subscription, ready_at, id
    limit case v_suspect when 0 then v_most when 1 then least(v_most, 16) else 1 end
    for update skip locked
  ), counted as (
    select id, row_number() over w as n, sum(size) over w as total from ready window w as (order by ready_at, id)
  )
  select array_agg(id order by n), max(total) into v_held, v_total from counted where n = 1 or total <= v_most;
  if v_held is null then
    return '{}';                                   -- others were faster
  end if;
  if v_total > v_most then
    select * into v_first from pgqueue.lease where id = v_held[1];
    perform pgqueue.split(v_first, v_most);
    v_total := v_most;
  end if;
  perform pgqueue.hold(v_held, v_owner, v_token, v_total = 1);
  return v_held;
end
$$;

-- Takes leases in hand that the caller has locked.
create function pgqueue.hold(v_leases bigint[], v_owner uuid, v_token uuid, v_alone boolean) returns void
language sql
set search_path = pg_catalog, pg_temp
begin atomic
  update pgqueue.lease
  set token = v_token, owner = v_owner, claimed_at = clock_timestamp(), ready_at = null, alone = v_alone
  where id = any (v_leases);
end;

-- Leaves at most `v_most` messages in a lease that is ready, and makes another of the rest.
create function pgqueue.split(l pgqueue.lease, v_most int) returns void
language plpgsql
as $$
begin
  if pgqueue.count_ids(l.ids) <= v_most then
    return;
  end if;
  l.ids := pgqueue.unpacked(l.ids);
  insert into pgqueue.lease (subscription, lane, rank, claimed_at, ready_at, kept, ids, place, prior, delivered_at, requeued_at)
  values (l.subscription, l.lane, case when l.rank = l.ids[1] then l.ids[v_most + 1] else l.rank end, l.claimed_at, l.ready_at, l.kept,
          pgqueue.packed(l.ids[v_most + 1:]), l.place, l.prior[v_most + 1:], l.delivered_at, l.requeued_at);
  update pgqueue.lease set ids = pgqueue.packed(l.ids[:v_most]), prior = l.prior[:v_most] where id = l.id;
end
$$;

-- Whether anything is in the log, for this lane or others, that committed late: of transactions in progress when the cursor last looked,
-- and of those that began before its `upto` was drawn. Not by `exists`, which forgets the order that leads to the index.
create function pgqueue.has_latecomers(s pgqueue.subscription, c pgqueue.cursor) returns boolean
language plpgsql stable
as $$
declare
  v_sees constant pg_snapshot := pg_current_snapshot();
begin
  return (
      select true from pg_snapshot_xip(c.seen) u (xact)
      cross join lateral (
        select from pgqueue.log where topic = s.topic and stretch_end is not null and xact = u.xact order by xact, id limit 1
      ) l
      where pg_visible_in_snapshot(u.xact, v_sees) -- those that are still at work may be many
      limit 1
    )
    or (
      select true from pgqueue.log
      where topic = s.topic and stretch_end is not null and xact >= pg_snapshot_xmax(c.seen) and xact < c.upto
      order by xact, id limit 1
    );
end
$$;

-- The lanes of a subscription by key where a look may find something or take the cursor on, from `v_first` on and round: neither
-- those that are in hand, nor those that have nothing new, which most are. Stable: through the snapshot of the
-- statement that calls it, so that nothing is missed that a look then would have found.
create function pgqueue.promising_lanes(s pgqueue.subscription, v_lanes int, v_first int, v_now timestamptz) returns int[]
language plpgsql stable
as $$
begin
  return array(
    select c.lane
    from generate_series(0, v_lanes - 1) u (n)
    cross join lateral (
      select * from pgqueue.cursor where subscription = s.id and lane = (v_first + u.n) % v_lanes - 1 order by n desc limit 1
    ) c
    left join lateral (
      select id, ready_at from pgqueue.lease
      where subscription = s.id and lane = c.lane and lane >= 0 and id >= c.floor
      order by ready_at is not null, rank, ids[1] limit 1
    ) l on true
    where case when c.cut > 0 then true
               when l.id is not null then l.ready_at is not null
               else s.selector is not null or c.late_seen is not null or pgqueue.is_beyond(c.seen)
                 or (select true from pgqueue.log where topic = s.topic and bucket = c.lane and bucket >= 0 and id > c.top order by bucket, id limit 1)
                 or (pg_snapshot_xmin(c.seen) < c.upto and (c.moved_at < v_now - interval '1 second' or pgqueue.has_latecomers(s, c)))
                 -- What has no key is in no index by bucket; and what is for others is kept until this lane has passed it.
                 or ((c.lane < 0 or c.moved_at < v_now - interval '1 second')
                     and (select true from pgqueue.log where topic = s.topic and id > c.top order by id limit 1))
          end
    order by u.n
  );
end
$$;

create type pgqueue.claimed as (
  lease        bigint,                             -- null in the last row, which only says what to expect next
  lane         int,
  id           bigint,
  scheduled    bigint,
  attempt      int,
  suspect      int,                                -- how often its holder died: greater than 0 after a crash
  place        text,                               -- what makes positions of the ids, until another is said
  delivered_at timestamptz,
  requeued_at  timestamptz,
  published_at timestamptz,
  key          text,
  kind         text,
  tags         text[],
  headers      text,
  payload      bytea,
  busy         boolean,                            -- last row: another consumer was claiming; look again soon
  more         boolean,                            -- last row: a look ended before the log did
  writers      boolean,                            -- last row: a publisher may have looked for sleepers before this consumer armed
  wait_ms      bigint,                             -- last row: when the next retry is due, if nothing was handed out
  batch        int,                                -- last row: options of the subscription as they are now
  prefetch     int,
  lease_ms     bigint
);

-- Hands up to `v_most` messages to the owner, and ends with one row without a message.
create function pgqueue.claim(
  v_subscription bigint,
  v_owner        uuid,
  v_token        uuid,                             -- random, new for each claim
  v_most         int,
  v_fresh_first  boolean,                          -- new work before retries
  v_suspects     boolean,                          -- whether a message whose holder died may be handed out
  v_first_lane   int,                              -- where to begin among the lanes
  v_arming       boolean,                          -- whether the consumer is going to sleep and just armed
  v_armed        bigint default null               -- if not, what it armed when it went to sleep before
)
returns setof pgqueue.claimed
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
  c pgqueue.cursor;
  l pgqueue.lease;
  v_standing text;
  v_is_stable boolean;
  v_is_total boolean;                              -- that too
  v_lanes int[] := '{}';                           -- to look at, one after the other
  v_lane int;
  v_left int := v_most;
  v_share int;                                     -- how many of them one lane may have, so that several go at the same time
  v_looked pgqueue.looked;
  v_found pgqueue.looked[] := '{}';
  v_retries bigint[] := '{}';                      -- leases of ordered lanes to hand out again
  v_sizes int[] := '{}';                           -- and how many messages of each
  v_size int;
  v_retry record;
  v_held bigint[] := '{}';                         -- all that this claim hands out
  v_firsts bigint[];                               -- the first message of each lease that is made,
  v_leases bigint[];                               -- and which that is
  v_place text;
  v_alone boolean;
  v_is_active boolean := true;                     -- of the consumers, this one gets messages
  v_busy boolean := false;
  v_more boolean := false;
  v_writers boolean := false;
  v_waits_until timestamptz;
  v_now constant timestamptz := clock_timestamp();
  v_xact xid8;
  v_era int;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'a claim needs the isolation level READ COMMITTED, not %', upper(current_setting('transaction_isolation'))
      using errcode = 'PQ004', hint = 'Set default_transaction_isolation to ''read committed'' for the connections of this pool.';
  end if;
  if pg_current_xact_id_if_assigned() is not null then
    raise exception 'a claim needs a transaction of its own' using errcode = 'PQ004';
  end if;
  -- What finds nothing writes nothing, and would go on as if nothing came.
  if current_setting('transaction_read_only') = 'on' then
    raise exception 'cannot claim in a read-only transaction' using errcode = 'read_only_sql_transaction';
  end if;
  v_era := pgqueue.ensure_era();
  -- A claim that a crash forgets is only handed out again, and no answer outlives the claim it needs: the log is one line.
  perform set_config('synchronous_commit', 'off', true);

  select * into s from pgqueue.subscription where id = v_subscription;
  if not found then
    raise exception 'subscription % does not exist', v_subscription using errcode = 'PQ002';
  end if;
  v_is_stable := s.ordering = 'stable total';
  v_is_total := v_is_stable or s.ordering = 'total';
  if v_arming then
    v_writers := exists (
      select from pg_locks
      where locktype = 'relation' and relation = 'pgqueue.log'::regclass and mode = 'RowExclusiveLock' and pid is distinct from pg_backend_pid()
        and database = (select oid from pg_database where datname = current_database())
    );
  end if;

  if s.consumers <> 'competing' then
    v_standing := pgqueue.activate(s, v_owner);
    v_is_active := v_standing = 'active';
    v_busy := v_standing = 'busy';
  end if;
  if not v_is_total and v_is_active and not v_fresh_first then
    v_held := pgqueue.hold_ready(s, v_owner, v_token, v_most, v_suspects);
  end if;
  if not v_is_total and v_is_active and pg_current_xact_id_if_assigned() is not null then
    v_busy := v_held = '{}';                       -- others were faster; too late to look, as our transaction id is drawn
    v_more := s.ordering = 'by key' and not v_busy;
  elsif v_is_active then
    v_lanes := case s.ordering
      when 'unordered' then '{-1}'
      when 'by key' then pgqueue.promising_lanes(s, (select buckets from pgqueue.topic where id = s.topic) + 1, v_first_lane, v_now)
      else '{0}'
    end;
  end if;

  -- Look at lane after lane without writing: `upto` must be drawn after the last look.
  for i in 1 .. cardinality(v_lanes) loop
    v_lane := v_lanes[i];
    if not pg_try_advisory_xact_lock(pgqueue.lane_key(s.id, v_lane)) then
      v_busy := true;
      continue;
    end if;
    -- A new statement: it sees what the last holder of the lock has committed.
    select * into c from pgqueue.cursor where subscription = s.id and lane = v_lane order by n desc limit 1;
    continue when not found;
    if pgqueue.is_beyond(c.seen) then
      raise exception 'this database was restored from another server, and its queue does not know this one yet'
        using errcode = 'PQ010', hint = 'Call pgqueue.rebase() as the owner of the schema, or migrate.';
    end if;
    if c.cut > 0 then
      raise exception 'subscription % lagged behind what its topic retains and lost messages', quote_literal(s.name)
        using errcode = 'PQ007', hint = 'Move it to a start that is retained: pgqueue.seek.';
    end if;

    l := null;
    if v_lane >= 0 then
      select * into l from pgqueue.lease
      where subscription = s.id and lane = v_lane and lane >= 0 and id >= c.floor
      order by ready_at is not null, rank, ids[1] limit 1;   -- one in hand holds back all others
      if l.ready_at > v_now then
        v_waits_until := least(v_waits_until, l.ready_at);
      end if;
      if l.rank <= c.top or (l.id is not null and v_is_stable) then
        -- What is first in its lane goes first, or nothing does.
        if l.ready_at <= v_now and (l.suspect = 0 or (v_suspects and v_left = v_most)) then
          v_size := least(v_left, pgqueue.count_ids(l.ids));
          v_retries := v_retries || l.id;
          v_sizes := v_sizes || v_size;
          v_left := v_left - v_size;
          exit when l.suspect > 0;
        end if;
        exit when v_left = 0;
        continue;
      end if;
    end if;

    -- Of those that a selector leaves empty nothing is known before the look.
    v_share := case when s.selector is null then least(v_left, greatest(8, s.batch, v_left / (cardinality(v_lanes) - i + 1))) else v_left end;
    v_looked := case when v_is_stable then pgqueue.look_stable(s, c, v_share) else pgqueue.look(s, c, l.rank, v_share) end;
    v_more := v_more or coalesce((v_looked).more, false) or cardinality((v_looked).ids) = v_share;
    if (v_looked).ids <> '{}' then
      v_left := v_left - cardinality((v_looked).ids);
      v_found := v_found || v_looked;
    elsif l.ready_at <= v_now and not (v_looked).more then
      -- Nothing is left before a message that was redriven.
      v_size := least(v_left, pgqueue.count_ids(l.ids));
      v_retries := v_retries || l.id;
      v_sizes := v_sizes || v_size;
      v_left := v_left - v_size;
      v_found := v_found || v_looked;
    elsif c.moved_at < v_now - interval '1 second' and pgqueue.has_moved(c, (v_looked).moved) or (v_looked).more
      -- So much was examined that nobody should do it again.
      or clock_timestamp() > v_now + interval '100 milliseconds'
    then
      v_found := v_found || v_looked;
    end if;
    exit when v_left = 0;
  end loop;

  v_alone := v_left = v_most - 1;
  if v_retries <> '{}' then
    for v_retry in
      select h as lease, r.size from unnest(v_retries, v_sizes) r (id, size) join pgqueue.lease h on h.id = r.id
      where h.ready_at is not null
      for update of h
    loop
      perform pgqueue.split(v_retry.lease, v_retry.size);
      v_held := v_held || (v_retry.lease).id;
    end loop;
    perform pgqueue.hold(v_held, v_owner, v_token, v_alone);
  end if;

  if cardinality(v_found) > 0 then
    v_xact := pg_current_xact_id();
    foreach v_looked in array v_found loop
      c := (v_looked).moved;
      c.n := c.n + 1;
      c.moved_at := v_now;
      c.upto := coalesce(c.upto, v_xact);
      if c.late_seen is not null and not v_is_stable then
        c.late_upto := coalesce(c.late_upto, v_xact);
      end if;
      if (v_looked).ids <> '{}' then
        -- Without an order in several leases: an answer to some of one writes down anew what is left of it. Each has whole batches.
        v_size := cardinality((v_looked).ids);
        if c.lane < 0 then
          v_size := least(v_size, s.batch * greatest(1, 200 / s.batch));
        end if;
        v_place := case when not v_is_stable then concat_ws('-', v_xact, coalesce(c.late_seen, c.seen), (v_looked).before) || pgqueue.era_mark(v_era) end;
        v_leases := '{}';
        v_firsts := '{}';
        for n in 1 .. cardinality((v_looked).ids) by v_size loop
          insert into pgqueue.lease (subscription, lane, rank, token, owner, claimed_at, alone, ids, place)
          values (s.id, c.lane, (v_looked).ids[n], v_token, v_owner, v_now, v_alone, pgqueue.packed((v_looked).ids[n:n + v_size - 1]), v_place)
          returning v_leases || id, v_firsts || ids[1] into v_leases, v_firsts;
        end loop;
        if (v_looked).before is not null or s.selector is not null or v_is_stable or (s.ordering = 'by key' and c.lane < 0) then
          v_held := v_held || v_leases;
        -- Else what the cursor has seen from the first to the last of them, read as the range that it is.
        elsif s.ordering = 'by key' then
          return query
            select v_leases[1], c.lane, m.id, m.scheduled, 1, 0, case when m.id = v_firsts[1] then v_place end, null::timestamptz, null::timestamptz, m.published_at, m.key, m.kind, m.tags,
                   m.headers::text, m.payload, null::boolean, null::boolean, null::boolean, null::bigint, null::int, null::int, null::bigint
            from pgqueue.log m
            where m.topic = s.topic and m.bucket = c.lane and m.bucket >= 0 and m.id between v_firsts[1] and c.top and pg_visible_in_snapshot(m.xact, c.seen)
            order by m.bucket, m.id;
        else
          return query
            select v_leases[width_bucket(m.id, v_firsts)], c.lane, m.id, m.scheduled, 1, 0, case when m.id = v_firsts[1] then v_place end,
                   null::timestamptz, null::timestamptz, m.published_at, m.key, m.kind, m.tags,
                   m.headers::text, m.payload, null::boolean, null::boolean, null::boolean, null::bigint, null::int, null::int, null::bigint
            from pgqueue.log m
            where m.topic = s.topic and m.id between v_firsts[1] and c.top and pg_visible_in_snapshot(m.xact, c.seen)
            order by m.id;
        end if;
        if c.lane >= 0 and not exists (
          select from pgqueue.lease where subscription = s.id and lane = c.lane and lane >= 0 and id >= c.floor and id < v_leases[1]
        ) then
          c.floor := v_leases[1];
        end if;
      elsif c.lane >= 0 then
        -- The redriven message that goes now stands at its rank.
        c.top := greatest(c.top, coalesce((select max(rank) from pgqueue.lease where id = any (v_retries) and lane = c.lane), c.top));
      end if;
      insert into pgqueue.cursor values (c.*);
      if c.n % 16 = 0 then
        -- Those before were deleted before, and stay in the index while somebody holds vacuum's horizon; now and then it sees to that.
        delete from pgqueue.cursor
        where subscription = s.id and lane = c.lane and n < c.n - 1 and n >= case when c.n % 65536 = 0 then 0 else c.n - 64 end;
      end if;
    end loop;
  end if;
  if v_left = v_most and v_fresh_first and not v_is_total and v_is_active then
    v_held := pgqueue.hold_ready(s, v_owner, v_token, v_most, v_suspects);
  end if;

  if (v_held <> '{}' or v_left < v_most) and not exists (select from pgqueue.owner where id = v_owner) then
    insert into pgqueue.owner (id, subscription, lease_ms, beat_at) values (v_owner, s.id, s.lease_ms, clock_timestamp())
    on conflict do nothing;
  end if;

  -- After the owner, as a pulse does.
  if not v_arming and v_armed is not null then
    delete from pgqueue.sleeper where id = v_armed; -- awake: publishers need not ring
  end if;

  if v_held <> '{}' then
    return query
      select h.id, h.lane, m.id, m.scheduled, coalesce(h.prior[u.n], 0) + 1, h.suspect, case when v_is_stable then pgqueue.stable_place(v_era, m.xact) when u.n = 1 then h.place end, h.delivered_at, h.requeued_at,
             m.published_at, m.key, m.kind, m.tags, m.headers::text, m.payload,
             null::boolean, null::boolean, null::boolean, null::bigint, null::int, null::int, null::bigint
      from pgqueue.lease h
      cross join lateral unnest(pgqueue.unpacked(h.ids)) with ordinality u (id, n)
      -- One by one: of a log that was small when it planned this, the planner would rather read all.
      cross join lateral (select * from pgqueue.log where topic = s.topic and id = u.id offset 0) m
      where h.id = any (v_held) and not h.kept
      order by h.id, u.n;
    return query
      select h.id, h.lane, m.id, m.scheduled, coalesce(h.prior[u.n], 0) + 1, h.suspect, case when v_is_stable then pgqueue.stable_place(v_era, m.xact) when u.n = 1 then h.place end, h.delivered_at, h.requeued_at,
             m.published_at, m.key, m.kind, m.tags, m.headers::text, m.payload,
             null::boolean, null::boolean, null::boolean, null::bigint, null::int, null::int, null::bigint
      from pgqueue.lease h
      cross join lateral unnest(pgqueue.unpacked(h.ids)) with ordinality u (id, n)
      cross join lateral (select * from pgqueue.kept where subscription = s.id and id = u.id offset 0) m
      where h.id = any (v_held) and h.kept
      order by h.id, u.n;
  elsif v_left = v_most then
    -- What waits for others to end comes when they do, though nobody rings.
    v_writers := v_writers or (
      v_is_stable and exists (
        select from pgqueue.log
        where topic = s.topic and stretch_end is not null and xact >= pg_snapshot_xmin(pg_current_snapshot())
        order by xact, id limit 1
      )
    );
    v_waits_until := least(v_waits_until, (
      select ready_at from pgqueue.lease
      where subscription = s.id and lane < 0 and ready_at is not null and ready_at > v_now
      order by subscription, ready_at limit 1
    ));
  end if;

  return query
    select null::bigint, null::int, null::bigint, null::bigint, null::int, null::int, null::text, null::timestamptz, null::timestamptz,
           null::timestamptz, null::text, null::text, null::text[], null::text, null::bytea, v_busy, v_more, v_writers,
           ceil(extract(epoch from v_waits_until - v_now) * 1000)::bigint, s.batch, s.prefetch, s.lease_ms;
end
$$;
