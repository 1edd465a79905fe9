-- Settling: the answers of one consumer, merged into one statement, a verdict for each.

-- How long a message waits after so many attempts.
create function pgqueue.backoff(s pgqueue.subscription, v_attempt int) returns interval
language sql
set search_path = pg_catalog, pg_temp
return least(
  case when (v_attempt - 1) * ln(s.multiplier) > 600 then s.cap_ms                      -- would overflow
       else least(s.cap_ms, s.base_ms * power(s.multiplier, v_attempt - 1)) end * (1 + s.jitter * (2 * random() - 1)),
  3e12                                                                                    -- a century
) * interval '1 millisecond';

-- Copies messages that a subscription needs for longer than the log.
create function pgqueue.keep(v_subscription bigint, v_ids bigint[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
  insert into pgqueue.kept (subscription, id, xact, published_at, scheduled, key, kind, tags, headers, payload)
  select s.id, m.id, m.xact, m.published_at, m.scheduled, m.key, m.kind, m.tags, m.headers, m.payload
  from pgqueue.subscription s
  cross join unnest(v_ids) u (id)
  -- One by one: of a log that it takes to be small, the planner would rather read all.
  cross join lateral (select * from pgqueue.log where topic = s.topic and id = u.id offset 0) m
  where s.id = v_subscription
  on conflict do nothing;
end
$$;

-- Gives up messages of a lease. Returns the ids by which their publishers know them.
create function pgqueue.bury(s pgqueue.subscription, l pgqueue.lease, v_ids bigint[], v_attempts int[], v_reasons text[]) returns setof text
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
  if not l.kept then
    perform pgqueue.keep(s.id, v_ids);
  end if;
  insert into pgqueue.dead_letter (subscription, id, attempts, reason, delivered_at, requeued_at, died_at, lane, place)
  select s.id, d.id, d.attempts, d.reason, l.claimed_at, l.requeued_at, clock_timestamp(), l.lane, l.place
  from unnest(v_ids, v_attempts, v_reasons) d (id, attempts, reason);
  return query
    select coalesce('s' || k.scheduled, k.id::text)
    from unnest(v_ids) d (id)
    cross join lateral (select * from pgqueue.kept where subscription = s.id and id = d.id offset 0) k
    order by k.id;
end
$$;

-- What is left of many messages of a lease without many others.
create function pgqueue.without_many(l pgqueue.lease, v_ids bigint[], out v_left bigint[], out v_prior int[])
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = on
set enable_nestloop = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
  select coalesce(array_agg(id), '{}'), case when l.prior is not null then array_agg(prior) end into v_left, v_prior
  from (
    select u.id, u.prior from unnest(l.ids, l.prior) with ordinality u (id, prior, n)
    where not exists (select from unnest(v_ids) gone (id) where gone.id = u.id)
    order by u.n
  ) u;
end
$$;

-- Takes messages out of a lease that the caller has locked.
create function pgqueue.shorten(l pgqueue.lease, v_ids bigint[]) returns void
language plpgsql
as $$
declare
  v_left bigint[];
  v_prior int[];                                   -- null, as that of the lease is
begin
  l.ids := pgqueue.unpacked(l.ids);
  if cardinality(v_ids)::bigint * cardinality(l.ids) <= 10000 then
    v_left := array(select u.id from unnest(l.ids) u (id) where u.id <> all (v_ids));
    if l.prior is not null then
      v_prior := array(select u.prior from unnest(l.ids, l.prior) u (id, prior) where u.id <> all (v_ids));
    end if;
  else
    select * into v_left, v_prior from pgqueue.without_many(l, v_ids);
  end if;
  if v_left = '{}' then
    delete from pgqueue.lease where id = l.id;
  elsif cardinality(v_left) < cardinality(l.ids) then
    update pgqueue.lease
    set ids = pgqueue.packed(v_left), prior = v_prior,
        rank = case when l.rank = l.ids[1] then v_left[1] else l.rank end
    where id = l.id;
  end if;
end
$$;

-- Settles whole leases that are done, and single messages: 0 = OK, 1 = requeue, 2 = reject, 3 = release, as if never handed
-- out. Returns the leases that somebody else has by now, by the token that was wrong, whose answers were refused; and what was given up.
create function pgqueue.settle(
  v_subscription bigint,
  v_done         bigint[],
  v_done_tokens  uuid[],
  v_leases       bigint[],
  v_tokens       uuid[],
  v_ids          bigint[],
  v_verdicts     int[],
  v_deliveries   int[],                            -- what was delivered together comes back together
  v_delays_ms    bigint[],                         -- null: by the backoff
  v_reasons      text[],
  v_ring         boolean default true,             -- false: the caller takes itself what a lane held back that is free now; if it
                                                   -- cannot, it calls again, with nothing to settle
  v_lasts        bigint[] default null             -- for an OK to several: the last of those that begin with its id
)
returns table (refused_lease bigint, refused_token uuid, dead_id text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  s pgqueue.subscription;
  l pgqueue.lease;
  a record;
  v_now constant timestamptz := clock_timestamp();
  v_gone bigint[];
  v_gone_tokens uuid[];
  v_kept bigint[];
  v_answered bigint[];
  v_rings_for_lanes boolean;
  v_rings boolean := false;
begin
  select * into s from pgqueue.subscription where id = v_subscription;
  if not found then
    raise exception 'subscription % does not exist', v_subscription using errcode = 'PQ002';
  end if;
  v_rings_for_lanes := v_ring and s.ordering <> 'unordered';
  v_rings := v_rings_for_lanes and v_done = '{}' and v_leases = '{}';

  if v_done <> '{}' then
    with gone as (
      delete from pgqueue.lease h
      using unnest(v_done, v_done_tokens) d (id, token)
      where h.id = d.id and h.token = d.token
      returning h.id, h.token, h.kept, h.ids
    )
    select array_agg(id), array_agg(token), (select array_agg(u.id) from gone g cross join unnest(pgqueue.unpacked(g.ids)) u (id) where g.kept)
      into v_gone, v_gone_tokens, v_kept
      from gone;
    if v_kept is not null then
      -- A new statement: it sees the copies that were made while the other waited for the lease.
      delete from pgqueue.kept where subscription = s.id and id = any (v_kept);
    end if;
    return query
      select d.id, d.token, null::text from unnest(v_done, v_done_tokens) d (id, token)
      where not exists (select from unnest(v_gone, v_gone_tokens) g (id, token) where g.id = d.id and g.token = d.token);
    v_rings := v_rings_for_lanes;                  -- the next of the lane may go
  end if;

  for a in
    -- Each lease with its own answers: looking for them among all would take the square of their number.
    select u.lease, u.token, array_agg(u.id order by u.id) as ids,
           array_agg(case when u.verdict = 0 then greatest(u.last, u.id) else u.id end order by u.id) as lasts,
           array_agg(u.verdict order by u.id) as verdicts,
           array_agg(u.delivery order by u.id) as deliveries, array_agg(u.delay_ms order by u.id) as delays_ms,
           array_agg(u.reason order by u.id) as reasons, bool_or(u.verdict <> 0) as is_mixed,
           bool_or(u.verdict in (1, 3)) as comes_back
    from unnest(v_leases, v_tokens, v_ids, v_verdicts, v_deliveries, v_delays_ms, v_reasons, v_lasts)
      u (lease, token, id, verdict, delivery, delay_ms, reason, last)
    group by u.lease, u.token
    order by u.lease
  loop
    select * into l from pgqueue.lease where id = a.lease and token = a.token for no key update;
    if not found then
      return query select a.lease, a.token, null::text;
      continue;
    end if;
    if not a.is_mixed and cardinality(a.ids) = 1 and a.ids[1] = l.ids[1] and a.lasts[1] < -l.ids[2] and l.prior is null and not l.kept then
      -- The first of several that follow each other, as most answers are: what is left need not be looked at.
      update pgqueue.lease
      set ids = array[a.lasts[1] + 1, l.ids[2]], rank = case when l.rank = l.ids[1] then a.lasts[1] + 1 else l.rank end
      where id = l.id;
      continue;
    end if;
    l.ids := pgqueue.unpacked(l.ids);
    v_answered := array(
      select generate_series(u.first, least(u.last, u.first + cardinality(l.ids) - 1)) from unnest(a.ids, a.lasts) u (first, last)
    );

    if a.is_mixed then
      -- What is given up.
      return query
        select null::bigint, null::uuid,
               pgqueue.bury(s, l, array_agg(u.id order by u.id), array_agg(u.attempt order by u.id), array_agg(u.reason order by u.id))
        from (
          select u.id, u.verdict, h.attempt, coalesce(u.reason, 'given up after ' || h.attempt || ' attempts') as reason
          from unnest(a.ids, a.verdicts, a.reasons) u (id, verdict, reason)
          cross join lateral (select coalesce(l.prior[array_position(l.ids, u.id)], 0) + 1 as attempt) h
          where u.id = any (l.ids)
        ) u
        where u.verdict = 2 or (u.verdict = 1 and u.attempt >= s.max_attempts)
        having count(*) > 0;

      -- What comes again, each delivery as one.
      insert into pgqueue.lease
        (subscription, lane, rank, claimed_at, ready_at, suspect, kept, ids, place, prior, delivered_at, requeued_at)
      select l.subscription, l.lane, case when l.rank = l.ids[1] then min(u.id) else l.rank end, v_now,
             v_now + max(case when u.verdict = 3 then interval '0'
                              else coalesce(u.delay_ms * interval '1 millisecond', pgqueue.backoff(s, u.attempt)) end),
             case when u.verdict = 3 then l.suspect else 0 end, l.kept, pgqueue.packed(array_agg(u.id order by u.id)), l.place,
             nullif(array_agg(case when u.verdict = 3 then u.attempt - 1 else u.attempt end order by u.id), array_fill(0, array[count(*)::int])),
             case when u.verdict = 3 then l.delivered_at else l.claimed_at end,
             case when u.verdict = 3 then l.requeued_at else v_now end
      from (
        select distinct on (u.id) u.id, u.verdict, u.delivery, u.delay_ms, coalesce(l.prior[array_position(l.ids, u.id)], 0) + 1 as attempt
        from unnest(a.ids, a.verdicts, a.deliveries, a.delays_ms) u (id, verdict, delivery, delay_ms)
        where u.id = any (l.ids)
      ) u
      where u.verdict = 3 or (u.verdict = 1 and u.attempt < s.max_attempts)
      group by u.verdict, u.delivery
      order by min(u.id);
    end if;

    if l.kept then
      delete from pgqueue.kept
      where subscription = s.id and id = any (array(
        (select unnest(v_answered) intersect select unnest(l.ids))
        except
        select u.id from unnest(a.ids, a.verdicts) u (id, verdict) where u.verdict <> 0
      ));
    end if;
    perform pgqueue.shorten(l, v_answered);
    v_rings := v_rings or a.comes_back or (v_rings_for_lanes and v_answered @> l.ids);
  end loop;

  if v_rings then
    perform pgqueue.ring(s.topic);
  end if;
end
$$;

-- Answers OK inside the caller's transaction: it holds once that commits. Returns the transaction's id, or null if somebody else has
-- the messages by now.
create function pgqueue.settle_in(v_lease bigint, v_token uuid, v_ids bigint[]) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
  -- Shared, so that the handlers of one run do not wait for each other; nobody takes the lease over meanwhile.
  perform from pgqueue.lease where id = v_lease and token = v_token and pgqueue.unpacked(ids) @> v_ids for key share;
  if not found then
    return null;
  end if;
  insert into pgqueue.settled (lease, id) select v_lease, u.id from unnest(v_ids) u (id);
  return pg_current_xact_id()::text::bigint;
end
$$;

-- Shortens a lease by what was settled inside of transactions that have committed.
create function pgqueue.absorb(l pgqueue.lease, v_ids bigint[]) returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_done bigint[];
begin
  with done as (
    delete from pgqueue.settled where lease = l.id and id = any (v_ids) returning id
  )
  select coalesce(array_agg(id), '{}') into v_done from done;
  if v_done <> '{}' then
    if l.kept then
      delete from pgqueue.kept where subscription = l.subscription and id = any (v_done);
    end if;
    perform pgqueue.shorten(l, v_done);
  end if;
  return v_done;
end
$$;

-- What became of messages that were settled inside a transaction: 'done', 'open' while it lasts, 'rolled back', after which they
-- are requeued, or 'lost'. Without the transaction's id, whose answer was lost, the lock on the lease has to tell. And which of those
-- that were rolled back were given up.
create function pgqueue.outcome(v_lease bigint, v_token uuid, v_ids bigint[], v_xact bigint, out outcome text, out dead_ids text[])
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  l pgqueue.lease;
begin
  if pg_xact_status(v_xact::text::xid8) = 'in progress' then
    outcome := 'open';
    return;
  end if;
  -- A new statement: it sees what the transaction committed.
  if v_xact is not null or exists (select from pgqueue.settled where lease = v_lease and id = any (v_ids)) then
    select * into l from pgqueue.lease where id = v_lease and token = v_token for no key update;
  else
    select * into l from pgqueue.lease where id = v_lease and token = v_token for update skip locked;
    if not found and exists (select from pgqueue.lease where id = v_lease and token = v_token) then
      outcome := 'open';
      return;
    end if;
  end if;
  if not found then
    outcome := 'lost';
    return;
  end if;
  if pgqueue.absorb(l, v_ids) = '{}' then
    outcome := 'rolled back';
    select array_agg(r.dead_id) filter (where r.dead_id is not null) into dead_ids
    from cardinality(v_ids) n
    cross join lateral pgqueue.settle(
      l.subscription, '{}', '{}', array_fill(v_lease, array[n]), array_fill(v_token, array[n]), v_ids, array_fill(1, array[n]),
      array_fill(0, array[n]), array_fill(null::bigint, array[n]), array_fill('its transaction was rolled back'::text, array[n])
    ) r;
    return;
  end if;
  if l.lane >= 0 then
    perform pgqueue.ring((select topic from pgqueue.subscription where id = l.subscription));
  end if;
  outcome := 'done';
end
$$;
