-- Owners: consumers that beat, and what becomes of their leases when they stop.

-- Says that a consumer lives. `v_known` are the leases it knows, by the tokens of its claims; it asks for those from `v_floor`
-- on, and gives back those of `v_strays`, which it does not know. Returns what it does not have any more ('lost') and what it does not know ('stray').
create function pgqueue.beat(
  v_owner uuid, v_subscription bigint, v_lease_ms bigint, v_floor bigint, v_known bigint[], v_tokens uuid[], v_strays bigint[]
)
returns table (lease bigint, token uuid, state text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  l pgqueue.lease;
begin
  perform set_config('synchronous_commit', 'off', true);
  update pgqueue.owner set beat_at = clock_timestamp(), suspected_at = null, lease_ms = v_lease_ms where id = v_owner;
  if not found then
    insert into pgqueue.owner (id, subscription, lease_ms, beat_at) values (v_owner, v_subscription, v_lease_ms, clock_timestamp())
    on conflict do nothing;
  end if;

  for l in select * from pgqueue.lease h where h.owner = v_owner and h.id = any (v_strays) for update skip locked loop
    perform pgqueue.give_back(l, false);
  end loop;

  return query
    select k.id, k.token, 'lost' from unnest(v_known, v_tokens) k (id, token)
    where not exists (select from pgqueue.lease h where h.id = k.id and h.token = k.token);
  return query
    select h.id, h.token, 'stray' from pgqueue.lease h
    where h.owner = v_owner and h.id >= v_floor and h.id <> all (v_known);
end
$$;

-- Lets a lease in hand, which the caller has locked, go to others. If its holder died, the message that was out alone counts an
-- attempt, and those of a run come one by one, to see who is to blame. Returns the message if it was given up.
create function pgqueue.give_back(l pgqueue.lease, v_died boolean) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  s pgqueue.subscription;
  v_attempt int;
  v_dead text;
begin
  perform pgqueue.absorb(l, pgqueue.unpacked(l.ids));
  select * into l from pgqueue.lease where id = l.id;
  if not found then
    return null;
  end if;
  l.ids := pgqueue.unpacked(l.ids);

  if not v_died then
    update pgqueue.lease set token = null, owner = null, ready_at = clock_timestamp(), alone = false where id = l.id;
  elsif l.alone then
    select * into s from pgqueue.subscription where id = l.subscription;
    v_attempt := coalesce(l.prior[1], 0) + 1;
    if v_attempt >= s.max_attempts then
      v_dead := pgqueue.bury(s, l, l.ids, array[v_attempt], array['its consumer died at attempt ' || v_attempt]);
      delete from pgqueue.lease where id = l.id;
    else
      update pgqueue.lease
      set token = null, owner = null, ready_at = clock_timestamp(), alone = false, suspect = 2, prior = array[v_attempt],
          delivered_at = l.claimed_at
      where id = l.id;
    end if;
  else
    delete from pgqueue.lease where id = l.id;
    insert into pgqueue.lease (subscription, lane, rank, claimed_at, ready_at, suspect, kept, ids, place, prior, delivered_at, requeued_at)
    select l.subscription, l.lane, case when l.rank = l.ids[1] then u.id else l.rank end, l.claimed_at, clock_timestamp(), least(l.suspect + 1, 2), l.kept,
           array[u.id], l.place, case when u.prior > 0 then array[u.prior] end, l.delivered_at, l.requeued_at
    from unnest(l.ids, l.prior) with ordinality u (id, prior, n)
    order by u.n;
  end if;
  return v_dead;
end
$$;

-- Lets everything that an owner has go, all of it or what no open transaction holds. Returns which, and what was given up.
create function pgqueue.give_back_all(v_owner uuid, v_died boolean, out is_all boolean, out dead_ids text[])
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  l pgqueue.lease;
  -- What follows in a lane that it ended may wait for it.
  v_topic bigint := (
    select s.topic from pgqueue.owner o join pgqueue.subscription s on s.id = o.subscription where o.id = v_owner and s.ordering <> 'unordered'
  );
begin
  for l in select * from pgqueue.lease where owner = v_owner order by id for update skip locked loop
    dead_ids := dead_ids || pgqueue.give_back(l, v_died);
    v_topic := coalesce(v_topic, (select topic from pgqueue.subscription where id = l.subscription));
  end loop;
  if v_topic is not null then
    perform pgqueue.ring(v_topic);
  end if;
  dead_ids := array_remove(dead_ids, null);
  is_all := not exists (select from pgqueue.lease where owner = v_owner);
end
$$;

-- Makes a consumer the active one of a subscription that has one at a time: 'active' if it is that already, and nobody else
-- claims until the caller's transaction ends; 'standby' if another one lives; 'busy' if it has just become that, or somebody else
-- is claiming.
create function pgqueue.activate(s pgqueue.subscription, v_owner uuid) returns text
language plpgsql
as $$
declare
  v_active uuid;
  o pgqueue.owner;
begin
  if not pg_try_advisory_xact_lock(pgqueue.lane_key(s.id, -2)) then
    return 'busy';
  end if;
  -- A new statement: it sees what the last holder of the lock has committed.
  select active into v_active from pgqueue.subscription where id = s.id;
  select * into o from pgqueue.owner where id = v_active;
  if found then
    if v_active = v_owner then
      return 'active';
    -- Of one that is silent, nobody knows; whoever waits finds out.
    elsif s.consumers = 'exclusive' and o.beat_at > clock_timestamp() - o.lease_ms * interval '1 millisecond' then
      raise exception 'subscription % is exclusive and has a living consumer', quote_literal(s.name) using errcode = 'PQ008';
    end if;
    return 'standby';
  end if;
  update pgqueue.subscription set active = v_owner where id = s.id;
  insert into pgqueue.owner (id, subscription, lease_ms, beat_at) values (v_owner, s.id, s.lease_ms, clock_timestamp())
  on conflict do nothing;
  return 'busy';                                   -- too late to look, as our transaction id is drawn
end
$$;

-- Forgets an owner, and wakes those who stand by if it was the active one.
create function pgqueue.forget_owner(v_owner uuid) returns void
language plpgsql
as $$
declare
  s pgqueue.subscription;
begin
  delete from pgqueue.owner o using pgqueue.subscription u where o.id = v_owner and u.id = o.subscription returning u.* into s;
  if not found then
    delete from pgqueue.owner where id = v_owner;  -- its subscription is gone
  elsif s.active = v_owner then
    perform pgqueue.ring(s.topic);
  end if;
end
$$;

-- Takes leave: what the owner still has goes to others, with no attempt counted.
create function pgqueue.leave(v_owner uuid) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if (select is_all from pgqueue.give_back_all(v_owner, false)) then
    perform pgqueue.forget_owner(v_owner);
  end if;
end
$$;

-- Whether an owner is silent for so long that somebody should look into it, or beats by a clock that was put back.
create function pgqueue.is_silent(o pgqueue.owner, v_now timestamptz) returns boolean
language sql stable
return o.beat_at < v_now - o.lease_ms * interval '1 millisecond' * 2 / 3 or o.beat_at > v_now + interval '1 second';

-- Lets the leases of dead owners go. An owner is dead if it was silent for its whole lease while somebody else could reach the
-- server, and had been seen to be silent for the last third of it. Returns who died, and what was given up.
create function pgqueue.bury_owners() returns table (dead_owner uuid, subscription text, topic text, dead_ids text[])
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  o pgqueue.owner;
  g record;
  v_now constant timestamptz := clock_timestamp();
begin
  if not pg_try_advisory_xact_lock(hashtextextended('pgqueue.bury_owners ' || 'pgqueue.owner'::regclass::oid, 0)) then
    return;
  end if;
  for o in
    select * from pgqueue.owner w where pgqueue.is_silent(w, v_now) for update skip locked
  loop
    if o.beat_at > v_now then
      -- The clock was put back: as if it had beaten now.
      update pgqueue.owner set beat_at = v_now, suspected_at = null where id = o.id;
    elsif o.suspected_at is null then
      update pgqueue.owner set suspected_at = v_now where id = o.id;
    elsif o.suspected_at <= v_now - o.lease_ms * interval '1 millisecond' / 3
      and o.beat_at <= v_now - o.lease_ms * interval '1 millisecond'
      -- While the server was down nobody could beat.
      and pg_postmaster_start_time() not between v_now - o.lease_ms * interval '1 millisecond' and v_now
      -- Nor is one dead whose claim is in progress: the active one of a subscription that has one at a time.
      and (
        not exists (select from pgqueue.subscription s where s.id = o.subscription and s.active = o.id)
        or pg_try_advisory_xact_lock(pgqueue.lane_key(o.subscription, -2))
      )
    then
      g := pgqueue.give_back_all(o.id, true);
      return query
        select case when g.is_all then o.id end, s.name, t.name, g.dead_ids from pgqueue.subscription s join pgqueue.topic t on t.id = s.topic
        where s.id = o.subscription and (g.is_all or g.dead_ids <> '{}');
      if g.is_all then
        perform pgqueue.forget_owner(o.id);
      end if;
    end if;
  end loop;
end
$$;

-- Says that a consumer is going to sleep, for so long: publishers that look from now on ring. Returns what to tell the claim
-- that ends the sleep.
create function pgqueue.arm(v_topic bigint, v_ms bigint) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_armed bigint;
begin
  perform set_config('synchronous_commit', 'off', true);
  insert into pgqueue.sleeper (topic, armed_until) values (v_topic, clock_timestamp() + v_ms * interval '1 millisecond')
  returning id into v_armed;
  return v_armed;
end
$$;
