-- Rebasing: begins the next era, after a restore on another server.

-- Adds ready leases of messages, in order, of so many each at most. Returns the next rank.
create function pgqueue.lease_again(c pgqueue.cursor, v_ids bigint[], v_rank bigint, v_place text) returns bigint
language plpgsql
as $$
declare
  v_id bigint;
  v_run bigint[] := '{}';
begin
  foreach v_id in array v_ids || null::bigint loop
    -- A run ascends. The last one ends with the ids.
    if v_run <> '{}' and (v_id is null or v_id < v_run[cardinality(v_run)] or cardinality(v_run) = 1000) then
      insert into pgqueue.lease (subscription, lane, rank, claimed_at, ready_at, ids, place)
      values (c.subscription, c.lane, coalesce(v_rank, v_run[1]), clock_timestamp(), clock_timestamp(), pgqueue.packed(v_run), v_place);
      v_rank := v_rank + 1;
      v_run := '{}';
    end if;
    v_run := v_run || v_id;
  end loop;
  return v_rank;
end
$$;

-- Begins the next era where the last has ended: what was not handed out by then becomes leases, or stays above the cursors, which from
-- now on speak of this server's transactions, and what has a transaction of its future gets the last that everybody sees. False if
-- there is nothing to do.
create function pgqueue.rebase() returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  s pgqueue.subscription;
  t pgqueue.topic;
  c pgqueue.cursor;
  v_lanes record;
  v_conditions pgqueue.conditions;
  v_bucket int;
  v_era int;
  v_place text;
  v_rank bigint;
  v_seen pg_snapshot;
  v_last xid8;                                     -- the last transaction that everybody sees from now on
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'rebasing needs the isolation level READ COMMITTED, not %', upper(current_setting('transaction_isolation'))
      using errcode = 'PQ004';
  end if;
  -- Nobody writes meanwhile, and whoever did has ended.
  lock table pgqueue.era, pgqueue.log, pgqueue.cursor, pgqueue.lease, pgqueue.kept in share row exclusive mode;
  if not pgqueue.is_elsewhere() then
    return false;
  end if;
  v_era := pgqueue.era();
  v_seen := pg_current_snapshot();
  v_last := (pg_snapshot_xmin(v_seen)::text::bigint - 1)::text::xid8;

  if not exists (select from pgqueue.log where xact > v_last)
    and not exists (select from pgqueue.kept where xact > v_last)
    and not exists (select from pgqueue.cursor where pg_snapshot_xmax(seen) > v_last or pg_snapshot_xmax(late_seen) > v_last)
    and not exists (
      select from pgqueue.checkpoint where position collate "C" > pgqueue.stable_place(v_era, v_last)
    )
  then
    update pgqueue.era set system = pgqueue.here() where number = v_era; -- all of it is this server's past, as after an upgrade
    return true;
  end if;

  v_era := v_era + 1;
  v_place := concat_ws('-', pg_current_xact_id(), v_seen) || pgqueue.era_mark(v_era);
  v_rank := (select greatest(max(rank), (select last_value from pgqueue.log_id)) + 1 from pgqueue.lease);
  for s in select * from pgqueue.subscription order by id loop
    select * into t from pgqueue.topic where id = s.topic;
    v_lanes := pgqueue.lanes(s, t);
    v_conditions := pgqueue.conditions(s.rest, true);
    for v_lane in v_lanes.v_first .. v_lanes.v_last loop
      select * into c from pgqueue.cursor where subscription = s.id and lane = v_lane order by n desc limit 1;
      continue when not found;
      if s.ordering = 'stable total' then
        v_rank := pgqueue.lease_again(c, array(
          select l.id from pgqueue.log l
          where l.topic = s.topic and (l.xact, l.id) > (c.upto, c.top)
            and (c.late_seen is null or not pg_visible_in_snapshot(l.xact, c.late_seen))
            and pgqueue.selects(s.key, s.kinds, s.tags_any, s.tags_all, v_conditions, l.key, l.kind, l.tags, l.payload)
          order by least(l.xact, v_last), l.id
        ), v_rank, null);
        c.upto := pg_snapshot_xmin(v_seen);
        c.top := 0;
        c.seen := format('%1$s:%1$s:', greatest(c.upto, '3'));
      else
        v_bucket := case when s.ordering = 'by key' then c.lane else s.bucket end;
        perform pgqueue.lease_again(c, array(
          select l.id from pgqueue.log l
          where l.topic = s.topic and l.id <= c.top and not pg_visible_in_snapshot(l.xact, c.seen)
            and not coalesce(l.id <= c.late_after and pg_visible_in_snapshot(l.xact, c.late_seen), false)
            and (v_bucket is null or l.bucket = v_bucket)
            and pgqueue.selects(s.key, s.kinds, s.tags_any, s.tags_all, v_conditions, l.key, l.kind, l.tags, l.payload)
          order by l.id
        ), null, v_place);
        c.upto := pg_current_xact_id();
        c.seen := v_seen;
      end if;
      c.n := c.n + 1;
      c.late_seen := null;
      c.late_upto := null;
      c.late_after := null;
      c.moved_at := clock_timestamp();
      insert into pgqueue.cursor values (c.*);
      delete from pgqueue.cursor where subscription = c.subscription and lane = c.lane and n < c.n;
    end loop;
  end loop;

  -- What were stretches of several transactions may lie between each other: each message is one from now on.
  update pgqueue.log set xact = v_last, stretch_end = id where xact >= v_last;
  update pgqueue.kept set xact = v_last where xact > v_last;
  -- What starts after one of these gets more than it has to, and misses nothing.
  update pgqueue.lease set place = v_place where place is not null;
  update pgqueue.dead_letter set place = v_place where place is not null;
  -- What is left is counted anew.
  update pgqueue.extent
  set gone_top = 0, gone_seen = '1:1:', gone_upto = '0', trimmed = '{}', top = 0, seen = '1:1:', upto = '0', messages = 0, bytes = 0;
  insert into pgqueue.era (number, system) values (v_era, pgqueue.here());
  return true;
end
$$;
