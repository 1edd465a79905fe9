-- Eras: which server the transaction ids belong to that the log, the cursors and the positions name. A dump that is restored on
-- another server brings ids that mean nothing there, or that lie in its future.

-- Refuses what would lose messages without a sign.
create function pgqueue.ensure_sound() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A session that draws ids in advance uses them after others have drawn higher ones, which consumers may be beyond by then.
  if (select seqcache from pg_sequence where seqrelid = 'pgqueue.log_id'::regclass) <> 1 then
    raise exception 'the sequence pgqueue.log_id gives each session several numbers at a time, of which consumers would miss some'
      using errcode = 'PQ011', hint = 'Say: alter sequence pgqueue.log_id cache 1.';
  end if;
  -- It brings rows with the transaction ids of another server, and no sequences.
  if exists (
    select from pg_subscription_rel r join pg_class c on c.oid = r.srrelid where c.relnamespace = 'pgqueue'::regnamespace
  ) then
    raise exception 'the tables of the queue are written by logical replication, which does not carry a queue over'
      using errcode = 'PQ011', hint = 'Take the schema pgqueue out of the publication, refresh the subscription, and dump and restore it instead.';
  end if;
end
$$;

-- This server, by the identifier that no other has; a session asks once. 'unknown' where nobody may ask.
create function pgqueue.here() returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_here text := current_setting('pgqueue.here', true);
begin
  if coalesce(v_here, '') = '' then
    perform pgqueue.ensure_sound();
    begin
      v_here := (select system_identifier from pg_control_system());
    exception when insufficient_privilege or feature_not_supported then
      v_here := 'unknown';
    end;
    perform set_config('pgqueue.here', v_here, false);
  end if;
  return v_here;
end
$$;

-- Returns the era, or refuses where it has ended: nothing may be claimed, published, deleted or placed until `rebase` began the next.
-- Runs under the settings of whoever calls it.
create function pgqueue.ensure_era() returns int
language plpgsql
as $$
declare
  e pgqueue.era;
begin
  select * into e from pgqueue.era order by number desc limit 1;
  -- What the session knows is there without a call.
  if e.system <> coalesce(current_setting('pgqueue.here', true), '') and e.system <> pgqueue.here()
    and 'unknown' not in (e.system, pgqueue.here())
  then
    raise exception 'this database was restored from another server, and its queue does not know this one yet'
      using errcode = 'PQ010', hint = 'Call pgqueue.rebase() as the owner of the schema, or migrate.';
  end if;
  return coalesce(e.number, 0);
end
$$;

-- Whether a snapshot is of transactions that are far in this server's future. Those that a crash made it forget are few.
create function pgqueue.is_beyond(v_seen pg_snapshot) returns boolean
language sql stable
return pg_snapshot_xmax(v_seen)::text::bigint > pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1000;

-- Whether the era has ended: also on a server that has the identifier of the first, as a copy of it has.
create function pgqueue.is_elsewhere() returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgqueue.ensure_era();
  return exists (select from pgqueue.cursor where pgqueue.is_beyond(seen));
exception when sqlstate 'PQ010' then
  return true;
end
$$;

-- The number of the era.
create function pgqueue.era() returns int
language sql stable
return (select coalesce(max(number), 0) from pgqueue.era);

-- What makes a position in stable total order of an id: the era, the transaction, and a dot, as wide as any.
create function pgqueue.stable_place(v_era int, v_xact xid8) returns text
language sql immutable
return lpad((v_era * 1000000000000000::numeric + v_xact::text::numeric)::text, 20, '0') || '.';

-- What ends the other places: the era, but of the first.
create function pgqueue.era_mark(v_era int) returns text
language sql immutable
return case when v_era > 0 then '@' || v_era::text else '' end;
